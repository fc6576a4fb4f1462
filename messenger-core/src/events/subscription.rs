//! A listener's stream of events.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_broadcast::{Receiver, RecvError};
use futures_core::Stream;
use tokio::sync::oneshot;

use super::event::{Change, Event, EventKind};
use super::listeners::{Attached, Signal};
use super::queries;
use crate::auth::Actor;
use crate::conversations;
use crate::engine::MessengerEngine;
use crate::error::{Error, Result};
use crate::ids::Position;

/// How long a replay waits before it asks a database again that could not answer.
const REPLAY_AGAIN: Duration = Duration::from_secs(1);

/// Every event of every conversation of an actor, in the order of positions, each once.
///
/// Dropping it ends it. It ends by itself with one error: [`Error::InvalidToken`] when the
/// actor's session ends, [`Error::Closed`] when the engine closes, [`Error::SubscriptionLost`]
/// when it has not been read for so long that the change log no longer reaches back, or when
/// PostgreSQL was restarted and may have lost the end of its history; or with what
/// the database says, if that is no passing trouble.
///
/// A subscription that is not read costs a bounded queue that it shares with the user's others;
/// read again, it goes on from the database where it had stopped.
#[must_use = "a subscription that is dropped has ended"]
pub struct Subscription {
    engine: MessengerEngine,
    actor: Actor,
    signals: Receiver<Signal>,
    /// The last event that was delivered.
    position: Position,
    /// What a replay has brought and is not delivered yet.
    replayed: VecDeque<Change>,
    /// Where `replayed` ends, and whether the database has more.
    replayed_upto: Option<(Position, HasMore)>,
    replay: Option<oneshot::Receiver<Result<Replayed>>>,
    ended: bool,
}

/// A page of the change log.
struct Replayed {
    changes: Vec<Change>,
    /// The position up to which nothing is missing.
    upto: Position,
    has_more: HasMore,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum HasMore {
    Yes,
    No,
}

impl Subscription {
    pub(super) async fn open(engine: &MessengerEngine, actor: &Actor) -> Result<Self> {
        let Attached { signals, after } = attach(engine, actor).await?;
        Ok(Self {
            engine: engine.clone(),
            actor: actor.clone(),
            signals,
            position: after,
            replayed: VecDeque::new(),
            replayed_upto: None,
            replay: None,
            ended: false,
        })
    }

    /// Starts to read what the channel has dropped.
    fn start_replay(&mut self) {
        let (reply, page) = oneshot::channel();
        let engine = self.engine.clone();
        let (user, after) = (self.actor.user_id(), self.position);
        let limit = engine.live().batch_size.max(1);
        self.engine.tasks().start(async move {
            let deployment = engine.store().deployment;
            let read = move |db| async move {
                let head = queries::head(&db).await?;
                let oldest = queries::oldest(&db).await?;
                if oldest.is_some_and(|oldest| oldest.get() > after.get() + 1) {
                    return Err(Error::SubscriptionLost);
                }
                let changes = queries::changes_for(&db, deployment, user, after, limit).await?;
                let full = changes.len() as u64 >= limit;
                let (upto, has_more) = match changes.last() {
                    Some(last) if full => (last.position(), HasMore::Yes),
                    _ => (head, HasMore::No),
                };
                Ok(Replayed {
                    changes,
                    upto,
                    has_more,
                })
            };
            let page = loop {
                match engine.store().snapshot(engine.tasks(), read).await {
                    // A database that comes back costs a subscription time and nothing else.
                    Err(Error::Unavailable(_) | Error::Busy { .. }) if !reply.is_closed() => {
                        tokio::time::sleep(REPLAY_AGAIN).await;
                    }
                    page => break page,
                }
            };
            // The subscription may have been dropped.
            let _ = reply.send(page);
        });
        self.replay = Some(page);
    }

    /// The event to deliver for a change; `None` where there is none, or it has been delivered.
    fn take(&mut self, change: Change) -> Option<Result<Arc<Event>>> {
        match change {
            Change::Own { user, .. } if user != self.actor.user_id() => None,
            Change::InConversation { event, .. }
            | Change::Joined { event, .. }
            | Change::Left { event, .. }
            | Change::ConversationDeleted { event, .. }
            | Change::Own { event, .. } => (event.position > self.position).then(|| {
                self.position = event.position;
                Ok(event)
            }),
            Change::SessionsRevoked { sessions, .. } => {
                let session = self.actor.session_id()?;
                sessions
                    .contains(&session)
                    .then_some(Err(Error::InvalidToken))
            }
            Change::Profile { .. }
            | Change::Stale { .. }
            | Change::Late { .. }
            | Change::Unseen { .. } => None,
        }
    }
}

/// Takes a place in the user's channel, unless the actor's session has ended.
pub(super) async fn attach(engine: &MessengerEngine, actor: &Actor) -> Result<Attached> {
    let user = actor.user_id();
    let attached = loop {
        if let Some(attached) = engine.hub().join(user).await? {
            break attached;
        }
        // One picture: the memberships, and the position up to which they are true.
        let read = move |db| async move {
            let head = queries::head(&db).await?;
            let joined = conversations::queries::joined(&db, user).await?;
            Ok((head, joined))
        };
        let (head, joined) = engine.store().snapshot(engine.tasks(), read).await?;
        if let Some(attached) = engine.hub().attach(user, joined, head).await? {
            break attached;
        }
    };
    // A session that ended before the place was taken is found here, a later one by signal.
    if let Some(session) = actor.session_id()
        && engine.auth().has_ended(session).await?
    {
        return Err(Error::InvalidToken);
    }
    Ok(attached)
}

impl Stream for Subscription {
    type Item = Result<Arc<Event>>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let next = loop {
            if let Some(change) = this.replayed.pop_front() {
                match this.take(change) {
                    Some(next) => break next,
                    None => continue,
                }
            }
            if let Some((upto, has_more)) = this.replayed_upto.take() {
                this.position = this.position.max(upto);
                if has_more == HasMore::Yes {
                    this.start_replay();
                }
            }
            if let Some(replay) = &mut this.replay {
                let page = ready!(Pin::new(replay).poll(cx));
                this.replay = None;
                match page {
                    Ok(Ok(page)) => {
                        this.replayed = page.changes.into();
                        this.replayed_upto = Some((page.upto, page.has_more));
                        continue;
                    }
                    Ok(Err(error)) => break Err(error),
                    Err(_) => break Err(Error::Closed),
                }
            }
            let next = match ready!(Pin::new(&mut this.signals).poll_recv(cx)) {
                Some(Ok(Signal::Event(event))) => {
                    // Profiles are in no line that a replay reads, so they are left to a sync.
                    let is_profile = matches!(event.kind, EventKind::UserChanged { .. });
                    if event.position <= this.position || is_profile {
                        continue;
                    }
                    this.position = event.position;
                    Ok(event)
                }
                Some(Ok(Signal::Stale(position))) => {
                    if position > this.position {
                        this.start_replay();
                    }
                    continue;
                }
                Some(Ok(Signal::Upto(_) | Signal::Typing(_) | Signal::Presence(_))) => continue,
                Some(Ok(Signal::Revoked(sessions))) => {
                    let mine = this.actor.session_id();
                    if !mine.is_some_and(|session| sessions.contains(&session)) {
                        continue;
                    }
                    Err(Error::InvalidToken)
                }
                Some(Err(RecvError::Overflowed(_))) => {
                    this.start_replay();
                    continue;
                }
                Some(Err(RecvError::Closed)) | None => Err(
                    // The hub lives on, but what it knew may have been taken back.
                    match this.engine.tasks().closing().is_cancelled() {
                        true => Error::Closed,
                        false => Error::SubscriptionLost,
                    },
                ),
            };
            break next;
        };
        // The end of the session does not wait behind what was sent before it.
        let next = match this.engine.revocations().have_ended(&this.actor) {
            true => Err(Error::InvalidToken),
            false => next,
        };
        this.ended = next.is_err();
        Poll::Ready(Some(next))
    }
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("user_id", &self.actor.user_id())
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}
