//! The hub: applies the change log in order and hands each event to those who listen.
//!
//! One task owns all of it. Positions have no gaps, so what the hub was not told of (a full
//! queue, another process) shows as a hole, and the hub reads the hole from the database.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, MissedTickBehavior, timeout};
use tokio_util::sync::CancellationToken;

use super::event::{Change, Event};
use super::listeners::{Attached, Listener, Listeners, Signal, Who};
use super::presence::Presences;
use super::{EventKind, LiveSettings, queries};
use crate::auth::Revocations;
use crate::conversations::{self, TYPING_TTL, Typing};
use crate::error::{Error, Result};
use crate::fault::Fault;
use crate::ids::{ConversationId, Position, Seq, Stamp, UserId};
use crate::limits::Limits;
use crate::stats::{Counters, HubNow};
use crate::store::entity::head;
use crate::store::{Access, DbBackend, SHARD, Store, fence};
use crate::tasks::Tasks;
use crate::users;

/// The longest time between two looks at the change log, whatever the settings say: the end of a
/// session at another node is learnt by looking.
const LOOK_MAX: Duration = Duration::from_secs(1);

/// How old a look at the change log may be to say from memory that nothing has happened: two of
/// the longest times between two looks.
const CURRENT_MAX: Duration = Duration::from_secs(2);

/// How long an answer from memory is waited for.
const IDLE_WAIT_MAX: Duration = Duration::from_millis(50);

/// How long it is not told again of somebody that they write, even if they stop in between.
const TYPING_AGAIN: Duration = Duration::from_secs(2);

/// How often users who do not listen any more are forgotten.
const SWEEP: Duration = Duration::from_secs(5);

/// A handle to the task that delivers.
#[derive(Clone, Debug)]
pub(crate) struct Hub {
    commands: mpsc::Sender<Command>,
    /// The last position that the writer of this engine has handed over.
    handed: Arc<AtomicI64>,
    /// The last position of the change log that this engine knows of.
    head: Arc<watch::Sender<i64>>,
    counters: Arc<Counters>,
}

/// What is asked of who is there, with the way back for the answer.
type Question = Box<dyn FnOnce(&mut Presences, &Listeners) + Send>;

enum Command {
    Committed(Vec<Change>),
    Typing(Typing),
    Presences(Question),
    /// Answered with `None` for a user of whom the hub does not know where they belong.
    Join {
        user: UserId,
        reply: oneshot::Sender<Option<Attached>>,
    },
    /// Answered with the moment up to which nothing has concerned a user since a position; `None`
    /// where something has, or the hub can not tell.
    Idle {
        user: UserId,
        since: Position,
        reply: oneshot::Sender<Option<Stamp>>,
    },
    Attach {
        user: UserId,
        /// The user's conversations with the first message that the user may see, as of `head`.
        conversations: Vec<(ConversationId, Seq)>,
        head: Position,
        /// Answered with `None` when the hub no longer remembers what came after `head`.
        reply: oneshot::Sender<Option<Attached>>,
    },
}

impl Hub {
    /// Starts the task, at the head of the change log.
    pub(crate) async fn start(
        store: Arc<Store>,
        revocations: Arc<Revocations>,
        settings: LiveSettings,
        limits: &Limits,
        counters: &Arc<Counters>,
        tasks: &Tasks,
    ) -> Result<Self> {
        let (commands, received) = mpsc::channel(limits.hub_queue_max);
        let head = fence::head(&store.follow()).await?;
        let (fence, head) = (head.fence_start, Position::stored(head.pos));
        let handed = Arc::new(AtomicI64::new(head.get()));
        counters.reached(head);
        let reached = Arc::new(watch::Sender::new(head.get()));
        let task = Task {
            handed: Arc::clone(&handed),
            head: Arc::clone(&reached),
            counters: Arc::clone(counters),
            looked_at: Instant::now(),
            typing: HashMap::new(),
            presences: Presences::default(),
            store,
            revocations,
            settings,
            limits: limits.clone(),
            fence,
            last: head,
            listeners: Listeners::new(limits, head, counters),
        };
        tasks.start(task.run(received, tasks.closing().clone()));
        let counters = Arc::clone(counters);
        Ok(Self {
            commands,
            handed,
            head: reached,
            counters,
        })
    }

    /// Hands over what a transaction has committed. Never waits: when the queue is full, the hub
    /// finds the hole and reads it.
    pub(crate) fn committed(&self, changes: Vec<Change>) {
        if let Some(last) = changes.last() {
            let last = last.position();
            self.handed.fetch_max(last.get(), Ordering::Relaxed);
            self.counters.reached(last);
            reach(&self.head, last);
            let _ = self.commands.try_send(Command::Committed(changes));
        }
    }

    /// The last position of the change log that this engine knows of, to wait for the next one.
    pub(crate) fn head(&self) -> watch::Receiver<i64> {
        self.head.subscribe()
    }

    /// How much waits for the hub.
    pub(crate) fn queued(&self) -> usize {
        self.commands.max_capacity() - self.commands.capacity()
    }

    /// Tells those who listen that somebody writes. Dropped when there is more to do than that.
    pub(crate) fn typing(&self, typing: Typing) {
        let _ = self.commands.try_send(Command::Typing(typing));
    }

    /// Those of some people who are there.
    pub(crate) async fn online(&self, users: Vec<UserId>) -> Result<HashSet<UserId>> {
        self.presences(move |people, _| people.online(&users)).await
    }

    /// Asks about who is there, or tells of it.
    pub(super) async fn presences<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Presences, &Listeners) -> T + Send + 'static,
    ) -> Result<T> {
        self.ask(|reply| {
            Command::Presences(Box::new(|people, listeners| {
                let _ = reply.send(question(people, listeners));
            }))
        })
        .await
    }

    /// Gives a user who listens already one more place in their channel, without a look at the
    /// database.
    pub(super) async fn join(&self, user: UserId) -> Result<Option<Attached>> {
        self.ask(|reply| Command::Join { user, reply }).await
    }

    /// Tells from memory that nothing has concerned a user since a position: the moment up to which
    /// that is so. `None`: look at the database.
    ///
    /// All that this engine has written before is considered; what another node has written, as of
    /// the last look at the change log.
    pub(crate) async fn idle(&self, user: UserId, since: Position) -> Result<Option<Stamp>> {
        let idle = self.ask(|reply| Command::Idle { user, since, reply });
        // A hub that is busy knows nothing sooner than the database does.
        timeout(IDLE_WAIT_MAX, idle).await.unwrap_or(Ok(None))
    }

    /// Gives a user a place in their channel. `None`: read the conversations again, `head` is too
    /// old.
    pub(super) async fn attach(
        &self,
        user: UserId,
        conversations: Vec<(ConversationId, Seq)>,
        head: Position,
    ) -> Result<Option<Attached>> {
        let attach = |reply| Command::Attach {
            user,
            conversations,
            head,
            reply,
        };
        self.ask(attach).await
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let sent = self.commands.send(command(reply)).await;
        sent.map_err(|_| Error::Closed)?;
        answer.await.map_err(|_| Error::Closed)
    }
}

/// What was told last of somebody who writes.
struct TypingTold {
    /// When it was told that they write.
    at: Instant,
    /// Whether they have not stopped since.
    is_typing: bool,
}

/// Tells those who wait for it that the change log has a position.
fn reach(head: &watch::Sender<i64>, position: Position) {
    head.send_if_modified(|head| {
        let is_new = position.get() > *head;
        *head = position.get().max(*head);
        is_new
    });
}

struct Task {
    store: Arc<Store>,
    revocations: Arc<Revocations>,
    settings: LiveSettings,
    limits: Limits,
    /// Where the positions of this life of the database begin.
    fence: i64,
    /// The last position that was delivered.
    last: Position,
    /// The last position that the writer of this engine has handed over.
    handed: Arc<AtomicI64>,
    /// The last position that this engine knows of.
    head: Arc<watch::Sender<i64>>,
    /// When the change log was last looked at with success.
    looked_at: Instant,
    counters: Arc<Counters>,
    /// Who is writing, or was just now.
    typing: HashMap<(ConversationId, UserId), TypingTold>,
    listeners: Listeners,
    presences: Presences,
}

impl Task {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>, closing: CancellationToken) {
        let look = Duration::from_millis(self.settings.poll_ms.max(1)).min(LOOK_MAX);
        let mut poll = tokio::time::interval(look);
        poll.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut sweep = tokio::time::interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let beat = Duration::from_millis(self.settings.heartbeat_ms.max(1));
        let mut beat = tokio::time::interval_at(Instant::now() + beat, beat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.counters.hub(HubNow {
                delivered: self.last,
                listeners: self.listeners.len(),
                moves_remembered: self.listeners.moves(),
            });
            // However much there is to hand on, what others have written is not left for long.
            let is_free = commands.is_empty() || self.looked_at.elapsed() >= LOOK_MAX;
            let outcome = tokio::select! {
                biased;
                () = closing.cancelled() => return,
                _ = poll.tick(), if is_free => self.catch_up().await,
                _ = sweep.tick() => {
                    self.listeners.sweep();
                    self.counters.queues_seen(self.listeners.queue_longest());
                    self.typing.retain(|_, told| told.at.elapsed() < TYPING_TTL);
                    Ok(())
                }
                _ = beat.tick() => {
                    self.beat();
                    Ok(())
                }
                command = commands.recv() => match command {
                    Some(Command::Committed(changes)) => self.committed(changes).await,
                    Some(Command::Attach { user, conversations, head, reply }) => {
                        let listeners = &mut self.listeners;
                        let _ = reply.send(listeners.attach(user, conversations, head, self.last));
                        Ok(())
                    }
                    Some(Command::Typing(typing)) => {
                        self.typing(typing);
                        Ok(())
                    }
                    Some(Command::Presences(question)) => {
                        question(&mut self.presences, &self.listeners);
                        Ok(())
                    }
                    Some(Command::Join { user, reply }) => {
                        let _ = reply.send(self.join(user));
                        Ok(())
                    }
                    Some(Command::Idle { user, since, reply }) => {
                        let _ = reply.send(self.idle(user, since));
                        Ok(())
                    }
                    None => return,
                },
            };
            if let Err(error) = outcome {
                // Nothing is lost: the hole stays a hole until it can be read.
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "reading the change log failed; it is tried again"
                );
            }
        }
    }

    async fn committed(&mut self, changes: Vec<Change>) -> Result<()> {
        let first = changes.first().map_or(Position::ZERO, Change::position);
        if first.get() > self.last.get() + 1 {
            self.catch_up().await?;
        }
        self.deliver_all(&changes).await
    }

    /// Delivers what the database has and the hub has not been told of.
    async fn catch_up(&mut self) -> Result<()> {
        let log = self.store.follow();
        let head = self.answered(fence::head(&log)).await?;
        if head.fence_start != self.fence {
            self.begin_anew(&head);
        }
        let head = Position::stored(head.pos);
        self.counters.reached(head);
        reach(&self.head, head);
        while self.last < head {
            let deployment = self.store.deployment;
            let limit = self.settings.batch_size.max(1);
            let changes = queries::changes_after(&log, deployment, self.last, limit);
            let changes = self.answered(changes).await?;
            let begins = changes.first().map_or(head, Change::position);
            if begins.get() > self.last.get() + 1 && self.is_cut().await? {
                tracing::warn!("the change log was cut before it was read; all have to look again");
                self.end_all(head);
                break;
            }
            if changes.is_empty() {
                // A new incarnation begins at a position of its own; up to `head` nothing
                // happened that the change log still has.
                self.last = head;
                self.listeners.forget_moves(head);
                break;
            }
            self.deliver_all(&changes).await?;
        }
        self.looked_at = Instant::now();
        self.counters.looked();
        Ok(())
    }

    /// Whether there was something after the last position that was delivered which the change log no
    /// longer has. It is cut from its beginning, and a new fence leaves a hole that nothing was in.
    async fn is_cut(&self) -> Result<bool> {
        let log = self.store.follow();
        let oldest = self.answered(queries::oldest(&log)).await?;
        Ok(oldest.is_none_or(|oldest| oldest > self.last))
    }

    async fn deliver_all(&mut self, changes: &[Change]) -> Result<()> {
        let newest = newest_profiles(changes);
        for change in changes {
            if let Change::Profile { user, event } = change
                && newest.get(user) == Some(&event.position)
                && event.position > self.last
                && self.settings.enabled
                && !self.listeners.is_empty()
            {
                self.tell_acquaintances(*user, event).await?;
            }
            self.deliver(change);
        }
        Ok(())
    }

    /// Tells a user, and everybody who shares a small conversation with them; of the end of an account
    /// whoever may have their name.
    async fn tell_acquaintances(&self, user: UserId, event: &Arc<Event>) -> Result<()> {
        // Who knows whom is not kept here: profiles change seldom.
        let log = self.store.follow();
        let mut told = HashSet::from([user]);
        if is_deletion(event) {
            let ever = conversations::queries::ever(&log, user);
            let ever = self.answered(ever).await?;
            told.extend(ever.into_iter().flat_map(|id| self.listeners.of(id)));
            let blockers = users::queries::blockers(&log, user);
            told.extend(self.answered(blockers).await?);
        } else {
            let (users, small) = ([user], self.limits.small_conversation_members_max);
            let shared = conversations::queries::small(&log, &users, small);
            let shared = self.answered(shared).await?;
            told.extend(shared.into_iter().flat_map(|(_, id)| self.listeners.of(id)));
        }
        for listener in told.into_iter().filter_map(|user| self.listeners.get(user)) {
            listener.tell(event);
        }
        Ok(())
    }

    /// Takes a database that has begun a new fence for what it is.
    ///
    /// Another process that opens an SQLite file begins one too, and takes nothing back. A PostgreSQL
    /// server may have lost what was delivered already, and who had joined what: everybody who
    /// listens has to look again.
    fn begin_anew(&mut self, head: &head::Model) {
        self.fence = head.fence_start;
        if self.store.backend() == DbBackend::Postgres {
            self.end_all(Position::stored(head.pos));
        }
    }

    /// Goes on from a head; everybody who listens has to look again.
    fn end_all(&mut self, head: Position) {
        self.last = head;
        self.listeners.end_all(head);
        self.presences.reconsider_all();
    }

    /// Waits for a query, but not for a connection that has fallen silent.
    async fn answered<T>(&self, query: impl Future<Output = Result<T>>) -> Result<T> {
        match timeout(self.limits.read_wait_max, query).await {
            Ok(outcome) => outcome,
            Err(late) => {
                // The hub asks all the time, so it is the one who notices for all that read.
                self.store.replace_silent(Access::Follow).await;
                self.store.replace_silent(Access::Read).await;
                Err(Error::Unavailable(Arc::new(late)))
            }
        }
    }

    /// Delivers a change, unless it has been delivered.
    fn deliver(&mut self, change: &Change) {
        let position = change.position();
        if position <= self.last {
            return;
        }
        self.last = position;
        match change {
            Change::InConversation {
                conversation,
                seq,
                event,
            } => self.send(*conversation, *seq, event),
            Change::Joined {
                conversation,
                members,
                visible_from,
                event,
            } => {
                let who = Who::Came(members.clone(), *visible_from);
                self.listeners.moved(position, *conversation, who);
                self.send(*conversation, None, event);
            }
            // Who goes is told of it, and of nothing after it.
            Change::Left {
                conversation,
                user,
                event,
            } => {
                self.send(*conversation, None, event);
                self.listeners
                    .moved(position, *conversation, Who::Went(*user));
            }
            Change::ConversationDeleted {
                conversation,
                event,
            } => {
                self.send(*conversation, None, event);
                self.listeners.moved(position, *conversation, Who::AllWent);
            }
            Change::Own { user, event } => {
                if matches!(event.kind, EventKind::SelfChanged) {
                    self.presences.reconsider(*user);
                }
                if self.settings.enabled
                    && let Some(listener) = self.listeners.get(*user)
                {
                    listener.tell(event);
                }
            }
            Change::SessionsRevoked {
                user, sessions, at, ..
            } => {
                self.revocations.add(sessions.iter().copied(), *at);
                if let Some(listener) = self.listeners.get(*user) {
                    listener.signal(Signal::Revoked(sessions.clone()));
                }
            }
            Change::Stale { user, .. } => {
                if let Some(listener) = self.listeners.get(*user) {
                    listener.look_again(position);
                }
            }
            Change::Late {
                conversation, seq, ..
            } => self.look_again(*conversation, *seq, position),
            // The account may be deleted.
            Change::Profile { user, .. } => self.presences.reconsider(*user),
            Change::Unseen { .. } => {}
        }
    }

    /// Tells those who belong to a conversation; of a message, those who may see it.
    fn send(&self, conversation: ConversationId, seq: Option<Seq>, event: &Arc<Event>) {
        for (listener, sees) in self.audience(conversation, seq) {
            if sees {
                listener.tell(event);
            } else if event.changes_conversation() {
                listener.look_again(event.position);
            }
        }
    }

    /// Says to the same that something happened which they have to read.
    fn look_again(&self, conversation: ConversationId, seq: Option<Seq>, position: Position) {
        for (listener, sees) in self.audience(conversation, seq) {
            if sees {
                listener.look_again(position);
            }
        }
    }

    /// Those who listen in a conversation, and whether they may see a message of it.
    fn audience(
        &self,
        conversation: ConversationId,
        seq: Option<Seq>,
    ) -> impl Iterator<Item = (&Listener, bool)> {
        let audience = self.listeners.of(conversation);
        let audience = audience.filter(|_| self.settings.enabled);
        let blind = self.limits.planted.is(Fault::LiveIgnoresVisibleFrom);
        audience.filter_map(move |user| {
            let listener = self.listeners.get(user)?;
            let first = listener.visible_from(conversation)?;
            Some((listener, blind || seq.is_none_or(|seq| seq >= first)))
        })
    }

    /// Tells the others in a conversation that somebody writes, unless they were told just now.
    fn typing(&mut self, typing: Typing) {
        let place = (typing.conversation_id, typing.user_id);
        match self.typing.get_mut(&place) {
            Some(told) if typing.is_typing && told.at.elapsed() < TYPING_AGAIN => return,
            Some(told) if !typing.is_typing => {
                if !std::mem::take(&mut told.is_typing) {
                    return;
                }
            }
            None if !typing.is_typing => return,
            told => {
                if told.is_none() && self.typing.len() >= self.limits.typing_max {
                    self.typing.retain(|_, told| told.is_typing);
                    if self.typing.len() >= self.limits.typing_max {
                        return;
                    }
                }
                let told = TypingTold {
                    at: Instant::now(),
                    is_typing: true,
                };
                self.typing.insert(place, told);
            }
        }
        let audience = self.listeners.of(typing.conversation_id);
        let others = audience.filter(|user| *user != typing.user_id && self.settings.enabled);
        for listener in others.filter_map(|user| self.listeners.get(user)) {
            listener.whisper(Signal::Typing(typing));
        }
    }

    /// Says to all who listen that nothing is on its way to them.
    fn beat(&self) {
        // Whoever is not told what happens is not told either that it has happened.
        let upto = match self.settings.enabled {
            true => self.last,
            false => Position::ZERO,
        };
        for listener in self.listeners.all() {
            listener.signal(Signal::Upto(upto));
        }
    }

    /// Whether all that has happened is known here: what this engine wrote, and what others wrote
    /// up to a moment ago.
    fn is_current(&self) -> bool {
        let handed = self.handed.load(Ordering::Relaxed);
        self.last.get() >= handed && self.looked_at.elapsed() < CURRENT_MAX
    }

    fn join(&self, user: UserId) -> Option<Attached> {
        self.is_current()
            .then(|| self.listeners.join(user, self.last))?
    }

    fn idle(&self, user: UserId, since: Position) -> Option<Stamp> {
        let listener = self.listeners.get(user)?;
        let is_known = self.fence <= since.get() && since <= self.last;
        let can_tell = self.settings.enabled && self.is_current() && is_known;
        (can_tell && listener.is_idle_since(since)).then(|| Stamp {
            shard: SHARD,
            fence: Position::stored(self.fence),
            as_of: self.last,
        })
    }
}

/// Where the last change of each profile is: those before it say what is no longer so.
fn newest_profiles(changes: &[Change]) -> HashMap<UserId, Position> {
    let profiles = changes.iter().filter_map(|change| match change {
        Change::Profile { user, event } => Some((*user, event.position)),
        _ => None,
    });
    profiles.collect()
}

/// Whether an event says that an account was deleted.
fn is_deletion(event: &Event) -> bool {
    matches!(&event.kind, EventKind::UserChanged { user } if user.deleted_at.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Actor;
    use crate::conversations::{HistoryPolicy, NewGroup, Title};
    use crate::messages::{ClientMessageId, MessageBody, NewMessage};
    use crate::users::{DisplayName, HostUser, Username};
    use crate::{MessengerEngine, Secret, conversations};

    struct Place {
        engine: MessengerEngine,
        alice: Actor,
        bob: UserId,
        group: ConversationId,
        _folder: tempfile::TempDir,
    }

    impl Place {
        /// Alice and bob and a group of the two.
        async fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let file = folder.path().join("chat.db");
            let engine = MessengerEngine::builder(format!("sqlite://{}", file.display()))
                .secret(Secret::new("Zq8vK2mWx4Lr7TnB0pYc5HsD9fGjE3aU").expect("long"))
                .open()
                .await
                .expect("it opens");
            let mut ids = Vec::new();
            for name in ["alice", "bob"] {
                let user = HostUser {
                    id: uuid::Uuid::now_v7().into(),
                    username: Username::parse(name).expect("a name"),
                    display_name: DisplayName::parse(name).expect("a name"),
                };
                ids.push(engine.users().ensure(user).await.expect("stored").id);
            }
            let (alice, bob) = (engine.trust(ids[0]), ids[1]);
            let new = NewGroup {
                title: Title::parse("Hikers", engine.limits()).expect("short"),
                members: vec![bob],
                history: HistoryPolicy::All,
            };
            let group = engine.conversations().create_group(&alice, new).await;
            Self {
                group: group.expect("stored").id,
                engine,
                alice,
                bob,
                _folder: folder,
            }
        }

        /// Sends to the group, and tells at which position.
        async fn send(&self, client_id: &str) -> Position {
            let message = NewMessage::new(
                ClientMessageId::parse(client_id).expect("long"),
                MessageBody::parse("text", self.engine.limits()).expect("short"),
            );
            let messages = self.engine.messages();
            let sent = messages.send(&self.alice, self.group, message).await;
            sent.expect("stored").message.version
        }

        async fn idle(&self, user: UserId, since: Position) -> Option<Position> {
            let stamp = self.engine.hub().idle(user, since).await.expect("open");
            stamp.map(|stamp| stamp.as_of)
        }
    }

    #[tokio::test]
    async fn nothing_is_told_from_memory_but_to_whoever_listens_and_knows_all() {
        let place = Place::new().await;
        let (bob, hub) = (place.bob, place.engine.hub());
        let before = place.send("before-it").await;
        assert_eq!(place.idle(bob, before).await, None, "nobody listens");
        let bobs = place.engine.trust(bob);
        let listening = place.engine.events().subscribe(&bobs).await.expect("open");

        assert_eq!(place.idle(bob, before).await, Some(before));
        let sent = place.send("to-the-group").await;
        assert_eq!(place.idle(bob, before).await, None, "there is a message");
        assert_eq!(place.idle(bob, sent).await, Some(sent));
        let future = Position::stored(sent.get() + 1);
        assert_eq!(
            place.idle(bob, future).await,
            None,
            "nobody knows the future"
        );

        // What does not concern bob moves the moment on, and is nothing to tell.
        let groups = place.engine.conversations();
        let removed = groups.remove_member(&place.alice, place.group, bob).await;
        removed.expect("stored");
        assert_eq!(place.idle(bob, sent).await, None, "he was removed");
        let removed = hub.handed.load(Ordering::Relaxed);
        let later = place.send("without-bob").await;
        assert_eq!(
            place.idle(bob, Position::stored(removed)).await,
            Some(later)
        );

        // What is not delivered yet is not known.
        hub.handed.store(later.get() + 1, Ordering::Relaxed);
        assert_eq!(place.idle(bob, later).await, None);
        assert!(hub.join(bob).await.expect("open").is_none());
        drop(listening);
        place.engine.close().await;
    }

    #[tokio::test]
    async fn who_attaches_with_an_older_picture_has_both_coming_and_going_replayed() {
        let place = Place::new().await;
        let (engine, alice, bob) = (&place.engine, &place.alice, place.bob);
        let (group, groups) = (place.group, engine.conversations());
        let db = engine.store().read();
        let head = queries::head(&db).await.expect("read");
        let picture = conversations::queries::joined(&db, bob)
            .await
            .expect("read");
        let removed = groups.remove_member(alice, group, bob).await;
        removed.expect("stored");

        let attached = engine.hub().attach(bob, picture, head).await;
        let mut signals = attached.expect("open").expect("remembered").signals;
        place.send("without-bob").await;
        let added = groups.add_members(alice, group, &[bob]).await;
        added.expect("stored");

        let first = signals.recv().await.expect("open");
        assert!(
            matches!(&first, Signal::Event(event)
                if matches!(event.kind, EventKind::MembersAdded { .. })),
            "{first:?}"
        );
        engine.close().await;
    }
}
