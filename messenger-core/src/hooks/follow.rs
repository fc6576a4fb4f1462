//! The task that follows the change log for a host: different lanes side by side, and each change until
//! it is taken.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error as StdError;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::OnFailure;
use super::change::{Change, Then, Topic};
use super::lanes::{Absence, Backoff, Lanes};
use super::on_change::{HookCounters, OnChange};
use super::operations::{Begin, Hold, Save, is_held};
use super::queries::{self, Stretch, Told};
use super::tell::{Core, Done, End, Failure, Part, Seen, before};
use crate::clock::{self, Timestamp};
use crate::error::{Error, Result};
use crate::events::Hub;
use crate::limits::Limits;
use crate::store::Store;
use crate::store::entity::hook_lane;
use crate::tasks::Tasks;
use crate::write::Writer;

/// Positions that need no note that there was nothing to tell.
const UNNOTED_MAX: i64 = 1_000;
/// The least time from one look for something to tell to the next. It doubles with each look that found
/// nothing, up to `LOOK_MAX`, while so much happens that it matters.
const LOOK_MIN: Duration = Duration::from_millis(20);
const LOOK_MAX: Duration = Duration::from_millis(320);
/// How long it is waited for what is being told when the engine closes.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// How long to wait after the database has failed.
const AGAIN: Duration = Duration::from_secs(1);

/// What the task runs with.
pub(crate) struct With<'a> {
    pub(crate) store: &'a Arc<Store>,
    pub(crate) writer: &'a Writer,
    pub(crate) hub: &'a Hub,
    pub(crate) limits: &'a Limits,
    /// Those of the engine, in which reads end.
    pub(crate) tasks: &'a Tasks,
    /// Those that tell hosts, which end before the writer does.
    pub(crate) telling: &'a Tasks,
}

/// Begins to tell a host, where it was told last.
pub(crate) async fn start(hook: OnChange, with: With<'_>) -> Result<Arc<HookCounters>> {
    let begin = Begin {
        name: hook.name.clone(),
        from: hook.settings.from,
    };
    with.writer.run(begin).await?;
    let counters = Arc::new(HookCounters {
        name: hook.name.clone(),
        ..HookCounters::default()
    });
    let small_max = i64::from(with.limits.small_conversation_members_max);
    let core = Core {
        told: Told {
            lines: hook.settings.lines(),
            deployment: with.store.deployment,
            small_max,
        },
        places: Semaphore::new(with.limits.hook_lanes_at_once_max.max(1)),
        is_away: AtomicBool::new(false),
        quiet_until: AtomicI64::new(0),
        hook,
        me: Uuid::now_v7(),
        store: Arc::clone(with.store),
        writer: with.writer.clone(),
        tasks: with.tasks.clone(),
        limits: with.limits.clone(),
        closing: with.telling.closing().clone(),
        counters: Arc::clone(&counters),
    };
    let (place, lanes) = core.place().await?;
    core.rests(place.pos, &lanes);
    let follower = Follower {
        core: Arc::new(core),
        absence: Absence::default(),
        head: with.hub.head(),
    };
    with.telling.start(follower.run());
    Ok(counters)
}

struct Follower {
    core: Arc<Core>,
    /// What one session of telling leaves to the next.
    absence: Absence,
    /// The last position that the engine knows of.
    head: watch::Receiver<i64>,
}

/// Why nothing is told any more for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    /// There is nothing to tell.
    Idle,
    /// Another engine tells.
    Elsewhere,
    /// The host does not want to be told any more.
    Stopped,
}

/// How a host is told, while it is this engine that tells it.
struct State {
    /// What the change log says up to here was told, but for lanes that wait.
    pos: i64,
    /// As the database has it.
    saved: i64,
    lanes: Lanes,
    window: Option<Window>,
    running: JoinSet<Done>,
    /// Something was told that the database does not know of.
    is_dirty: bool,
    /// When it was last written down.
    saved_at: Instant,
    held_until: Instant,
    /// New lanes have to wait until one that waits was told.
    is_full: bool,
}

/// What is being told of the change log.
struct Window {
    upto: i64,
    since: Timestamp,
    began: Instant,
    /// Lanes that are not through, and up to where they were told before.
    parts: BTreeMap<Uuid, i64>,
}

impl State {
    fn new(pos: i64, lanes: Lanes, held_until: Instant) -> Self {
        Self {
            pos,
            saved: pos,
            lanes,
            window: None,
            running: JoinSet::new(),
            is_dirty: false,
            saved_at: Instant::now(),
            held_until,
            is_full: false,
        }
    }

    fn is_idle(&self) -> bool {
        self.running.is_empty() && self.window.is_none()
    }

    /// Whether the database should know more.
    fn is_unsaved(&self) -> bool {
        self.is_dirty || self.lanes.has_changed() || self.pos - self.saved > UNNOTED_MAX
    }

    /// Whether a look at the change log could bring something that may be told now.
    fn may_look(&self, head: i64, now: Timestamp) -> bool {
        self.window.is_none() && self.pos < head && !self.is_full && !self.lanes.is_off(now)
    }

    /// Lets those lanes of a window that are not through wait, so that the others go on. They are
    /// still being told.
    fn go_on(&mut self) {
        if let Some(window) = self.window.take() {
            for (lane, pos) in window.parts {
                self.lanes.outrun(lane, pos, window.upto, clock::now());
            }
            self.pos = window.upto;
        }
    }

    /// Ends what is being told.
    async fn cut_short(&mut self) {
        self.running.shutdown().await;
        self.go_on();
    }
}

impl Follower {
    async fn run(mut self) {
        let core = Arc::clone(&self.core);
        // Up to where there was nothing to tell after a place.
        let mut looked = (0, 0);
        let work = async {
            while !core.closing.is_cancelled() {
                let told = match self.rest(&mut looked).await {
                    Ok(()) => self.tell_all().await,
                    Err(error) => Err(error),
                };
                match told {
                    Ok(Rest::Idle | Rest::Elsewhere) | Err(Error::Closed) => {}
                    Ok(Rest::Stopped) => return,
                    Err(error) => {
                        core.failed(&error);
                        let again = tokio::time::sleep(AGAIN);
                        core.closing.run_until_cancelled(again).await;
                    }
                }
            }
        };
        let late = async {
            core.closing.cancelled().await;
            tokio::time::sleep(2 * CLOSE_WAIT).await;
        };
        tokio::select! {
            () = work => {}
            () = late => {}
        }
    }

    /// Waits until there is something to tell and no other engine tells. Only reads.
    async fn rest(&mut self, looked: &mut (i64, i64)) -> Result<()> {
        let core = &self.core;
        let mut pause = LOOK_MIN;
        loop {
            self.head.borrow_and_update();
            let (place, lanes) = core.place().await?;
            let now = clock::now();
            let is_held = is_held(&place, core.me, now);
            let mut wait = core.limits.hook_lease;
            if is_held {
                wait = wait.min(Timestamp::from_micros(place.held_until).since(now));
            } else {
                let from = if looked.0 == place.pos {
                    looked.1
                } else {
                    place.pos
                };
                let told = core.told.clone();
                let peek = move |db| async move { queries::peek(&db, &told, from).await };
                let peek = core.store.snapshot(&core.tasks, peek).await?;
                // A copy that was put back ends before what was looked at.
                let upto = if peek.upto < from {
                    place.pos
                } else {
                    peek.upto
                };
                *looked = (place.pos, upto);
                let behind = lanes.iter().filter(|lane| lane.pos < place.pos);
                let next_at = behind.map(|lane| lane.next_at).min();
                let next_in = next_at.map(|at| Timestamp::from_micros(at).since(now));
                let is_due = next_in.is_some_and(|wait| wait.is_zero());
                let is_far = upto - place.pos > UNNOTED_MAX;
                let is_lost = place.pos < peek.cut || place.pos > peek.upto;
                if peek.is_any || is_due || is_far || is_lost {
                    looked.1 = place.pos;
                    core.rests(place.pos, &lanes);
                    return Ok(());
                }
                wait = next_in.map_or(wait, |next_in| wait.min(next_in));
            }
            let nothing_upto = if is_held { place.pos } else { looked.1 };
            core.rests(nothing_upto, &lanes);
            let looked_at = Instant::now();
            tokio::select! {
                () = core.closing.cancelled() => return Err(Error::Closed),
                // Whoever tells hears of it too.
                _ = self.head.changed(), if !is_held => {}
                () = tokio::time::sleep(wait) => {}
            }
            // What does not concern the hook may happen all the time.
            if looked_at.elapsed() >= LOOK_MAX {
                pause = LOOK_MIN;
            }
            let look_at = looked_at + pause.min(wait);
            pause = (2 * pause).min(LOOK_MAX);
            let wait = tokio::time::sleep_until(look_at);
            if core.closing.run_until_cancelled(wait).await.is_none() {
                return Err(Error::Closed);
            }
        }
    }

    /// Tells all that there is, until there is nothing more to tell now.
    async fn tell_all(&mut self) -> Result<Rest> {
        let core = Arc::clone(&self.core);
        let lease = core.limits.hook_lease;
        let held_until = Instant::now() + lease;
        let hold = Hold {
            name: core.hook.name.clone(),
            holder: core.me,
            lease,
        };
        if !core.writer.run(hold).await? {
            return Ok(Rest::Elsewhere);
        }
        let (place, lanes) = core.place().await?;
        let lanes = Lanes::load(lanes, place.pos, self.absence);
        let mut state = State::new(place.pos, lanes, held_until);
        let rest = self.tell_on(&mut state).await;
        self.absence = state.lanes.absence();
        rest
    }

    async fn tell_on(&mut self, state: &mut State) -> Result<Rest> {
        let core = Arc::clone(&self.core);
        let lease = core.limits.hook_lease;
        let mut end = None;
        let mut close_at = None;
        loop {
            if close_at.is_none() && core.closing.is_cancelled() {
                end = Some(Rest::Idle);
                close_at = Some(Instant::now() + CLOSE_WAIT);
            }
            let head = *self.head.borrow_and_update();
            if end.is_none() && !core.begin(state, head).await? {
                return Ok(core.lost());
            }
            core.shows(state);
            let now = clock::now();
            let go_on_at = state.window.as_ref().map(|window| {
                let most = core.limits.hook_save_interval;
                window.began + most
            });
            if go_on_at.is_some_and(|at| at <= Instant::now()) {
                state.go_on();
                continue;
            }
            let is_idle = state.is_idle();
            // Whoever was told just now may be told more soon: the hook is let go a little later.
            let is_quiet = state.lanes.is_quiet(now);
            let is_over = is_idle && !is_quiet && !state.lanes.is_away() && !state.is_full;
            let save_in = match state.is_unsaved() || is_over {
                true => core.limits.hook_save_interval.min(lease / 3),
                false => lease / 3,
            };
            let save_at = state.saved_at + save_in;
            if is_idle && let Some(rest) = end {
                let saved = core.save(state, None).await;
                return saved.map(|_| rest);
            }
            if close_at.is_some_and(|at| at <= Instant::now()) {
                state.cut_short().await;
                continue;
            }
            // However much there is to tell, it is written down, and so is whose it is to tell it; also
            // while the host is away, which another engine would only find out as well.
            if save_at <= Instant::now() {
                let goes_on = !is_over || state.may_look(*self.head.borrow(), clock::now());
                let lease = Some(lease).filter(|_| goes_on);
                if !core.save(state, lease).await? {
                    return Ok(core.lost());
                }
                if !goes_on {
                    return Ok(Rest::Idle);
                }
                continue;
            }
            let next_at = state.lanes.next_at(state.pos, now);
            let next_at = next_at.map(|at| Instant::now() + at.since(now));
            let wake_at = next_at.into_iter().chain(go_on_at);
            let wake_at = wake_at.fold(save_at, Instant::min);
            let wake_at = close_at.unwrap_or(wake_at);
            tokio::select! {
                biased;
                () = core.closing.cancelled(), if close_at.is_none() => {}
                Some(done) = state.running.join_next() => {
                    let done = done.map_err(|error| Error::Internal(error.to_string()))?;
                    end = end.or(core.done(state, done));
                    if matches!(end, Some(Rest::Stopped)) {
                        state.cut_short().await;
                    }
                }
                _ = self.head.changed(), if end.is_none() => {}
                () = tokio::time::sleep_until(wake_at) => {}
            }
        }
    }
}

impl Core {
    /// Begins to tell what can be told now. Returns whether it is this engine that tells.
    async fn begin(self: &Arc<Self>, state: &mut State, head: i64) -> Result<bool> {
        while state.may_look(head, clock::now()) {
            if !self.renew(state).await? {
                return Ok(false);
            }
            let pos = state.pos;
            self.look(state).await?;
            // A copy that was put back may end before what this engine knows of.
            if state.pos == pos {
                break;
            }
        }
        if state.lanes.is_due(state.pos, clock::now()) && !self.renew(state).await? {
            return Ok(false);
        }
        let most = 2 * self.limits.hook_lanes_at_once_max.max(1);
        while state.running.len() < most {
            let Some((lane, waiting)) = state.lanes.take_due(state.pos, clock::now()) else {
                break;
            };
            let part = Part {
                lane,
                after: waiting.pos,
                upto: state.pos,
                has_waited: true,
                // What has failed before is the first one, and is found without a look at the others.
                limit: match waiting.tries {
                    0 => self.limits.hook_lines_max,
                    _ => 1,
                },
                seen: None,
            };
            state.running.spawn(Arc::clone(self).tell_part(part));
        }
        Ok(true)
    }

    /// Makes sure that what is told now is told by this engine only. Returns whether it is.
    async fn renew(&self, state: &mut State) -> Result<bool> {
        let lease = self.limits.hook_lease;
        match state.held_until < Instant::now() + lease / 3 {
            true => self.save(state, Some(lease)).await,
            false => Ok(true),
        }
    }

    /// Looks at what comes next in the change log, and begins to tell it.
    async fn look(self: &Arc<Self>, state: &mut State) -> Result<()> {
        let stretch = Stretch {
            after: state.pos,
            upto: None,
            limit: self.limits.hook_lines_max.max(1),
        };
        let found = self.read(None, stretch).await?;
        let (now, at) = (clock::now(), Instant::now());
        let most = self.limits.hook_lanes_waiting_max.max(1);
        let room = state.lanes.room(most, now);
        let mut parts: BTreeMap<Uuid, VecDeque<Change>> = BTreeMap::new();
        let mut upto = found.upto;
        for (lane, change) in found.changes {
            let position = change.position.get();
            if state.lanes.pass(lane, position) {
                continue;
            }
            if !parts.contains_key(&lane) && parts.len() >= room {
                upto = before(&change);
                state.is_full = parts.is_empty();
                break;
            }
            parts.entry(lane).or_default().push_back(change);
        }
        if parts.is_empty() {
            state.pos = upto;
            return Ok(());
        }
        let first = || {
            parts
                .iter()
                .filter_map(|(lane, part)| Some((lane, part.front()?)))
        };
        state.window = Some(Window {
            upto,
            since: first().map(|(_, change)| change.at).min().unwrap_or(now),
            began: Instant::now(),
            parts: first()
                .map(|(lane, change)| (*lane, before(change)))
                .collect(),
        });
        self.is_away.store(false, Ordering::Relaxed);
        for (lane, changes) in parts {
            let part = Part {
                lane,
                after: changes.front().map_or(state.pos, before),
                upto,
                has_waited: false,
                limit: self.limits.hook_lines_max,
                seen: Some(Seen {
                    at,
                    changes,
                    is_all: true,
                }),
            };
            state.running.spawn(Arc::clone(self).tell_part(part));
        }
        Ok(())
    }

    /// Notes how far a lane was told. Returns why nothing more is to be told, if so.
    fn done(&self, state: &mut State, done: Done) -> Option<Rest> {
        let now = clock::now();
        let mut passed = state.pos;
        let mut waits = true;
        if let Some(window) = &mut state.window
            && window.parts.remove(&done.lane).is_some()
        {
            waits = false;
            passed = window.upto;
            if window.parts.is_empty() {
                state.pos = window.upto;
                state.window = None;
            }
        }
        state.is_full = false;
        if done.told > 0 {
            state.is_dirty = true;
            state.lanes.told(now);
            self.is_away.store(false, Ordering::Relaxed);
        }
        match done.end {
            End::All if !waits => {}
            End::All => state.lanes.caught_up(done.lane, done.pos, now),
            End::Turn => {
                let lane = state.lanes.put_off(done.lane, done.pos, passed, now);
                lane.next_at = lane.next_at.max(now);
            }
            End::Unread(error) => {
                tracing::warn!(
                    hook = self.hook.name,
                    error = &error as &dyn StdError,
                    "what a hook is to be told can not be read; it is tried again"
                );
                let lane = state.lanes.put_off(done.lane, done.pos, passed, now);
                lane.next_at = now.plus(AGAIN);
            }
            End::Failed(failure) => {
                let lane = state.lanes.put_off(done.lane, done.pos, passed, now);
                lane.tries = lane.tries.saturating_add(1);
                if failure.why.then == Then::Stop {
                    return Some(self.stopped(&failure));
                }
                if self.is_left_out(&failure, lane.tries, lane.since, now) {
                    let position = failure.position;
                    state.lanes.leave_out(done.lane, position, now);
                    return None;
                }
                let next_at = now.plus(self.again_in(&failure, lane.tries));
                lane.next_at = next_at;
                if let Then::AgainAfter(_) = failure.why.then {
                    state.lanes.be_quiet(next_at);
                    self.quiet_until
                        .fetch_max(next_at.as_micros(), Ordering::Relaxed);
                }
                if !done.has_waited {
                    state
                        .lanes
                        .failed_at_first(now, |failures| self.wait(failures));
                    let is_away = state.lanes.is_away();
                    self.is_away.store(is_away, Ordering::Relaxed);
                }
            }
        }
        None
    }

    /// Whether a change that failed so often is told no more; says so.
    fn is_left_out(&self, failure: &Failure, tries: u32, since: Timestamp, now: Timestamp) -> bool {
        let settings = &self.hook.settings;
        let is_left_out = match settings.on_failure {
            OnFailure::Allow => tries >= settings.tries_max,
            OnFailure::Refuse => settings.give_up.is_some_and(|most| {
                let long_ago = now.minus(most);
                // A hole is told as of now, whenever that is.
                let is_old = failure.topic == Topic::ChangesMissed || failure.at <= long_ago;
                since <= long_ago && is_old
            }),
        };
        if is_left_out {
            self.counters.left_out.fetch_add(1, Ordering::Relaxed);
            tracing::error!(
                hook = self.hook.name,
                change = %failure.change,
                topic = %failure.topic,
                tries,
                error = &*failure.why.why as &dyn StdError,
                "a hook did not take a change; it is left out"
            );
        }
        is_left_out
    }

    /// How long to wait after a failure; says that it failed.
    fn again_in(&self, failure: &Failure, tries: u32) -> Duration {
        let wait = match failure.why.then {
            Then::AgainAfter(wait) => self.backoff().asked(wait),
            Then::Again | Then::Stop => self.wait(tries),
        };
        tracing::warn!(
            hook = self.hook.name,
            change = %failure.change,
            topic = %failure.topic,
            tries,
            again_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX),
            error = &*failure.why.why as &dyn StdError,
            "a hook did not take a change; it is tried again"
        );
        wait
    }

    fn backoff(&self) -> Backoff {
        Backoff {
            min: self.hook.settings.retry_min,
            max: self.hook.settings.retry_max,
        }
    }

    fn wait(&self, failures: u32) -> Duration {
        // What a v7 id has at its end is random.
        let [.., a, b, c, d] = *Uuid::now_v7().as_bytes();
        let chance = u32::from_be_bytes([a, b, c, d]);
        self.backoff().after(failures, chance)
    }

    fn stopped(&self, failure: &Failure) -> Rest {
        self.counters.is_stopped.store(true, Ordering::Relaxed);
        tracing::error!(
            hook = self.hook.name,
            change = %failure.change,
            error = &*failure.why.why as &dyn StdError,
            "a hook does not want to be told any more; it is told nothing until the engine is opened again"
        );
        Rest::Stopped
    }

    fn failed(&self, error: &Error) {
        tracing::warn!(
            hook = self.hook.name,
            error = error as &dyn StdError,
            "how far a hook was told can not be read or written; it is tried again"
        );
    }

    fn lost(&self) -> Rest {
        tracing::warn!(hook = self.hook.name, "another engine tells a hook now");
        Rest::Elsewhere
    }

    /// Writes down how far the host was told. Returns whether it is still this engine that tells.
    async fn save(&self, state: &mut State, lease: Option<Duration>) -> Result<bool> {
        let began = Instant::now();
        let save = Save {
            name: self.hook.name.clone(),
            holder: self.me,
            from: state.saved,
            upto: state.pos,
            lanes: state.lanes.changed(&self.hook.name),
            lease,
        };
        // What is told after that, another engine may tell as well.
        let left = state.held_until.max(began + AGAIN) - began;
        let saved = timeout(left, self.writer.run(save)).await;
        match saved.unwrap_or_else(|late| Err(Error::Unavailable(Arc::new(late)))) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(error) if Instant::now() < state.held_until => {
                self.failed(&error);
                state.saved_at = Instant::now();
                return Ok(true);
            }
            Err(error) => return Err(error),
        }
        state.saved = state.pos;
        state.saved_at = Instant::now();
        state.held_until = began + self.limits.hook_lease;
        state.is_dirty = false;
        state.lanes.saved();
        Ok(true)
    }

    /// Shows how far it is to whoever watches.
    fn shows(&self, state: &State) {
        let window = state.window.as_ref().map(|window| window.since);
        let since = window.into_iter().chain(state.lanes.since()).min();
        self.show(state.pos, state.lanes.len(), since);
    }

    fn rests(&self, pos: i64, lanes: &[hook_lane::Model]) {
        let since = lanes.iter().map(|lane| lane.since).min();
        self.show(pos, lanes.len(), since.map(Timestamp::from_micros));
    }

    fn show(&self, pos: i64, waiting: usize, since: Option<Timestamp>) {
        let since = since.map_or(0, Timestamp::as_micros);
        self.counters.position.store(pos, Ordering::Relaxed);
        self.counters.waiting.store(waiting, Ordering::Relaxed);
        self.counters.waiting_since.store(since, Ordering::Relaxed);
    }
}
