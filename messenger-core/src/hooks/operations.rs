//! How far a host was told is written through the one write path, like everything else. It takes no
//! position: nobody else sees it.

use std::time::Duration;

use uuid::Uuid;

use crate::clock::Timestamp;
use crate::error::Result;
use crate::ids::Position;
use crate::store::entity::{hook, hook_lane};
use crate::write::{Batch, Needs, Operation};

/// Makes a name known, unless it is. A copy that was put back may know a position that is not part of
/// it: then it begins at the head.
pub(super) struct Begin {
    pub(super) name: String,
    /// `None` for the head of the change log.
    pub(super) from: Option<Position>,
}

impl Operation for Begin {
    type Output = ();
    const IS_UPKEEP: bool = true;

    fn needs(&self, needs: &mut Needs) {
        needs.hook(&self.name);
    }

    fn apply(&self, batch: &mut Batch) -> Result<()> {
        let head = batch.stamp().as_of;
        let pos = batch.hooks.get(&self.name).map(|row| row.pos);
        if pos.is_some_and(|pos| pos > head.get()) {
            // What it was told since is not part of this history.
            if let Some(row) = batch.hooks.change(&self.name) {
                row.pos = head.get();
            }
        } else if pos.is_none() {
            let row = hook::Model {
                name: self.name.clone(),
                pos: self.from.unwrap_or(head).min(head).get(),
                holder: None,
                held_until: batch.now().as_micros(),
            };
            batch.hooks.insert(self.name.clone(), row);
        }
        Ok(())
    }
}

/// Makes one engine the one that tells, unless another one is. Returns whether it is.
///
/// A name belongs to whoever wrote last that it does, until the time that it wrote has passed by the
/// clock of whoever asks; every note of how far it is says who it was before. A lock of PostgreSQL's
/// own would belong to a connection, which a pool gives to somebody else and may lose without saying
/// so, and SQLite has none.
pub(super) struct Hold {
    pub(super) name: String,
    pub(super) holder: Uuid,
    pub(super) lease: Duration,
}

impl Operation for Hold {
    type Output = bool;
    const IS_UPKEEP: bool = true;

    fn needs(&self, needs: &mut Needs) {
        needs.hook(&self.name);
    }

    fn apply(&self, batch: &mut Batch) -> Result<bool> {
        let now = batch.now();
        let head = batch.stamp().as_of.get();
        let is_free = |row: &hook::Model| !is_held(row, self.holder, now);
        if !batch.hooks.get(&self.name).is_some_and(is_free) {
            return Ok(false);
        }
        if let Some(row) = batch.hooks.change(&self.name) {
            row.holder = Some(self.holder);
            row.held_until = now.plus(self.lease).as_micros();
            row.pos = row.pos.min(head);
        }
        Ok(true)
    }
}

/// Whether somebody else tells now.
pub(super) fn is_held(row: &hook::Model, me: Uuid, now: Timestamp) -> bool {
    let is_other = row.holder.is_some_and(|holder| holder != me);
    is_other && row.held_until > now.as_micros()
}

/// Notes how far a host was told. Returns whether it was still this engine that told it; if not,
/// nothing is noted.
pub(super) struct Save {
    pub(super) name: String,
    pub(super) holder: Uuid,
    /// What was noted last.
    pub(super) from: i64,
    pub(super) upto: i64,
    /// Lanes that wait, or no longer.
    pub(super) lanes: Vec<(Uuid, Option<hook_lane::Model>)>,
    /// For how long it goes on; `None` if it has nothing more to tell.
    pub(super) lease: Option<Duration>,
}

impl Operation for Save {
    type Output = bool;
    const IS_UPKEEP: bool = true;

    fn needs(&self, needs: &mut Needs) {
        needs.hook(&self.name);
        for (lane, _) in &self.lanes {
            needs.hook_lane(&self.name, *lane);
        }
    }

    fn apply(&self, batch: &mut Batch) -> Result<bool> {
        let now = batch.now();
        let is_mine = |row: &hook::Model| row.holder == Some(self.holder) && row.pos == self.from;
        if !batch.hooks.get(&self.name).is_some_and(is_mine) {
            return Ok(false);
        }
        if let Some(row) = batch.hooks.change(&self.name) {
            row.pos = self.upto;
            row.holder = self.lease.map(|_| self.holder);
            row.held_until = now.plus(self.lease.unwrap_or_default()).as_micros();
        }
        for (lane, row) in &self.lanes {
            let key = (self.name.clone(), *lane);
            match row {
                None => batch.hook_lanes.remove(&key),
                Some(row) => match batch.hook_lanes.change(&key) {
                    Some(stored) => *stored = row.clone(),
                    None => batch.hook_lanes.insert(key, row.clone()),
                },
            }
        }
        Ok(true)
    }

    fn bytes(&self) -> usize {
        self.lanes.len() * 64
    }
}
