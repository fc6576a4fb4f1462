//! The sessions that have ended lately, so that an access token stops working with its session
//! and not only when it expires.

use std::collections::HashMap;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use super::Actor;
use crate::clock::Timestamp;
use crate::ids::SessionId;

/// Ended sessions, for as long as an access token of theirs may still be about.
#[derive(Debug)]
pub(crate) struct Revocations {
    ended: RwLock<Ended>,
    /// How long an ended session is remembered: the life of an access token, and some more for
    /// clocks that disagree.
    kept: Duration,
    entries_max: usize,
}

#[derive(Debug, Default)]
struct Ended {
    at: HashMap<SessionId, Timestamp>,
    /// Set while there were more than fit: then not to be here proves nothing.
    overflowed_at: Option<Timestamp>,
}

impl Revocations {
    pub(crate) fn new(access_ttl: Duration, entries_max: usize) -> Self {
        Self {
            ended: RwLock::default(),
            kept: access_ttl + Duration::from_secs(60),
            entries_max,
        }
    }

    /// From when on ended sessions matter.
    pub(crate) fn horizon(&self, now: Timestamp) -> Timestamp {
        now.minus(self.kept)
    }

    /// Remembers that sessions have ended.
    pub(crate) fn add(&self, sessions: impl IntoIterator<Item = SessionId>, at: Timestamp) {
        let mut ended = self.ended.write().unwrap_or_else(PoisonError::into_inner);
        for session in sessions {
            if ended.at.len() >= self.entries_max {
                let horizon = self.horizon(at);
                ended.at.retain(|_, ended_at| *ended_at >= horizon);
                if ended
                    .overflowed_at
                    .is_some_and(|overflowed| overflowed < horizon)
                {
                    ended.overflowed_at = None;
                }
            }
            if ended.at.len() >= self.entries_max {
                ended.overflowed_at = Some(at);
            } else {
                ended.at.insert(session, at);
            }
        }
    }

    /// Whether a session has ended; `None` if that is not known here.
    pub(crate) fn contains(&self, session: SessionId) -> Option<bool> {
        let ended = self.ended.read().unwrap_or_else(PoisonError::into_inner);
        if ended.at.contains_key(&session) {
            return Some(true);
        }
        ended.overflowed_at.is_none().then_some(false)
    }

    /// Whether it is known here that an actor's session has ended.
    pub(crate) fn have_ended(&self, actor: &Actor) -> bool {
        let session = actor.session_id();
        session.is_some_and(|session| self.contains(session) == Some(true))
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn session() -> SessionId {
        Uuid::now_v7().into()
    }

    #[test]
    fn past_its_bound_it_does_not_know_until_the_old_ones_have_aged() {
        let revocations = Revocations::new(Duration::from_secs(900), 2);
        let (one, two, three, stranger) = (session(), session(), session(), session());
        let start = Timestamp::from_micros(0);

        revocations.add([one, two], start);
        assert_eq!(revocations.contains(one), Some(true));
        assert_eq!(revocations.contains(stranger), Some(false));

        revocations.add([three], start);
        assert_eq!(revocations.contains(two), Some(true));
        assert_eq!(revocations.contains(three), None);

        let later = start.plus(Duration::from_secs(2_000));
        revocations.add([session()], later);
        assert_eq!(revocations.contains(one), Some(false));
        assert_eq!(revocations.contains(stranger), Some(false));
    }
}
