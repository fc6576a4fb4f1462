//! Which conversations a socket follows that subscribes.

use std::collections::HashSet;

use messenger_core::events::Event;
use messenger_core::{ConversationId, UserId};

use crate::api::events::frame::{self, Subject};

/// Conversations, opened by others, that a socket follows by itself.
const JOINED_MAX: usize = 10_000;

/// Which conversations a socket follows.
#[derive(Debug, Default)]
pub(super) struct Follows {
    /// All of them, but those in `muted`.
    all: bool,
    /// Subscribed to by name.
    chosen: HashSet<ConversationId>,
    /// Opened while the socket was open.
    joined: HashSet<ConversationId>,
    /// Unsubscribed from while subscribed to all.
    muted: HashSet<ConversationId>,
}

impl Follows {
    /// Tells whether an event is for the socket of this user. Follows what opens, since nobody could
    /// have subscribed to a conversation that was not there, and drops what closes.
    pub(super) fn takes(&mut self, event: &Event, me: UserId) -> bool {
        match frame::subject(event, me) {
            Subject::Opened(id) => {
                if self.joined.len() < JOINED_MAX {
                    self.joined.insert(id);
                }
                true
            }
            Subject::Within(id) => {
                self.chosen.contains(&id)
                    || self.joined.contains(&id)
                    || (self.all && !self.muted.contains(&id))
            }
            Subject::Closed(id) => {
                self.chosen.remove(&id);
                self.joined.remove(&id);
                self.muted.remove(&id);
                false
            }
            Subject::Nothing => false,
        }
    }

    /// How many are subscribed to by name, once these are too.
    pub(super) fn chosen_with(&self, ids: &[ConversationId]) -> usize {
        let new = ids.iter().filter(|id| !self.chosen.contains(id));
        self.chosen.len() + new.count()
    }

    pub(super) fn subscribe(&mut self, ids: Vec<ConversationId>, all: bool) {
        if all {
            self.all = true;
            self.muted.clear();
        }
        for id in &ids {
            self.muted.remove(id);
        }
        self.chosen.extend(ids);
    }

    /// Returns whether it did, which it does not if `muted` would get too long.
    pub(super) fn unsubscribe(&mut self, ids: &[ConversationId], muted_max: usize) -> bool {
        if self.all && self.muted.len() + ids.len() > muted_max {
            return false;
        }
        for id in ids {
            self.chosen.remove(id);
            self.joined.remove(id);
            if self.all {
                self.muted.insert(*id);
            }
        }
        true
    }
}
