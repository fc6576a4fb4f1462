//! The rules of uploading and of taking away.

use std::time::Duration;

use uuid::Uuid;

use super::{FileName, MediaType};
use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::ids::{AttachmentId, ConversationId, UserId};
use crate::limits::Limits;
use crate::store::entity::attachment::{Model, State};
use crate::store::entity::conversation;
use crate::write::{Batch, ClientWriteId, Fingerprint, Needs, Operation, Repeatable};

/// Begins an upload.
pub(super) struct Begin {
    pub(super) id: AttachmentId,
    pub(super) owner: UserId,
    pub(super) client_id: Option<ClientWriteId>,
    pub(super) name: FileName,
    pub(super) media_type: MediaType,
    /// How long the uploader says that it is.
    pub(super) size: Option<u64>,
    pub(super) limits: Limits,
}

/// What is to be done after [`Begin`].
pub(super) enum Begun {
    /// The bytes are to come.
    Anew,
    /// They came before.
    Before(Box<Model>),
}

impl Operation for Begin {
    type Output = Begun;

    fn needs(&self, needs: &mut Needs) {
        needs.user(self.owner);
        needs.attachments_unsent(self.owner);
        if let Some(id) = &self.client_id {
            needs.attachment_begun(id.as_str(), self.owner);
        }
    }

    fn apply(&self, batch: &mut Batch) -> Result<Begun> {
        batch.require_user(self.owner)?;
        let (name, media_type) = (self.name.as_str(), self.media_type.as_str());
        let client_id = self.client_id.as_ref().map(ClientWriteId::as_str);
        let first = client_id.and_then(|id| batch.find_attachment(id, self.owner));
        let mut left = None;
        if let Some(first) = first {
            let is_same = first.name == name && first.media_type == media_type;
            let is_as_long = self
                .size
                .is_none_or(|size| i64::try_from(size) == Ok(first.size));
            let is_ready = first.state == State::Ready;
            if !is_same || (is_ready && !is_as_long) {
                return Err(Error::ClientWriteConflict);
            }
            if is_ready {
                return Ok(Begun::Before(Box::new(first.clone())));
            }
            // The attempt before was broken off, or will be told to try again: one that is left
            // behind must not keep its client from going on.
            left = Some(first.id);
        }
        let most = i64::from(self.limits.attachments_unsent_per_user_max);
        let others = batch.attachments_unsent(self.owner) - i64::from(left.is_some());
        if others >= most {
            return Err(Error::AttachmentsFull);
        }

        let now = batch.now();
        let due_at = Some(now.plus(self.limits.attachment_grace).as_micros());
        if let Some(left) = left {
            batch.release_attachment(left);
            // Its files may still be written: whoever does so says when that has ended, and after this
            // time nobody does.
            if let Some(row) = batch.attachments.change(&left) {
                row.due_at = due_at;
            }
        }
        batch.insert_attachment(Model {
            id: self.id.as_uuid(),
            owner_id: self.owner.as_uuid(),
            client_id: client_id.map(str::to_owned),
            name: name.to_owned(),
            media_type: media_type.to_owned(),
            size: 0,
            sha256: None,
            width: None,
            height: None,
            has_preview: false,
            state: State::Begun,
            conversation_id: None,
            message_id: None,
            created_at: now.as_micros(),
            due_at,
        });
        Ok(Begun::Anew)
    }
}

/// Notes that the bytes of an upload are there.
pub(super) struct Finish {
    pub(super) id: AttachmentId,
    pub(super) size: u64,
    pub(super) sha256: Vec<u8>,
    pub(super) pixels: Option<(u32, u32)>,
    pub(super) has_preview: bool,
    pub(super) limits: Limits,
}

impl Operation for Finish {
    type Output = Model;

    fn needs(&self, needs: &mut Needs) {
        needs.attachment(self.id);
    }

    fn apply(&self, batch: &mut Batch) -> Result<Model> {
        let due_at = batch.now().plus(self.limits.attachment_grace).as_micros();
        let id = self.id.as_uuid();
        // Another attempt has taken its place, or its time was over.
        let again = || Error::Busy {
            retry_after: Duration::from_secs(1),
        };
        let row = batch.attachments.get(&id);
        row.filter(|row| row.state == State::Begun)
            .ok_or_else(again)?;
        let row = batch.attachments.change(&id).ok_or_else(again)?;
        row.size = i64::try_from(self.size).unwrap_or(i64::MAX);
        row.sha256 = Some(self.sha256.clone());
        row.width = self.pixels.map(|(width, _)| width.into());
        row.height = self.pixels.map(|(_, height)| height.into());
        row.has_preview = self.has_preview;
        row.state = State::Ready;
        row.due_at = Some(due_at);
        Ok(row.clone())
    }
}

/// Gives up an upload that was refused or broken off, if it was not finished: nobody writes its files
/// any more.
pub(super) struct GiveUp {
    pub(super) id: AttachmentId,
}

impl Operation for GiveUp {
    /// Whether files that there are of it are nobody's.
    type Output = bool;
    const IS_UPKEEP: bool = true;

    fn needs(&self, needs: &mut Needs) {
        needs.attachment(self.id);
    }

    fn apply(&self, batch: &mut Batch) -> Result<bool> {
        let id = self.id.as_uuid();
        let state = batch.attachments.get(&id).map(|row| row.state);
        if state == Some(State::Begun) || state == Some(State::Released) {
            batch.release_attachment(id);
        }
        Ok(state != Some(State::Ready))
    }
}

/// Deletes an attachment that no message has.
pub(super) struct Delete {
    pub(super) owner: UserId,
    pub(super) id: AttachmentId,
}

impl Operation for Delete {
    type Output = ();

    fn needs(&self, needs: &mut Needs) {
        needs.attachment(self.id);
    }

    fn apply(&self, batch: &mut Batch) -> Result<()> {
        let id = self.id.as_uuid();
        let row = batch.attachments.get(&id);
        let row = row
            .filter(|row| row.owner_id == self.owner.as_uuid() && row.state == State::Ready)
            .ok_or(Error::AttachmentNotFound)?;
        if row.message_id.is_some() {
            return Err(Error::AttachmentUsed);
        }
        batch.release_attachment(id);
        Ok(())
    }
}

impl Repeatable for Delete {
    fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of("delete attachment").and(self.id.as_uuid())
    }

    fn repeated(&self, _made: Option<ConversationId>) -> Result<()> {
        Ok(())
    }
}

/// Takes attachments whose time is over from everybody, so that no message gets one whose file is
/// going.
pub(super) struct Claim {
    pub(super) ids: Vec<Uuid>,
    pub(super) now: Timestamp,
}

impl Operation for Claim {
    /// Those whose files may go.
    type Output = Vec<Claimed>;
    const IS_UPKEEP: bool = true;

    fn needs(&self, needs: &mut Needs) {
        for id in &self.ids {
            needs.attachment((*id).into());
        }
    }

    fn apply(&self, batch: &mut Batch) -> Result<Vec<Claimed>> {
        let mut claimed = Vec::with_capacity(self.ids.len());
        for id in &self.ids {
            let Some(row) = batch.attachments.get(id) else {
                continue;
            };
            if row.due_at.is_none_or(|due| due > self.now.as_micros()) {
                continue;
            }
            let conversation = row.conversation_id.map(ConversationId::from);
            if row.state != State::Released {
                batch.release_attachment(*id);
            }
            let id = AttachmentId::from(*id);
            claimed.push(Claimed { id, conversation });
        }
        Ok(claimed)
    }
}

/// An attachment whose files may go, and where its message was.
pub(super) struct Claimed {
    pub(super) id: AttachmentId,
    pub(super) conversation: Option<ConversationId>,
}

/// Forgets attachments whose files have gone, and leaves others for later. A conversation that was deleted
/// loses more, until nothing is left of it.
pub(super) struct Forget {
    pub(super) gone: Vec<Claimed>,
    pub(super) left: Vec<AttachmentId>,
    pub(super) again_at: Timestamp,
}

impl Operation for Forget {
    type Output = ();
    const IS_UPKEEP: bool = true;

    fn needs(&self, needs: &mut Needs) {
        for claimed in &self.gone {
            needs.attachment(claimed.id);
            if let Some(conversation) = claimed.conversation {
                needs.conversation(conversation);
            }
        }
        for id in &self.left {
            needs.attachment(*id);
        }
    }

    fn apply(&self, batch: &mut Batch) -> Result<()> {
        for claimed in &self.gone {
            let id = claimed.id.as_uuid();
            let row = batch.attachments.get(&id);
            if row.is_some_and(|row| row.state == State::Released) {
                batch.attachments.remove(&id);
            }
            if let Some(conversation) = claimed.conversation {
                let row = batch.conversations.get(&conversation.as_uuid());
                if row.is_some_and(|row| row.state == conversation::State::Deleted) {
                    batch.release_attachments_in(conversation);
                }
            }
        }
        for id in &self.left {
            if let Some(row) = batch.attachments.change(&id.as_uuid()) {
                row.due_at = Some(self.again_at.as_micros());
            }
        }
        Ok(())
    }
}
