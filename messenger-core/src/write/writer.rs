//! The task that writes: one transaction after the other, each with whatever has queued.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, Statement};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::batch::Batch;
use super::job::Job;
use super::needs::Needs;
use super::{flush, load};
use crate::clock;
use crate::error::Error;
use crate::events::{Change, Hub};
use crate::limits::Limits;
use crate::store::rows::Rows;
use crate::store::{SHARD, Store, is_constraint};

/// A transaction that takes longer than this is worth a line in the log.
const SLOW: Duration = Duration::from_millis(500);

pub(super) struct Task {
    store: Arc<Store>,
    hub: Hub,
    limits: Limits,
    rows: Rows,
    batch: Batch,
}

type Jobs = Vec<Box<dyn Job>>;
type Queue = mpsc::Receiver<Box<dyn Job>>;

/// Why a transaction did not take place.
enum Failure {
    /// One operation spoils it for the others: each is tried alone.
    OneOf(Error),
    /// None can take place.
    All(Error),
    /// The connection does not answer: whether any took place is not known.
    Silent(Error),
}

impl From<DbErr> for Failure {
    fn from(error: DbErr) -> Self {
        if is_constraint(&error) {
            Self::OneOf(error.into())
        } else {
            Self::All(error.into())
        }
    }
}

impl Task {
    pub(super) fn new(store: Arc<Store>, hub: Hub, limits: Limits) -> Self {
        let rows = Rows::new(store.backend());
        let batch = Batch::new(store.deployment);
        Self {
            store,
            hub,
            limits,
            rows,
            batch,
        }
    }

    /// Writes until the engine closes, and then what is still queued.
    pub(super) async fn run(mut self, mut queue: Queue, closing: CancellationToken) {
        while let Some(first) = tokio::select! {
            biased;
            first = queue.recv() => first,
            () = closing.cancelled() => {
                queue.close();
                queue.recv().await
            }
        } {
            self.write(vec![first], &mut queue).await;
        }
    }

    /// Writes the jobs and what has queued after them together, or one by one where one of them
    /// can not be written.
    async fn write(&mut self, mut jobs: Jobs, queue: &mut Queue) {
        match self.transaction(&mut jobs, Some(queue)).await {
            Ok(changes) => self.succeed(jobs, changes),
            Err(Failure::OneOf(_)) if jobs.len() > 1 => {
                let mut rest = jobs.into_iter();
                while let Some(job) = rest.next() {
                    let mut alone = vec![job];
                    match self.transaction(&mut alone, None).await {
                        Ok(changes) => self.succeed(alone, changes),
                        Err(Failure::OneOf(error)) => fail(alone, &error),
                        Err(Failure::All(error) | Failure::Silent(error)) => {
                            fail(alone, &error);
                            return fail(rest.collect(), &error);
                        }
                    }
                }
            }
            Err(Failure::OneOf(error)) => fail(jobs, &error),
            Err(Failure::All(error) | Failure::Silent(error)) => {
                // What has queued meanwhile would wait as long for the same.
                self.gather(&mut jobs, queue).await;
                fail(jobs, &error);
            }
        }
    }

    fn succeed(&self, jobs: Jobs, changes: Vec<Change>) {
        self.hub.committed(changes);
        for job in jobs {
            job.answer();
        }
    }

    /// Runs one transaction. After a failure nothing of it is left, here or in the database.
    async fn transaction(
        &mut self,
        jobs: &mut Jobs,
        queue: Option<&mut Queue>,
    ) -> Result<Vec<Change>, Failure> {
        let started = Instant::now();
        let outcome = match self.store.backend() {
            // The other end of a connection can fall silent, which no statement would notice.
            DbBackend::Postgres => {
                let wait = self.limits.transaction_wait_max;
                match tokio::time::timeout(wait, self.attempt(jobs, queue)).await {
                    Ok(outcome) => outcome,
                    Err(late) => Err(Failure::Silent(Error::Unavailable(Arc::new(late)))),
                }
            }
            _ => self.attempt(jobs, queue).await,
        };
        let took = started.elapsed();
        if took > SLOW {
            tracing::warn!(
                duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                operations = jobs.len(),
                "a transaction was slow"
            );
        }
        if outcome.is_err() {
            self.batch.forget();
        }
        if let Err(Failure::Silent(_)) = outcome {
            tracing::error!("the database has fallen silent; the writer connects anew");
            self.store.replace_writer(&self.limits).await;
        }
        outcome
    }

    async fn attempt(
        &mut self,
        jobs: &mut Jobs,
        queue: Option<&mut Queue>,
    ) -> Result<Vec<Change>, Failure> {
        let transaction = self.begin().await?;
        // The head's lock comes first, so that writers wait for each other here and nowhere
        // else, and everything read after it is what the writer before has committed.
        let head = self.lock_head(&transaction).await?;
        if let Some(queue) = queue {
            self.gather(jobs, queue).await;
        }
        let now = clock::now();
        self.batch
            .begin(now, head, self.limits.working_set_rows_max);

        let mut needs = Needs::default();
        for job in jobs.iter() {
            job.needs(&mut needs);
        }
        load::load(&transaction, &mut self.rows, needs, &mut self.batch).await?;
        for job in jobs.iter_mut() {
            if let Err(panic) = job.apply(&mut self.batch) {
                tracing::error!(panic = panic.0, "an operation panicked");
                return Err(Failure::OneOf(Error::Internal(panic.0)));
            }
        }
        flush::flush(&transaction, &mut self.rows, &self.batch).await?;
        transaction.commit().await?;
        Ok(self.batch.committed())
    }

    /// Takes what has queued, now that nothing more has to be waited for.
    async fn gather(&self, jobs: &mut Jobs, queue: &mut Queue) {
        // Callers whom the transaction before has answered get to queue again, in as many turns
        // of the scheduler as bring more of them: half a batch costs almost as much as a whole.
        let mut queued = 0;
        while queued < self.limits.batch_operations_max {
            tokio::task::yield_now().await;
            if queue.len() <= queued {
                break;
            }
            queued = queue.len();
        }
        let mut bytes: usize = jobs.iter().map(|job| job.bytes()).sum();
        while jobs.len() < self.limits.batch_operations_max
            && bytes < self.limits.batch_bytes_max
            && let Ok(job) = queue.try_recv()
        {
            bytes += job.bytes();
            jobs.push(job);
        }
    }

    /// Begins, once more if the connection has died since the last time.
    async fn begin(&self) -> Result<DatabaseTransaction, DbErr> {
        match self.store.begin_write().await {
            Err(_) => self.store.begin_write().await,
            begun => begun,
        }
    }

    async fn lock_head(&self, db: &DatabaseTransaction) -> Result<i64, Failure> {
        let backend = self.store.backend();
        let sql = match backend {
            DbBackend::Postgres => "SELECT pos FROM sync_heads WHERE shard = $1 FOR UPDATE",
            _ => "SELECT pos FROM sync_heads WHERE shard = ?",
        };
        let statement = Statement::from_sql_and_values(backend, sql, [SHARD.into()]);
        let row = db.query_one_raw(statement).await?.ok_or_else(|| {
            Failure::All(Error::Internal("the change log has no head".to_owned()))
        })?;
        Ok(row.try_get_by_index(0)?)
    }
}

fn fail(jobs: Jobs, error: &Error) {
    if jobs.is_empty() {
        return;
    }
    tracing::warn!(
        error = error as &dyn std::error::Error,
        operations = jobs.len(),
        "a transaction failed"
    );
    for job in jobs {
        job.fail(error.clone());
    }
}
