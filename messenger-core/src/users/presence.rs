//! Who is there: asked for, and kept nowhere but for when somebody was last seen.

use std::collections::{HashMap, HashSet};

use super::{Users, queries};
use crate::auth::Actor;
use crate::clock::Timestamp;
use crate::error::{Invalid, Result};
use crate::ids::UserId;
use crate::write::{Batch, Needs, Operation};

/// Whether somebody is there, for somebody who may know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Presence {
    /// Who it is about.
    pub user_id: UserId,
    /// Whether they listen to live events of this engine right now, on any device.
    pub is_online: bool,
    /// When they last did; `None` while they do, and where that is not known or not told.
    pub last_seen_at: Option<Timestamp>,
}

impl Presence {
    /// Somebody of whom nothing is told.
    pub(crate) fn untold(user_id: UserId) -> Self {
        Self {
            user_id,
            is_online: false,
            last_seen_at: None,
        }
    }
}

/// From whom somebody keeps whether they are there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reserve {
    /// From everybody.
    pub(crate) is_hidden: bool,
    /// From whom they have blocked, who in turn keep it from them.
    pub(crate) blocked: HashSet<UserId>,
}

impl Users<'_> {
    /// Tells who of the named people is there, in the order of their ids.
    ///
    /// Somebody is there while any stream of theirs is open: a subscription, a stream that goes on
    /// from a cursor, a sync that waits. Who comes or goes is told to streams that go on from a cursor
    /// ([`Update::Presence`](crate::events::Update::Presence)), a few seconds later and all at once;
    /// whoever comes back within that time has not been away. It takes no position, and only this
    /// engine knows of it: other nodes on the same database do not. When somebody was last seen is
    /// kept in the database, to within a few seconds, unless they do not show it; if the program
    /// stops, whoever was there then looks as if they had left before they came.
    ///
    /// People are left out with whom the actor shares no small conversation, who have blocked the
    /// actor or whom the actor has blocked, whose accounts are deleted, and who keep `false` under
    /// [`PrefKey::presence`](crate::users::PrefKey::presence).
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid): there are more than 100 ids.
    pub async fn presence(&self, actor: &Actor, ids: &[UserId]) -> Result<Vec<Presence>> {
        let most = self.engine.limits().batch_users_max;
        if ids.len() > most {
            return Err(Invalid::new("ids", format!("must be 1 to {most} ids")).into());
        }
        let small = self.engine.limits().small_conversation_members_max;
        let (me, ids) = (actor.user_id(), ids.to_vec());
        let read = move |db| async move { queries::last_seen(&db, me, &ids, small).await };
        let store = self.engine.store();
        let last_seen = store.snapshot(self.engine.tasks(), read).await?;

        let ids = last_seen.iter().map(|(user, _)| *user).collect();
        let online = self.engine.hub().online(ids).await?;
        let people = last_seen.into_iter().map(|(user_id, at)| {
            let is_online = online.contains(&user_id);
            Presence {
                user_id,
                is_online,
                last_seen_at: at.filter(|_| !is_online),
            }
        });
        Ok(people.collect())
    }
}

/// Keeps when people were last seen.
pub(crate) struct Seen(pub(crate) HashMap<UserId, Timestamp>);

impl Operation for Seen {
    type Output = ();
    const IS_UPKEEP: bool = true;

    fn needs(&self, needs: &mut Needs) {
        for user in self.0.keys() {
            needs.user(*user);
        }
    }

    fn apply(&self, batch: &mut Batch) -> Result<()> {
        for (user, at) in &self.0 {
            if batch.require_user(*user).is_ok() {
                batch.put_seen(*user, Some(*at));
            }
        }
        Ok(())
    }
}
