//! Keeps the index of messages up with the change log, a little behind those who send.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::queries::{self, Reached, Step};
use crate::error::{Error, Result};
use crate::ids::UserId;
use crate::limits::Limits;
use crate::places::{Place, Places};
use crate::stats::Counters;
use crate::store::Store;
use crate::tasks::Tasks;
use crate::write::{Batch, Needs, Operation, Writer};

/// A position that is before all that anybody waits for.
const NOBODY: i64 = i64::MIN;

/// How long nobody must have written for the moment to be quiet.
const QUIET: Duration = Duration::from_millis(50);

/// How long to wait before a search is tried again for which there was no turn.
const AGAIN: Duration = Duration::from_secs(1);

/// A handle to the task that brings the index further.
///
/// No send waits for the index: words are written in bulk, through the one writer, where they cost a
/// fraction of what they would cost one message at a time, and in moments when nobody else writes, up
/// to a bound. Who searches waits for it instead, for the moment that it takes to have what was sent
/// before.
#[derive(Debug)]
pub(crate) struct Index {
    /// Somebody searches.
    asked: Notify,
    /// The last position that somebody has waited for.
    asked_for: AtomicI64,
    reached: watch::Sender<Reached>,
    /// Who waits to search, and searches.
    searchers: Arc<Places>,
    /// Whose turn it is.
    turns: Arc<Semaphore>,
}

impl Index {
    /// Starts the task.
    pub(crate) fn start(
        store: Arc<Store>,
        writer: Writer,
        limits: Limits,
        counters: Arc<Counters>,
        tasks: &Tasks,
    ) -> Arc<Self> {
        let index = Arc::new(Self {
            asked: Notify::new(),
            asked_for: AtomicI64::new(NOBODY),
            reached: watch::Sender::new(Reached::NOTHING),
            searchers: Places::new(
                limits.searches_waiting_max,
                limits.searches_per_user_max,
                AGAIN,
            ),
            turns: Arc::new(Semaphore::new(limits.searches_max)),
        });
        let closing = tasks.closing().clone();
        let task = Task {
            index: index.clone(),
            tasks: tasks.clone(),
            store,
            writer,
            limits,
            counters,
        };
        tasks.start(task.run(closing));
        index
    }

    /// Takes somebody among those who search or wait for their turn, until what this returns is dropped.
    pub(super) fn line_up(&self, user: UserId) -> Result<Place> {
        self.searchers.enter(user)
    }

    /// Waits for a turn to search.
    pub(super) async fn turn(&self, wait_max: Duration) -> Result<OwnedSemaphorePermit> {
        let turn = Arc::clone(&self.turns).acquire_owned();
        match tokio::time::timeout(wait_max, turn).await {
            Ok(turn) => turn.map_err(|_| Error::Closed),
            Err(_) => Err(Error::Busy { retry_after: AGAIN }),
        }
    }

    /// Waits until the index has what the change log says up to a position, and all that is older.
    /// Returns whether it has.
    pub(super) async fn reach(&self, position: i64, wait_max: Duration) -> bool {
        let mut reached = self.reached.subscribe();
        self.asked_for.fetch_max(position, Ordering::Relaxed);
        self.asked.notify_one();
        let there = async {
            loop {
                let now = *reached.borrow_and_update();
                if now.position >= position && now.is_filled {
                    return true;
                }
                if reached.changed().await.is_err() {
                    return false;
                }
            }
        };
        tokio::time::timeout(wait_max, there).await.unwrap_or(false)
    }
}

struct Task {
    index: Arc<Index>,
    store: Arc<Store>,
    writer: Writer,
    limits: Limits,
    counters: Arc<Counters>,
    tasks: Tasks,
}

impl Task {
    async fn run(self, closing: CancellationToken) {
        let work = async {
            loop {
                if let Err(error) = self.catch_up().await {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "the index for searches could not be brought further; it is tried again"
                    );
                    // Whoever searches does not make it be tried more often.
                    tokio::time::sleep(self.limits.search_index_interval).await;
                }
                tokio::select! {
                    () = self.index.asked.notified() => {}
                    () = tokio::time::sleep(self.limits.search_index_interval) => {}
                }
            }
        };
        closing.run_until_cancelled(work).await;
    }

    /// Takes steps until there is nothing to do, or nothing that can not wait.
    async fn catch_up(&self) -> Result<()> {
        let mut before: Option<Step> = None;
        loop {
            let most = self.limits.search_indexed_at_once_max;
            let next = move |db| async move { queries::next(&db, most).await };
            let (reached, step) = self.store.snapshot(&self.tasks, next).await?;
            self.index.reached.send_replace(reached);
            let Some(step) = step else { return Ok(()) };
            if !self.is_due(&step) {
                return Ok(());
            }
            if before.is_some_and(|before| before.is_where(&step)) {
                return Err(Error::Internal(
                    "a step of the index was not taken".to_owned(),
                ));
            }
            self.writer.run(Take(step.clone())).await?;
            before = Some(step);
        }
    }

    /// Whether somebody has asked for a step, nobody waits because of it, or it can wait no longer.
    fn is_due(&self, step: &Step) -> bool {
        let asked_for = self.index.asked_for.load(Ordering::Relaxed);
        let is_awaited = asked_for > NOBODY && step.is_before(asked_for);
        let is_quiet = self.writer.queued() == 0 && self.counters.grew_ago() >= QUIET;
        is_awaited || is_quiet || step.behind() > self.limits.search_index_behind_max
    }
}

/// Writes a step beside whatever else is written.
struct Take(Step);

impl Operation for Take {
    type Output = ();
    const IS_UPKEEP: bool = true;

    fn needs(&self, _needs: &mut Needs) {}

    fn apply(&self, batch: &mut Batch) -> Result<()> {
        batch.index(self.0.clone());
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.0.bytes()
    }
}
