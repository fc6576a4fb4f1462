//! An embeddable, offline-first messaging engine: accounts, conversations, messages, sync and
//! live events in one crate and one file, with no service to run.
//!
//! Start with [`MessengerEngine`]. Its views are the domains, in reading order: [`auth`],
//! [`users`], [`conversations`], [`messages`], [`attachments`], [`sync`], [`events`]. The [`manual`] has what does
//! not belong to one call.

pub mod auth;
pub mod users;

pub mod attachments;
pub mod conversations;
pub mod messages;

pub mod accounts;
pub mod inspect;

pub mod sync;

pub mod events;

pub mod hooks;
pub mod manual;

mod builder;
mod clock;
mod engine;
mod error;
mod fault;
mod ids;
mod json;
mod limits;
mod places;
mod stats;
mod store;
mod tasks;
mod write;

pub use auth::{JwtAlgorithm, Secret};
pub use builder::{Durability, EngineBuilder, SchemaChange, SchemaStep};
pub use clock::Timestamp;
pub use engine::{Health, MessengerEngine};
pub use error::{Cause, Error, ErrorKind, Invalid, Result, ResyncReason};
pub use events::LiveSettings;
#[cfg(feature = "test-util")]
pub use fault::Fault;
pub use ids::{AttachmentId, ConversationId, MessageId, Position, Seq, SessionId, Stamp, UserId};
pub use limits::Limits;
pub use stats::{EngineStats, Histogram, HookStats, TRACE_TARGET};
pub use write::ClientWriteId;

/// The README's programs, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
