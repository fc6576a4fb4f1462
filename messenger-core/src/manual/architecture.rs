//! The map of the house.
//!
//! # In six sentences
//!
//! 1. The engine is complete without the server: every rule, query and event is in
//!    `messenger-core`, and a host that never opens a socket gets all of it.
//! 2. The server knows two languages, that of HTTP and that of the engine, and only translates.
//! 3. Every write is an *operation*: pure rules over a small working set of rows, loaded and
//!    flushed set-at-a-time by one writer, many operations to a transaction.
//! 4. Every change that somebody else can see gets the next position of the change log in that
//!    transaction; positions are the truth from which live events and other nodes read.
//! 5. A call goes down once and comes back once: server file, domain file, writer or queries, back;
//!    live events leave only after the commit.
//! 6. What must not happen is made impossible by the crate graph, by a type that can not be built
//!    by hand, or by a lint with a reason, in that order of preference.
//!
//! # One message through it
//!
//! | step | file |
//! |---|---|
//! | accept, bound the head of the request | `messenger-server/src/serve.rs` |
//! | bound the body, request id, headers, access log | `messenger-server/src/edge.rs` |
//! | route | `messenger-server/src/api/mod.rs` |
//! | token to [`Actor`](crate::auth::Actor) | `api/bearer.rs`, `messenger-core/src/auth/token.rs` |
//! | parse, one call, convert | `api/messages.rs` |
//! | queue the operation | `messenger-core/src/write/mod.rs` |
//! | begin, lock the head, load, apply, flush, commit | `write/writer.rs`, `load.rs`, `flush.rs` |
//! | decide: the only file that does | `messages/send.rs` (`Send`) |
//! | answer | `write/job.rs`, back to `api/messages.rs` |
//! | deliver | `events/hub.rs`, `events/subscription.rs` |
//! | a frame on each socket | `messenger-server/src/api/events/` |
//!
//! An error on the way is an [`Error`](crate::Error) that says which rule was broken. A driver's
//! error becomes one in `store/error.rs`, and one becomes an answer in `api/envelope.rs`; there is
//! no other place for either.
//!
//! # The write path
//!
//! An operation names the rows that it must see, and decides over them in memory: no I/O, no clock
//! but the batch's, no ids but the batch's. The writer locks the head row, takes whatever has queued
//! until then (256 operations or 1 MiB, no timer), loads what is missing, applies the operations
//! one by one, and flushes what changed with a handful of statements whatever their number. Before
//! it cuts the batch it yields to the scheduler for a few turns, while each brings more operations:
//! callers who were just answered come back in the same batch, and not in every second one
//! (measured: 256 callers made batches of 150). So:
//!
//! - many sends share one `fsync`, and a lone one waits for nobody;
//! - a refused operation leaves no trace and takes no position;
//! - a caller that goes away in the middle changes nothing, since the writer owns the transaction;
//! - a row that breaks a constraint costs only its own operation: the batch is then tried one by
//!   one. The same happens when an operation panics.
//!
//! **Rows stay in memory between transactions.** Whoever changes a user, a conversation or a member
//! moves the head of the change log, in the same transaction and under the same lock. So if the
//! head is where this writer left it, what it remembers is what the database has, and a send to a
//! conversation that is in use reads one thing: whether it is a repeat. If the head has moved,
//! another process wrote, and everything is forgotten. Sessions and refresh tokens are not stamped
//! and are always read. One column is an exception: when a user was last seen is written without
//! moving the head, so a row in memory may have it wrong. No operation looks at it, and a statement
//! of its own writes it, so that no other change of the row puts an old one back.
//!
//! **Statements keep their text.** Blocks of rows have few sizes (powers of two and one and a half
//! of each), the last row repeated to fill a block up where that is harmless, so each statement is
//! prepared once.
//!
//! **A connection whose transaction failed is not used again** on SQLite. When the disk is full,
//! SQLite rolls back by itself; the driver (0.9.0) believes that its transaction is still open, begins
//! the next ones as savepoints inside of one that nobody commits, and reports success. So the writer
//! closes such a connection, and the next write makes another. On PostgreSQL it does so after a
//! connection was lost, fell silent, or turned out to lead to a standby.
//!
//! **One random page for a message.** A message goes to the growing end of its table and of two
//! indexes, and to one place in the middle: the index by conversation and `seq`. An index by
//! conversation and last change would be a second one; it holds only messages that have changed
//! since they were sent, because `seq` and the position of sending rise together, and what is new
//! after a position is found from the newest `seq` downwards. A page in the middle is 4 KiB in the
//! log and again in the file (measured: with one less, SQLite alone does half as many again).
//!
//! **Each write once.** A message keeps the id that its sender gave it. Any other write may carry one
//! too; then a row beside it says who wrote, under which id, and what was asked, as a digest. So an
//! outbox that is played again finds what it did, however much came in between, and a client that
//! uses an id twice is told.
//!
//! # Live events without an outbox
//!
//! A line of the `events` table is written in the transaction of its change: references, no
//! content. The writer hands the finished transaction to the hub; nothing is marked as sent, and
//! nothing has to be. Positions have no gaps, so whatever the hub was not told of (its queue was
//! full, another process wrote, this one crashed) is a hole that it sees and reads from the table.
//! One's own changes never wait for that; those of other processes wait for a look at the head,
//! every 200 ms.
//!
//! A line is told with its row as it is when it is read. Where an edit or a reaction finds a row
//! that has gone on, it tells nothing: the line that changed the row tells it, and who had left by
//! then does not hear of it. Where a new message or a title has gone on, the hub only says that there
//! is something to read, since it may not know yet who has left: a stream that goes on from a cursor
//! reads a page, a subscription the table, and whoever has left finds nothing there that is newer than
//! their leaving. A deletion is the last line of its message and always told.
//!
//! The table is cut at its beginning. A hub that was away for so long that lines after its last one
//! are gone knows no longer who belongs where: everybody who listens has to look again.
//!
//! Each listening user has one `async-broadcast` channel that all their subscriptions share. It
//! drops its oldest when it is full. A reader who was that slow is told so by the channel, reads on
//! from the table at the position where it had stopped, and comes back. Nobody waits for it.
//!
//! A stream that goes on from a cursor ([`Events::resume`](crate::events::Events::resume)) takes its
//! place in the channel first and reads pages after it, up to a head that is not behind the place;
//! the overlap is cut by positions. It tells messages, markers and profiles as they happen. For
//! everything else, and whenever the channel has dropped something, it reads a page from the last
//! position that it told: one code path for all that is seldom, and it is the one of a sync.
//!
//! What the hub knows of a user who listens saves the database: one more device takes its place in
//! the channel without a picture, and a sync that has nothing to bring is answered from memory. The
//! hub says that nothing has happened only if it has delivered all that the writer beside it has
//! committed, and has looked at the change log within the last two seconds; what another node wrote
//! may be that much late.
//!
//! **Who is there** is whoever has a place in the hub. It is looked at every few seconds and not when
//! somebody comes or goes, so a storm of reconnects is one look, whoever is back at the next look has
//! not been away, and each listener is told of many at once. Who may know it is read outside of the
//! hub's task; what of it must last, when somebody was last seen, is a column without a position.
//!
//! The end of a session is a line of the change log too, which is how every node learns of it, and
//! why [`verify`](crate::auth::Auth::verify) can be exact without reading the database.
//!
//! # Who belongs, and from when on
//!
//! A member's row survives leaving, and a group's members' rows survive its deletion, so deleting a
//! group of 10,000 writes one row. So a [`Membership`](crate::conversations::Membership) is proved
//! by two rows: a member who has not left, and a conversation that is not deleted.
//!
//! The hub knows who listens to what, and from which message on. It changes that at the position at
//! which people come and go: whoever is removed hears of it and of nothing after it, whoever is
//! added hears of that first. A subscription begins with a picture from the database, which may be
//! older or newer than the hub; the hub remembers who came and went lately and replays it, and skips
//! for that user what the picture contains. A slow reader gets from the change log what happened
//! between joining, the last time, and leaving; of an earlier stay only its end is told.
//!
//! **Unread messages are not stored but counted**: `seq` has no gaps and whoever sends has read all
//! before, so the count is a difference, less the deleted messages, which an index of only those
//! counts. Moving a marker answers with the count at exactly that position: the writer counts what
//! the database has as deleted behind the places that a batch names, and the batch adds its own.
//!
//! **Markers and own settings are of the conversation**, not of a domain of their own: they are
//! columns of the member's row. What changes only for oneself goes to one's own devices; how far
//! somebody has read goes to everybody in a small conversation, and in a large one to oneself.
//!
//! **A block is looked at where something is said**, never where it is read: a hidden message would
//! look like a hole. The writer remembers of a direct conversation in use that there is none, so it
//! costs no look-up.
//!
//! **An account ends in one transaction, and what it leaves in many.** Log-in, sessions and profile go
//! at once; groups are left and messages erased behind it, a hundred at a time through the same write
//! path, so that nobody who writes waits for it. A row says what is still to do, and whichever engine
//! opens the database goes on with it; each step does nothing where it was done. Its messages are
//! found by walking through its conversations: an index by sender would cost every send.
//!
//! # Positions
//!
//! A position is contiguous within one incarnation of a database. Each incarnation starts a *fence*
//! at a position taken from the clock (seconds × 2^20, to the microsecond), above everything that can
//! have been issued before, in this history or in one that a restore took back. Every opening of an
//! SQLite file is an incarnation; PostgreSQL's are told apart by system identifier, timeline, start
//! time, database and the file of the head, when an engine opens and again in the very statement that
//! locks the head for a write: a server that was restarted, restored or promoted, and a database that was made or
//! filled again on one that runs on, are noticed at the next write. Then the writer forgets what it
//! remembers, a new fence begins, and whoever listens has to look again.
//!
//! # Sync by cursor
//!
//! A page is read from the rows as they are now, never from the change log, in one snapshot that also
//! reads the head. The head is written in the transaction of every change and locked first, so a
//! snapshot with the head `h` has exactly the changes up to `h`: nothing that commits late can be
//! skipped, on either database.
//!
//! A run goes from the client's position to the head of its first page, through the user's
//! conversations in the order of their ids. That order can not change, so what a page has passed
//! needs no second look: a row that changes behind it gets a position beyond the run and belongs to
//! the next one. All that a run needs to go on is in its token, so any node can answer the next page,
//! and the server keeps nothing.
//!
//! Of a conversation with very many new messages a page has the newest and declares the rest as a
//! gap. How many are new is not counted: `seq` and the position of sending rise together, so the
//! first new message is found by halving. What changed among the messages that the client has is read
//! from the index of changed messages.
//!
//! A token names every position that the client may know something of. Each is compared with the
//! fences, so a client that saw the end of a history which a restore took back is told, before it
//! mixes two histories. What else carries versions (history) is stamped, for the same comparison.
//!
//! What is only one's own comes last in a run, in the order of its changes: a row that changes
//! meanwhile leaves the run for the next one.
//!
//! A first page walks by the newest message instead, since that is what people look at; the token
//! carries the ids of these conversations (32 at the most), and the walk passes them by.
//!
//! # Search
//!
//! What is found is decided by one function, [`SearchText::matches`](crate::messages::SearchText), the
//! same for both databases and for the messages that a client already has. The index only brings
//! candidates: an FTS5 table, or a `tsvector` with a GIN index. It is given terms and not text, because
//! SQLite and PostgreSQL cut text differently, and neither cuts what is written without spaces so that
//! a word of two characters is found: FTS5's trigrams need three. So words are cut where there are
//! spaces, and scripts without them into each two neighbouring characters.
//!
//! Each term stands behind a piece of its conversation's id. A search goes through the terms of the
//! searcher's conversations and through nothing else, so it costs what these cost, however much others
//! say, and its time tells nothing about them. What is found is then read and judged as it is now:
//! membership, deletion and text are those of the same snapshot.
//!
//! SQLite brings what matches in its order, and stops when there is enough. PostgreSQL has to fetch all
//! that match before it knows the newest, of which a frequent word has very many. So the age of a message,
//! its position without the last 16 bits, is one more of its terms there: the newest two ages are asked for
//! first, and all others only if they had too little (frequent words among a million messages:
//! p95 111 to 22 ms). What is asked for is hidden from the planner, which believes so much of beginnings of
//! words that it would read the whole table (7 s, at each new connection until its plan is a general one).
//!
//! The index follows the change log, up to 200 messages in one step (fewer where they are long), which
//! the writer takes along with whatever else it writes, under a savepoint: an index that the database
//! refuses to write costs searches and nothing else. Senders go first: a step is taken when somebody
//! searches, when nobody has written for 50 ms, or when the index is 100,000 positions behind. Kept up at
//! every moment it would take a fifth of what SQLite can send and a third of what PostgreSQL can.
//! Whoever searches waits until it has what was there before, up to a second. Two search at a time, and of
//! one person four wait for it, so that connections are left to others. The row that says how far it is
//! stands in the same transaction, so a crash, a restore or two engines at once leave it right. A database
//! from before there was an index is gone through once, behind everything else, and searches say meanwhile
//! that they are not complete.
//!
//! # Attachments
//!
//! The bytes are not in the database: they would be in each of its backups, in its log, and between the
//! pages that every send touches. A row says of each file whose it is, which message has it, and when it
//! may go. **A row comes before its file, and goes after it**: whoever died in between left a row by
//! which the next engine goes on. Before files go, the row is taken from everybody through the write
//! path: no message can get one whose file is going.
//!
//! What a message holds is in its own row as well, as JSON, so that pages, frames and history carry it
//! without a second read; who may have the file is asked of the message whenever somebody asks. A file
//! is of one message only: with it, it goes.
//!
//! An upload holds two parts in memory: one that is filled and one that is under way. A new attempt under
//! the same client id takes the place of the one before, which is told to try again if it still runs: an
//! attempt that was left behind must not keep its client from going on. The row of the old attempt stays
//! until its writer says that it has ended; the writer says so also when nobody waits for it any more. If
//! no such word comes, the row stays for the grace. That is twice as long as bytes may come, so no file is
//! written after its row has gone. If a disk that hung does so all the same, the upload finds no row and
//! takes its files away itself.
//!
//! A deleted group loses its files a hundred at a time. When these have gone, one transaction removes their
//! rows and releases the next hundred: until the end there is always a row by which the work goes on.
//!
//! Files that no row names are never looked for: an engine over the wrong place would take away all
//! that another one has.
//!
//! # Telling the host
//!
//! Whoever is to be told of changes has a name, and a row that says how far it was told. A task follows
//! the change log from there, a window of lines at a time, and reads what they are about as it is then.
//! A conversation is a *lane*: its changes go one after the other, lanes side by side. The position is
//! written once a second through the writer and takes no position itself; while nothing happens nothing
//! is written.
//!
//! A lane that fails gets a row with a place of its own. Whoever reads the log passes it over from then
//! on, and it is told by itself from its place up to the position of the name; it goes back to the others
//! once nothing of it was passed over. So nothing is told before what it waits for, also after a crash:
//! the row and the position are written in one transaction. There is no index by conversation on the
//! log (it would cost each send a page): what failed is the first line after the lane's place, and the
//! rest is walked once when it goes well again. After three lanes in a row that failed at their first try
//! the host is taken to be away, and only one new lane is tried at a time; one that asks to wait is told
//! nothing until then. What was read more than a second ago is read again before it is told, since it
//! may have been deleted while it waited for its turn.
//!
//! The name belongs to the engine that holds its row until a time, which it moves on while it has
//! something to tell; each note of how far it is says who wrote the one before. An advisory lock of
//! PostgreSQL would belong to a connection, and a pool does not say when it loses one.
//!
//! The log is not cut in front of a name, up to an age. Up to where it was cut is written down in the
//! same transaction, so that a hole is told exactly when there is one, also to a name that is new.
//!
//! # Numbers
//!
//! The writer, the hub and the password hasher count into atomics that belong to their engine, and
//! [`stats`](crate::MessengerEngine::stats) is a picture of them. A facade with a recorder of the
//! process would mix the numbers of two engines in one process, name them for every host, and cost a
//! look-up where there is none; a struct is read with whatever a host has. The server writes it in
//! Prometheus' text when it is asked, and counts requests by the operation that answered, so that a
//! path never becomes a label.
//!
//! # What is deliberately missing
//!
//! - **No repository traits, services or mappers**: two layers and a shell. A domain folder owns
//!   its types, its rules and its `queries.rs`.
//! - **No foreign keys on messages and the change log**: the writer has read what they would check,
//!   under the lock, and none of these rows is ever deleted.
//! - **No index on what every send changes** in a conversation: it would halve the rate of sends.
//! - **No deferred transaction that writes**: SQLite fails it at once instead of waiting.
//! - **No read that spans two statements on a caller's own future**: snapshots run in a task of
//!   their own to their end, since a dropped future can leave a pooled connection inside of a
//!   transaction (a defect of the driver that is fixed after its release 0.9.0).
//! - **No check for a conversation's existence that a stranger could see**: not to be a member and
//!   not to exist are one error.
//!
//! - **No page cache that SQLite's connections share**, which is how its binding builds it: a cache at its
//!   bound takes the oldest page of any, and one below its bound drops each page it has read as long as all
//!   together are at theirs. So a writer leaves readers none, until the process ends (seen with `strace`: one
//!   page of the log was read 3,597 times in 3 s; without it a search for two words among a million messages
//!   fell from 49 to 28 ms, p95). `.cargo/config.toml` turns it off, and a test sees that it is.
//!
//! # Where the database is named
//!
//! `sea_orm` is named in `store/`, in `write/` and in the `queries.rs` files (and `sync/pages.rs`,
//! which passes a snapshot from one query to the next), and never in a public signature.
