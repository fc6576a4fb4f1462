//! Catching up: everything at once, or what was missed.

mod pages;

use std::collections::BTreeMap;

use crate::auth::Actor;
use crate::conversations::Conversation;
use crate::engine::MessengerEngine;
use crate::error::{Invalid, Result};
use crate::ids::{ConversationId, Seq};
use crate::messages::Message;
use crate::users::User;

/// Catching up: the view that [`MessengerEngine::sync`] gives.
#[derive(Debug)]
pub struct Sync<'a> {
    engine: &'a MessengerEngine,
}

/// What a new device needs to begin: one picture of one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Bootstrap {
    /// The actor.
    pub me: User,
    /// Everybody who is named below, the actor too, ordered by id.
    pub users: Vec<User>,
    /// The actor's conversations, the one with the newest message or change first.
    pub conversations: Vec<Conversation>,
    /// The newest messages of every conversation, ordered by conversation and `seq`.
    pub recent_messages: Vec<Message>,
}

/// What a device has missed, by its last sequence numbers: one picture of one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Changes {
    /// Everybody who is named below, the actor too, ordered by id.
    pub users: Vec<User>,
    /// The actor's conversations, the one with the newest message or change first.
    pub conversations: Vec<Conversation>,
    /// The missed messages, ordered by conversation and ascending by `seq` within each.
    pub messages: Vec<Message>,
    /// Whether more messages were missed than are here: ask again with
    /// [`next_after_seq`](Self::next_after_seq).
    pub has_more: bool,
    /// The last sequence number that this answer reaches, for every conversation of the actor.
    pub next_after_seq: BTreeMap<ConversationId, Seq>,
}

impl<'a> Sync<'a> {
    pub(crate) fn new(engine: &'a MessengerEngine) -> Self {
        Self { engine }
    }

    /// Returns what a new device needs: who the actor is, all conversations, and the newest
    /// messages of each.
    ///
    /// Each conversation gets up to 50 messages. An actor with very many conversations gets
    /// fewer of each, at least one, so that an answer stays near 5,000 messages.
    ///
    /// # Errors
    ///
    /// [`Error::UserNotFound`](crate::Error::UserNotFound): the host trusts somebody whom the
    /// engine does not know.
    pub async fn bootstrap(&self, actor: &Actor) -> Result<Bootstrap> {
        let (user, limits) = (actor.user_id(), self.engine.limits().clone());
        let read = move |db| async move { pages::bootstrap(&db, user, &limits).await };
        self.engine
            .store()
            .snapshot(self.engine.tasks(), read)
            .await
    }

    /// Returns what came after the last sequence number that a device has of each conversation.
    ///
    /// A conversation that is not named counts from 0; one that is not the actor's is ignored.
    /// An answer has up to 100 messages of each conversation and 20,000 in all: repeat with
    /// [`Changes::next_after_seq`] for as long as [`Changes::has_more`].
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`](crate::Error::Invalid): more than 10,000 conversations are named.
    pub async fn changes_after(
        &self,
        actor: &Actor,
        after: &BTreeMap<ConversationId, Seq>,
    ) -> Result<Changes> {
        let most = self.engine.limits().conversations_named_max;
        if after.len() > most {
            let rule = format!("must name at most {most} conversations");
            return Err(Invalid::new("after_seq_by_conversation", rule).into());
        }
        let (user, after) = (actor.user_id(), after.clone());
        let limits = self.engine.limits().clone();
        let read = move |db| async move { pages::changes(&db, user, &after, &limits).await };
        self.engine
            .store()
            .snapshot(self.engine.tasks(), read)
            .await
    }
}
