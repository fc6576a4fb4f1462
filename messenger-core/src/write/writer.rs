//! The task that writes: one transaction after the other, each with whatever has queued.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, QueryResult};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use super::batch::Batch;
use super::job::Job;
use super::needs::Needs;
use super::{flush, load};
use crate::clock;
use crate::error::Error;
use crate::events::{Change, Hub};
use crate::ids::{Position, Stamp};
use crate::limits::Limits;
use crate::stats::{Committed, Counters, TRACE_TARGET};
use crate::store::rows::Rows;
use crate::store::{SHARD, Store, fence, is_constraint, statement};

/// A transaction that takes longer than this is worth a line in the log.
const SLOW: Duration = Duration::from_millis(500);

/// Turns of the scheduler for which a batch is held open. Each runs some tens of callers.
const TURNS_MAX: usize = 8;

pub(super) struct Task {
    store: Arc<Store>,
    hub: Hub,
    limits: Limits,
    rows: Rows,
    batch: Batch,
    counters: Arc<Counters>,
    /// Told when files are nobody's any more.
    freed: Arc<Notify>,
    /// What locks the head of the change log on PostgreSQL.
    lock: String,
}

type Jobs = Vec<Box<dyn Job>>;
type Queue = mpsc::Receiver<Box<dyn Job>>;

/// Why a transaction did not take place.
enum Failure {
    /// One operation spoils it for the others: each is tried alone.
    OneOf(Error),
    /// None took place, unless the connection was lost in the middle of the commit.
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
    pub(super) fn new(
        store: Arc<Store>,
        hub: Hub,
        limits: Limits,
        counters: Arc<Counters>,
        freed: Arc<Notify>,
    ) -> Self {
        let rows = Rows::new(store.backend());
        let batch = Batch::new(store.deployment);
        Self {
            store,
            hub,
            limits,
            rows,
            batch,
            counters,
            freed,
            lock: format!(
                "SELECT pos, fence_start, incarnation, {} FROM sync_heads WHERE shard = ? FOR UPDATE",
                fence::INCARNATION
            ),
        }
    }

    /// Writes until the engine closes, and then what is still queued.
    pub(super) async fn run(mut self, mut queue: Queue, closing: CancellationToken) {
        while let Some(first) = tokio::select! {
            biased;
            () = closing.cancelled() => {
                queue.close(); // nothing more comes in, and what is there is still written
                queue.recv().await
            }
            first = queue.recv() => first,
        } {
            self.write(vec![first], &mut queue).await;
            self.store.bound_log().await;
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
                        Err(Failure::OneOf(error)) => self.fail(alone, &error),
                        Err(Failure::All(error) | Failure::Silent(error)) => {
                            self.fail(alone, &error);
                            return self.fail(rest.collect(), &error);
                        }
                    }
                }
            }
            Err(Failure::OneOf(error)) => self.fail(jobs, &error),
            Err(Failure::All(error)) => self.fail(jobs, &error),
            Err(Failure::Silent(error)) => {
                // What has queued meanwhile would wait as long for the same.
                while let Ok(job) = queue.try_recv() {
                    jobs.push(job);
                }
                self.fail(jobs, &error);
            }
        }
    }

    fn succeed(&self, jobs: Jobs, changes: Vec<Change>) {
        self.hub.committed(changes);
        for job in jobs {
            job.answer();
        }
    }

    /// Runs one transaction. After a failure nothing of it is left here, nor in the database unless
    /// the connection was lost in the middle of the commit.
    async fn transaction(
        &mut self,
        jobs: &mut Jobs,
        queue: Option<&mut Queue>,
    ) -> Result<Vec<Change>, Failure> {
        let started = Instant::now();
        let span = tracing::info_span!(
            target: TRACE_TARGET,
            parent: None,
            "batch",
            writes = tracing::field::Empty
        );
        let outcome = match self.store.backend() {
            // The other end of a connection can fall silent, which no statement would notice.
            DbBackend::Postgres => {
                let wait = self.limits.transaction_wait_max;
                match tokio::time::timeout(wait, self.traced(jobs, queue, span)).await {
                    Ok(outcome) => outcome,
                    Err(late) => Err(Failure::Silent(Error::Unavailable(Arc::new(late)))),
                }
            }
            _ => self.traced(jobs, queue, span).await,
        };
        let took = started.elapsed();
        if let Ok(changes) = &outcome
            && is_asked_for(jobs)
        {
            self.count(jobs, changes, took);
        }
        if took > SLOW {
            tracing::warn!(
                duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                operations = jobs.len(),
                "a transaction was slow"
            );
        }
        if let Err(failure) = &outcome {
            self.batch.forget();
            let lost = match failure {
                Failure::Silent(_) => {
                    tracing::error!("the database has fallen silent; the writer connects anew");
                    true
                }
                // It may also lead to a standby, which was the primary a moment ago.
                Failure::All(Error::Unavailable(_)) => true,
                Failure::All(_) | Failure::OneOf(_) => false,
            };
            // A full disk makes SQLite roll back by itself, which the driver does not notice: on
            // that connection it would begin inside of a transaction that is never committed, and
            // what it commits would be lost.
            if lost || self.store.backend() == DbBackend::Sqlite {
                self.store.give_up_writer().await;
            }
        }
        outcome
    }

    fn count(&self, jobs: &Jobs, changes: &[Change], took: Duration) {
        let asked = || jobs.iter().filter(|job| !job.is_upkeep());
        let refused = asked().filter(|job| job.is_refused()).count() as u64;
        let sent = changes.iter().filter(|change| change.is_new_message());
        let done = Committed {
            writes: asked().count() as u64 - refused,
            refused,
            messages_sent: sent.count() as u64,
        };
        self.counters.committed(done, took);
    }

    fn fail(&self, jobs: Jobs, error: &Error) {
        if jobs.is_empty() {
            return;
        }
        let asked = jobs.iter().filter(|job| !job.is_upkeep());
        self.counters.failed(asked.count());
        tracing::warn!(
            error = error as &dyn std::error::Error,
            operations = jobs.len(),
            "a transaction failed"
        );
        for job in jobs {
            job.fail(error.clone());
        }
    }

    async fn traced(
        &mut self,
        jobs: &mut Jobs,
        queue: Option<&mut Queue>,
        span: Span,
    ) -> Result<Vec<Change>, Failure> {
        let attempt = self.attempt(jobs, queue, &span);
        attempt.instrument(span.clone()).await
    }

    async fn attempt(
        &mut self,
        jobs: &mut Jobs,
        queue: Option<&mut Queue>,
        span: &Span,
    ) -> Result<Vec<Change>, Failure> {
        let transaction = self.begin().await?;
        // The head's lock comes first, so that writers wait for each other here and nowhere
        // else, and everything read after it is what the writer before has committed.
        let head = self.lock_head(&transaction).await?;
        if let Some(queue) = queue {
            self.gather(jobs, queue).await;
        }
        span.record("writes", jobs.len());
        for job in jobs.iter() {
            span.follows_from(job.span());
        }
        let now = clock::now();
        self.batch
            .begin(now, &head, self.limits.working_set_rows_max);

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
        let committing = Instant::now();
        let commit = tracing::info_span!(target: TRACE_TARGET, "commit");
        transaction.commit().instrument(commit).await?;
        if is_asked_for(jobs) {
            self.counters.commit_seconds.add_time(committing.elapsed());
        }
        if self.batch.frees {
            self.freed.notify_one();
        }
        Ok(self.batch.committed())
    }

    /// Takes what has queued, now that nothing more has to be waited for.
    async fn gather(&self, jobs: &mut Jobs, queue: &mut Queue) {
        // Callers whom the transaction before has answered get to queue again, in as many turns
        // of the scheduler as bring more of them, but not in many: half a batch costs almost as
        // much as a whole, and others may wait for the lock.
        let mut queued = 0;
        for _ in 0..TURNS_MAX {
            tokio::task::yield_now().await;
            if queue.len() <= queued || queue.len() >= self.limits.batch_operations_max {
                break;
            }
            queued = queue.len();
        }
        let mut bytes: usize = jobs.iter().map(|job| job.bytes()).sum();
        while jobs.len() < self.limits.batch_operations_max
            && bytes < self.limits.batch_bytes_max
            && let Ok(job) = queue.try_recv()
        {
            // Whoever has gone away before it began is not told, and may have sent it again.
            if !job.is_abandoned() {
                bytes += job.bytes();
                jobs.push(job);
            }
        }
    }

    /// Begins, once more if the connection turns out to have died since the last time.
    async fn begin(&self) -> Result<DatabaseTransaction, Failure> {
        let begun = match self.store.begin_write().await {
            Err(Error::Unavailable(_)) if self.store.backend() == DbBackend::Postgres => {
                self.store.begin_write().await
            }
            begun => begun,
        };
        begun.map_err(Failure::All)
    }

    /// Locks the head of the change log, and starts a new fence if this is not the database any
    /// more that it was: a server that was restarted may have lost the end of its history.
    async fn lock_head(&self, db: &DatabaseTransaction) -> Result<Stamp, Failure> {
        let lost = || Failure::All(Error::Internal("the change log has no head".to_owned()));
        if self.store.backend() != DbBackend::Postgres {
            // Nothing happens to an SQLite file under an open connection.
            let sql = "SELECT pos, fence_start FROM sync_heads WHERE shard = ?";
            let row = db.query_one_raw(statement(db, sql, [SHARD.into()])).await?;
            return head_in(&row.ok_or_else(lost)?);
        }
        let row = db
            .query_one_raw(statement(db, &self.lock, [SHARD.into()]))
            .await?
            .ok_or_else(lost)?;
        let (known, actual): (String, String) =
            (row.try_get_by_index(2)?, row.try_get_by_index(3)?);
        if known == actual {
            return head_in(&row);
        }
        tracing::warn!("the database was restarted or replaced; a new fence begins");
        fence::start(
            db,
            DbBackend::Postgres,
            self.limits.planted,
            fence::Before::Holds,
        )
        .await?;
        let head = fence::head(db).await.map_err(Failure::All)?;
        Ok(fence::stamp(&head))
    }
}

/// Whether there is anything in it that is not the engine's own.
fn is_asked_for(jobs: &Jobs) -> bool {
    jobs.iter().any(|job| !job.is_upkeep())
}

/// The head of the change log, which a row begins with.
fn head_in(row: &QueryResult) -> Result<Stamp, Failure> {
    Ok(Stamp {
        shard: SHARD,
        fence: Position::stored(row.try_get_by_index(1)?),
        as_of: Position::stored(row.try_get_by_index(0)?),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::messages::{ClientMessageId, MessageBody, NewMessage, Sent};
    use crate::users::{DisplayName, HostUser, Username};
    use crate::{ConversationId, MessengerEngine, Result, Secret, UserId};

    struct Room {
        engine: MessengerEngine,
        sender: UserId,
        conversation: ConversationId,
        sent: i64,
    }

    impl Room {
        async fn open(file: &Path, limits: Limits) -> Self {
            let engine = MessengerEngine::builder(format!("sqlite://{}", file.display()))
                .secret(Secret::new("Zq8vK2mWx4Lr7TnB0pYc5HsD9fGjE3aU").expect("long"))
                .limits(limits)
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
            let alice = engine.trust(ids[0]);
            let opened = engine.conversations().open_direct(&alice, ids[1]).await;
            Self {
                conversation: opened.expect("stored").id,
                engine,
                sender: ids[0],
                sent: 0,
            }
        }

        async fn send(&mut self) -> Result<Sent> {
            let message = NewMessage::new(
                ClientMessageId::parse(&uuid::Uuid::now_v7().to_string())?,
                MessageBody::parse("x".repeat(2_000), self.engine.limits())?,
            );
            let sender = self.engine.trust(self.sender);
            let messages = self.engine.messages();
            let sent = messages.send(&sender, self.conversation, message).await?;
            self.sent += 1;
            Ok(sent)
        }

        /// Lets the database grow no more, as far as the connection that writes now knows.
        async fn fill_up(&mut self) -> Error {
            let transaction = self.engine.store().begin_write().await.expect("it begins");
            transaction
                .execute_unprepared("PRAGMA max_page_count = 1")
                .await
                .expect("it is set to what there is");
            transaction.commit().await.expect("nothing to write");
            loop {
                if let Err(error) = self.send().await {
                    return error;
                }
            }
        }
    }

    /// Messages that a connection of somebody else sees.
    fn stored(file: &Path) -> i64 {
        let db = rusqlite::Connection::open(file).expect("it opens");
        db.query_row("SELECT count(*) FROM messages", [], |row| row.get(0))
            .expect("it is not locked")
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_acknowledged_after_a_full_disk_is_stored() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("app.db");
        let mut room = Room::open(&file, Limits::default()).await;

        for _ in 0..3 {
            let full = room.fill_up().await;
            assert!(matches!(full, Error::StorageFull(_)), "{full:?}");
            // There is room again: a new connection does not know of the limit.
            room.send().await.expect("there is room");
            assert_eq!(stored(&file), room.sent);
        }

        room.engine.close().await;
        assert_eq!(stored(&file), room.sent);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn readiness_is_shown_by_a_write() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("app.db");
        let room = Room::open(&file, Limits::default()).await;
        let db = rusqlite::Connection::open(&file).expect("it opens");
        let written = "SELECT count(*) FROM sync_meta WHERE key = 'ready_at'";
        let written = || db.query_row(written, [], |row| row.get::<_, i64>(0));
        assert_eq!(written(), Ok(0));

        room.engine.ready().await.expect("there is room");

        assert_eq!(written(), Ok(1));
    }

    /// What the driver does not notice, without which the above would be for nothing.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_connection_whose_transaction_failed_is_not_used_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("app.db");
        let mut room = Room::open(&file, Limits::default()).await;
        let other = rusqlite::Connection::open(&file).expect("it opens");

        room.fill_up().await;
        other.execute_batch("BEGIN IMMEDIATE").expect("free");
        let locked = room.send().await;
        assert!(matches!(locked, Err(Error::Busy { .. })), "{locked:?}");
        other.execute_batch("ROLLBACK").expect("begun");

        for _ in 0..3 {
            room.send().await.expect("nobody holds the lock");
            assert_eq!(stored(&file), room.sent);
        }
    }

    /// Without the bound it grows for as long as there is always somebody who reads.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn readers_who_overlap_do_not_make_the_log_grow_without_end() {
        const LOG_BYTES_MAX: u64 = 1024 * 1024;
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("app.db");
        let limits = Limits {
            sqlite_log_bytes_max: LOG_BYTES_MAX,
            ..Limits::default()
        };
        let mut room = Room::open(&file, limits).await;
        let done = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let (file, done) = (file.clone(), done.clone());
                std::thread::spawn(move || {
                    let db = rusqlite::Connection::open(&file).expect("it opens");
                    while !done.load(Ordering::SeqCst) {
                        let read = "BEGIN; SELECT count(*) FROM messages";
                        db.execute_batch(read).expect("it reads");
                        std::thread::sleep(Duration::from_millis(30));
                        db.execute_batch("COMMIT").expect("it has read");
                    }
                })
            })
            .collect();

        let mut longest = 0;
        for _ in 0..300 {
            room.send().await.expect("stored");
            let log = std::fs::metadata(folder.path().join("app.db-wal"));
            longest = longest.max(log.expect("it is there").len());
        }
        done.store(true, Ordering::SeqCst);
        for reader in readers {
            reader.join().expect("it ends");
        }

        assert!(
            longest > LOG_BYTES_MAX,
            "the bound was not reached: {longest}"
        );
        assert!(longest < 3 * LOG_BYTES_MAX, "{longest}");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn live_events_do_not_wait_behind_those_who_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let limits = Limits {
            read_connections: 1,
            ..Limits::default()
        };
        let mut room = Room::open(&folder.path().join("app.db"), limits).await;
        let listener = room.engine.trust(room.sender);
        let mut events = room
            .engine
            .events()
            .subscribe(&listener)
            .await
            .expect("open");
        let (begun, has_begun) = tokio::sync::oneshot::channel();
        let engine = room.engine.clone();
        let reading = tokio::spawn(async move {
            let read = |_db| async move {
                let _ = begun.send(());
                std::future::pending::<Result<()>>().await
            };
            engine.store().snapshot(engine.tasks(), read).await
        });
        has_begun.await.expect("it reads");

        room.send().await.expect("stored");
        // Past a few looks of the hub at the change log, which must not wait for the reader.
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            room.send().await.expect("stored");
        }
        for _ in 0..4 {
            let event = futures_util::StreamExt::next(&mut events);
            let event = tokio::time::timeout(Duration::from_secs(8), event).await;
            event.expect("in time").expect("open").expect("an event");
        }
        reading.abort();
    }
}
