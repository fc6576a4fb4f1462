//! How somebody keeps a conversation for themselves, which nobody else sees.

use super::Conversations;
use crate::auth::Actor;
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::events::{Change, EventKind};
use crate::ids::{ConversationId, Position, UserId};
use crate::store::entity::{event, member};
use crate::write::{Batch, Fingerprint, LogRefs, Needs, Operation, Repeatable};

/// How a member keeps a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// Until when it is to make no noise.
    pub muted_until: Option<Timestamp>,
    /// Since when it is pinned to the top of the member's list.
    pub pinned_at: Option<Timestamp>,
    /// Since when it is put away.
    pub archived_at: Option<Timestamp>,
    /// Whether it is to look unread.
    pub marked_unread: bool,
}

/// What to change about [`Settings`]; what is `None` stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SettingsChange {
    /// Until when it is to make no noise; `Some(None)` ends its silence.
    pub muted_until: Option<Option<Timestamp>>,
    /// Whether it is pinned to the top.
    pub pinned: Option<bool>,
    /// Whether it is put away.
    pub archived: Option<bool>,
    /// Whether it is to look unread.
    pub marked_unread: Option<bool>,
}

impl Conversations<'_> {
    /// Changes how the actor keeps a conversation of any kind. Only their own devices are told.
    ///
    /// What is pinned or archived already stays so since then. Returns the position at which it is so.
    ///
    /// # Errors
    ///
    /// [`Error::ConversationNotFound`]: it does not exist, or the actor is not a member.
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, all of it has changed, or nothing.
    pub async fn change_settings(
        &self,
        actor: &Actor,
        conversation: ConversationId,
        change: SettingsChange,
    ) -> Result<Position> {
        let change = ChangeSettings {
            me: actor.user_id(),
            conversation,
            change,
        };
        self.write_once(change, actor).await
    }
}

/// Changes how somebody keeps a conversation.
struct ChangeSettings {
    me: UserId,
    conversation: ConversationId,
    change: SettingsChange,
}

impl Operation for ChangeSettings {
    type Output = ();

    fn needs(&self, needs: &mut Needs) {
        needs.membership(self.conversation, self.me);
    }

    fn apply(&self, batch: &mut Batch) -> Result<()> {
        batch.require_membership(self.conversation, self.me)?;
        let key = (self.conversation.as_uuid(), self.me.as_uuid());
        let row = batch.members.get(&key);
        let before = Settings::of(row.ok_or(Error::ConversationNotFound)?);
        let now = batch.now();
        let since = |before: Option<Timestamp>, wanted: Option<bool>| match wanted {
            None => before,
            Some(true) => before.or(Some(now)),
            Some(false) => None,
        };
        let after = Settings {
            muted_until: self.change.muted_until.unwrap_or(before.muted_until),
            pinned_at: since(before.pinned_at, self.change.pinned),
            archived_at: since(before.archived_at, self.change.archived),
            marked_unread: self.change.marked_unread.unwrap_or(before.marked_unread),
        };
        if before == after {
            return Ok(());
        }

        let position = batch.next_position();
        if let Some(row) = batch.members.change(&key) {
            row.muted_until = after.muted_until.map(Timestamp::as_micros);
            row.pinned_at = after.pinned_at.map(Timestamp::as_micros);
            row.archived_at = after.archived_at.map(Timestamp::as_micros);
            row.marked_unread = after.marked_unread;
            row.self_pos = position.get();
        }
        own_changed(batch, position, self.conversation, self.me);
        Ok(())
    }
}

impl Repeatable for ChangeSettings {
    fn fingerprint(&self) -> Fingerprint {
        let change = &self.change;
        let muted = change
            .muted_until
            .map(|until| until.map(Timestamp::as_micros));
        let flags = [change.pinned, change.archived, change.marked_unread];
        Fingerprint::of("change_settings")
            .and(self.conversation.as_uuid())
            .and(format!("{muted:?} {flags:?}"))
    }

    fn repeated(&self, _: Option<ConversationId>) -> Result<()> {
        Ok(())
    }
}

/// Tells a member's own devices how the member keeps a conversation now.
pub(super) fn own_changed(
    batch: &mut Batch,
    position: Position,
    conversation: ConversationId,
    user: UserId,
) {
    let key = (conversation.as_uuid(), user.as_uuid());
    let Some(settings) = batch.members.get(&key).map(Settings::of) else {
        return;
    };
    let refs = LogRefs {
        user: Some(user),
        ..LogRefs::of(conversation, user)
    };
    batch.log(position, event::Kind::SelfChanged, &refs);
    let event = batch.event(
        position,
        EventKind::OwnChanged {
            conversation,
            settings,
        },
    );
    batch.announce(Change::Own { user, event });
}

impl Settings {
    pub(crate) fn of(row: &member::Model) -> Self {
        Self {
            muted_until: row.muted_until.map(Timestamp::from_micros),
            pinned_at: row.pinned_at.map(Timestamp::from_micros),
            archived_at: row.archived_at.map(Timestamp::from_micros),
            marked_unread: row.marked_unread,
        }
    }
}
