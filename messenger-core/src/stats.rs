//! What an engine counts, for whoever watches it.
//!
//! Each engine has its own numbers, which are atomics and cost nobody a lock; a host reads them
//! with whatever it watches its programs with.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::clock::{self, Timestamp};
use crate::hooks::HookCounters;
use crate::ids::Position;

/// What the engine's spans go by, for whoever traces with `tracing`: `write`, a write from its call to
/// its answer; `batch`, a transaction, which follows from the writes in it; and in that `commit`. They
/// say how many, and nothing of what or of whom.
pub const TRACE_TARGET: &str = "messenger_trace";

/// The numbers of one engine since it was opened, at one moment or very nearly so.
///
/// Counts only grow; what has no more than a present is said of the moment of the call.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct EngineStats {
    /// Messages that were stored, repeats not counted.
    pub messages_sent: u64,
    /// Writes that took place, of every kind; also those that had nothing to change. What the engine
    /// does for itself counts neither here nor in what follows: it indexes, it prunes, it erases what
    /// was deleted with its account.
    pub writes: u64,
    /// Writes that broke a rule and changed nothing.
    pub writes_refused: u64,
    /// Writes that could not be stored: the database was full, busy or away.
    pub writes_failed: u64,
    /// Writes that wait for the writer now.
    pub writes_queued: usize,
    /// Writes in each transaction that was committed.
    pub batch_writes: Histogram,
    /// Time of each of these transactions from its beginning to the end of its commit, in seconds.
    pub batch_seconds: Histogram,
    /// Time of each of these commits alone, in seconds.
    pub commit_seconds: Histogram,
    /// The last position of the change log that this engine knows of.
    pub head: Position,
    /// The last position that was handed to those who listen.
    pub delivered: Position,
    /// Transactions and questions that wait for the hub now.
    pub hub_queued: usize,
    /// How long ago the hub has read the end of the change log, which other engines write too.
    pub looked_ago: Duration,
    /// People who listen now, or did a few seconds ago.
    pub listeners: usize,
    /// Comings and goings that are remembered for those who begin to listen, up to
    /// [`Limits::hub_joins_max`](crate::Limits::hub_joins_max).
    pub moves_remembered: usize,
    /// Events that wait in the longest queue of a listener, as of a look every few seconds; of up to
    /// [`Limits::subscriber_queue_max`](crate::Limits::subscriber_queue_max).
    pub subscriber_queue_longest: usize,
    /// Events that were pushed out of full queues of listeners before all had read them: who is behind
    /// reads them from the database.
    pub subscriber_queue_overflows: u64,
    /// Passwords that are being hashed now.
    pub hashings: usize,
    /// Passwords that wait for that.
    pub hashings_queued: usize,
    /// Passwords that were not hashed, since too many waited.
    pub hashings_refused: u64,
    /// The hooks that are told of changes, in the order in which the host named them.
    pub hooks: Vec<HookStats>,
}

/// The numbers of one hook that is told of changes.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HookStats {
    /// Its name.
    pub name: String,
    /// Changes that it took.
    pub told: u64,
    /// Times that it did not take one.
    pub failed: u64,
    /// Changes that were left out, since it did not take them for too long.
    pub left_out: u64,
    /// Times that it was told that it has missed something.
    pub missed: u64,
    /// Conversations that wait now since telling them failed.
    pub waiting: usize,
    /// For how long something has waited that was not told yet; zero if nothing does.
    pub waiting_for: Duration,
    /// Up to where the change log was told, but for conversations that wait.
    pub position: Position,
    /// How many positions of the change log that is behind its head.
    pub lag: u64,
    /// It does not want to be told any more, and is not until the engine is opened again.
    pub is_stopped: bool,
}

impl HookStats {
    fn of(hook: &HookCounters, head: i64) -> Self {
        let position = hook.position.load(Ordering::Relaxed);
        let since = hook.waiting_since.load(Ordering::Relaxed);
        let waiting_for = match since {
            0 => Duration::ZERO,
            since => clock::now().since(Timestamp::from_micros(since)),
        };
        Self {
            name: hook.name.clone(),
            told: of_now(&hook.told),
            failed: of_now(&hook.failed),
            left_out: of_now(&hook.left_out),
            missed: of_now(&hook.missed),
            waiting: hook.waiting.load(Ordering::Relaxed),
            waiting_for,
            position: Position::stored(position),
            lag: u64::try_from(head.saturating_sub(position)).unwrap_or(0),
            is_stopped: hook.is_stopped.load(Ordering::Relaxed),
        }
    }
}

impl EngineStats {
    /// How many positions of the change log those who listen are behind.
    pub fn lag(&self) -> u64 {
        self.head.get().abs_diff(self.delivered.get())
    }
}

/// How often values of some sizes were seen.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Histogram {
    /// The upper bounds of the sizes, rising, each inclusive; beyond the last one is one more size.
    pub bounds: Vec<f64>,
    /// How many values each size has, and last of all those beyond every bound.
    pub counts: Vec<u64>,
    /// The sum of all values.
    pub sum: f64,
}

impl Histogram {
    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// Nanoseconds: 0.1 ms to 10 s.
const TIMES: [u64; 16] = [
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];
/// Writes of a transaction.
const SIZES: [u64; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];
const NANOSECONDS: f64 = 1_000_000_000.0;

/// A histogram that is written to, in whole units.
#[derive(Debug)]
pub(crate) struct Buckets {
    bounds: &'static [u64],
    /// Units in one of what is reported.
    unit: f64,
    counts: Vec<AtomicU64>,
    sum: AtomicU64,
}

impl Buckets {
    fn new(bounds: &'static [u64], unit: f64) -> Self {
        Self {
            bounds,
            unit,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }

    fn add(&self, value: u64) {
        let size = self.bounds.partition_point(|bound| *bound < value);
        self.counts[size].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    pub(crate) fn add_time(&self, time: Duration) {
        self.add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    }

    fn histogram(&self) -> Histogram {
        let of = |value: u64| value as f64 / self.unit;
        Histogram {
            bounds: self.bounds.iter().map(|bound| of(*bound)).collect(),
            counts: self.counts.iter().map(of_now).collect(),
            sum: of(of_now(&self.sum)),
        }
    }
}

fn of_now(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

/// What the writer and the hub count.
#[derive(Debug)]
pub(crate) struct Counters {
    messages_sent: AtomicU64,
    writes: AtomicU64,
    writes_refused: AtomicU64,
    writes_failed: AtomicU64,
    batch_writes: Buckets,
    batch_seconds: Buckets,
    pub(crate) commit_seconds: Buckets,
    head: AtomicI64,
    delivered: AtomicI64,
    /// When the hub has looked last, in nanoseconds since `opened`.
    looked_at: AtomicU64,
    /// When the change log was last seen to have grown, in nanoseconds since `opened`.
    grew_at: AtomicU64,
    opened: Instant,
    listeners: AtomicUsize,
    moves_remembered: AtomicUsize,
    subscriber_queue_longest: AtomicUsize,
    subscriber_queue_overflows: AtomicU64,
}

/// How the writes of a transaction ended that was committed.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Committed {
    pub(crate) writes: u64,
    pub(crate) refused: u64,
    pub(crate) messages_sent: u64,
}

/// What the hub says of itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HubNow {
    pub(crate) delivered: Position,
    pub(crate) listeners: usize,
    pub(crate) moves_remembered: usize,
}

/// What is not counted here but asked of its owner.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Present<'a> {
    pub(crate) writes_queued: usize,
    pub(crate) hub_queued: usize,
    pub(crate) hashings: usize,
    pub(crate) hashings_queued: usize,
    pub(crate) hashings_refused: u64,
    pub(crate) hooks: &'a [Arc<HookCounters>],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            messages_sent: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            writes_refused: AtomicU64::new(0),
            writes_failed: AtomicU64::new(0),
            batch_writes: Buckets::new(&SIZES, 1.0),
            batch_seconds: Buckets::new(&TIMES, NANOSECONDS),
            commit_seconds: Buckets::new(&TIMES, NANOSECONDS),
            head: AtomicI64::new(0),
            delivered: AtomicI64::new(0),
            looked_at: AtomicU64::new(0),
            grew_at: AtomicU64::new(0),
            opened: Instant::now(),
            listeners: AtomicUsize::new(0),
            moves_remembered: AtomicUsize::new(0),
            subscriber_queue_longest: AtomicUsize::new(0),
            subscriber_queue_overflows: AtomicU64::new(0),
        }
    }
}

impl Counters {
    pub(crate) fn committed(&self, done: Committed, took: Duration) {
        self.writes.fetch_add(done.writes, Ordering::Relaxed);
        self.writes_refused
            .fetch_add(done.refused, Ordering::Relaxed);
        self.messages_sent
            .fetch_add(done.messages_sent, Ordering::Relaxed);
        self.batch_writes.add(done.writes + done.refused);
        self.batch_seconds.add_time(took);
    }

    /// How long ago the change log was last seen to have grown, whoever has written to it.
    pub(crate) fn grew_ago(&self) -> Duration {
        let grew_at = Duration::from_nanos(of_now(&self.grew_at));
        self.opened.elapsed().saturating_sub(grew_at)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(crate) fn failed(&self, writes: usize) {
        self.writes_failed
            .fetch_add(writes as u64, Ordering::Relaxed);
    }

    /// Notes a position that the change log has.
    pub(crate) fn reached(&self, head: Position) {
        if self.head.fetch_max(head.get(), Ordering::Relaxed) < head.get() {
            self.grew_at.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Notes that the hub has looked at the change log.
    pub(crate) fn looked(&self) {
        self.looked_at.store(self.now(), Ordering::Relaxed);
    }

    pub(crate) fn hub(&self, now: HubNow) {
        self.delivered.store(now.delivered.get(), Ordering::Relaxed);
        self.listeners.store(now.listeners, Ordering::Relaxed);
        self.moves_remembered
            .store(now.moves_remembered, Ordering::Relaxed);
    }

    /// Notes how much waits in the longest queue of a listener.
    pub(crate) fn queues_seen(&self, longest: usize) {
        self.subscriber_queue_longest
            .store(longest, Ordering::Relaxed);
    }

    /// Counts an event that was pushed out of the full queue of a listener.
    pub(crate) fn overflowed(&self) {
        self.subscriber_queue_overflows
            .fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn stats(&self, present: Present<'_>) -> EngineStats {
        // Read before the head, which is never behind it then.
        let delivered = self.delivered.load(Ordering::Relaxed);
        let looked_at = Duration::from_nanos(of_now(&self.looked_at));
        let head = self.head.load(Ordering::Relaxed).max(delivered);
        EngineStats {
            messages_sent: of_now(&self.messages_sent),
            writes: of_now(&self.writes),
            writes_refused: of_now(&self.writes_refused),
            writes_failed: of_now(&self.writes_failed),
            writes_queued: present.writes_queued,
            batch_writes: self.batch_writes.histogram(),
            batch_seconds: self.batch_seconds.histogram(),
            commit_seconds: self.commit_seconds.histogram(),
            head: Position::stored(head),
            delivered: Position::stored(delivered),
            hub_queued: present.hub_queued,
            looked_ago: self.opened.elapsed().saturating_sub(looked_at),
            listeners: self.listeners.load(Ordering::Relaxed),
            moves_remembered: self.moves_remembered.load(Ordering::Relaxed),
            subscriber_queue_longest: self.subscriber_queue_longest.load(Ordering::Relaxed),
            subscriber_queue_overflows: of_now(&self.subscriber_queue_overflows),
            hashings: present.hashings,
            hashings_queued: present.hashings_queued,
            hashings_refused: present.hashings_refused,
            hooks: present
                .hooks
                .iter()
                .map(|hook| HookStats::of(hook, head))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_where_its_bound_is() {
        let buckets = Buckets::new(&SIZES, 1.0);
        for value in [0, 1, 2, 3, 256, 257] {
            buckets.add(value);
        }

        let seen = buckets.histogram();

        assert_eq!(seen.counts, [2, 1, 1, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(seen.bounds.len() + 1, seen.counts.len());
        assert_eq!((seen.count(), seen.sum), (6, 519.0));
    }

    #[test]
    fn times_are_told_in_seconds() {
        let buckets = Buckets::new(&TIMES, NANOSECONDS);
        buckets.add_time(Duration::from_millis(250));

        let seen = buckets.histogram();

        assert_eq!((seen.bounds[10], seen.counts[10]), (0.25, 1));
        assert_eq!(seen.sum, 0.25);
    }
}
