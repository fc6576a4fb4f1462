//! The rules of profiles.

use super::{DisplayName, HostUser, User};
use crate::error::{Error, Result};
use crate::events::{Change, EventKind};
use crate::ids::{ConversationId, UserId};
use crate::store::entity::event;
use crate::write::{Batch, Fingerprint, LogRefs, Needs, Operation, Repeatable};

/// Makes a host's user exist, with the name that the host gives.
pub(super) struct EnsureUser(pub(super) HostUser);

impl Operation for EnsureUser {
    type Output = User;

    fn needs(&self, needs: &mut Needs) {
        needs.user(self.0.id);
        needs.username(self.0.username.key());
    }

    fn apply(&self, batch: &mut Batch) -> Result<User> {
        let HostUser {
            id,
            username,
            display_name,
        } = &self.0;
        let row = batch.users.get(&id.as_uuid());
        if row.is_some_and(|row| row.deleted_at.is_some()) {
            return Err(Error::UserDeleted);
        }
        let holder = batch.find_username(username.key());
        if holder.is_some_and(|holder| holder != *id) {
            return Err(Error::UsernameTaken);
        }
        let Ok(row) = batch.require_user(*id) else {
            return Ok(User::insert(batch, *id, username, display_name, None));
        };
        if holder.is_none() {
            // A username is for life here: it is how people have learnt to find somebody.
            return Err(Error::UsernameTaken);
        }
        if row.display_name == display_name.as_str() {
            return Ok(User::from(row));
        }
        show_as(batch, *id, display_name)
    }
}

/// Changes what somebody shows of themselves.
pub(super) struct ChangeProfile {
    pub(super) me: UserId,
    pub(super) display_name: DisplayName,
}

impl Operation for ChangeProfile {
    type Output = ();

    fn needs(&self, needs: &mut Needs) {
        needs.user(self.me);
    }

    fn apply(&self, batch: &mut Batch) -> Result<()> {
        let row = batch.require_user(self.me)?;
        if row.display_name != self.display_name.as_str() {
            show_as(batch, self.me, &self.display_name)?;
        }
        Ok(())
    }
}

impl Repeatable for ChangeProfile {
    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of("change_profile").and(self.display_name.as_str())
    }

    fn repeated(&self, _: Option<ConversationId>) -> Result<()> {
        Ok(())
    }
}

/// Gives somebody another name to show, and tells of it.
fn show_as(batch: &mut Batch, id: UserId, display_name: &DisplayName) -> Result<User> {
    let position = batch.next_position();
    if let Some(row) = batch.users.change(&id.as_uuid()) {
        row.display_name = display_name.as_str().to_owned();
        row.display_name_key = display_name.key();
        row.changed_pos = position.get();
    }
    let refs = LogRefs {
        user: Some(id),
        actor: Some(id),
        ..LogRefs::default()
    };
    batch.log(position, event::Kind::UserChanged, &refs);
    let user = User::from(batch.require_user(id)?);
    let event = batch.event(position, EventKind::UserChanged { user: user.clone() });
    batch.announce(Change::Profile { user: id, event });
    Ok(user)
}
