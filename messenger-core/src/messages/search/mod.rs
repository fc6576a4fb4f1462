//! Searching messages by their text.

use std::time::Instant;

mod index;
pub(crate) mod queries;
mod terms;

pub(crate) use self::index::Index;
use self::queries::Wanted;
pub use self::terms::SearchText;
use super::{Message, Messages};
use crate::auth::Actor;
use crate::conversations;
use crate::error::{Invalid, Result};
use crate::ids::{ConversationId, Position};
use crate::store::fence;

/// What messages to look for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Search {
    /// What they say.
    pub text: SearchText,
    /// The conversation to look through; all that the actor is in if there is none.
    pub conversation: Option<ConversationId>,
    /// The [`next_before`](Found::next_before) of the page before.
    pub before: Option<Position>,
    /// How many messages at most, 1 to 50. 20.
    pub limit: u32,
}

impl Search {
    /// Looks for a text everywhere, from the newest message on.
    pub fn new(text: SearchText) -> Self {
        Self {
            text,
            conversation: None,
            before: None,
            limit: 20,
        }
    }
}

/// A page of what a search has found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// The messages, the one first that was sent last.
    pub messages: Vec<Message>,
    /// What to ask with for more; nothing once there is no more. A page may have fewer messages than
    /// were asked for, or none, and still not be the last.
    pub next_before: Option<Position>,
    /// Whether everything was looked through. It is not while a new index is being filled, when the
    /// index could not catch up while the search waited for it, and where the actor is in more than
    /// 1,000 conversations, of which those are looked through that were active last.
    pub is_complete: bool,
}

impl Messages<'_> {
    /// Finds messages by their text, the newest first.
    ///
    /// Only those are found that the actor may see now: of conversations in which the actor is, from
    /// the actor's time on, and not deleted. What was sent before the call is found by it, if it says
    /// that it is complete.
    ///
    /// # Errors
    ///
    /// - [`Error::Invalid`](crate::Error::Invalid): `limit` is out of bounds.
    /// - [`Error::ConversationNotFound`](crate::Error::ConversationNotFound): the conversation that
    ///   is named does not exist, or the actor is not a member.
    /// - [`Error::Busy`](crate::Error::Busy): too many search at once
    ///   ([`Limits::searches_max`](crate::Limits::searches_max)), or the actor alone
    ///   ([`Limits::searches_per_user_max`](crate::Limits::searches_per_user_max)).
    ///
    /// # Examples
    ///
    /// ```no_run
    /// # use messenger_core::{MessengerEngine, messages::{Search, SearchText}};
    /// # async fn example(engine: &MessengerEngine, alice: &messenger_core::auth::Actor) -> messenger_core::Result<()> {
    /// let search = Search::new(SearchText::parse("上海", engine.limits())?);
    /// for message in engine.messages().search(alice, search).await?.messages {
    ///     println!("{}", message.content);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn search(&self, actor: &Actor, search: Search) -> Result<Found> {
        let limits = self.engine.limits();
        let most = limits.search_messages_max;
        if !(1..=most).contains(&search.limit) {
            return Err(Invalid::new("limit", format!("must be 1 to {most}")).into());
        }
        let store = self.engine.store();
        let (user, index) = (actor.user_id(), self.engine.index());
        let place = index.line_up(user)?;
        let head = fence::head(&store.read()).await?;
        let is_current = index.reach(head.pos, limits.search_wait_max).await;

        let turn = index.turn(limits.search_wait_max).await?;

        let end = head.pos.saturating_add(1);
        let conversations_max = limits.search_conversations_max;
        let looked_at_max = limits.search_looked_at_max;
        let until = Instant::now().checked_add(limits.search_time_max);
        let read = move |db| async move {
            // It goes on without whoever asked, and has its turn until it ends.
            let _turn = (place, turn);
            let (places, are_all) = match search.conversation {
                Some(named) => {
                    let member = conversations::queries::membership(&db, named, user).await?;
                    (vec![(named, member.visible_from())], true)
                }
                None => {
                    let most = conversations_max + 1;
                    let mut places = conversations::queries::seen(&db, user, most).await?;
                    let are_all = places.len() <= conversations_max;
                    places.truncate(conversations_max);
                    (places, are_all)
                }
            };
            let wanted = Wanted {
                text: search.text,
                places,
                // What is sent meanwhile is not waited for.
                before: search.before.map_or(end, |before| end.min(before.get())),
                limit: usize::try_from(search.limit).unwrap_or(usize::MAX),
                looked_at_max,
                until,
            };
            let (messages, next_before) = queries::find(&db, user, &wanted).await?;
            Ok(Found {
                messages,
                next_before,
                is_complete: is_current && are_all,
            })
        };
        store.snapshot(self.engine.tasks(), read).await
    }
}
