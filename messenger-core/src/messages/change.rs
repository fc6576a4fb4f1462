//! The rules of what is done to a message that was sent.

use std::sync::Arc;

use uuid::Uuid;

use super::{Message, MessageBody, Reaction, ReactionChange, Stamped, counted, counts_of, preview};
use crate::attachments;
use crate::auth::Actor;
use crate::conversations::{ConversationHead, Membership};
use crate::error::{Error, Invalid, Result};
use crate::events::{Change, Event, EventKind};
use crate::hooks::Verdict;
use crate::ids::{ConversationId, MessageId, UserId};
use crate::limits::Limits;
use crate::store::entity::{conversation, event, member, message, reaction};
use crate::write::{Batch, Fingerprint, LogRefs, Needs, Operation, Repeatable};

/// Who changes which message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) actor: UserId,
    pub(super) conversation: ConversationId,
    pub(super) message: MessageId,
}

/// What is done to it.
enum What {
    Edited,
    Deleted,
    Reaction(ReactionChange),
}

impl Target {
    pub(super) fn new(actor: &Actor, conversation: ConversationId, message: MessageId) -> Self {
        Self {
            actor: actor.user_id(),
            conversation,
            message,
        }
    }

    fn needs(&self, needs: &mut Needs) {
        needs.peer(self.conversation, self.actor);
        needs.message(self.message);
        // For a reaction and its bounds, and for every other change to answer with whose the
        // reactions are.
        needs.reactions(self.message, self.actor);
    }

    fn fingerprint(&self, operation: &'static str) -> Fingerprint {
        Fingerprint::of(operation)
            .and(self.conversation.as_uuid())
            .and(self.message.as_uuid())
    }

    /// The message, which the actor must see.
    fn require<'a>(&self, batch: &'a Batch) -> Result<&'a message::Model> {
        let membership = batch.require_membership(self.conversation, self.actor)?;
        batch.require_message(&membership, self.message)
    }

    /// The message as the actor sees it now.
    fn answer(&self, batch: &Batch) -> Result<Option<Stamped>> {
        let mut message = Message::from(self.require(batch)?.clone());
        for reactions in &mut message.reactions {
            let mine = self.key(&reactions.emoji);
            reactions.mine = batch.reactions.get(&mine).is_some();
        }
        Ok(Some(Stamped {
            message,
            stamp: batch.stamp(),
        }))
    }

    /// Insists that the actor may say something new here.
    fn require_peer(&self, batch: &Batch) -> Result<()> {
        batch.require_peer(self.conversation, self.actor)
    }

    fn key(&self, emoji: &str) -> (Uuid, Uuid, String) {
        let (message, actor) = (self.message.as_uuid(), self.actor.as_uuid());
        (message, actor, emoji.to_owned())
    }

    /// Leaves a tombstone in the place of the message.
    fn bury(&self, batch: &mut Batch, mut row: message::Model) {
        if row.reactions.is_some() {
            batch.erase_reactions(self.message);
        }
        for attachment in attachments::held_by(row.attachments.as_deref()) {
            batch.release_attachment(attachment.id.as_uuid());
        }
        row.content.clear();
        row.deleted_at = Some(batch.now().as_micros());
        row.reactions = None;
        row.metadata = None;
        row.mentions = None;
        row.attachments = None;
        self.write(batch, row, What::Deleted);
    }

    /// Stores another form of the message, and tells of it.
    fn write(&self, batch: &mut Batch, mut row: message::Model, what: What) {
        let position = batch.next_position();
        let now = batch.now();
        row.changed_pos = position.get();
        if let Some(stored) = batch.messages.change(&row.id) {
            stored.clone_from(&row);
        }
        let message = Message::from(row);
        let mut head = None;
        if let Some(row) = batch.conversations.advance(&self.conversation.as_uuid()) {
            row.last_pos = position.get();
            let is_reaction = matches!(what, What::Reaction(_));
            if row.last_seq == message.seq.get() && !is_reaction {
                row.changed_pos = position.get();
                row.updated_at = now.as_micros();
                row.last_message_preview = Some(preview(&message.content).to_owned());
                head = ConversationHead::changed(&message);
            }
        }
        let mut refs = LogRefs {
            seq: Some(message.seq.get()),
            ..LogRefs::of(self.conversation, self.actor)
        };
        let seq = Some(message.seq);
        let (kind, told) = match what {
            What::Edited => (
                event::Kind::MessageEdited,
                EventKind::MessageUpdated {
                    message,
                    reaction: None,
                    conversation: head,
                },
            ),
            What::Deleted => (
                event::Kind::MessageDeleted,
                EventKind::MessageDeleted {
                    message,
                    conversation: head,
                },
            ),
            What::Reaction(change) => {
                refs.bytes = change.packed();
                (
                    event::Kind::ReactionChanged,
                    EventKind::MessageUpdated {
                        message,
                        reaction: Some(change),
                        conversation: None,
                    },
                )
            }
        };
        batch.log(position, kind, &refs);
        let event = Event::new(batch.event_id(position), position, now, told);
        batch.announce(Change::InConversation {
            conversation: self.conversation,
            seq,
            event: Arc::new(event),
        });
    }
}

/// Gives a message other content.
pub(super) struct Edit {
    pub(super) target: Target,
    pub(super) body: MessageBody,
    pub(super) verdict: Verdict,
    /// The rule that a message without a text breaks, unless something is attached to it.
    pub(super) missing: Invalid,
}

impl Operation for Edit {
    type Output = Option<Stamped>;

    fn needs(&self, needs: &mut Needs) {
        self.target.needs(needs);
    }

    fn bytes(&self) -> usize {
        self.body.as_str().len()
    }

    fn apply(&self, batch: &mut Batch) -> Result<Option<Stamped>> {
        let mut row = self.target.require(batch)?.clone();
        if row.sender_id != self.target.actor.as_uuid() {
            return Err(Error::Forbidden);
        }
        if row.deleted_at.is_some() {
            return Err(Error::MessageDeleted);
        }
        if self.body.is_none() && row.attachments.is_none() {
            return Err(self.missing.clone().into());
        }
        if row.content != self.body.as_str() {
            self.target.require_peer(batch)?;
            self.verdict.clone()?;
            self.body.as_str().clone_into(&mut row.content);
            row.edited_at = Some(batch.now().as_micros());
            self.target.write(batch, row, What::Edited);
        }
        self.target.answer(batch)
    }
}

impl Repeatable for Edit {
    fn fingerprint(&self) -> Fingerprint {
        let target = self.target.fingerprint("edit message");
        target.and(self.body.as_str())
    }

    fn repeated(&self, _made: Option<ConversationId>) -> Result<Option<Stamped>> {
        Ok(None)
    }
}

/// Leaves a tombstone in the place of a message.
pub(super) struct Delete {
    pub(super) target: Target,
}

impl Operation for Delete {
    type Output = Option<Stamped>;

    fn needs(&self, needs: &mut Needs) {
        self.target.needs(needs);
        needs.attachments_of(self.target.message);
    }

    fn apply(&self, batch: &mut Batch) -> Result<Option<Stamped>> {
        let row = self.target.require(batch)?.clone();
        let is_sender = row.sender_id == self.target.actor.as_uuid();
        if !is_sender && !self.moderates(batch) {
            return Err(Error::Forbidden);
        }
        if row.deleted_at.is_none() {
            self.target.bury(batch, row);
        }
        self.target.answer(batch)
    }
}

impl Delete {
    /// Whether the actor may delete what others have sent.
    fn moderates(&self, batch: &Batch) -> bool {
        let conversation = self.target.conversation.as_uuid();
        let is_group = batch
            .conversations
            .get(&conversation)
            .is_some_and(|row| row.kind == conversation::Kind::Group);
        let role = batch
            .members
            .get(&(conversation, self.target.actor.as_uuid()))
            .map(|row| row.role);
        is_group && matches!(role, Some(member::Role::Admin | member::Role::Owner))
    }
}

impl Repeatable for Delete {
    fn fingerprint(&self) -> Fingerprint {
        self.target.fingerprint("delete message")
    }

    fn repeated(&self, _made: Option<ConversationId>) -> Result<Option<Stamped>> {
        Ok(None)
    }
}

/// Erases what somebody wrote in a conversation, and how they reacted there, whether they belong to
/// it or not.
pub(crate) struct EraseOf {
    pub(crate) user: UserId,
    pub(crate) conversation: ConversationId,
    /// Messages, and whether the person has sent them.
    pub(crate) messages: Vec<(MessageId, bool)>,
}

impl Operation for EraseOf {
    type Output = ();
    const IS_UPKEEP: bool = true;

    fn needs(&self, needs: &mut Needs) {
        needs.membership(self.conversation, self.user);
        for (message, _) in &self.messages {
            needs.attachments_of(*message);
            needs.reactions(*message, self.user);
        }
    }

    fn bytes(&self) -> usize {
        self.messages.len() * MESSAGE_BYTES
    }

    fn apply(&self, batch: &mut Batch) -> Result<()> {
        for (message, is_sender) in &self.messages {
            let target = Target {
                actor: self.user,
                conversation: self.conversation,
                message: *message,
            };
            let row = batch.messages.get(&message.as_uuid());
            let Some(row) = row.filter(|row| row.deleted_at.is_none()).cloned() else {
                continue;
            };
            if *is_sender {
                target.bury(batch, row);
            } else {
                target.take_back(batch, row);
            }
        }
        Ok(())
    }
}

impl Target {
    /// Takes every reaction of the actor back.
    fn take_back(&self, batch: &mut Batch, mut row: message::Model) {
        let (message, actor) = (self.message.as_uuid(), self.actor.as_uuid());
        let mine = batch.reactions.rows();
        let mine = mine.filter(|row| row.message_id == message && row.user_id == actor);
        let mut mine: Vec<String> = mine.map(|row| row.emoji.clone()).collect();
        mine.sort_unstable();
        for emoji in mine {
            batch.reactions.remove(&self.key(&emoji));
            row.reactions = without(row.reactions.as_deref(), &emoji);
            let change = ReactionChange {
                user_id: self.actor,
                emoji,
                added: false,
            };
            self.write(batch, row.clone(), What::Reaction(change));
        }
    }
}

/// The column for counts with one reaction less.
fn without(counts: Option<&str>, emoji: &str) -> Option<String> {
    let mut counts = counts_of(counts);
    if let Some(count) = counts.get_mut(emoji) {
        *count = count.saturating_sub(1);
    }
    counts.retain(|_, count| *count > 0);
    counted(&counts)
}

/// About what a message that is erased takes in a transaction.
const MESSAGE_BYTES: usize = 512;

/// Whether a reaction is to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    On,
    Off,
}

/// Adds a reaction or takes it away.
pub(super) struct React {
    target: Target,
    reaction: Reaction,
    turn: Turn,
    per_message_max: usize,
    per_user_max: usize,
}

impl React {
    pub(super) fn new(target: Target, reaction: Reaction, turn: Turn, limits: &Limits) -> Self {
        Self {
            target,
            reaction,
            turn,
            per_message_max: limits.reactions_per_message_max,
            per_user_max: limits.reactions_per_user_max,
        }
    }

    /// Checks that the message has room for one more reaction of the actor.
    fn room(&self, batch: &Batch, different: usize, is_new: bool) -> Result<(), Invalid> {
        if is_new && different >= self.per_message_max {
            let most = self.per_message_max;
            let rule = format!("is one too many: a message has at most {most} different reactions");
            return Err(Invalid::new("emoji", rule));
        }
        let (message, _, _) = self.target.key("");
        let actor = self.target.actor.as_uuid();
        let mine = batch.reactions.rows();
        let mine = mine.filter(|row| row.message_id == message && row.user_id == actor);
        if mine.count() >= self.per_user_max {
            let most = self.per_user_max;
            let rule = format!("is one too many: a person has at most {most} on one message");
            return Err(Invalid::new("emoji", rule));
        }
        Ok(())
    }
}

impl Operation for React {
    type Output = Option<Stamped>;

    fn needs(&self, needs: &mut Needs) {
        self.target.needs(needs);
    }

    fn apply(&self, batch: &mut Batch) -> Result<Option<Stamped>> {
        let mut row = self.target.require(batch)?.clone();
        if row.deleted_at.is_some() {
            return Err(Error::MessageDeleted);
        }
        let emoji = self.reaction.as_str();
        let key = self.target.key(emoji);
        let is_there = batch.reactions.get(&key).is_some();
        if is_there == (self.turn == Turn::On) {
            return self.target.answer(batch);
        }

        let mut counts = counts_of(row.reactions.as_deref());
        match self.turn {
            Turn::On => {
                self.target.require_peer(batch)?;
                self.room(batch, counts.len(), !counts.contains_key(emoji))?;
                *counts.entry(emoji.to_owned()).or_default() += 1;
                let reaction = reaction::Model {
                    message_id: key.0,
                    user_id: key.1,
                    emoji: emoji.to_owned(),
                    created_at: batch.now().as_micros(),
                };
                batch.reactions.insert(key, reaction);
            }
            Turn::Off => {
                if let Some(count) = counts.get_mut(emoji) {
                    *count = count.saturating_sub(1);
                }
                counts.retain(|_, count| *count > 0);
                batch.reactions.remove(&key);
            }
        }
        row.reactions = counted(&counts);
        let change = ReactionChange {
            user_id: self.target.actor,
            emoji: emoji.to_owned(),
            added: self.turn == Turn::On,
        };
        self.target.write(batch, row, What::Reaction(change));
        self.target.answer(batch)
    }
}

impl Repeatable for React {
    fn fingerprint(&self) -> Fingerprint {
        let operation = match self.turn {
            Turn::On => "react",
            Turn::Off => "unreact",
        };
        self.target
            .fingerprint(operation)
            .and(self.reaction.as_str())
    }

    fn repeated(&self, _made: Option<ConversationId>) -> Result<Option<Stamped>> {
        Ok(None)
    }
}

impl ReactionChange {
    /// As the change log has it.
    fn packed(&self) -> Vec<u8> {
        let mut bytes = vec![u8::from(self.added)];
        bytes.extend_from_slice(self.emoji.as_bytes());
        bytes
    }

    /// Reads it from a line of the change log.
    pub(crate) fn unpacked(user_id: UserId, bytes: &[u8]) -> Option<Self> {
        let (added, emoji) = bytes.split_first()?;
        Some(Self {
            user_id,
            emoji: String::from_utf8(emoji.to_vec()).ok()?,
            added: *added == 1,
        })
    }
}

impl Batch {
    /// A message that a member may see.
    pub(super) fn require_message(
        &self,
        membership: &Membership,
        id: MessageId,
    ) -> Result<&message::Model> {
        let conversation = membership.conversation_id().as_uuid();
        let first = membership.visible_from().get();
        self.messages
            .get(&id.as_uuid())
            .filter(|row| row.conversation_id == conversation && row.seq >= first)
            .ok_or(Error::MessageNotFound)
    }
}
