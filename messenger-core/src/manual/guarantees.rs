//! What is promised, and the test of each promise. The tests are in `tests/suites/`,
//! or beside the file that is named.
//!
//! | promise | limits | test |
//! |---|---|---|
//! | An acknowledged send survives a crash of the process | any durability | `engine/crashes.rs`, `process/crash.rs` |
//! | … and a power loss | [`Durability::Full`](crate::Durability), a disk that honours a flush | that the connection is set so, as `health` reports: `engine/opening.rs` |
//! | A send is stored at most once for each sender and client id, for ever | | `engine/races.rs`, `engine/several_processes.rs` |
//! | Every repeat of a send gets the first message | while the sender belongs to the conversation | same |
//! | A change under a [`ClientWriteId`](crate::ClientWriteId) takes place at most once, whatever came in between | not the answer is kept: a repeat gets the message as it is by then | `engine/message_changes.rs` |
//! | A deleted message leaves nothing but its place, its sender and its times | copies that clients have made; its words stay in the index for searches, where nothing finds them, until the database next cleans it | `engine/message_changes.rs` |
//! | `seq` is 1, 2, 3, … in each conversation, without gaps or repeats | after crashes and refusals too | every suite that reads a history |
//! | One sender's messages keep the order in which they were acknowledged | concurrent sends: any order | `engine/races.rs` |
//! | A pair of people has one direct conversation | | `engine/races.rs`, `engine/several_processes.rs` |
//! | A database connection that is cut or falls silent loses nothing that was acknowledged | what was under way may have to be sent again; a refresh that was, may end in a log-in | `engine/outages.rs` |
//! | A full disk refuses writes, loses nothing that was acknowledged, and there being room again is enough | | `write/writer.rs` |
//! | A call that is dropped leaves everything or nothing, and healthy pools | | `engine/cancellation.rs` |
//! | After any absence, pages by a cursor end with what somebody has who begins: messages, edits, deletions, reactions, members, markers, settings, profiles | consistent at `has_more: false` | `engine/histories.rs` |
//! | What a page leaves out is a declared gap, and can be read | | `engine/histories.rs`, `contract/pull.rs` |
//! | A stream that is cut off at any moment and resumed tells everything, and nothing twice | with the last cursor that was kept | `engine/histories.rs` |
//! | No cursor is void because of its age; one that knows of a history that was taken back is told | noticed at the next write on PostgreSQL, at the start on SQLite | `engine/histories.rs`, `engine/restores.rs`, `engine/outages.rs` |
//! | A backup of SQLite that is taken under load is whole, and has what was acknowledged before it | | `engine/backups.rs` |
//! | A write that was answered and that a restore takes back is noticed by who made it, and can be made again | clients that keep to the manual | `contract/offline.rs` |
//! | A write under a client's id takes place once, and something else under the same id is refused | a message that was sent answers with the first one instead | `engine/message_changes.rs`, `engine/groups.rs` |
//! | Nobody sees a message of a group from before they may, or after they left | also in pages, history and events, read however late | `engine/groups.rs`, `engine/pull.rs`, `engine/late_looks.rs` |
//! | A search finds what the searcher may see at that moment, what was sent before it included, and nothing else | whether it was complete is in the answer | `engine/search.rs` |
//! | The number of unread messages is exact | | `engine/groups.rs` |
//! | Events arrive in order, each once on a subscription, after their commit | the change log is kept for 24 h and 1,000,000 positions | `engine/live.rs`, `engine/limits.rs` |
//! | A host, or an endpoint over HTTP, is told every change at least once, and those of a conversation in order, through failures, crashes and restarts | what an endpoint does not take for 3 days is left out, logged and counted; what nobody has been told for 7 days is told as missed | `engine/changes.rs`, `contract/webhooks.rs` |
//! | A slow reader of events costs nobody else anything; heavy reading does not hold up live events | | `engine/live.rs`, `write/writer.rs` |
//! | A session that has ended works nowhere: not on its own node at once, not on others after a look at the change log | the look is every 200 ms | `engine/live.rs`, `engine/several_processes.rs` |
//! | Whoever does not belong to a conversation can not tell that it exists | | `engine/hosts.rs` |
//! | A deleted group is like one that never was | | `engine/groups.rs` |
//! | Whoever is removed from a group hears of it and of nothing after it, and whoever comes back sees what its policy shows | what a slow reader missed of an earlier stay is not replayed | `engine/groups.rs`, `engine/live.rs` |
//! | Nobody is told whether somebody is there who keeps it from them, or who is blocked, either way | | `engine/presence.rs` |
//! | A group has an owner while somebody belongs to it, and is counted well under any race | | `engine/races.rs`, `engine/groups.rs` |
//! | Unread messages are counted exactly | | `engine/groups.rs`, `engine/histories.rs` |
//! | A write repeated under its client's id changes nothing, for ever | writes that take a [`ClientWriteId`](crate::ClientWriteId) | `engine/groups.rs` |
//! | What can grow has a bound, and reaching it is a typed error or a declared cut | see [`Limits`](crate::Limits) | `engine/limits.rs` |
//!
//! **Not promised**: an order between conversations; secrecy from whoever operates the database;
//! that nothing is lost when PostgreSQL fails over to a standby that had not received it.
