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
            let seen: HashMap<_, _> = seen.map(|(user, (since, _))| (*user, *since)).collect();
            if !seen.is_empty() {
                self.writer.run(Seen(seen)).await?;
            }
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

/// How far it is known from whom somebody keeps whether they are here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// It is to be read, or read again.
    Wanted,
    /// It is being read, or that has failed.
    Begun,
    Done,
}

#[derive(Debug)]
struct Person {
    whereabouts: Whereabouts,
    /// From whom they keep whether they are here, as it was read last; nothing is shown on the
    /// strength of it while it is to be read again.
    reserve: Option<Reserve>,
    /// From whom they kept it when others were last told, if it was not the same.
    was: Option<Reserve>,
    reading: Reading,
    /// Whether there is something to tell of them.
    is_due: bool,
    /// Whether that waits for the next look.
    is_put_off: bool,
    /// To how many conversations they belong, large ones too.
    conversations: usize,
}

impl Person {
    fn is_read(&self) -> bool {
        self.reading == Reading::Done
    }

    /// What is shown of them to whoever may know.
    fn presence(&self, user_id: UserId) -> Presence {
        let last_seen_at = match self.whereabouts {
            Whereabouts::Gone(since) => Some(since),
            Whereabouts::Here | Whereabouts::Missing(_) => None,
        };
        Presence {
            is_online: last_seen_at.is_none(),
            last_seen_at,
            ..Presence::untold(user_id)
        }
    }
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
                was: None,
                reading: Reading::Wanted,
                is_due: true,
                is_put_off: false,
                conversations,
            });
            person.conversations = conversations;
        }
        for (user, person) in &mut self.0 {
            // Not before: who was told of others at the last look was so by what both had kept.
            if !person.is_due {
                person.was = None;
            }
            person.is_put_off = false;
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
            person.reading = Reading::Wanted;
        }
    }

    /// The same for all.
    pub(super) fn reconsider_all(&mut self) {
        for person in self.0.values_mut() {
            person.reading = Reading::Wanted;
        }
    }

    /// Some of those of whom it is to be read, again where that has failed.
    fn unread(&mut self) -> Vec<UserId> {
        let people = self.0.iter_mut();
        let unread = people.filter(|(_, person)| !person.is_read());
        let some = unread.take(PEOPLE_AT_ONCE);
        some.map(|(user, person)| {
            person.reading = Reading::Begun;
            *user
        })
        .collect()
    }

    /// Takes what was read, except where it has changed since it was asked for.
    fn read(&mut self, reserves: HashMap<UserId, Reserve>) {
        for (user, reserve) in reserves {
            let Some(person) = self.0.get_mut(&user) else {
                continue;
            };
            if person.reading != Reading::Begun {
                continue;
            }
            person.reading = Reading::Done;
            if person.reserve.as_ref() == Some(&reserve) {
                continue;
            }
            if let Some(former) = person.reserve.replace(reserve) {
                person.was.get_or_insert(former);
                person.is_due = true;
            }
        }
    }

    /// Some of those of whom there is something to tell.
    fn due(&self) -> Vec<UserId> {
        let mut conversations = 0;
        let people = self.0.iter();
        let due = people.filter(|(_, person)| person.is_due && !person.is_put_off);
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
            // How one of them keeps it may have changed since it was read. Nobody is told then, so
            // that it is one change for all.
            let is_unread = self.is_unread(*user) || audience.iter().any(|it| self.is_unread(*it));
            if let Some(person) = self.0.get_mut(user) {
                (person.is_due, person.is_put_off) = (is_unread, is_unread);
            }
            if is_unread {
                continue;
            }
            let is_changed = self.0.get(user).is_some_and(|person| person.was.is_some());
            for other in audience {
                if let Some(presence) = self.news(*user, other) {
                    told.entry(other).or_default().push(presence);
                }
                if is_changed && let Some(presence) = self.news(other, *user) {
                    told.entry(*user).or_default().push(presence);
                }
            }
        }
        for (user, presences) in told {
            if let Some(listener) = listeners.get(user) {
                listener.signal(Signal::Presence(Arc::from(presences)));
            }
        }
    }

    /// Some of those who have gone and of whom nothing is left to read or to tell: since when, and
    /// whether they show it.
    fn gone(&self) -> HashMap<UserId, (Timestamp, bool)> {
        let gone = self.0.iter().filter_map(|(user, person)| {
            let Whereabouts::Gone(since) = person.whereabouts else {
                return None;
            };
            let is_shown = person.reserve.as_ref().is_some_and(|it| !it.is_hidden);
            let is_over = person.is_read() && !person.is_due;
            is_over.then_some((*user, (since, is_shown)))
        });
        gone.take(PEOPLE_AT_ONCE).collect()
    }

    /// Forgets people who have gone.
    fn forget<'a>(&mut self, users: impl IntoIterator<Item = &'a UserId>) {
        for user in users {
            self.0.remove(user);
        }
    }

    /// What is to be told of somebody to a person, if anything: what they may know, or that they
    /// may no longer know it. Nobody is told who was not shown it and is not.
    fn news(&self, user: UserId, to: UserId) -> Option<Presence> {
        let (person, other) = (self.0.get(&user)?, self.0.get(&to)?);
        let shows = |mine: &Reserve, theirs: &Reserve| {
            !mine.is_hidden && !mine.blocked.contains(&to) && !theirs.blocked.contains(&user)
        };
        let (mine, theirs) = (person.reserve.as_ref()?, other.reserve.as_ref()?);
        if shows(mine, theirs) {
            return Some(person.presence(user));
        }
        let (mine, theirs) = (
            person.was.as_ref().unwrap_or(mine),
            other.was.as_ref().unwrap_or(theirs),
        );
        shows(mine, theirs).then_some(Presence::untold(user))
    }

    /// Whether it is not known from whom somebody keeps whether they are here.
    fn is_unread(&self, user: UserId) -> bool {
        self.0.get(&user).is_some_and(|person| !person.is_read())
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
        /// How people keep it who do not show it to everybody.
        reserves: HashMap<UserId, Reserve>,
        looks: i64,
    }

    const SOMEBODY: u128 = 0;
    const OTHERS: u128 = 3_000;

    impl Place {
        fn new() -> Self {
            Self {
                listeners: Listeners::new(&Limits::default(), Position::ZERO, &Arc::default()),
                people: Presences::default(),
                reserves: HashMap::new(),
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

        fn keeps(&mut self, user: UserId, reserve: Reserve) {
            self.reserves.insert(user, reserve);
            self.people.reconsider(user);
        }

        /// Looks who is there and tells it, a step at a time as the task does.
        fn round(&mut self) -> Vec<UserId> {
            self.look();
            self.read();
            while self.tell() {}
            let gone: Vec<UserId> = self.people.gone().into_keys().collect();
            self.people.forget(&gone);
            gone
        }

        fn look(&mut self) {
            self.looks += 1;
            let now = Timestamp::from_micros(self.looks);
            self.people.look(&self.listeners, now);
        }

        fn read(&mut self) {
            loop {
                let unread = self.people.unread();
                if unread.is_empty() {
                    break;
                }
                let reserve = |user| self.reserves.get(user).cloned().unwrap_or_default();
                let read = unread.iter().map(|user| (*user, reserve(user)));
                self.people.read(read.collect());
            }
        }

        /// Whether there was something to tell.
        fn tell(&mut self) -> bool {
            let due = self.people.due();
            let shared = due
                .iter()
                .flat_map(|user| shared(*user).map(|id| (*user, id)));
            let shared: Vec<_> = shared.collect();
            self.people.tell(&self.listeners, &due, &shared);
            !due.is_empty()
        }
    }

    fn hidden() -> Reserve {
        Reserve {
            is_hidden: true,
            ..Reserve::default()
        }
    }

    fn blocking(whom: &[u128]) -> Reserve {
        Reserve {
            blocked: whom.iter().map(|number| user(*number)).collect(),
            ..Reserve::default()
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

    #[test]
    fn a_read_that_failed_is_made_again() {
        let mut place = Place::new();
        let mut alices = place.arrives(user(SOMEBODY));
        place.round();
        let _bobs = place.arrives(user(2));
        place.look();
        assert_eq!(place.people.unread(), [user(2)], "and that fails");

        place.round();

        assert_eq!(told(&mut alices), [[(user(2), true)]]);
    }

    #[test]
    fn what_changes_while_it_is_read_is_read_again() {
        let mut place = Place::new();
        let mut alices = place.arrives(user(SOMEBODY));
        place.round();
        let _bobs = place.arrives(user(2));
        place.look();
        let asked = place.people.unread();
        place.keeps(user(2), hidden());
        let as_asked = asked.iter().map(|user| (*user, Reserve::default()));
        place.people.read(as_asked.collect());

        assert_eq!(place.people.unread(), asked);
        place.round();

        assert!(told(&mut alices).is_empty());
    }

    #[test]
    fn nothing_is_told_until_it_is_known_how_both_keep_it() {
        let mut place = Place::new();
        let mut alices = place.arrives(user(SOMEBODY));
        place.round();
        let bobs = place.arrives(user(2));
        let _carols = place.arrives(user(3));
        place.look();
        place.read();
        place.keeps(user(2), hidden());
        place.tell();
        assert_eq!(told(&mut alices), [[(user(3), true)]]);
        // Whoever has asked meanwhile was shown him.
        drop(bobs);
        assert!(place.round().is_empty());
        assert_eq!(told(&mut alices), [[(user(2), false)]]);
        assert_eq!(place.round(), [user(2)]);
        assert!(told(&mut alices).is_empty());

        let _bobs = place.arrives(user(2));
        place.keeps(user(2), Reserve::default());
        place.look();
        place.read();
        place.keeps(user(SOMEBODY), Reserve::default());
        place.tell();
        assert!(told(&mut alices).is_empty());
        place.round();
        assert_eq!(told(&mut alices), [[(user(2), true)]]);
    }

    /// Somebody who has gone was forgotten before it was known whether that may be kept.
    #[test]
    fn whoever_goes_is_not_forgotten_before_it_is_known_how_they_keep_it() {
        let mut place = Place::new();
        let bobs = place.arrives(user(2));
        place.round();
        drop(bobs);
        place.look();
        place.look();
        place.tell();
        place.keeps(user(2), Reserve::default());

        assert!(place.people.gone().is_empty());
        assert_eq!(place.round(), [user(2)]);
    }

    #[test]
    fn nothing_is_told_of_people_who_were_not_shown_and_are_not() {
        let mut place = Place::new();
        let mut alices = place.arrives(user(SOMEBODY));
        let _hidden = place.arrives(user(2));
        let mut carols = place.arrives(user(3));
        place.keeps(user(2), hidden());
        place.keeps(user(3), blocking(&[SOMEBODY]));
        place.round();

        place.keeps(
            user(2),
            Reserve {
                is_hidden: true,
                ..blocking(&[77])
            },
        );
        place.keeps(user(3), blocking(&[SOMEBODY, 77]));
        place.round();

        assert!(told(&mut alices).is_empty());
        assert!(told(&mut carols).is_empty());
    }

    #[test]
    fn who_keeps_it_otherwise_is_told_of_where_that_makes_a_difference() {
        let mut place = Place::new();
        let mut alices = place.arrives(user(SOMEBODY));
        let mut bobs = place.arrives(user(2));
        let mut carols = place.arrives(user(3));
        place.round();
        for stream in [&mut alices, &mut bobs, &mut carols] {
            told(stream);
        }

        // What one no longer shows one may still see, unless one has blocked them.
        place.keeps(user(2), hidden());
        place.round();
        assert_eq!(told(&mut alices), [[(user(2), false)]]);
        assert_eq!(told(&mut bobs), [[(user(SOMEBODY), true)]]);
        place.keeps(user(3), blocking(&[SOMEBODY]));
        place.round();
        assert_eq!(told(&mut alices), [[(user(3), false)]]);
        assert_eq!(told(&mut carols), [[(user(SOMEBODY), false)]]);

        // Both at once: what was shown depended on both, and so does what is.
        place.keeps(user(3), Reserve::default());
        place.keeps(user(SOMEBODY), blocking(&[3]));
        place.round();
        assert!(told(&mut carols).is_empty());
        // Bob stays hidden, and sees as before.
        assert!(told(&mut alices).is_empty());

        place.keeps(user(SOMEBODY), Reserve::default());
        place.round();
        assert_eq!(told(&mut alices), [[(user(3), true)]]);
        assert_eq!(told(&mut carols), [[(user(SOMEBODY), true)]]);
    }
}
