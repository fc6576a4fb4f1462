//! All that somebody's account has, for them to take along.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::attachments::Attachment;
use crate::auth::Actor;
use crate::clock::Timestamp;
use crate::conversations::{self, ConversationKind, Role};
use crate::engine::MessengerEngine;
use crate::error::{Error, Result};
use crate::ids::{ConversationId, Seq};
use crate::json::raw;
use crate::limits::Limits;
use crate::messages::{self, Message};
use crate::places::Places;
use crate::store::entity::{conversation, member};
use crate::users::{self, Users};

/// How long to wait before an export is asked for again for which there was no place.
const AGAIN: Duration = Duration::from_secs(10);
/// Lines that are made before the first of them is read.
const LINES_AHEAD: usize = 64;
/// Conversations that are looked up at once.
const CONVERSATIONS_AT_ONCE: u64 = 100;
/// Messages that are looked through at once for those of one person.
const SEQS_AT_ONCE: i64 = 200;

/// All that somebody's account has, line by line; made by [`Users::export`].
///
/// Dropping it ends it. It ends with one error if the database fails, the actor's session ends
/// ([`Error::InvalidToken`]) or the engine closes.
#[must_use = "an export that is dropped has ended"]
pub struct Export {
    engine: MessengerEngine,
    actor: Actor,
    lines: mpsc::Receiver<Result<String>>,
    ended: bool,
}

/// Places for those who take their data along.
pub(crate) fn places(limits: &Limits) -> Arc<Places> {
    Places::new(limits.exports_max, 1, AGAIN)
}

impl Users<'_> {
    /// Returns all that the actor's account has, as lines of JSON, each an object with a `type`:
    /// `profile`, `pref`, `block`, `session`, `conversation` (with the actor's `membership`),
    /// `message` and `reaction`, in this order; messages and reactions conversation by conversation.
    ///
    /// What others wrote is not in it, nor is the title of what the actor has left. Of conversations
    /// that the actor has left, what the actor wrote is. It is read a page at a time, so memory stays
    /// small, and what changes meanwhile may be in it or not.
    ///
    /// # Errors
    ///
    /// - [`Error::Busy`]: one of the actor's is under way, or as many as there may be at a time
    ///   ([`Limits::exports_max`](crate::Limits::exports_max)).
    /// - The stream's first item is [`Error::UserNotFound`] if the host trusts somebody whom the
    ///   engine does not know; it ends with an error where it can not go on.
    ///
    /// # Cancel safety
    ///
    /// It only reads.
    pub fn export(&self, actor: &Actor) -> Result<Export> {
        let place = self.engine().exports().enter(actor.user_id())?;
        let (sender, lines) = mpsc::channel(LINES_AHEAD);
        let task = Task {
            engine: self.engine().clone(),
            actor: actor.clone(),
            lines: sender.clone(),
        };
        self.engine().tasks().start(async move {
            let closing = task.engine.tasks().closing().clone();
            let end = tokio::select! {
                () = sender.closed() => return,
                () = closing.cancelled() => Err(Error::Closed),
                end = task.run() => end,
            };
            // Whoever has seen the end may begin again.
            drop(place);
            if let Err(error) = end {
                tokio::select! {
                    () = closing.cancelled() => {}
                    _ = sender.send(Err(error)) => {}
                }
            }
        });
        Ok(Export {
            engine: self.engine().clone(),
            actor: actor.clone(),
            lines,
            ended: false,
        })
    }
}

impl Stream for Export {
    type Item = Result<String>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.ended {
            return Poll::Ready(None);
        }
        let mut next = ready!(this.lines.poll_recv(cx));
        // The end of the session does not wait behind what was read before it.
        if this.engine.revocations().have_ended(&this.actor) {
            next = Some(Err(Error::InvalidToken));
        }
        this.ended = !matches!(next, Some(Ok(_)));
        if this.ended {
            this.lines.close();
        }
        Poll::Ready(next)
    }
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Export").finish_non_exhaustive()
    }
}

struct Task {
    engine: MessengerEngine,
    actor: Actor,
    lines: mpsc::Sender<Result<String>>,
}

impl Task {
    async fn run(&self) -> Result<()> {
        self.account().await?;
        self.conversations().await?;
        self.messages().await
    }

    /// The profile and what the person keeps for themselves.
    async fn account(&self) -> Result<()> {
        let users = self.engine.users();
        let me = users.me(&self.actor).await?;
        let db = self.engine.store().read();
        let last_seen_at = users::queries::seen(&db, me.id).await?;
        self.tell(&json!({
            "type": "profile",
            "id": me.id.as_uuid(),
            "username": me.username.as_str(),
            "display_name": me.display_name.as_str(),
            "created_at": me.created_at.to_string(),
            "deleted_at": time(me.deleted_at),
            "last_seen_at": time(last_seen_at),
        }))
        .await?;
        for pref in users.prefs(&self.actor).await? {
            self.tell(&PrefLine {
                kind: "pref",
                key: pref.key.as_str(),
                value: pref.value.and_then(|value| raw(value.as_str())),
            })
            .await?;
        }
        let limit = self.engine.limits().page_blocks_max;
        let mut after = None;
        loop {
            let page = users.blocked(&self.actor, after, limit).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.user.id);
            for blocked in &page {
                let id = blocked.user.id.as_uuid();
                self.tell(&json!({ "type": "block", "user_id": id }))
                    .await?;
            }
        }
        for session in self.engine.auth().sessions(&self.actor).await? {
            self.tell(&json!({
                "type": "session",
                "id": session.id.as_uuid(),
                "device": session.device,
                "created_at": session.created_at.to_string(),
                "last_used_at": session.last_used_at.to_string(),
                "expires_at": session.expires_at.to_string(),
            }))
            .await?;
        }
        Ok(())
    }

    /// Every conversation to which the person ever belonged, with their side of it.
    async fn conversations(&self) -> Result<()> {
        let (store, user) = (self.engine.store(), self.actor.user_id());
        let mut key = Uuid::nil();
        loop {
            let db = store.read();
            let limit = CONVERSATIONS_AT_ONCE;
            let page = conversations::queries::own_after(&db, user, key, limit).await?;
            let Some((last, _)) = page.last() else {
                return Ok(());
            };
            key = last.conversation_id;
            for (own, row) in &page {
                self.tell(&of_conversation(own, row)).await?;
            }
        }
    }

    /// What the person wrote, and how they reacted.
    async fn messages(&self) -> Result<()> {
        let (store, user) = (self.engine.store(), self.actor.user_id());
        let mut key = Uuid::nil();
        loop {
            let db = store.read();
            let limit = CONVERSATIONS_AT_ONCE;
            let page = conversations::queries::ever_after(&db, user, key, limit).await?;
            let Some((last, _)) = page.last() else {
                return Ok(());
            };
            key = last.as_uuid();
            for (conversation, last_seq) in page {
                self.messages_in(conversation, last_seq).await?;
            }
        }
    }

    async fn messages_in(&self, conversation: ConversationId, last_seq: Seq) -> Result<()> {
        let (store, user) = (self.engine.store(), self.actor.user_id());
        let mut after = 0;
        while after < last_seq.get() {
            let place = messages::queries::Place {
                conversation,
                after,
                upto: after + SEQS_AT_ONCE,
            };
            let db = store.read();
            for message in messages::queries::sent_by(&db, user, place).await? {
                self.tell(&of_message(&message)).await?;
            }
            for (message, reacted) in messages::queries::reacted_by(&db, user, place).await? {
                self.tell(&json!({
                    "type": "reaction",
                    "conversation_id": conversation.as_uuid(),
                    "message_id": message.as_uuid(),
                    "emoji": reacted.emoji,
                    "created_at": reacted.created_at.to_string(),
                }))
                .await?;
            }
            after = place.upto;
        }
        Ok(())
    }

    async fn tell(&self, line: &impl Serialize) -> Result<()> {
        let line = serde_json::to_string(line);
        let line = line.map_err(|error| Error::Internal(error.to_string()))?;
        self.lines.send(Ok(line)).await.map_err(|_| Error::Closed)
    }
}

/// Something that the person keeps, as it was written.
#[derive(Serialize)]
struct PrefLine<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    key: &'a str,
    value: Option<Box<RawValue>>,
}

/// A message with the host's facts as they were written.
#[derive(Serialize)]
struct MessageLine {
    #[serde(flatten)]
    message: Value,
    metadata: Option<Box<RawValue>>,
}

fn of_conversation(own: &member::Model, row: &conversation::Model) -> Value {
    let state = match (own.state, row.state) {
        (member::State::Left, _) => "left",
        (member::State::Removed, _) => "removed",
        (member::State::Joined, conversation::State::Deleted) => "deleted",
        (member::State::Joined, conversation::State::Open) => "joined",
    };
    // What it is called by now is no business of whoever has left.
    let title = row.title.as_ref().filter(|_| state == "joined");
    let at = |micros: Option<i64>| time(micros.map(Timestamp::from_micros));
    json!({
        "type": "conversation",
        "id": row.id,
        "kind": ConversationKind::from(row.kind).as_str(),
        "title": title,
        "membership": {
            "state": state,
            "role": Role::from(own.role).as_str(),
            "last_read_seq": own.last_read_seq,
            "last_delivered_seq": own.delivered_seq,
            "marked_unread": own.marked_unread,
            "muted_until": at(own.muted_until),
            "pinned_at": at(own.pinned_at),
            "archived_at": at(own.archived_at),
        },
    })
}

fn of_message(message: &Message) -> MessageLine {
    let mentions = message.mentions.iter().map(|user| user.as_uuid());
    let attachments = message.attachments.iter().map(Attachment::line);
    let line = json!({
        "type": "message",
        "id": message.id.as_uuid(),
        "conversation_id": message.conversation_id.as_uuid(),
        "seq": message.seq.get(),
        "client_message_id": message.client_message_id.as_str(),
        "content": message.content,
        "created_at": message.created_at.to_string(),
        "edited_at": time(message.edited_at),
        "deleted_at": time(message.deleted_at),
        "reply_to": message.reply_to.map(|id| id.as_uuid()),
        "mentions": mentions.collect::<Vec<_>>(),
        "attachments": attachments.collect::<Vec<_>>(),
    });
    MessageLine {
        message: line,
        metadata: message.metadata.as_deref().and_then(raw),
    }
}

fn time(at: Option<Timestamp>) -> Option<String> {
    at.map(|at| at.to_string())
}
