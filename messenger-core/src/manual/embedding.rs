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
//! # Live
//!
//! [`subscribe`](crate::events::Events::subscribe) first, then read what there is; an event whose
//! message you have read already has a `seq` that you know. A
//! [`Subscription`](crate::events::Subscription) may be read as slowly as you like.
//!
//! # Errors
//!
//! Match on [`Error::kind`](crate::Error::kind) for what to do, on
//! [`Error::code`](crate::Error::code) for what to say to another program. Of a
//! [`Busy`](crate::ErrorKind::Busy) kind, [`retry_after`](crate::Error::retry_after) says how long
//! to wait.
//!
//! # Several processes
//!
//! Several engines may share one PostgreSQL database, or one SQLite file on one machine. They take
//! turns at the head of the change log and read each other's changes from it.
//!
//! # Features
//!
//! SQLite is always there. The feature `postgres` adds PostgreSQL with TLS.
