//! What a client that keeps its own data does, over HTTP or in process.
//!
//! A client has a replica (users, conversations, messages, markers), one cursor, and an outbox. It
//! shows the replica, and lets syncs bring it up to date.
//!
//! # Syncing
//!
//! 1. Without a cursor, ask for `GET /v1/sync/bootstrap?limit=200` (without `limit` it is what older
//!    clients ask for); with one, for `GET /v1/sync/changes?cursor=…`
//!    ([`Sync::pull`](crate::sync::Sync::pull) in process).
//! 2. Store the rows of the answer and `next_cursor` **in one transaction**. A cursor is opaque, and
//!    comes from the server only.
//! 3. While `has_more` is true, ask again at once. What is stored may be shown meanwhile; it is
//!    consistent when `has_more` is false.
//! 4. With `wait=25` an answer comes as soon as there is something to say.
//!
//! A cursor does not expire. `resync_required` (a 410, or the frame `sync.reset`) says that the server
//! has another history than the one that the client knows, after a restore from a copy for example:
//!
//! 1. Close the connection that is open. Whatever was asked before is void.
//! 2. Forget the cursor, the fence and `seen`. Keep the rows, to show them meanwhile, and the outbox;
//!    writes in it that were answered are as if they were not (see *Writing*).
//! 3. After `retry_after_ms` (in the error's `details`, or in the frame) begin without a cursor. What
//!    was known before takes no part in any merging: a row that comes again replaces it, whatever
//!    the versions say.
//! 4. When `has_more` is false (or with `sync.live`, see *Following what happens*) drop what has not
//!    come again.
//!
//! Another `stamps[].fence` alone is no reset: a server begins one whenever it starts.
//!
//! # Taking in a page
//!
//! In this order:
//!
//! - **`users`**: of two forms of a user the one with the greater `version` is right; one from
//!   `/v1/users/batch` or a search does not replace one that a sync or a frame brought. One with
//!   `deleted_at` has empty names.
//! - **`removed_conversations`**: forget the conversation, unless the `membership_version` that is
//!   known is not smaller than the removal's `version`: then it was joined again since.
//! - **`conversations`**: `initial` voids everything that is known of it. Otherwise it replaces the
//!   row. `members_mode` says whether the members are listed: `full`, `lazy` (a large group: the
//!   caller, the owners and the admins; no `reads` are kept of it), or `unchanged` (keep the list that
//!   is known). Keep `id` and `role` of members, since names are those of `users`; `reads` of whoever
//!   is not in a list that has come are dropped.
//! - **`gaps`**: the messages from `from_seq` to `to_seq` are a hole, with its `as_of`, in place of
//!   what was a hole there; none of them is known for certain any more.
//! - **`messages`**: of two forms of a message the one with the greater `version` is right. One that
//!   lies in a hole is stored too, but the hole stays as it is. A message with `deleted_at` is a
//!   tombstone and keeps its place.
//! - **`reads`**: of two, the greater `version` is right.
//! - **`self`**: what is only the caller's. `prefs` by `key` and `blocks` by `user_id`; of two forms
//!   the greater `version` is right. One with `deleted`, or not `blocked`, is no more.
//!
//! # Following what happens
//!
//! On a WebSocket, `{"op":"resume","cursor":"…"}` (with `seen`, `limit` and `timeline_limit`, if
//! wanted) goes on from the cursor; so does `GET /v1/events` as server-sent events, with the cursor
//! in `Last-Event-ID`, and [`Events::resume`](crate::events::Events::resume) in process. All bring
//! the same frames, each change once:
//!
//! | `type` | what to do |
//! |---|---|
//! | `sync.page` | take in `data`, which is an answer of `/v1/sync/changes` |
//! | `sync.live` | nothing is missing now: this ends a run of pages, whatever `has_more` of the last one was |
//! | `message.created` | store the message; `sender` is a user; the conversation's `last_seq` is the message's `seq`; see *Counting* |
//! | `message.updated` | merge the message, see below |
//! | `message.deleted` | merge the message; if it was unread, one less is |
//! | `read.updated` | a row of `reads`, but for a `lazy` group; if it is the caller's, the conversation's own fields too, `own_version` is its `version`, and `marked_unread` is false once `last_read_seq` has moved |
//! | `user.updated` | the user |
//! | `sync.cursor` | nothing has happened |
//! | `typing` | show that somebody writes, until they stop or `ttl_ms` has passed; it has no `cursor` |
//! | `presence` | show who is there, see *Who is there*; it has no `cursor` |
//! | `sync.reset` | as after a 410: wait `retry_after_ms`, and begin without a cursor |
//! | any other | ignore it |
//!
//! Every frame but `sync.reset`, `typing` and `presence` has a `cursor`: store it in the transaction that
//! stores what came with it, whatever the type. Whoever is cut off, at any moment, goes on from the last one that was
//! stored. In an event stream it is the `id` as well; `sync.reset` has an empty one, so that a browser
//! forgets the last. A page may come at any time: for what no event can tell (who belongs to a conversation,
//! one's own settings), and in place of events to a client that reads too slowly. One that has not
//! read for 10 seconds is closed with 1013, and goes on from its cursor.
//!
//! `conversation` in a message's payload is what it has changed about its conversation: replace these
//! fields. A message in a frame is the same for everybody, so its `reactions` do not say which are
//! `mine`: keep what is known, and apply `reaction`, which says who came or went (unless a greater
//! `version` of the message is known: then all of it is known). A message that lies
//! in a hole is not known whole then: the hole stays at its place, and its `as_of` becomes the
//! message's `version`.
//!
//! # Connections
//!
//! **Tokens.** An access token is good for minutes (`expires_in`). A 401, and a socket that is closed
//! with 1008 after an `error` frame `TOKEN_EXPIRED`, ask for another one: `POST /v1/auth/refresh` gives a
//! new access token *and* a new refresh token. Keep the new one before anything else, and never refresh
//! twice at a time: a refresh token that is used a second time ends the session, as a stolen one would.
//! If the refresh itself is answered with 401, the session has ended: ask the person to log in. The
//! replica and the outbox stay. Where networks lose many answers, `REFRESH_TOKEN_GRACE_SECONDS` lets
//! the server take the old refresh token for that long.
//!
//! **Silence.** A socket on which the client says nothing for 75 s is closed with 1001. Send
//! `{"op":"ping"}` every `heartbeat_sec` (25 s, in `connection.welcome`); the answer is `pong`. A line can
//! be dead without either side being told, so a socket on which nothing came for two heartbeats is
//! closed and opened anew. An event stream has a `sync.cursor` at least every 30 s: there, silence for
//! 75 s means the same. Every request has a timeout; one with `wait=25` a longer one.
//!
//! **Reconnecting.** With growing pauses, up to 30 s or so, which begin anew after `sync.live`; at once
//! when the system says that there is a network again.
//!
//! **`EventSource`** in a browser reconnects by itself when a stream breaks or ends, and sends the last
//! `id`; but any answer that is not 200, also a 429 or a 503, stops it for good. It can not send a
//! header, so its token is in the query (`access_token`), where it stays when it has expired: the stream
//! ends, and the next answer is 401. After `sync.reset` its URL still has the old `cursor`. In these
//! cases close it, and open another one with a fresh token, from the last cursor that was stored; after
//! a reset without one.
//!
//! # Filling holes
//!
//! `GET /v1/conversations/{id}/messages?after_seq=…&before_seq=…` names both ends of a hole and
//! answers with a `stamp` and a `membership_version`. Such an answer
//!
//! - is dropped if its `stamp.fence` is not that of the last sync: sync first (fetch a page, or
//!   resume anew), then ask again;
//! - is dropped if its `membership_version` is not the conversation's;
//! - fills the places of a hole whose `as_of` is not greater than `stamp.as_of`, and is stored, but
//!   fills nothing, elsewhere in it.
//!
//! The newest `stamp.as_of` of such answers is what the next sync is asked with: `seen=0:<as_of>`,
//! so that a database that was put back and has lost it says so. Only a page of that moment or a later
//! one (`stamps[].as_of`) makes it void: any other frame, and a page that was under way meanwhile, may
//! be older. If the page's `stamps[].fence` is not the one that was known, and `seen` has grown since
//! it was asked for (on a connection: since `resume` was sent), the page is not taken in: ask again, on
//! a new connection.
//!
//! Of a stretch with both ends named, the last 100 messages come first: store them, which makes the
//! hole smaller from its end, and ask with the smaller hole for as long as there is one.
//!
//! # Writing
//!
//! Each write waits in the outbox with an id that is made once (a UUIDv7): `client_message_id` for a
//! message, the header `Idempotency-Key` for everything else; the few that take none (markers, opening
//! a direct conversation) can be repeated as they are. Whoever got no answer sends the same again,
//! weeks later if it must be; it takes place once. They are sent one after the other. What depends
//! on one that was not answered yet waits for it: it needs an id that only the answer has.
//!
//! | answer | what to do |
//! |---|---|
//! | 2xx whose body has `data` | it took place |
//! | 401 | refresh or log in, see *Connections*, and send it again |
//! | any other 4xx whose body has `error.code`, but 408, 425 and 429 | it never will: tell the person. After an attempt without an answer, `conversation_not_found` and `message_not_found` may also mean that it took place, and that the person was removed since |
//! | anything else, and none | send it again, with growing pauses, not before `Retry-After` |
//!
//! Anything else is also a 200 that is no answer of ours: the page of a captive portal. A write that
//! is answered so again and again while the server can be reached (with 500, or with a proxy's 413) is
//! parked after some tries, so that those behind it go on, but for what is about the same: it is kept,
//! the person is told, and it is sent again later.
//!
//! What a write has changed comes with the next page or frame as well, so its answer is not stored but
//! for one number: the `version` in it (the greatest, if there are `own_version`, `members_version` or
//! `membership_version` as well). It counts for `seen`, so that a restore which takes the write back is
//! noticed, and it marks the write in the outbox as answered. An answered write leaves the outbox when
//! what it did has come back: with a page of that moment or later (`stamps[].as_of`) that ends a run,
//! or a frame whose payload has that `version` or a greater one. Until then a message is shown from the
//! outbox, unless the replica has its `client_message_id`. After a reset the marks are taken off, and
//! what a restore has taken back is sent again; what it has not takes place no second time.
//!
//! A message in an answer that has a `stamp` may be stored: like a row of history it is dropped if its
//! `stamp.fence` is not that of the last sync, is merged by `version`, and its `stamp.as_of` counts for
//! `seen`.
//!
//! # Attachments
//!
//! A file goes up before its message: `POST /v1/attachments?name=…` with the file as the body, its type as
//! `Content-Type`, and an `Idempotency-Key` that is made once for each file. The answer has the `id` that
//! the message names in `attachment_ids`, up to 10 of them; `content` may be empty then. Both are writes in
//! the outbox, and the message waits for its files. A file is kept in the outbox until its message was
//! answered: one that no message got goes after a day, and then the message is answered with
//! `attachment_not_found`; upload under the same key once more, which gives another id.
//!
//! | answer to an upload | what to do |
//! |---|---|
//! | 413 `too_large` (`details.bytes_max` is how many bytes a file may have), 415 `unsupported_media_type`, 404 `attachments_off` | it never will: tell the person |
//! | 409 `attachments_full` | send or delete (`DELETE /v1/attachments/{id}`) what waits |
//! | 400 `upload_broken`, 408, and no answer | send it again from its beginning |
//!
//! A message brings what is attached to it as `attachments`; an edit leaves them, and a tombstone has none.
//! `GET /v1/attachments/{id}/content` is the file, whole or from where it broke off (`Range` with
//! `If-Range`), and `/preview` a small JPEG where `has_preview` says so; `width` and `height` tell how much
//! room to leave for it. They never change, so what was fetched once may be kept, until its message is a
//! tombstone or its conversation is gone; a browser asks about what it has kept (`ETag`, 304). `media_type` is the sender's word: show a preview, and give the
//! rest to the person as a file. Of too many downloads at a time some are answered with 503: wait as
//! `Retry-After` says.
//!
//! # Counting
//!
//! `unread_count` is exact as of the row. A `message.created` of somebody else is one more. Sending to
//! a conversation reads it to its end: one's own moves `last_read_seq` and `last_delivered_seq` to its
//! `seq`, sets `unread_count` to 0, `marked_unread` to false and `own_version` to its `version`; and the
//! sender's row of `reads`, in a conversation that is not large, is at its `seq` and `version`.
//!
//! # Who is there
//!
//! After `sync.live`, `POST /v1/users/presence` tells who is there of those whom the client shows; from
//! then on `presence` frames say who has come and gone. Whoever is not told of is not shown as there.
//! Nothing of it is stored: after a reconnect, ask again. It is looked at every few seconds, so an answer
//! may be that old. `PUT /v1/users/me/prefs/presence`
//! with `false` keeps it from everybody whether the caller is there, on all devices.
//!
//! # As code
//!
//! `examples/offline_client` is a client that is written by this chapter: a replica and an outbox in
//! one SQLite file. The tests put that very replica through random histories, over REST, sockets and
//! event streams, cut off at any frame, and compare it with one that has just begun.
//!
//! `examples/web` is the same for a browser, in TypeScript: `replica.ts` is what it keeps (IndexedDB),
//! `outbox.ts` what the person does, `files.ts` what goes with messages, `sync.ts` what it does with
//! the server, `session.ts` the tokens, and `tabs.ts` how several tabs share one replica, of which one
//! talks to the server (Web Locks). Its types are generated from `openapi.json`, frames included. The
//! server serves it at `/`.
