//! Whom somebody has blocked, which nobody else is told.
//!
//! A block stands between two people in both directions: no new direct conversation, and nothing
//! said in the one that there is. What was said stays readable, and groups are not affected.

use super::{User, Users, queries};
use crate::auth::Actor;
use crate::error::{Error, Invalid, Result};
use crate::ids::{ConversationId, Position, UserId};
use crate::store::entity::block;
use crate::write::{Batch, Fingerprint, Needs, Operation, Repeatable};

/// Somebody whom the actor has blocked.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Blocked {
    /// Who it is.
    pub user: User,
    /// The position of the last change.
    pub version: Position,
}

/// Whether somebody is blocked, as a sync tells one's own devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Block {
    /// Who it is about.
    pub user_id: UserId,
    /// Whether they are blocked; `false` if no longer.
    pub blocked: bool,
    /// The position of the last change: of two forms, the greater one is newer.
    pub version: Position,
}

impl Users<'_> {
    /// Blocks somebody. Who is blocked already stays so. Returns the position at which it is so.
    ///
    /// Neither of the two can open a direct conversation with the other, nor send, edit or react in
    /// the one that there is; both get the same error. Groups are not affected.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidTarget`]: it is the actor.
    /// - [`Error::UserNotFound`]: there is no such user, or the host trusts somebody whom the engine
    ///   does not know.
    /// - [`Error::BlocksFull`]: 10,000 people are blocked.
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, the person is blocked and the actor's devices are told, or
    /// neither.
    pub async fn block(&self, actor: &Actor, user: UserId) -> Result<Position> {
        let block = SetBlock {
            me: actor.user_id(),
            user,
            state: block::State::Set,
            blocks_max: i64::from(self.engine.limits().blocks_per_user_max),
        };
        self.write_once(block, actor).await
    }

    /// Lifts a block. Where there is none, nothing changes. Returns the position at which it is so.
    ///
    /// # Errors
    ///
    /// Only when the database fails, or those of [`once`](Self::once).
    ///
    /// # Cancel safety
    ///
    /// As of [`block`](Self::block).
    pub async fn unblock(&self, actor: &Actor, user: UserId) -> Result<Position> {
        let unblock = SetBlock {
            me: actor.user_id(),
            user,
            state: block::State::Gone,
            blocks_max: i64::MAX,
        };
        self.write_once(unblock, actor).await
    }

    /// Lists whom the actor has blocked, ordered by id, after a given one.
    ///
    /// `limit` is 1 to 500. Fewer come back only at the end of the list.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`]: `limit` is out of bounds.
    pub async fn blocked(
        &self,
        actor: &Actor,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<Vec<Blocked>> {
        let most = self.engine.limits().page_blocks_max;
        if !(1..=most).contains(&limit) {
            return Err(Invalid::new("limit", format!("must be 1 to {most}")).into());
        }
        let me = actor.user_id();
        let read = move |db| async move { queries::blocked(&db, me, after, limit).await };
        let store = self.engine.store();
        store.snapshot(self.engine.tasks(), read).await
    }
}

/// Blocks somebody, or lifts it.
struct SetBlock {
    me: UserId,
    user: UserId,
    state: block::State,
    blocks_max: i64,
}

impl Operation for SetBlock {
    type Output = ();

    fn needs(&self, needs: &mut Needs) {
        needs.user(self.me);
        needs.user(self.user);
        needs.block(self.me, self.user);
    }

    fn apply(&self, batch: &mut Batch) -> Result<()> {
        if self.state == block::State::Set {
            if self.me == self.user {
                return Err(Error::InvalidTarget);
            }
            batch.require_user(self.me)?;
            batch.require_user(self.user)?;
        }
        if batch.has_blocked(self.me, self.user) == (self.state == block::State::Set) {
            return Ok(());
        }
        if batch.blocks_set(self.me) >= self.blocks_max {
            return Err(Error::BlocksFull);
        }

        batch.put_block(self.me, self.user, self.state);
        Ok(())
    }
}

impl Repeatable for SetBlock {
    fn fingerprint(&self) -> Fingerprint {
        let operation = match self.state {
            block::State::Set => "block",
            block::State::Gone => "unblock",
        };
        Fingerprint::of(operation).and(self.user.as_uuid())
    }

    fn repeated(&self, _: Option<ConversationId>) -> Result<()> {
        Ok(())
    }
}

impl From<block::Model> for Block {
    fn from(row: block::Model) -> Self {
        Self {
            user_id: row.blocked_id.into(),
            blocked: row.state == block::State::Set,
            version: Position::stored(row.changed_pos),
        }
    }
}
