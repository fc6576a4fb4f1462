//! Telling a host the changes of one lane, in their order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use super::change::{Change, ChangeKind, NotTaken, Topic};
use super::on_change::{HookCounters, OnChange};
use super::queries::{self, Found, Stretch, Told};
use crate::clock::{self, Timestamp};
use crate::error::{Error, Result};
use crate::events::Event;
use crate::ids::{ConversationId, Position};
use crate::limits::Limits;
use crate::store::Store;
use crate::store::entity::{hook, hook_lane};
use crate::tasks::Tasks;
use crate::write::Writer;

/// For how long what was read is told as it was: what is deleted or left meanwhile is told no more.
const FRESH: Duration = Duration::from_secs(1);

/// What all that tells one hook has in common.
pub(super) struct Core {
    pub(super) hook: OnChange,
    pub(super) told: Told,
    /// This engine, among all that could tell it.
    pub(super) me: Uuid,
    pub(super) store: Arc<Store>,
    pub(super) writer: Writer,
    /// Those of the engine, in which reads end.
    pub(super) tasks: Tasks,
    pub(super) limits: Limits,
    pub(super) closing: CancellationToken,
    pub(super) counters: Arc<HookCounters>,
    /// For lanes that are told side by side.
    pub(super) places: Semaphore,
    /// The host is taken to be away: a lane that does not wait and has not begun does not begin.
    pub(super) is_away: AtomicBool,
    /// Until when the host wants to be told nothing, in microseconds since 1970.
    pub(super) quiet_until: AtomicI64,
}

/// What of a lane is to be told.
pub(super) struct Part {
    pub(super) lane: Uuid,
    /// Its changes up to here were told.
    pub(super) after: i64,
    /// The last position of what is to be told now.
    pub(super) upto: i64,
    /// It has waited, and was told apart from others.
    pub(super) has_waited: bool,
    /// How many changes are read at first.
    pub(super) limit: usize,
    /// What was read of it already.
    pub(super) seen: Option<Seen>,
}

/// Changes of a lane, as they were at a time.
pub(super) struct Seen {
    pub(super) at: Instant,
    pub(super) changes: VecDeque<Change>,
    /// Nothing else is to be told.
    pub(super) is_all: bool,
}

/// How far a lane was told at a time.
pub(super) struct Done {
    pub(super) lane: Uuid,
    pub(super) has_waited: bool,
    pub(super) told: u64,
    /// Its changes up to here were told.
    pub(super) pos: i64,
    pub(super) end: End,
}

pub(super) enum End {
    /// All was told that was to be.
    All,
    /// Others are to have their turn.
    Turn,
    Failed(Failure),
    /// It could not be read.
    Unread(Error),
}

pub(super) struct Failure {
    pub(super) change: Uuid,
    pub(super) topic: Topic,
    pub(super) position: i64,
    pub(super) at: Timestamp,
    pub(super) why: NotTaken,
}

impl Core {
    /// Where the hook is, and the lanes of it that wait.
    pub(super) async fn place(&self) -> Result<(hook::Model, Vec<hook_lane::Model>)> {
        let name = self.hook.name.clone();
        let read = move |db| async move {
            let place = queries::place(&db, &name).await?;
            let lost = || Error::Internal(format!("the hook {name} is not known any more"));
            Ok((place.ok_or_else(lost)?, queries::lanes(&db, &name).await?))
        };
        self.store.snapshot(&self.tasks, read).await
    }

    /// Reads the changes of a lane, or of all. If some can not be told any more, that is told.
    pub(super) async fn read(&self, lane: Option<Uuid>, stretch: Stretch) -> Result<Found> {
        let told = self.told.clone();
        let read = move |db| async move { queries::changes(&db, &told, lane, stretch).await };
        let mut found = self.store.snapshot(&self.tasks, read).await?;
        if stretch.after < found.cut {
            let missed = self.missed(lane, stretch.after, found.cut);
            found.changes = vec![(lane.unwrap_or_default(), missed)];
            found.upto = found.cut;
            found.is_all = false;
        }
        Ok(found)
    }

    /// Tells what there is of a lane, as far as it goes.
    pub(super) async fn tell_part(self: Arc<Self>, part: Part) -> Done {
        let mut done = Done {
            lane: part.lane,
            has_waited: part.has_waited,
            told: 0,
            pos: part.after,
            end: End::All,
        };
        done.end = self.tell_up_to_its_end(part, &mut done).await;
        done
    }

    async fn tell_up_to_its_end(&self, part: Part, done: &mut Done) -> End {
        let Ok(_place) = self.places.acquire().await else {
            return End::Turn;
        };
        let began = Instant::now();
        let (mut limit, mut seen, mut is_slow) = (part.limit, part.seen, false);
        loop {
            if seen.as_ref().is_some_and(Seen::is_told) {
                done.pos = part.upto;
                return End::All;
            }
            let is_over = done.told > 0 && began.elapsed() >= self.limits.hook_turn_max;
            let is_away = !part.has_waited && done.told == 0 && self.is_away();
            if is_over || is_away || self.is_quiet() || self.closing.is_cancelled() {
                return End::Turn;
            }
            let Some(next) = seen.as_mut().and_then(Seen::next) else {
                // A host that takes its time is told one before it has to be read again.
                is_slow |= seen.is_some_and(|seen| !seen.changes.is_empty());
                let stretch = Stretch {
                    after: done.pos,
                    upto: Some(part.upto),
                    limit: if is_slow { 1 } else { limit.max(1) },
                };
                limit = self.limits.hook_lines_max;
                seen = match self.read(Some(part.lane), stretch).await {
                    Ok(found) => Some(Seen::new(found)),
                    Err(error) => return End::Unread(error),
                };
                continue;
            };
            let position = next.position.get();
            if let Err(failure) = self.tell(next).await {
                return End::Failed(failure);
            }
            done.told += 1;
            done.pos = position;
        }
    }

    /// Tells the host one change.
    async fn tell(&self, change: Change) -> Result<(), Failure> {
        let (id, topic, at) = (change.id, change.topic(), change.at);
        let position = change.position.get();
        let take = Arc::clone(&self.hook.take);
        // In a task of its own, so that its panic ends nothing else; it ends with whoever waits.
        let asked = AbortOnDropHandle::new(tokio::spawn(async move { take(change).await }));
        let why = match timeout(self.hook.settings.wait_max, asked).await {
            Ok(Ok(Ok(()))) => {
                self.counters.told.fetch_add(1, Ordering::Relaxed);
                if topic == Topic::ChangesMissed {
                    self.counters.missed.fetch_add(1, Ordering::Relaxed);
                }
                return Ok(());
            }
            Ok(Ok(Err(why))) => why,
            Ok(Err(panicked)) => panicked.into(),
            Err(late) => late.into(),
        };
        self.counters.failed.fetch_add(1, Ordering::Relaxed);
        Err(Failure {
            change: id,
            topic,
            position,
            at,
            why,
        })
    }

    fn is_away(&self) -> bool {
        self.is_away.load(Ordering::Relaxed)
    }

    fn is_quiet(&self) -> bool {
        self.quiet_until.load(Ordering::Relaxed) > clock::now().as_micros()
    }

    /// What is told in place of what can not be told any more.
    fn missed(&self, lane: Option<Uuid>, after: i64, upto: i64) -> Change {
        let name = self.hook.name.as_str();
        tracing::error!(
            hook = name,
            after,
            upto,
            "the change log was cut before a hook was told of it; the hook is told so"
        );
        let (after, upto) = (Position::stored(after), Position::stored(upto));
        // The event at that position has an id of its own.
        let id = Event::id_at(self.store.deployment, upto).as_u128() ^ 2;
        let conversation = lane.filter(|lane| !lane.is_nil());
        let lane = conversation.map_or(0, |lane| lane.as_u128());
        Change {
            id: Uuid::from_u128(id ^ lane),
            position: upto,
            at: clock::now(),
            kind: ChangeKind::Missed {
                conversation: conversation.map(ConversationId::from),
                after,
                upto,
            },
        }
    }
}

impl Seen {
    fn new(found: Found) -> Self {
        Self {
            at: Instant::now(),
            changes: found
                .changes
                .into_iter()
                .map(|(_, change)| change)
                .collect(),
            is_all: found.is_all,
        }
    }

    fn is_told(&self) -> bool {
        self.is_all && self.changes.is_empty()
    }

    /// The next change, unless there is none or it may be otherwise by now.
    fn next(&mut self) -> Option<Change> {
        match self.at.elapsed() < FRESH {
            true => self.changes.pop_front(),
            false => None,
        }
    }
}

/// Up to where a lane was told before a change.
pub(super) fn before(change: &Change) -> i64 {
    match &change.kind {
        ChangeKind::Missed { after, .. } => after.get(),
        _ => change.position.get() - 1,
    }
}
