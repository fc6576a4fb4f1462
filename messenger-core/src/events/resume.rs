//! A stream that goes on from a cursor: pages until the client has everything, then what happens.
//!
//! The place in the user's channel is taken first and the pages are read after it, up to a head that
//! is not behind the place. So what the pages contain and what the channel brings overlap, and the
//! overlap is cut by positions: nothing is missing and nothing comes twice. Where the channel can
//! not tell something exactly (it overran, the listener joined a conversation, who belongs to one has
//! changed), the stream reads a page again, from the last position that it has told.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_broadcast::RecvError;
use futures_core::Stream;
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::event::{Event, EventKind};
use super::listeners::{Attached, Signal};
use super::subscription::attach;
use crate::auth::Actor;
use crate::conversations::Typing;
use crate::engine::MessengerEngine;
use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::ids::Position;
use crate::sync::{Cursor, Page, Pull, Pulled};
use crate::users::Presence;

/// How long a stream waits before it asks a database again that could not answer.
const AGAIN: Duration = Duration::from_secs(1);
/// Updates that are made before the first of them is read.
const UPDATES_AHEAD: usize = 8;

/// What a [`Resumed`] stream brings.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Update {
    /// A part of what was missed: take it in as the answer to a sync.
    Page {
        /// The rows.
        page: Box<Page>,
        /// Where the client is once it has stored them.
        cursor: Cursor,
    },
    /// The client has everything; events follow.
    Live {
        /// Where the client is.
        cursor: Cursor,
    },
    /// Something happened, after everything that came before.
    Event {
        /// What.
        event: Arc<Event>,
        /// Where the client is once it has stored it.
        cursor: Cursor,
    },
    /// Somebody is writing, or has stopped. It has no place, and no cursor.
    Typing(Typing),
    /// Who has come, and who has gone, of those whose presence the client may know. It has no place,
    /// and no cursor: ask [`Users::presence`](crate::users::Users::presence) after
    /// [`Live`](Self::Live) who is there.
    Presence(Arc<[Presence]>),
    /// Nothing more has happened that concerns the client; told now and then, so that the next
    /// catch-up is short.
    Quiet {
        /// Where the client is.
        cursor: Cursor,
    },
}

/// Everything after a cursor, in order, without a gap and nothing twice; made by
/// [`Events::resume`](super::Events::resume).
///
/// Dropping it ends it. It ends by itself with one error: [`Error::ResyncRequired`] when the cursor
/// does not belong to this history, [`Error::InvalidToken`] when the actor's session ends,
/// [`Error::Closed`] when the engine closes. A stream that is not read costs a bounded queue; read
/// again, it goes on with a page.
#[must_use = "a stream that is dropped has ended"]
pub struct Resumed {
    engine: MessengerEngine,
    actor: Actor,
    updates: mpsc::Receiver<Result<Update>>,
    ended: bool,
}

impl Resumed {
    pub(super) fn start(engine: &MessengerEngine, actor: &Actor, pull: Pull) -> Self {
        let (sender, updates) = mpsc::channel(UPDATES_AHEAD);
        let task = Task {
            engine: engine.clone(),
            actor: actor.clone(),
            // There is always something to say: that there is nothing.
            pull: Pull {
                wait: Duration::ZERO,
                ..pull
            },
            updates: sender.clone(),
        };
        engine.tasks().start(async move {
            let closing = task.engine.tasks().closing().clone();
            let end = tokio::select! {
                () = sender.closed() => return,
                () = closing.cancelled() => Error::Closed,
                end = task.run() => end,
            };
            // Whoever listens may not be reading just now, or gone.
            tokio::select! {
                () = closing.cancelled() => {}
                _ = sender.send(Err(end)) => {}
            }
        });
        Self {
            engine: engine.clone(),
            actor: actor.clone(),
            updates,
            ended: false,
        }
    }
}

impl Stream for Resumed {
    type Item = Result<Update>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let mut next = ready!(this.updates.poll_recv(cx));
        // The end of the session does not wait behind what was read before it.
        if this.engine.revocations().have_ended(&this.actor) {
            next = Some(Err(Error::InvalidToken));
        }
        this.ended = !matches!(next, Some(Ok(_)));
        Poll::Ready(next)
    }
}

impl fmt::Debug for Resumed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resumed").finish_non_exhaustive()
    }
}

struct Task {
    engine: MessengerEngine,
    actor: Actor,
    /// What to ask for next; its cursor is where the client is.
    pull: Pull,
    updates: mpsc::Sender<Result<Update>>,
}

/// Why the stream leaves the channel for pages.
struct Behind;

impl Task {
    /// Runs until the stream ends, and says why.
    async fn run(mut self) -> Error {
        loop {
            let told = match self.catch_up().await {
                Ok(caught_up) => self.listen(caught_up).await,
                Err(error) => Err(error),
            };
            match told {
                Ok(Behind) => {}
                Err(Error::Unavailable(_) | Error::Busy { .. }) => sleep(AGAIN).await,
                Err(end) => return end,
            }
        }
    }

    /// Tells pages until the client is not behind the place in the channel.
    async fn catch_up(&mut self) -> Result<(Attached, Position)> {
        let attached = attach(&self.engine, &self.actor).await?;
        let mut is_run = false;
        loop {
            self.drained().await?;
            let sync = self.engine.sync();
            let cursor = self.pull.cursor.as_ref();
            let known = cursor.and_then(|cursor| sync.known(&self.actor, cursor));
            let Pulled { page, next } = sync.pull(&self.actor, &self.pull).await?;
            // A client that holds an answer from another life of the database has to know.
            let is_other_life = known.is_some_and(|known| known < page.stamp.fence);
            let (has_more, as_of) = (page.has_more, page.stamp.as_of);
            // The end of a run is told even if it is empty: whoever began forgets what did not come.
            if !page.is_empty() || has_more || is_run || is_other_life {
                is_run = has_more;
                self.tell(Update::Page {
                    page: Box::new(page),
                    cursor: next.clone(),
                })
                .await?;
            }
            self.pull.cursor = Some(next.clone());
            self.pull.seen = None;
            if !has_more && as_of >= attached.after {
                self.tell(Update::Live { cursor: next }).await?;
                return self.attached(attached, as_of).await;
            }
        }
    }

    /// The place in the channel, and the position after which it counts.
    async fn attached(&self, mut place: Attached, as_of: Position) -> Result<(Attached, Position)> {
        let planted = self.engine.limits().planted;
        if planted.is(Fault::AttachWithoutRing) {
            place.signals = place.signals.new_receiver();
        }
        if planted.is(Fault::SubscribeAfterSnapshot) {
            place = attach(&self.engine, &self.actor).await?;
            let after = place.after;
            return Ok((place, after));
        }
        Ok((place, as_of))
    }

    /// Tells what comes through the channel after a position.
    async fn listen(&mut self, (attached, from): (Attached, Position)) -> Result<Behind> {
        let Attached { mut signals, .. } = attached;
        let mut told = from;
        let planted = self.engine.limits().planted;
        loop {
            match signals.recv_direct().await {
                Ok(Signal::Event(event))
                    if event.position <= told && !planted.is(Fault::NoSkipUntil) => {}
                Ok(Signal::Event(event)) if !is_exact(&event) => return Ok(Behind),
                Ok(Signal::Event(event)) => {
                    told = event.position;
                    let cursor = self.cursor(told);
                    self.pull.cursor = Some(cursor.clone());
                    self.tell(Update::Event { event, cursor }).await?;
                }
                Ok(Signal::Upto(position)) => {
                    told = told.max(position);
                    let cursor = self.cursor(told);
                    self.pull.cursor = Some(cursor.clone());
                    self.tell(Update::Quiet { cursor }).await?;
                }
                Ok(Signal::Typing(typing)) => self.tell(Update::Typing(typing)).await?,
                Ok(Signal::Presence(people)) => self.tell(Update::Presence(people)).await?,
                Ok(Signal::Stale(position)) if position <= told => {}
                Ok(Signal::Stale(_)) => return Ok(Behind),
                Ok(Signal::Revoked(sessions)) => {
                    let mine = self.actor.session_id();
                    if mine.is_some_and(|session| sessions.contains(&session)) {
                        return Err(Error::InvalidToken);
                    }
                }
                Err(RecvError::Overflowed(_)) if planted.is(Fault::DropOnOverflow) => {}
                // What was dropped, and what a new life of the database took back, a page tells.
                Err(RecvError::Overflowed(_) | RecvError::Closed) => return Ok(Behind),
            }
        }
    }

    fn cursor(&self, position: Position) -> Cursor {
        let key = &self.engine.store().cursor_key;
        Cursor::at(position, key, self.actor.user_id())
    }

    /// Waits until all that was told is taken: pages are large, so one is made at a time.
    async fn drained(&self) -> Result<()> {
        let room = self.updates.reserve_many(UPDATES_AHEAD).await;
        room.map(drop).map_err(|_| Error::Closed)
    }

    async fn tell(&self, update: Update) -> Result<()> {
        let told = self.updates.send(Ok(update)).await;
        told.map_err(|_| Error::Closed)
    }
}

/// Whether an event says all that a replica needs. Who belongs to a conversation, and what a
/// conversation is to oneself, a page says better.
fn is_exact(event: &Event) -> bool {
    matches!(
        event.kind,
        EventKind::MessageCreated { .. }
            | EventKind::MessageUpdated { .. }
            | EventKind::MessageDeleted { .. }
            | EventKind::MarkerChanged { .. }
            | EventKind::UserChanged { .. }
    )
}
