//! Which lanes wait, and for what: pure rules, without a clock and without a database.
//!
//! A lane is a conversation, or all that belongs to none. One that waits is passed over by those who
//! read the change log, and is told by itself from its own place on, so nothing of it is told before
//! what it waits for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use uuid::Uuid;

use crate::clock::Timestamp;
use crate::store::entity::hook_lane;

/// Lanes in a row that must fail at their first try, before it is the host that is taken to be away
/// and not a lane that can not be told.
const FAILURES_MAX: u32 = 3;

/// How long to wait after a failure.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    pub(super) min: Duration,
    pub(super) max: Duration,
}

impl Backoff {
    /// After so many failures: twice as long each time, of which chance takes up to half, so that not
    /// all come back at once.
    pub(super) fn after(self, failures: u32, chance: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        let longest = self.min.saturating_mul(1 << doublings).min(self.max);
        longest - (longest / 2).mul_f64(f64::from(chance) / f64::from(u32::MAX))
    }

    /// What the host asks for, within the bounds.
    pub(super) fn asked(self, wait: Duration) -> Duration {
        wait.clamp(self.min.min(self.max), self.max)
    }
}

/// A lane that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    /// Its changes up to here were told.
    pub(super) pos: i64,
    /// How often the next one was tried.
    pub(super) tries: u32,
    /// When it is tried again.
    pub(super) next_at: Timestamp,
    /// Since when none was told.
    pub(super) since: Timestamp,
    /// Its last change that was passed over.
    passed: i64,
    /// It is being told.
    is_busy: bool,
}

impl Waiting {
    fn is_due(&self, pos: i64, now: Timestamp) -> bool {
        !self.is_busy && self.pos < pos && self.next_at <= now
    }
}

#[derive(Debug, Default)]
pub(super) struct Lanes {
    waiting: BTreeMap<Uuid, Waiting>,
    /// Those that the database has otherwise.
    changed: BTreeSet<Uuid>,
    absence: Absence,
}

/// Whether the host is there.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Absence {
    /// Lanes that have failed at their first try since something was told.
    failures: u32,
    /// When the next new lane is tried, while the host is taken to be away.
    away_until: Option<Timestamp>,
    /// Until when the host wants to be told nothing.
    quiet_until: Option<Timestamp>,
}

impl Lanes {
    /// The lanes that the database knows, of which anything up to `pos` may have been passed over.
    pub(super) fn load(rows: Vec<hook_lane::Model>, pos: i64, absence: Absence) -> Self {
        let waiting = rows.into_iter().map(|row| {
            let waiting = Waiting {
                pos: row.pos,
                tries: u32::try_from(row.tries).unwrap_or(u32::MAX),
                next_at: Timestamp::from_micros(row.next_at),
                since: Timestamp::from_micros(row.since),
                passed: pos,
                is_busy: false,
            };
            (row.lane, waiting)
        });
        Self {
            waiting: waiting.collect(),
            changed: BTreeSet::new(),
            absence,
        }
    }

    /// What is known of the host beside the lanes.
    pub(super) fn absence(&self) -> Absence {
        self.absence
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether a lane waits; then its change at this position is passed over.
    pub(super) fn pass(&mut self, lane: Uuid, position: i64) -> bool {
        let waiting = self.waiting.get_mut(&lane);
        waiting.is_some_and(|lane| {
            lane.passed = lane.passed.max(position);
            true
        })
    }

    /// Whether no new lane may be tried, since the host is taken to be away or wants it.
    pub(super) fn is_off(&self, now: Timestamp) -> bool {
        self.is_quiet(now) || self.absence.away_until.is_some_and(|until| until > now)
    }

    /// Whether the host wants to be told nothing now.
    pub(super) fn is_quiet(&self, now: Timestamp) -> bool {
        self.absence.quiet_until.is_some_and(|until| until > now)
    }

    /// Lets all wait, whatever is told meanwhile.
    pub(super) fn be_quiet(&mut self, until: Timestamp) {
        self.absence.quiet_until = self.absence.quiet_until.max(Some(until));
    }

    /// How many new lanes may be tried at once, beside `most` that may wait.
    pub(super) fn room(&self, most: usize, now: Timestamp) -> usize {
        let room = most.saturating_sub(self.waiting.len());
        match self.absence.away_until {
            _ if self.is_off(now) => 0,
            Some(_) => room.min(1),
            None => room,
        }
    }

    /// Lets a lane wait that was told up to `pos` only, while changes of it up to `passed` are passed
    /// over.
    pub(super) fn put_off(
        &mut self,
        lane: Uuid,
        pos: i64,
        passed: i64,
        now: Timestamp,
    ) -> &mut Waiting {
        self.changed.insert(lane);
        let next_at = self.absence.away_until.unwrap_or(now);
        let waiting = self.waiting.entry(lane).or_insert(Waiting {
            pos,
            tries: 0,
            next_at,
            since: now,
            passed,
            is_busy: false,
        });
        waiting.is_busy = false;
        if pos > waiting.pos {
            waiting.tries = 0;
            waiting.since = now;
        }
        waiting.pos = waiting.pos.max(pos);
        waiting
    }

    /// Whether it is time to tell a lane what is up to `pos`.
    pub(super) fn is_due(&self, pos: i64, now: Timestamp) -> bool {
        !self.is_quiet(now) && self.waiting.values().any(|lane| lane.is_due(pos, now))
    }

    /// Lets a lane wait that is still being told while others go on.
    pub(super) fn outrun(&mut self, lane: Uuid, pos: i64, passed: i64, now: Timestamp) {
        self.put_off(lane, pos, passed, now).is_busy = true;
    }

    /// Takes the lane that waits for longest, if it is time, to tell what is up to `pos`.
    pub(super) fn take_due(&mut self, pos: i64, now: Timestamp) -> Option<(Uuid, Waiting)> {
        if self.is_quiet(now) {
            return None;
        }
        let due = self.waiting.iter_mut();
        let due = due.filter(|(_, lane)| lane.is_due(pos, now));
        let (id, lane) = due.min_by_key(|(_, lane)| lane.next_at)?;
        lane.is_busy = true;
        Some((*id, lane.clone()))
    }

    /// When something is to be tried next that is not to be tried now.
    pub(super) fn next_at(&self, pos: i64, now: Timestamp) -> Option<Timestamp> {
        let lanes = self.waiting.values();
        let lanes = lanes.filter(|lane| !lane.is_busy && lane.pos < pos);
        let times = lanes
            .map(|lane| lane.next_at)
            .chain(self.absence.away_until);
        let times = times.map(|at| self.absence.quiet_until.map_or(at, |until| at.max(until)));
        times
            .chain(self.absence.quiet_until)
            .filter(|at| *at > now)
            .min()
    }

    /// Since when the lane waits that has waited for longest.
    pub(super) fn since(&self) -> Option<Timestamp> {
        self.waiting.values().map(|lane| lane.since).min()
    }

    /// Notes that a lane that waited was told up to `upto`. If that is all, it waits no longer.
    pub(super) fn caught_up(&mut self, lane: Uuid, upto: i64, now: Timestamp) {
        let passed = self.waiting.get(&lane).map_or(0, |lane| lane.passed);
        self.changed.insert(lane);
        if passed <= upto {
            self.waiting.remove(&lane);
        } else {
            self.put_off(lane, upto, passed, now).next_at = now;
        }
    }

    /// Passes over what a lane that waited could not be told.
    pub(super) fn leave_out(&mut self, lane: Uuid, position: i64, now: Timestamp) {
        self.changed.insert(lane);
        match self.waiting.get_mut(&lane) {
            Some(waiting) if waiting.passed > position => {
                waiting.pos = position;
                waiting.tries = 0;
                waiting.next_at = now;
            }
            _ => {
                self.waiting.remove(&lane);
            }
        }
    }

    /// Notes that a new lane has failed at its first try.
    pub(super) fn failed_at_first(&mut self, now: Timestamp, wait: impl FnOnce(u32) -> Duration) {
        self.absence.failures += 1;
        if self.absence.failures >= FAILURES_MAX {
            let wait = wait(self.absence.failures - FAILURES_MAX + 1);
            self.absence.away_until = Some(now.plus(wait));
        }
    }

    /// Notes that something was told. If the host was away, every lane is tried now.
    pub(super) fn told(&mut self, now: Timestamp) {
        self.absence.failures = 0;
        if self.absence.away_until.take().is_some() {
            for (id, lane) in &mut self.waiting {
                lane.next_at = lane.next_at.min(now);
                self.changed.insert(*id);
            }
        }
    }

    /// Whether the host is taken to be away.
    pub(super) fn is_away(&self) -> bool {
        self.absence.away_until.is_some()
    }

    pub(super) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// What the database has to know.
    pub(super) fn changed(&self, name: &str) -> Vec<(Uuid, Option<hook_lane::Model>)> {
        let changed = self.changed.iter().map(|id| {
            let row = self.waiting.get(id).map(|lane| hook_lane::Model {
                name: name.to_owned(),
                lane: *id,
                pos: lane.pos,
                tries: i64::from(lane.tries),
                next_at: lane.next_at.as_micros(),
                since: lane.since.as_micros(),
            });
            (*id, row)
        });
        changed.collect()
    }

    /// Notes that the database knows it.
    pub(super) fn saved(&mut self) {
        self.changed.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    const BACKOFF: Backoff = Backoff {
        min: Duration::from_secs(1),
        max: Duration::from_secs(900),
    };

    #[test]
    fn it_is_waited_twice_as_long_each_time_up_to_a_bound() {
        let longest: Vec<u64> = [1, 2, 3, 10, 11, 100]
            .map(|failures| BACKOFF.after(failures, 0).as_secs())
            .into();

        assert_eq!(longest, [1, 2, 4, 512, 900, 900]);
        assert_eq!(BACKOFF.after(2, u32::MAX), Duration::from_secs(1));
        let asked = |seconds| BACKOFF.asked(Duration::from_secs(seconds)).as_secs();
        assert_eq!([asked(0), asked(30), asked(100_000)], [1, 30, 900]);
    }

    #[test]
    fn a_lane_waits_until_all_that_was_passed_over_is_told() {
        let (mut lanes, id) = (Lanes::default(), Uuid::now_v7());
        lanes.put_off(id, 4, 9, at(0));

        assert!(lanes.pass(id, 12) && !lanes.pass(Uuid::now_v7(), 13));
        assert_eq!(lanes.take_due(4, at(1)), None);
        assert!(lanes.take_due(9, at(1)).is_some());
        assert_eq!(lanes.take_due(9, at(1)), None, "it is being told");
        lanes.caught_up(id, 9, at(2));
        assert_eq!(lanes.len(), 1);
        assert!(lanes.take_due(12, at(2)).is_some());
        lanes.caught_up(id, 12, at(3));

        assert_eq!(lanes.len(), 0);
        assert_eq!(lanes.changed("push"), [(id, None)]);
    }

    #[test]
    fn a_lane_that_the_database_knows_may_have_missed_all_that_was_told() {
        let id = Uuid::now_v7();
        let row = hook_lane::Model {
            name: "push".to_owned(),
            lane: id,
            pos: 4,
            tries: 2,
            next_at: 5_000_000,
            since: 0,
        };
        let mut lanes = Lanes::load(vec![row], 20, Absence::default());

        assert_eq!(lanes.take_due(20, at(4)), None);
        assert_eq!(lanes.next_at(20, at(4)), Some(at(5)));
        assert_eq!(
            lanes.take_due(20, at(5)).map(|(_, lane)| lane.tries),
            Some(2)
        );
        lanes.caught_up(id, 19, at(6));
        assert_eq!(lanes.len(), 1);
        assert!(lanes.take_due(20, at(6)).is_some());
        lanes.caught_up(id, 20, at(6));
        assert_eq!(lanes.len(), 0);
    }

    #[test]
    fn a_lane_that_is_still_being_told_is_not_told_twice_at_once() {
        let (mut lanes, id) = (Lanes::default(), Uuid::now_v7());
        lanes.outrun(id, 4, 9, at(0));

        assert!(lanes.pass(id, 12));
        assert_eq!(lanes.take_due(12, at(9)), None);
        lanes.caught_up(id, 8, at(9));
        let (_, lane) = lanes.take_due(12, at(9)).expect("more was passed over");
        assert_eq!(lane.pos, 8);
        lanes.caught_up(id, 12, at(9));
        assert_eq!(lanes.len(), 0);
    }

    #[test]
    fn progress_forgets_earlier_failures() {
        let (mut lanes, id) = (Lanes::default(), Uuid::now_v7());
        lanes.put_off(id, 4, 9, at(0)).tries = 7;

        assert_eq!(lanes.put_off(id, 4, 9, at(1)).tries, 7);
        let lane = lanes.put_off(id, 5, 9, at(2));
        assert_eq!((lane.tries, lane.since), (0, at(2)));
    }

    #[test]
    fn what_is_left_out_does_not_hold_up_what_comes_after_it() {
        let (mut lanes, id) = (Lanes::default(), Uuid::now_v7());
        lanes.put_off(id, 4, 9, at(0)).tries = 3;

        lanes.leave_out(id, 5, at(7));
        let (_, lane) = lanes.take_due(9, at(7)).expect("more waits");
        assert_eq!((lane.pos, lane.tries, lane.since), (5, 0, at(0)));
        lanes.put_off(id, 5, 9, at(8));
        lanes.leave_out(id, 9, at(9));
        assert_eq!(lanes.len(), 0);
    }

    #[test]
    fn a_host_that_asks_to_wait_is_told_nothing_until_then() {
        let mut lanes = Lanes::default();
        lanes.put_off(Uuid::now_v7(), 1, 2, at(0));
        lanes.be_quiet(at(9));
        lanes.be_quiet(at(5));

        assert!(!lanes.is_due(2, at(8)) && lanes.is_off(at(8)));
        assert_eq!((lanes.room(10, at(8)), lanes.take_due(2, at(8))), (0, None));
        assert_eq!(lanes.next_at(2, at(8)), Some(at(9)));
        lanes.told(at(8));
        assert!(lanes.is_off(at(8)), "what was under way was taken");
        assert!(lanes.is_due(2, at(9)) && !lanes.is_off(at(9)));
        assert!(lanes.take_due(2, at(9)).is_some());
    }

    #[test]
    fn a_host_that_is_away_is_tried_with_one_lane_at_a_time() {
        let mut lanes = Lanes::default();
        let waiting = Uuid::now_v7();
        lanes.put_off(waiting, 1, 2, at(0)).next_at = at(800);
        for _ in 0..2 {
            lanes.failed_at_first(at(0), |_| panic!("not yet"));
            assert_eq!(lanes.room(10, at(0)), 9);
        }

        lanes.failed_at_first(at(0), |failures| Duration::from_secs(failures.into()));
        assert_eq!(lanes.room(10, at(0)), 0);
        assert_eq!(lanes.room(10, at(1)), 1);
        lanes.failed_at_first(at(1), |failures| Duration::from_secs(failures.into()));
        assert_eq!((lanes.room(10, at(2)), lanes.room(10, at(3))), (0, 1));

        lanes.told(at(3));
        assert_eq!(lanes.room(10, at(3)), 9);
        assert!(lanes.take_due(2, at(3)).is_some());
        assert_eq!(lanes.room(1, at(3)), 0);
    }
}
