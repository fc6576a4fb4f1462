//! What a client that keeps its own data does, over HTTP or in process.
//!
//! A client has a replica (users, conversations, messages, markers), one cursor, and an outbox. It
//! shows the replica, and lets syncs bring it up to date.
//!
//! # Syncing
//!
//! 1. Without a cursor, ask for `GET /v1/sync/bootstrap?limit=200`; with one, for
//!    `GET /v1/sync/changes?cursor=…` ([`Sync::pull`](crate::sync::Sync::pull) in process).
//! 2. Store the rows of the answer and `next_cursor` **in one transaction**. A cursor is opaque, and
//!    comes from the server only.
//! 3. While `has_more` is true, ask again at once. What is stored may be shown meanwhile; it is
//!    consistent when `has_more` is false.
//! 4. With `wait=25` an answer comes as soon as there is something to say.
//!
//! A cursor does not expire. After a 410 `resync_required`: keep the outbox, go on showing what is
//! there, begin without a cursor, and when `has_more` is false drop what has not come again. One's
//! own messages that are gone may be sent again under their client ids.
//!
//! # Taking in a page
//!
//! In this order:
//!
//! - **`users`**: the newer one replaces the older.
//! - **`removed_conversations`**: forget the conversation, unless the `membership_version` that is
//!   known is not smaller than the removal's `version`: then it was joined again since.
//! - **`conversations`**: `initial` voids everything that is known of it. Otherwise it replaces the
//!   row. `members_mode` says whether the members are listed: `full`, `lazy` (a large group: the
//!   caller, the owners and the admins; markers of others are not synced), or `unchanged` (keep the
//!   list that is known).
//! - **`gaps`**: the messages from `from_seq` to `to_seq` are a hole, with its `as_of`; none of them
//!   is known for certain any more.
//! - **`messages`**: of two forms of a message the one with the greater `version` is right. One that
//!   lies in a hole is stored too, but the hole stays. A message with `deleted_at` is a tombstone
//!   and keeps its place.
//! - **`reads`**: of two, the greater `version` is right.
//!
//! # Filling holes
//!
//! `GET /v1/conversations/{id}/messages?after_seq=…&before_seq=…` names both ends of a hole and
//! answers with a `stamp` and a `membership_version`. Such an answer
//!
//! - is dropped if its `stamp.fence` is not that of the last sync: sync first, then ask again;
//! - is dropped if its `membership_version` is not the conversation's;
//! - fills the places of a hole whose `as_of` is not greater than `stamp.as_of`, and is stored, but
//!   fills nothing, elsewhere in it.
//!
//! The newest `stamp.as_of` of such answers since the last sync is what the next one is asked with:
//! `seen=0:<as_of>`. A page that is stored makes it void.
//!
//! # Writing
//!
//! Each write waits in the outbox with an id that is made once (a UUIDv7): `client_message_id` for a
//! message, the header `Idempotency-Key` for everything else. Whoever got no answer sends the same
//! again, weeks later if it must be; it takes place once. Retry after 429, 503 and a lost
//! connection, with growing pauses; any other refusal is final.
//!
//! # Counting
//!
//! `unread_count` is exact as of the row. Sending to a conversation reads it to its end.
//!
//! The tests have a replica that is written by this chapter (`tests/suites/engine/replica.rs`), and
//! compare it after random histories with one that has just begun.
