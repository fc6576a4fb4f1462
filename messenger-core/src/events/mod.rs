//! Live events: what is committed reaches every listener, in order, without polling.
//!
//! The writer hands each transaction to the hub after its commit. The hub knows who listens
//! and to which conversations they belong, and gives each listening user one channel that all
//! their subscriptions share. A subscription that falls behind its channel reads on from the
//! change log in the database and comes back: a slow reader costs nobody else anything.

mod event;
mod hub;
mod listeners;
pub(crate) mod presence;
pub(crate) mod queries;
mod resume;
mod subscription;
mod wake;

pub(crate) use self::event::Change;
pub use self::event::{Event, EventKind};
pub(crate) use self::hub::Hub;
pub use self::resume::{Resumed, Update};
pub use self::subscription::Subscription;
pub(crate) use self::wake::Wake;
use crate::auth::Actor;
use crate::engine::MessengerEngine;
use crate::error::Result;
use crate::sync::Pull;

/// How live events are delivered.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LiveSettings {
    /// Whether events are delivered at all; sessions end at once in any case. `true`.
    pub enabled: bool,
    /// How often the change log is looked at for changes of other processes, in milliseconds.
    /// One's own changes do not wait for it. 200, and 1,000 at the most: the end of a session at
    /// another process is learnt this way.
    pub poll_ms: u64,
    /// How many lines of the change log are read at a time. 100.
    pub batch_size: u64,
    /// How often those who go on from a cursor are told where they are, in milliseconds. 30,000.
    pub heartbeat_ms: u64,
    /// How often it is told who has come and who has gone, in milliseconds; 0 for never. 5,000.
    pub presence_ms: u64,
}

impl Default for LiveSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            poll_ms: 200,
            batch_size: 100,
            heartbeat_ms: 30_000,
            presence_ms: 5_000,
        }
    }
}

/// Live events: the view that [`MessengerEngine::events`] gives.
#[derive(Debug)]
pub struct Events<'a> {
    engine: &'a MessengerEngine,
}

impl<'a> Events<'a> {
    pub(crate) fn new(engine: &'a MessengerEngine) -> Self {
        Self { engine }
    }

    /// Whether events are delivered: what [`LiveSettings::enabled`] was set to.
    pub fn is_enabled(&self) -> bool {
        self.engine.live().enabled
    }

    /// Subscribes to every event of every conversation of the actor, present and future.
    ///
    /// What is committed after this resolves is delivered, in the order of its positions, each
    /// event once. Sync after subscribing, and nothing is missed between the two.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidToken`](crate::Error::InvalidToken): the actor's session has ended.
    /// - [`Error::Closed`](crate::Error::Closed): the engine is closed.
    ///
    /// # Cancel safety
    ///
    /// Dropping it, or the [`Subscription`], ends it.
    pub async fn subscribe(&self, actor: &Actor) -> Result<Subscription> {
        Subscription::open(self.engine, actor).await
    }

    /// Wakes whenever something may have changed for the actor.
    pub(crate) async fn wake(&self, actor: &Actor) -> Result<Wake> {
        Wake::new(self.engine, actor).await
    }

    /// Goes on from where a client is: first pages with what it has missed, and then, without a gap
    /// and without a repetition, what happens.
    ///
    /// [`Pull::cursor`] is where the client is, `None` for one that begins; its bounds are those of
    /// the pages. Every update carries the cursor to keep with it.
    ///
    /// # Cancel safety
    ///
    /// Dropping the stream ends it. Whoever resumes from the last cursor that was kept misses
    /// nothing.
    pub fn resume(&self, actor: &Actor, pull: Pull) -> Resumed {
        Resumed::start(self.engine, actor, pull)
    }
}
