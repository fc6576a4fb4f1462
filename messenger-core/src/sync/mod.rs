//! Catching up: everything at once, or what was missed.

mod cursor;
mod delta;
mod pages;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};

pub use self::cursor::Cursor;
use self::cursor::Token;
use crate::auth::Actor;
use crate::conversations::{Conversation, Marker};
use crate::engine::MessengerEngine;
use crate::error::{Invalid, Result};
use crate::ids::{ConversationId, Position, Seq, Stamp, UserId};
use crate::messages::Message;
use crate::users::{Block, Pref, User};

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
    /// How far members of small conversations have read and received.
    pub markers: Vec<Marker>,
    /// Older messages, which are not here: read them on demand.
    pub gaps: Vec<Gap>,
    /// What is only the actor's, of no conversation.
    pub own: OwnChanges,
    /// Of what moment it is.
    pub stamp: Stamp,
    /// What to ask with next, to get what changes from this moment on.
    pub next: Cursor,
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
    /// Conversations that were named and are not the actor's, or not any more.
    pub not_member: Vec<ConversationId>,
    /// Whether more messages were missed than are here: ask again with
    /// [`next_after_seq`](Self::next_after_seq).
    pub has_more: bool,
    /// The last sequence number that this answer reaches, for every conversation of the actor.
    pub next_after_seq: BTreeMap<ConversationId, Seq>,
}

/// What a client asks of a sync by cursor. Start from [`Pull::default`] and change fields.
#[derive(Clone, Debug)]
pub struct Pull {
    /// Where the client is; `None` for one that begins.
    pub cursor: Option<Cursor>,
    /// The newest position that the client has seen in any other answer since its last sync
    /// ([`Stamp::as_of`]), so that a history which was taken back is noticed. Without a cursor it
    /// says nothing.
    pub seen: Option<Position>,
    /// Rows on a page: 1 to 500, and what is outside of that counts as the nearer end. 200.
    pub limit: u32,
    /// New messages of one conversation, the newest: 1 to 200, clamped as well. 50. Taken from the
    /// first page of a run.
    pub timeline_limit: u32,
    /// How long to wait if there is nothing to say, up to 25 s. Zero.
    pub wait: Duration,
}

impl Default for Pull {
    fn default() -> Self {
        Self {
            cursor: None,
            seen: None,
            limit: 200,
            timeline_limit: 50,
            wait: Duration::ZERO,
        }
    }
}

/// What came of a sync by cursor.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Pulled {
    /// What the client has missed.
    pub page: Page,
    /// Keep it in the transaction that stores the page, and ask with it the next time.
    pub next: Cursor,
}

/// A part of what a client has missed. Consistent once [`has_more`](Self::has_more) is false; until
/// then some rows may be newer than others.
///
/// Of two forms of a row, the one with the greater version is newer; keep that one.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Page {
    /// Everybody who is named below, and acquaintances whose profiles have changed; ordered by id.
    pub users: Vec<User>,
    /// Conversations that are new or have changed.
    pub conversations: Vec<ConversationChange>,
    /// Messages that are new or have changed.
    pub messages: Vec<Message>,
    /// How far members of small conversations have read and received.
    pub markers: Vec<Marker>,
    /// Conversations to which the client does not belong any more.
    pub removals: Vec<Removal>,
    /// Messages that are there and not here: read them on demand.
    pub gaps: Vec<Gap>,
    /// What is only the actor's, of no conversation, and has changed.
    pub own: OwnChanges,
    /// Of what moment the page is.
    pub stamp: Stamp,
    /// Whether there is more: ask again, at once.
    pub has_more: bool,
}

impl Page {
    fn empty(stamp: Stamp) -> Self {
        Self {
            users: Vec::new(),
            conversations: Vec::new(),
            messages: Vec::new(),
            markers: Vec::new(),
            removals: Vec::new(),
            gaps: Vec::new(),
            own: OwnChanges::default(),
            stamp,
            has_more: false,
        }
    }

    /// Whether the page says nothing.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
            && self.conversations.is_empty()
            && self.messages.is_empty()
            && self.markers.is_empty()
            && self.removals.is_empty()
            && self.own.is_empty()
    }
}

/// What is only somebody's own, of no conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OwnChanges {
    /// What they keep by keys, and what they no longer keep.
    pub prefs: Vec<Pref>,
    /// Whom they have blocked, and whom no longer.
    pub blocks: Vec<Block>,
}

impl OwnChanges {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.prefs.is_empty() && self.blocks.is_empty()
    }
}

/// A conversation in which something has changed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ConversationChange {
    /// The conversation, as it is now.
    pub conversation: Conversation,
    /// Whether the client has joined it: what it has of it from before is void.
    pub is_initial: bool,
    /// Whether its members are listed; otherwise the list that the client has is right.
    pub lists_members: bool,
}

/// A conversation that the client is to forget, unless it has joined it again since: a removal is
/// void where its version is not greater than [`Own::membership_version`](crate::conversations::Own::membership_version).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Removal {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// Why.
    pub reason: RemovalReason,
    /// The position of the removal.
    pub version: Position,
}

/// Why somebody does not belong to a conversation any more. The list is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RemovalReason {
    /// They left.
    Left,
    /// They were removed.
    Removed,
    /// The conversation was deleted.
    Deleted,
}

impl RemovalReason {
    /// Returns the name on the wire: `left`, `removed`, `deleted`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Removed => "removed",
            Self::Deleted => "deleted",
        }
    }
}

/// Messages of a conversation that a page leaves out, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gap {
    /// The conversation.
    pub conversation_id: ConversationId,
    /// The first message that is left out.
    pub first: Seq,
    /// The last message that is left out.
    pub last: Seq,
    /// Only what was read at this position or later fills it.
    pub as_of: Position,
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
        let store = self.engine.store();
        let key = store.cursor_key.clone();
        let turn = self.turn(user).await?;
        let read = move |db| async move {
            let _turn = turn;
            pages::bootstrap(&db, user, &key, &limits).await
        };
        store.snapshot(self.engine.tasks(), read).await
    }

    /// Returns the next page of what a client has missed: every change of every kind, in bounded
    /// pages, after any absence.
    ///
    /// Without a cursor it is the beginning: the conversations with the newest messages come first.
    /// Whoever is told that there is more asks again with [`Pulled::next`].
    ///
    /// # Errors
    ///
    /// - [`Error::ResyncRequired`](crate::Error::ResyncRequired): the cursor does not belong to
    ///   this history, or is none of the actor's. Begin without one, and drop what does not come
    ///   again.
    /// - [`Error::UserNotFound`](crate::Error::UserNotFound): the host trusts somebody whom the
    ///   engine does not know.
    ///
    /// # Cancel safety
    ///
    /// It only reads; any page may be asked for again.
    ///
    /// # Examples
    ///
    /// ```
    /// # use messenger_core::{*, auth::Actor, sync::Pull};
    /// # async fn example(engine: &MessengerEngine, alice: &Actor) -> Result<()> {
    /// let mut pull = Pull::default();
    /// loop {
    ///     let pulled = engine.sync().pull(alice, &pull).await?;
    ///     // Here a client stores the page and the cursor, in one transaction of its own.
    ///     pull.cursor = Some(pulled.next);
    ///     if !pulled.page.has_more {
    ///         break;
    ///     }
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn pull(&self, actor: &Actor, pull: &Pull) -> Result<Pulled> {
        let limits = self.engine.limits();
        let mut pull = Pull {
            limit: pull.limit.clamp(1, limits.page_rows_max),
            timeline_limit: pull.timeline_limit.clamp(1, limits.page_timeline_max),
            wait: pull.wait.min(limits.page_wait_max),
            ..pull.clone()
        };
        let until = Instant::now() + pull.wait;
        // Whoever listens before the first look misses nothing between two looks.
        let mut changes = match pull.wait {
            Duration::ZERO => None,
            _ => Some(self.engine.events().wake(actor).await?),
        };
        loop {
            let pulled = self.look(actor, &pull).await?;
            let Some(changes) = &mut changes else {
                return Ok(pulled);
            };
            if !pulled.page.is_empty() || pulled.page.has_more || Instant::now() >= until {
                return Ok(pulled);
            }
            pull.cursor = Some(pulled.next.clone());
            pull.seen = None;
            match timeout_at(until, changes.next()).await {
                Ok(woken) => woken?,
                Err(_) => return Ok(pulled),
            }
        }
    }

    /// Up to where a client may know something that has a cursor; `None` if the cursor is none.
    pub(crate) fn known(&self, actor: &Actor, cursor: &Cursor) -> Option<Position> {
        let key = &self.engine.store().cursor_key;
        let token = Token::open(cursor, key, actor.user_id()).ok()?;
        Some(Position::stored(token.at))
    }

    /// Waits until not too much is read for somebody already. It is read to its end even if nobody waits for
    /// it any more, and so long it is their turn.
    async fn turn(&self, user: UserId) -> Result<OwnedSemaphorePermit> {
        let limits = self.engine.limits();
        let (most, wait_max) = (limits.syncs_per_user_max, limits.read_wait_max);
        self.engine.syncs().wait(user, most, wait_max).await
    }

    async fn look(&self, actor: &Actor, pull: &Pull) -> Result<Pulled> {
        let store = self.engine.store();
        let (user, limits, pull) = (actor.user_id(), self.engine.limits().clone(), pull.clone());
        let token = pull
            .cursor
            .as_ref()
            .map(|cursor| Token::open(cursor, &store.cursor_key, user))
            .transpose()?;
        if let Some(since) = token.as_ref().and_then(Token::up_to_date)
            && pull.seen.is_none_or(|seen| seen <= since)
            && let Some(stamp) = self.engine.hub().idle(user, since).await?
        {
            return Ok(Pulled {
                page: Page::empty(stamp),
                next: Cursor::at(stamp.as_of, &store.cursor_key, user),
            });
        }
        let turn = self.turn(user).await?;
        let read = move |db| async move {
            let _turn = turn;
            delta::page(&db, user, token.as_ref(), &pull, &limits).await
        };
        let (page, next) = store.snapshot(self.engine.tasks(), read).await?;
        Ok(Pulled {
            page,
            next: next.seal(&store.cursor_key, user),
        })
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
        let turn = self.turn(user).await?;
        let read = move |db| async move {
            let _turn = turn;
            pages::changes(&db, user, &after, &limits).await
        };
        self.engine
            .store()
            .snapshot(self.engine.tasks(), read)
            .await
    }
}
