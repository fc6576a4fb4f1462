//! Who is there, and to whom that is told: looked at now and then, so that whoever only reconnects
//! has not been away, and many who come at once are told together.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::hub::Hub;
use super::listeners::{Listeners, Signal};
use crate::clock::{self, Timestamp};
use crate::conversations;
use crate::error::{Error, Result};
use crate::ids::{ConversationId, UserId};
use crate::limits::Limits;
use crate::store::Store;
use crate::users::{self, Presence, Reserve, Seen};
use crate::write::Writer;

/// People who are looked up, and told of, at once.
const PEOPLE_AT_ONCE: usize = 256;
/// Conversations to which people belong who are told of at once; one person may have more.
const CONVERSATIONS_AT_ONCE: usize = 10_000;

/// Looks who has come and gone, until the engine closes.
pub(crate) async fn run(
    store: Arc<Store>,
    writer: Writer,
    hub: Hub,
    limits: Limits,
    every: Duration,
    closing: CancellationToken,
) {
    let task = Task {
        store,
        writer,
        hub,
        small: limits.small_conversation_members_max,
    };
    let mut look = interval(every);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let work = async {
        loop {
            look.tick().await;
            match task.round().await {
                Ok(()) => {}
                Err(Error::Closed) => return,
                // What was not told or kept is so after the next look.
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "telling who is there failed; it is tried again"
                ),
            }
        }
    };
    closing.run_until_cancelled(work).await;
}

struct Task {
    store: Arc<Store>,
    writer: Writer,
    hub: Hub,
    small: u32,
}

impl Task {
    async fn round(&self) -> Result<()> {
        let now = clock::now();
        self.hub
            .presences(move |people, listeners| people.look(listeners, now))
            .await?;
        // First how everybody keeps it, since of two people both have a say.
        loop {
            let asked = self.hub.presences(|people, _| people.unread()).await?;
            if asked.is_empty() {
                break;
            }
            let read = users::queries::reserves(&self.store.read(), &asked).await?;
            self.hub
                .presences(move |people, _| people.read(read))
                .await?;
        }
        loop {
            let asked = self.hub.presences(|people, _| people.due()).await?;
            if asked.is_empty() {
                break;
            }
            let db = self.store.read();
            let shared = conversations::queries::small(&db, &asked, self.small).await?;
            let tell = move |people: &mut Presences, listeners: &Listeners| {
                people.tell(listeners, &asked, &shared);
            };
            self.hub.presences(tell).await?;
        }
        loop {
            let gone = self.hub.presences(|people, _| people.gone()).await?;
            if gone.is_empty() {
                return Ok(());
            }
            let seen = gone.iter().filter(|(_, (_, is_shown))| *is_shown);
            let seen = seen.map(|(user, (since, _))| (*user, *since));
            self.writer.run(Seen(seen.collect())).await?;
            self.hub
                .presences(move |people, _| people.forget(gone.keys()))
                .await?;
        }
    }
}

/// Where somebody is, as of the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whereabouts {
    Here,
    /// Not here since a look: perhaps only reconnecting.
    Missing(Timestamp),
    /// Not here at two looks in a row, and since the first of them.
    Gone(Timestamp),
}

#[derive(Debug)]
struct Person {
    whereabouts: Whereabouts,
    /// From whom they keep whether they are here; `None` until it is read.
    reserve: Option<Reserve>,
    /// Whether `reserve` is to be read, or read again.
    is_unread: bool,
    /// Whether they keep it from others than before.
    is_changed: bool,
    /// Whether there is something to tell of them.
    is_due: bool,
    /// To how many conversations they belong, large ones too.
    conversations: usize,
}

/// All who listen, and who have just left.
#[derive(Debug, Default)]
pub(super) struct Presences(HashMap<UserId, Person>);

impl Presences {
    /// Looks who listens.
    fn look(&mut self, listeners: &Listeners, now: Timestamp) {
        for (user, conversations) in listeners.present() {
            let person = self.0.entry(user).or_insert(Person {
                whereabouts: Whereabouts::Here,
                reserve: None,
                is_unread: true,
                is_changed: false,
                is_due: true,
                conversations,
            });
            person.conversations = conversations;
        }
        for (user, person) in &mut self.0 {
            let was = person.whereabouts;
            person.whereabouts = match was {
                _ if listeners.is_present(*user) => Whereabouts::Here,
                Whereabouts::Here => Whereabouts::Missing(now),
                Whereabouts::Missing(since) | Whereabouts::Gone(since) => Whereabouts::Gone(since),
            };
            let was_gone = matches!(was, Whereabouts::Gone(_));
            let is_gone = matches!(person.whereabouts, Whereabouts::Gone(_));
            person.is_due |= was_gone != is_gone;
        }
    }

    /// Notes that somebody may keep from others than before whether they are here.
    pub(super) fn reconsider(&mut self, user: UserId) {
        if let Some(person) = self.0.get_mut(&user) {
            person.is_unread = true;
        }
    }

    /// The same for all.
    pub(super) fn reconsider_all(&mut self) {
        for person in self.0.values_mut() {
            person.is_unread = true;
        }
    }

    /// Some of those of whom it is to be read.
    fn unread(&mut self) -> Vec<UserId> {
        let people = self.0.iter_mut();
        let unread = people.filter(|(_, person)| person.is_unread);
        let some = unread.take(PEOPLE_AT_ONCE);
        some.map(|(user, person)| {
            // What changes from here on is read again.
            person.is_unread = false;
            *user
        })
        .collect()
    }

    /// Takes what was read.
    fn read(&mut self, reserves: HashMap<UserId, Reserve>) {
        for (user, reserve) in reserves {
            let Some(person) = self.0.get_mut(&user) else {
                continue;
            };
            let was = person.reserve.replace(reserve);
            if was.is_some() && was != person.reserve {
                person.is_changed = true;
                person.is_due = true;
            }
        }
    }

    /// Some of those of whom there is something to tell.
    fn due(&self) -> Vec<UserId> {
        let mut conversations = 0;
        let due = self.0.iter().filter(|(_, person)| person.is_due);
        let some = due.take(PEOPLE_AT_ONCE).take_while(|(_, person)| {
            let is_first = conversations == 0;
            conversations += person.conversations.max(1);
            is_first || conversations <= CONVERSATIONS_AT_ONCE
        });
        some.map(|(user, _)| *user).collect()
    }

    /// Tells of people to whoever listens in one of their small conversations.
    fn tell(
        &mut self,
        listeners: &Listeners,
        users: &[UserId],
        shared: &[(UserId, ConversationId)],
    ) {
        let mut audiences: HashMap<UserId, HashSet<UserId>> = HashMap::new();
        for (user, conversation) in shared {
            let audience = audiences.entry(*user).or_default();
            audience.extend(listeners.of(*conversation).filter(|other| other != user));
        }
        let mut told: HashMap<UserId, Vec<Presence>> = HashMap::new();
        for user in users {
            let audience = audiences.remove(user).unwrap_or_default();
            let is_changed = self.0.get(user).is_some_and(|person| person.is_changed);
            for other in audience {
                let (shown, seen) = (self.shown(*user, other), self.shown(other, *user));
                // Whoever comes has not been told anything before.
                if let Some(presence) = shown.or(is_changed.then_some(Presence::untold(*user))) {
                    told.entry(other).or_default().push(presence);
                }
                if is_changed {
                    let presence = seen.unwrap_or(Presence::untold(other));
                    told.entry(*user).or_default().push(presence);
                }
            }
        }
        for (user, presences) in told {
            if let Some(listener) = listeners.get(user) {
                listener.signal(Signal::Presence(Arc::from(presences)));
            }
        }

        for user in users {
            if let Some(person) = self.0.get_mut(user) {
                (person.is_due, person.is_changed) = (false, false);
            }
        }
    }

    /// Some of those who have gone and of whom nothing is left to tell: since when, and whether they
    /// show it.
    fn gone(&self) -> HashMap<UserId, (Timestamp, bool)> {
        let gone = self.0.iter().filter_map(|(user, person)| {
            let Whereabouts::Gone(since) = person.whereabouts else {
                return None;
            };
            let is_shown = person.reserve.as_ref().is_some_and(|it| !it.is_hidden);
            (!person.is_due).then_some((*user, (since, is_shown)))
        });
        gone.take(PEOPLE_AT_ONCE).collect()
    }

    /// Forgets people who have gone.
    fn forget<'a>(&mut self, users: impl IntoIterator<Item = &'a UserId>) {
        for user in users {
            self.0.remove(user);
        }
    }

    /// What somebody is shown of a person, if anything.
    fn shown(&self, user: UserId, to: UserId) -> Option<Presence> {
        let (person, other) = (self.0.get(&user)?, self.0.get(&to)?);
        let (reserve, others) = (person.reserve.as_ref()?, other.reserve.as_ref()?);
        if reserve.is_hidden || reserve.blocked.contains(&to) || others.blocked.contains(&user) {
            return None;
        }
        Some(Presence {
            is_online: !matches!(person.whereabouts, Whereabouts::Gone(_)),
            last_seen_at: match person.whereabouts {
                Whereabouts::Gone(since) => Some(since),
                _ => None,
            },
            ..Presence::untold(user)
        })
    }

    /// Those of some people who are here.
    pub(super) fn online(&self, users: &[UserId]) -> HashSet<UserId> {
        let is_here = |user: &&UserId| {
            let person = self.0.get(user);
            person.is_some_and(|person| !matches!(person.whereabouts, Whereabouts::Gone(_)))
        };
        users.iter().filter(is_here).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::super::listeners::Attached;
    use super::*;
    use crate::ids::{Position, Seq};

    /// Somebody, and people who each share a conversation with them alone.
    struct Place {
        listeners: Listeners,
        people: Presences,
        looks: i64,
    }

    const SOMEBODY: u128 = 0;
    const OTHERS: u128 = 3_000;

    impl Place {
        fn new() -> Self {
            Self {
                listeners: Listeners::new(&Limits::default(), Position::ZERO),
                people: Presences::default(),
                looks: 0,
            }
        }

        fn arrives(&mut self, user: UserId) -> Attached {
            let shared = shared(user).map(|id| (id, Seq::ZERO));
            let conversations = shared.collect();
            let (head, last) = (Position::ZERO, Position::ZERO);
            let place = self.listeners.attach(user, conversations, head, last);
            place.expect("nothing has moved")
        }

        /// Looks who is there and tells it, a step at a time as the task does.
        fn round(&mut self) -> Vec<UserId> {
            self.looks += 1;
            let now = Timestamp::from_micros(self.looks);
            self.people.look(&self.listeners, now);
            loop {
                let unread = self.people.unread();
                if unread.is_empty() {
                    break;
                }
                let read = unread.iter().map(|user| (*user, Reserve::default()));
                self.people.read(read.collect());
            }
            loop {
                let due = self.people.due();
                if due.is_empty() {
                    break;
                }
                let shared = due
                    .iter()
                    .flat_map(|user| shared(*user).map(|id| (*user, id)));
                let shared: Vec<_> = shared.collect();
                self.people.tell(&self.listeners, &due, &shared);
            }
            let gone: Vec<UserId> = self.people.gone().into_keys().collect();
            self.people.forget(&gone);
            gone
        }
    }

    fn user(number: u128) -> UserId {
        Uuid::from_u128(number).into()
    }

    /// The conversations of somebody, named after the other person.
    fn shared(user: UserId) -> impl Iterator<Item = ConversationId> {
        let others = match user.as_uuid().as_u128() {
            SOMEBODY => 1..=OTHERS,
            other => other..=other,
        };
        others.map(|other| Uuid::from_u128(other).into())
    }

    /// What a channel has, signal by signal.
    fn told(place: &mut Attached) -> Vec<Vec<(UserId, bool)>> {
        let mut told = Vec::new();
        while let Ok(signal) = place.signals.try_recv() {
            let Signal::Presence(people) = signal else {
                panic!("{signal:?}")
            };
            told.push(
                people
                    .iter()
                    .map(|one| (one.user_id, one.is_online))
                    .collect(),
            );
        }
        told
    }

    #[test]
    fn whoever_only_reconnects_has_not_been_away() {
        let mut place = Place::new();
        let mut alices = place.arrives(user(SOMEBODY));
        let bobs = place.arrives(user(2));
        place.round();
        assert_eq!(told(&mut alices), [[(user(2), true)]]);

        drop(bobs);
        assert!(place.round().is_empty());
        place.listeners.sweep();
        let bobs = place.arrives(user(2));
        assert!(place.round().is_empty());
        assert!(place.round().is_empty());
        assert!(told(&mut alices).is_empty());

        drop(bobs);
        assert!(place.round().is_empty(), "perhaps reconnecting");
        assert!(place.people.online(&[user(2)]).contains(&user(2)));
        assert_eq!(place.round(), [user(2)]);
        assert_eq!(told(&mut alices), [[(user(2), false)]]);
        assert!(place.people.online(&[user(2)]).is_empty());
        assert_eq!(place.people.0.len(), 1, "who has gone is forgotten");
    }

    #[test]
    fn many_who_come_at_once_are_told_together() {
        let mut place = Place::new();
        let mut alices = place.arrives(user(SOMEBODY));
        place.round();
        let kept: Vec<Attached> = (1..=OTHERS).map(|id| place.arrives(user(id))).collect();

        place.round();

        let told = told(&mut alices);
        assert!(told.len() <= kept.len().div_ceil(PEOPLE_AT_ONCE));
        let people: HashSet<_> = told.iter().flatten().collect();
        assert_eq!(people.len(), kept.len());
    }

    #[test]
    fn people_with_very_many_conversations_are_looked_up_one_by_one() {
        let mut place = Place::new();
        let many: Vec<_> = (0..=CONVERSATIONS_AT_ONCE as u128)
            .map(|id| (Uuid::from_u128(id).into(), Seq::ZERO))
            .collect();
        let kept: Vec<_> = (1..=3)
            .map(|id| {
                let (head, last) = (Position::ZERO, Position::ZERO);
                place.listeners.attach(user(id), many.clone(), head, last)
            })
            .collect();

        place
            .people
            .look(&place.listeners, Timestamp::from_micros(1));

        assert_eq!(place.people.due().len(), 1);
        drop(kept);
    }
}
