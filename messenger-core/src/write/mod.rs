//! The one write path.
//!
//! An [`Operation`] names the rows that it must see and then decides over them in memory. The
//! [`Writer`] takes whatever operations have queued by the time it holds the log's head, loads the
//! union of their needs, applies them one by one, flushes what changed, commits, and only then
//! answers and announces. So many operations share one `fsync`, a refused operation leaves no
//! trace, and a caller who goes away in the middle changes nothing.

mod batch;
mod flush;
mod job;
mod load;
mod needs;
mod once;
mod prune;
mod table;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, oneshot};
use tracing::Instrument;

pub(crate) use self::batch::{Batch, LogRefs};
use self::job::{Job, Queued};
pub(crate) use self::needs::{Needs, direct_key};
pub use self::once::ClientWriteId;
use self::once::Once;
pub(crate) use self::once::{Fingerprint, Repeatable};
use crate::error::{Error, Result};
use crate::events::Hub;
use crate::ids::{Position, UserId};
use crate::limits::Limits;
use crate::stats::{Counters, TRACE_TARGET};
use crate::store::Store;
use crate::tasks::Tasks;

/// A write as pure rules: no I/O, no clock but [`Batch::now`], no ids but [`Batch::id`].
pub(crate) trait Operation: Send + 'static {
    type Output: Send + 'static;

    /// Whether it is the engine's own, which nobody has asked for and no count of writes has.
    const IS_UPKEEP: bool = false;

    /// Names every row that [`apply`](Self::apply) looks at. What is not named is not there.
    fn needs(&self, needs: &mut Needs);

    /// Decides, and changes the batch.
    ///
    /// All checks come first: past its first change an operation can not fail. It may be applied
    /// again, to a fresh batch, when the transaction of the first one could not be committed.
    fn apply(&self, batch: &mut Batch) -> Result<Self::Output>;

    /// Bytes of content, which bound a transaction.
    fn bytes(&self) -> usize {
        0
    }
}

/// A write that changes nothing of anybody's, and shows that one could.
pub(crate) struct Nothing;

impl Operation for Nothing {
    type Output = ();
    const IS_UPKEEP: bool = true;

    fn needs(&self, _: &mut Needs) {}

    fn apply(&self, batch: &mut Batch) -> Result<()> {
        batch.probe();
        Ok(())
    }
}

/// A handle to the task that writes.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    queue: mpsc::Sender<Box<dyn Job>>,
    wait_max: Duration,
}

impl Writer {
    /// Starts the task that writes, and the one that prunes the change log through it. `freed` is
    /// told when files are nobody's any more.
    pub(crate) fn start(
        store: Arc<Store>,
        hub: Hub,
        limits: &Limits,
        counters: &Arc<Counters>,
        freed: &Arc<Notify>,
        tasks: &Tasks,
    ) -> Self {
        let (queue, jobs) = mpsc::channel(limits.writes_queued_max);
        let (counters, freed) = (counters.clone(), freed.clone());
        let task = writer::Task::new(store.clone(), hub, limits.clone(), counters, freed);
        tasks.start(task.run(jobs, tasks.closing().clone()));
        let writer = Self {
            queue,
            wait_max: limits.write_queue_wait_max,
        };
        tasks.start(prune::run(
            store,
            writer.clone(),
            limits.clone(),
            tasks.closing().clone(),
        ));
        writer
    }

    /// How many operations wait.
    pub(crate) fn queued(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }

    /// Runs an operation in the next transaction and returns its outcome after the commit.
    ///
    /// # Errors
    ///
    /// - [`Error::Busy`]: the queue stayed full; nothing was stored.
    /// - [`Error::Closed`]: the engine is closed; nothing was stored.
    /// - what the operation refuses, or why the transaction failed.
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, the operation took place whole or not at all.
    pub(crate) async fn run<O: Operation>(&self, operation: O) -> Result<O::Output> {
        let span = tracing::info_span!(target: TRACE_TARGET, "write");
        let (reply, answer) = oneshot::channel();
        let place = match self.queue.try_reserve() {
            Ok(place) => place,
            Err(mpsc::error::TrySendError::Closed(())) => return Err(Error::Closed),
            Err(mpsc::error::TrySendError::Full(())) => {
                match tokio::time::timeout(self.wait_max, self.queue.reserve()).await {
                    Ok(place) => place.map_err(|_| Error::Closed)?,
                    Err(_) => {
                        return Err(Error::Busy {
                            retry_after: Duration::from_secs(1),
                        });
                    }
                }
            }
        };
        place.send(Box::new(Queued::new(operation, reply, span.clone())));
        answer.instrument(span).await.map_err(|_| Error::Closed)?
    }

    /// Runs an operation as [`run`](Self::run) does, but once only under a client's id. Returns its
    /// outcome and the position at which that holds.
    ///
    /// # Errors
    ///
    /// Also [`Error::ClientWriteConflict`]: the actor has asked something else under this id.
    pub(crate) async fn run_once<O: Repeatable>(
        &self,
        operation: O,
        actor: UserId,
        id: Option<ClientWriteId>,
    ) -> Result<(O::Output, Position)> {
        let once = Once {
            operation,
            actor,
            id,
        };
        self.run(once).await
    }
}
