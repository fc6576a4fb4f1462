//! Who listens, and where they belong.
//!
//! The memberships of those who listen are kept in memory, as of the last position that was
//! delivered, so that an event finds its audience without a look at the database.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_broadcast::{InactiveReceiver, Receiver, Sender, TrySendError};

use super::event::Event;
use crate::conversations::Typing;
use crate::ids::{ConversationId, Position, Seq, SessionId, UserId};
use crate::limits::Limits;
use crate::stats::Counters;
use crate::users::Presence;

/// What travels to the subscriptions of one user.
#[derive(Clone, Debug)]
pub(super) enum Signal {
    Event(Arc<Event>),
    Revoked(Arc<[SessionId]>),
    /// Something that can not be told happened at a position.
    Stale(Position),
    /// All up to a position has been told.
    Upto(Position),
    /// Somebody writes, or has stopped.
    Typing(Typing),
    /// Who has come, and who has gone.
    Presence(Arc<[Presence]>),
}

/// A place in a user's channel.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) signals: Receiver<Signal>,
    /// Everything after this position comes through the channel.
    pub(super) after: Position,
}

/// A user who listens.
pub(super) struct Listener {
    signals: Sender<Signal>,
    /// Keeps the channel open between two subscriptions, until it is swept.
    _open: InactiveReceiver<Signal>,
    /// Where the user belongs, and the first message there that the user may see.
    conversations: HashMap<ConversationId, Seq>,
    /// What the memberships above contain already.
    after: Position,
    /// The last position that concerned the user, or may have.
    concerned: AtomicI64,
    counters: Arc<Counters>,
}

impl Listener {
    /// Puts a signal into the user's channel. A full one loses its oldest signal, and its slow
    /// readers read the database.
    pub(super) fn signal(&self, signal: Signal) {
        match self.signals.try_broadcast(signal) {
            Ok(Some(_)) => self.counters.overflowed(),
            Ok(None) | Err(TrySendError::Inactive(_) | TrySendError::Full(_)) => {}
            Err(TrySendError::Closed(_)) => {}
        }
    }

    /// The same for what nobody has to know: it pushes nothing out of a full channel.
    pub(super) fn whisper(&self, signal: Signal) {
        if !self.signals.is_full() {
            self.signal(signal);
        }
    }

    /// Tells of an event, unless the user's picture contains it already.
    pub(super) fn tell(&self, event: &Arc<Event>) {
        if event.position > self.after {
            self.concern(event.position);
            self.signal(Signal::Event(event.clone()));
        }
    }

    /// Says that something happened which only a page can tell.
    pub(super) fn look_again(&self, position: Position) {
        if position > self.after {
            self.concern(position);
            self.signal(Signal::Stale(position));
        }
    }

    fn concern(&self, position: Position) {
        self.concerned.store(position.get(), Ordering::Relaxed);
    }

    /// Whether nothing has concerned the user since a position.
    pub(super) fn is_idle_since(&self, position: Position) -> bool {
        self.concerned.load(Ordering::Relaxed) <= position.get()
    }

    /// The first message of a conversation that the user may see, if they belong to it.
    pub(super) fn visible_from(&self, conversation: ConversationId) -> Option<Seq> {
        self.conversations.get(&conversation).copied()
    }

    fn is_left(&self) -> bool {
        self.signals.receiver_count() == 0
    }
}

/// Who came to a conversation or went at a position.
#[derive(Clone)]
struct Move {
    position: Position,
    conversation: ConversationId,
    who: Who,
}

#[derive(Clone)]
pub(super) enum Who {
    /// They came, and may see from this message on.
    Came(Arc<[UserId]>, Seq),
    Went(UserId),
    /// All went: the conversation was deleted.
    AllWent,
}

impl Who {
    fn includes(&self, user: UserId) -> bool {
        match self {
            Self::Came(users, _) => users.contains(&user),
            Self::Went(one) => *one == user,
            Self::AllWent => true,
        }
    }
}

/// All who listen.
pub(super) struct Listeners {
    listeners: HashMap<UserId, Listener>,
    /// Who listens to a conversation.
    audiences: HashMap<ConversationId, HashSet<UserId>>,
    /// Who came and went after `moves_after`, for those who attach with a slightly older picture.
    moves: VecDeque<Move>,
    moves_after: Position,
    moves_max: usize,
    queue_max: usize,
    counters: Arc<Counters>,
}

impl Listeners {
    /// Nobody, at the head of the change log.
    pub(super) fn new(limits: &Limits, head: Position, counters: &Arc<Counters>) -> Self {
        Self {
            listeners: HashMap::new(),
            audiences: HashMap::new(),
            moves: VecDeque::new(),
            moves_after: head,
            moves_max: limits.hub_joins_max,
            queue_max: limits.subscriber_queue_max,
            counters: counters.clone(),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.listeners.is_empty()
    }

    /// How many listen, or did a moment ago.
    pub(super) fn len(&self) -> usize {
        self.listeners.len()
    }

    /// How many comings and goings are remembered.
    pub(super) fn moves(&self) -> usize {
        self.moves.len()
    }

    pub(super) fn get(&self, user: UserId) -> Option<&Listener> {
        self.listeners.get(&user)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Listener> {
        self.listeners.values()
    }

    /// Those who listen right now, with the number of their conversations.
    pub(super) fn present(&self) -> impl Iterator<Item = (UserId, usize)> {
        let listeners = self.listeners.iter();
        let present = listeners.filter(|(_, listener)| !listener.is_left());
        present.map(|(user, listener)| (*user, listener.conversations.len()))
    }

    /// Whether a user listens right now.
    pub(super) fn is_present(&self, user: UserId) -> bool {
        self.get(user).is_some_and(|listener| !listener.is_left())
    }

    /// Those who listen to a conversation.
    pub(super) fn of(&self, conversation: ConversationId) -> impl Iterator<Item = UserId> {
        let audience = self.audiences.get(&conversation);
        audience.into_iter().flatten().copied()
    }

    /// Ends every channel: whoever listens has to look again.
    pub(super) fn end_all(&mut self, head: Position) {
        self.listeners.clear();
        self.audiences.clear();
        self.forget_moves(head);
    }

    /// Forgets who came and went up to a position.
    pub(super) fn forget_moves(&mut self, upto: Position) {
        self.moves.clear();
        self.moves_after = upto;
    }

    /// Applies who came and went, and remembers it for those who attach.
    pub(super) fn moved(&mut self, position: Position, conversation: ConversationId, who: Who) {
        let users: Vec<UserId> = match &who {
            Who::Came(users, _) => users.to_vec(),
            Who::Went(user) => vec![*user],
            Who::AllWent => self.of(conversation).collect(),
        };
        let moved = Move {
            position,
            conversation,
            who,
        };
        for user in users {
            self.follow(user, &moved);
        }
        self.moves.push_back(moved);
        if self.moves.len() > self.moves_max
            && let Some(oldest) = self.moves.pop_front()
        {
            self.moves_after = oldest.position;
        }
    }

    /// Applies to a user who listens what their memberships do not contain already.
    fn follow(&mut self, user: UserId, moved: &Move) {
        let Some(listener) = self.listeners.get_mut(&user) else {
            return;
        };
        if moved.position <= listener.after {
            return;
        }
        match moved.who {
            Who::Came(_, visible_from) => {
                listener
                    .conversations
                    .insert(moved.conversation, visible_from);
                let audience = self.audiences.entry(moved.conversation).or_default();
                audience.insert(user);
            }
            Who::Went(_) | Who::AllWent => {
                listener.conversations.remove(&moved.conversation);
                self.leave_audience(moved.conversation, user);
            }
        }
    }

    fn leave_audience(&mut self, conversation: ConversationId, user: UserId) {
        if let Some(audience) = self.audiences.get_mut(&conversation) {
            audience.remove(&user);
            if audience.is_empty() {
                self.audiences.remove(&conversation);
            }
        }
    }

    /// Gives a user a place in their channel, who belongs to these conversations as of `head`;
    /// `last` is the last position that was delivered. `None` when it is no longer remembered what
    /// came after `head`.
    pub(super) fn attach(
        &mut self,
        user: UserId,
        conversations: Vec<(ConversationId, Seq)>,
        head: Position,
        last: Position,
    ) -> Option<Attached> {
        if !self.listeners.contains_key(&user) {
            if head < self.moves_after {
                return None;
            }
            self.insert(user, conversations, head, last);
        }
        self.place(user, last.max(head))
    }

    fn insert(
        &mut self,
        user: UserId,
        conversations: Vec<(ConversationId, Seq)>,
        head: Position,
        last: Position,
    ) {
        let (mut signals, receiver) = async_broadcast::broadcast(self.queue_max);
        signals.set_overflow(true);
        signals.set_await_active(false);
        for (conversation, _) in &conversations {
            let audience = self.audiences.entry(*conversation).or_default();
            audience.insert(user);
        }
        self.listeners.insert(
            user,
            Listener {
                signals,
                _open: receiver.deactivate(),
                conversations: conversations.into_iter().collect(),
                after: head,
                concerned: AtomicI64::new(last.max(head).get()),
                counters: self.counters.clone(),
            },
        );
        // What happened between the picture and now.
        let moves = self.moves.iter();
        let moves: Vec<Move> = moves
            .filter(|moved| moved.position > head && moved.who.includes(user))
            .cloned()
            .collect();
        for moved in &moves {
            self.follow(user, moved);
        }
    }

    /// Gives a user who listens one more place in their channel.
    pub(super) fn join(&self, user: UserId, last: Position) -> Option<Attached> {
        // A picture that is newer than what was delivered says what it is a picture of.
        let after = last.max(self.get(user)?.after);
        self.place(user, after)
    }

    fn place(&self, user: UserId, after: Position) -> Option<Attached> {
        let listener = self.listeners.get(&user)?;
        Some(Attached {
            signals: listener.signals.new_receiver(),
            after,
        })
    }

    /// How much waits in the longest queue.
    pub(super) fn queue_longest(&self) -> usize {
        let queues = self.listeners.values();
        let queues = queues.map(|listener| listener.signals.len());
        queues.max().unwrap_or(0)
    }

    /// Forgets users who do not listen any more.
    pub(super) fn sweep(&mut self) {
        let listeners = self.listeners.iter();
        let left = listeners.filter(|(_, listener)| listener.is_left());
        let left: Vec<UserId> = left.map(|(user, _)| *user).collect();
        for user in left {
            let Some(listener) = self.listeners.remove(&user) else {
                continue;
            };
            for conversation in listener.conversations.into_keys() {
                self.leave_audience(conversation, user);
            }
        }
    }
}
