//! That something has happened to a user, and not what.

use async_broadcast::RecvError;

use super::listeners::{Attached, Signal};
use super::subscription::attach;
use crate::auth::Actor;
use crate::engine::MessengerEngine;
use crate::error::{Error, Result};

/// Waits for changes that a sync has to look for.
pub(crate) struct Wake {
    engine: MessengerEngine,
    actor: Actor,
    attached: Attached,
}

impl Wake {
    pub(super) async fn new(engine: &MessengerEngine, actor: &Actor) -> Result<Self> {
        Ok(Self {
            engine: engine.clone(),
            actor: actor.clone(),
            attached: attach(engine, actor).await?,
        })
    }

    /// Waits for the next one.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidToken`]: the actor's session has ended.
    /// - [`Error::Closed`]: the engine is closed.
    pub(crate) async fn next(&mut self) -> Result<()> {
        let closing = self.engine.tasks().closing().clone();
        loop {
            let signal = tokio::select! {
                signal = self.attached.signals.recv_direct() => signal,
                () = closing.cancelled() => return Err(Error::Closed),
            };
            match signal {
                Ok(Signal::Event(_) | Signal::Stale(_)) | Err(RecvError::Overflowed(_)) => {
                    // The end of the session may have been pushed out, or come next.
                    let ended = self.engine.revocations().have_ended(&self.actor);
                    return if ended {
                        Err(Error::InvalidToken)
                    } else {
                        Ok(())
                    };
                }
                Ok(Signal::Upto(_) | Signal::Typing(_) | Signal::Presence(_)) => {}
                Ok(Signal::Revoked(sessions)) => {
                    let mine = self.actor.session_id();
                    if mine.is_some_and(|session| sessions.contains(&session)) {
                        return Err(Error::InvalidToken);
                    }
                }
                // What a new life of the database took back, only a look can tell.
                Err(RecvError::Closed) => {
                    self.attached = attach(&self.engine, &self.actor).await?;
                    return Ok(());
                }
            }
        }
    }
}
