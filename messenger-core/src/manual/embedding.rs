//! The engine in a program of one's own.
//!
//! The engine needs a multi-threaded Tokio runtime and a place for its database; the README has a
//! whole program. [`MessengerEngine`](crate::MessengerEngine) is a handle: clone it wherever it is
//! needed, and [`close`](crate::MessengerEngine::close) it once, at the end.
//!
//! # With the engine's accounts
//!
//! [`register`](crate::auth::Auth::register) and [`log_in`](crate::auth::Auth::log_in) give tokens,
//! [`verify`](crate::auth::Auth::verify) turns an access token into the
//! [`Actor`](crate::auth::Actor) that every other call takes.
//!
//! # With accounts of one's own
//!
//! Call [`ensure`](crate::users::Users::ensure) when somebody logs in with you, as often as you
//! like, and [`trust`](crate::MessengerEngine::trust) for whoever has. `trust` verifies nothing: do
//! not pass it an id that came from a request.
//!
//! # Sending safely
//!
//! Make a client id once for each message, keep it with the message until it is acknowledged, and
//! send again under the same id whatever went wrong. A UUIDv7 is best: the index of client ids then
//! grows at one end.
//!
//! # Attachments
//!
//! With the feature `attachments`, and a place for them in `EngineBuilder::attachments`, a file goes up
//! first (`upload`, from any stream of bytes) and then with a message
//! ([`NewMessage::attachments`](crate::messages::NewMessage::attachments)). Whoever may see the message
//! may read it (`open`); it goes with the message, and without one after a day. Its name and its type are
//! its uploader's word: do not use them as the name of a file, and do not show it as what it is called.
//!
//! # Live
//!
//! [`subscribe`](crate::events::Events::subscribe) first, then read what there is; an event whose
//! message you have read already has a `seq` that you know. A
//! [`Subscription`](crate::events::Subscription) may be read as slowly as you like.
//!
//! # Having a say
//!
//! [`before_send`](crate::EngineBuilder::before_send) and
//! [`before_join`](crate::EngineBuilder::before_join) ask you before something is said and before people
//! come to belong together: a filter, a rule of your product. What you refuse is not stored, and the
//! actor is told why. A hook has a deadline, and you say what happens if it fails
//! ([`OnFailure`](crate::hooks::OnFailure)). It is asked outside of any transaction, so nobody else waits
//! for it.
//!
//! # Being told
//!
//! [`on_change`](crate::EngineBuilder::on_change) tells you what has happened, for notifications, an
//! index of your own, a count. You are told from the change log, so nothing is missed while you fail or
//! your program is away; what you had taken just before a crash you are told again, with the same
//! [`id`](crate::hooks::Change::id). Within a conversation it comes in order, and different ones are told
//! side by side.
//!
//! ```
//! use messenger_core::hooks::{Change, ChangeKind, ChangeResult, ChangeSettings, NotTaken, Topic};
//! use messenger_core::{MessengerEngine, UserId};
//!
//! # async fn ring(_: UserId, _: &str) -> std::io::Result<()> { Ok(()) }
//! async fn notify(change: Change) -> ChangeResult {
//!     match change.kind {
//!         ChangeKind::MessageCreated(new) => {
//!             for user in new.notify {
//!                 ring(user, new.sender.display_name.as_str()).await?; // an error: told again later
//!             }
//!             Ok(())
//!         }
//!         ChangeKind::Missed { .. } => Ok(()), // away for a week: look at what there is
//!         _ => Err(NotTaken::new("not asked for")),
//!     }
//! }
//!
//! let mut settings = ChangeSettings::default();
//! settings.topics = vec![Topic::MessageCreated];
//! let builder = MessengerEngine::builder("sqlite://chat.db");
//! let builder = builder.on_change("push", settings, notify);
//! ```
//!
//! What you do not take (an error, a panic, no answer in time) you are told again later, and later each
//! time; that conversation waits, and others go on. Once several fail at their first try you are taken
//! to be away, and one is tried now and then: an outage of an hour or a day costs a position and a few
//! rows, whatever happens meanwhile. The change log is kept for you for a week
//! ([`Limits::hook_behind_max`](crate::Limits::hook_behind_max)); past it you are told
//! [`Missed`](crate::hooks::ChangeKind::Missed).
//!
//! With the feature `webhooks`, [`EngineBuilder::webhook`](crate::EngineBuilder) tells an endpoint over
//! HTTP instead.
//!
//! # Errors
//!
//! Match on [`Error::kind`](crate::Error::kind) for what to do, on
//! [`Error::code`](crate::Error::code) for what to say to another program. Of a
//! [`Busy`](crate::ErrorKind::Busy) kind, [`retry_after`](crate::Error::retry_after) says how long
//! to wait.
//!
//! # Watching and administering
//!
//! [`MessengerEngine::stats`](crate::MessengerEngine::stats) has the engine's numbers for whatever you
//! watch your program with, [`ready`](crate::MessengerEngine::ready) whether it can write, and
//! [`TRACE_TARGET`](crate::TRACE_TARGET) its spans. [`EngineBuilder::inspect`](crate::EngineBuilder::inspect)
//! looks at a database beside the engine that uses it; [`Auth::create`](crate::auth::Auth::create) and
//! [`Auth::set_password`](crate::auth::Auth::set_password) are for whoever administers it.
//!
//! # Several processes
//!
//! Several engines may share one PostgreSQL database, or one SQLite file on one machine. They take
//! turns at the head of the change log and read each other's changes from it.
//!
//! # Features
//!
//! SQLite is always there. The feature `postgres` adds PostgreSQL with TLS, `attachments` files that are
//! sent with messages, `s3` buckets for them, and `webhooks` endpoints over HTTP that are told of
//! changes.
//!
//! # How SQLite is built
//!
//! SQLite is compiled into your program by the crate `libsqlite3-sys`, which has all connections of a
//! process share one page cache. A connection that writes much then takes the pages of all others and
//! keeps them, and reads go to the file for each page: among a million messages a search took two to
//! three times as long. Give each connection its own in your `.cargo/config.toml`, as this repository does:
//!
//! ```toml
//! [env]
//! LIBSQLITE3_FLAGS = "-USQLITE_ENABLE_MEMORY_MANAGEMENT -DSQLITE_DEFAULT_MEMSTATUS=0"
//! ```
