//! Writes that a client may repeat: an outbox that is replayed weeks later changes nothing.
//!
//! A message keeps its client's id itself. For every other write, a row beside it does: who wrote,
//! under which id, and a digest of what was asked.

use std::fmt;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Batch, Needs, Operation};
use crate::error::{Error, Invalid, Result};
use crate::ids::{ConversationId, Position, UserId};
use crate::store::entity::client_write;

/// The id that a client gives a write, to repeat it safely: 8 to 64 characters, none of them
/// U+0000. Made once for each write and not for each attempt; a UUIDv7 is stored fastest.
///
/// Whoever writes again under the same id gets the same answer, and nothing changes, for ever and
/// on any node. Something else under the same id is refused.
///
/// # Examples
///
/// ```
/// use messenger_core::ClientWriteId;
///
/// let id = ClientWriteId::parse("0195f3a0-7c1e-7cc2-9d3f-0f8d3a1b2c4d")?;
/// assert!(ClientWriteId::parse("short").is_err());
/// # Ok::<(), messenger_core::Invalid>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientWriteId(String);

impl ClientWriteId {
    /// Takes an id.
    ///
    /// # Errors
    ///
    /// [`Invalid`]: it is shorter or longer, or contains U+0000.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.contains('\0') {
            return Err(Invalid::new("client_write_id", "must not contain U+0000"));
        }
        match text.chars().count() {
            8..=64 => Ok(Self(text.to_owned())),
            _ => Err(Invalid::new(
                "client_write_id",
                "must be 8 to 64 characters",
            )),
        }
    }

    /// Returns the id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientWriteId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An operation that can be told to take place once.
pub(crate) trait Repeatable: Operation {
    /// What is asked, so that something else under the same id is noticed.
    fn fingerprint(&self) -> Fingerprint;

    /// The conversation that the write made, if it made one.
    fn made(_output: &Self::Output) -> Option<ConversationId> {
        None
    }

    /// The answer to whoever repeats the write.
    fn repeated(&self, made: Option<ConversationId>) -> Result<Self::Output>;
}

/// A digest of what a write asks.
#[derive(Clone, Debug)]
pub(crate) struct Fingerprint(Sha256);

impl Fingerprint {
    /// Begins with the name of the operation.
    pub(crate) fn of(operation: &'static str) -> Self {
        Self(Sha256::new()).and(operation.as_bytes())
    }

    /// Goes on with a part of what is asked.
    pub(crate) fn and(mut self, part: impl AsRef<[u8]>) -> Self {
        let part = part.as_ref();
        // With its length, so that no two lists of parts are alike.
        self.0.update((part.len() as u64).to_be_bytes());
        self.0.update(part);
        self
    }

    fn finish(self) -> Vec<u8> {
        self.0.finalize().to_vec()
    }
}

/// An operation that takes place once under its id, and each time without one.
pub(super) struct Once<O> {
    pub(super) operation: O,
    pub(super) actor: UserId,
    pub(super) id: Option<ClientWriteId>,
}

impl<O: Repeatable> Operation for Once<O> {
    /// With the position at which it holds.
    type Output = (O::Output, Position);

    fn needs(&self, needs: &mut Needs) {
        if let Some(id) = &self.id {
            needs.client_write(id.as_str(), self.actor);
        }
        self.operation.needs(needs);
    }

    fn bytes(&self) -> usize {
        self.operation.bytes()
    }

    fn apply(&self, batch: &mut Batch) -> Result<Self::Output> {
        let output = self.output(batch)?;
        Ok((output, batch.stamp().as_of))
    }
}

impl<O: Repeatable> Once<O> {
    fn output(&self, batch: &mut Batch) -> Result<O::Output> {
        let Some(id) = &self.id else {
            return self.operation.apply(batch);
        };
        let digest = self.operation.fingerprint().finish();
        if let Some(first) = batch.find_client_write(id.as_str(), self.actor) {
            if first.digest != digest {
                return Err(Error::ClientWriteConflict);
            }
            let made = first.conversation_id.map(ConversationId::from);
            return self.operation.repeated(made);
        }
        let output = self.operation.apply(batch)?;
        batch.insert_client_write(client_write::Model {
            client_id: id.as_str().to_owned(),
            actor_id: self.actor.as_uuid(),
            digest,
            conversation_id: O::made(&output).map(ConversationId::as_uuid),
            created_at: batch.now().as_micros(),
        });
        Ok(output)
    }
}

impl Batch {
    /// The write that an actor has made under a client id.
    fn find_client_write(&self, id: &str, actor: UserId) -> Option<&client_write::Model> {
        let key: (String, Uuid) = (id.to_owned(), actor.as_uuid());
        self.client_writes.get(&key)
    }

    fn insert_client_write(&mut self, row: client_write::Model) {
        let key = (row.client_id.clone(), row.actor_id);
        self.client_writes.insert(key, row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_fingerprint_do_not_run_together() {
        let of = |parts: &[&str]| {
            let begun = Fingerprint::of("test");
            parts.iter().fold(begun, Fingerprint::and).finish()
        };
        assert_eq!(of(&["ab", "c"]), of(&["ab", "c"]));
        assert_ne!(of(&["ab", "c"]), of(&["a", "bc"]));
        assert_ne!(of(&["abc"]), of(&["abc", ""]));
    }
}
