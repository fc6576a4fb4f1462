//! Places of which there are so many, and of which each person takes no more than a few.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Result};
use crate::ids::UserId;

/// How long to wait before a turn is asked for again that did not come.
const TURN_AGAIN: Duration = Duration::from_secs(2);

/// Places of one kind, and how many of them each person has taken.
#[derive(Debug)]
pub(crate) struct Places {
    taken: Mutex<HashMap<UserId, usize>>,
    of_all_max: usize,
    of_one_max: usize,
    /// How long to wait before that is tried again for which there was none.
    retry_after: Duration,
}

impl Places {
    pub(crate) fn new(of_all_max: usize, of_one_max: usize, retry_after: Duration) -> Arc<Self> {
        Arc::new(Self {
            taken: Mutex::default(),
            of_all_max,
            of_one_max,
            retry_after,
        })
    }

    /// Takes a place; where there is none it is [`Busy`](Error::Busy).
    pub(crate) fn enter(self: &Arc<Self>, user: UserId) -> Result<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_user = taken.get(&user).copied().unwrap_or(0);
        let all: usize = taken.values().sum();
        if all >= self.of_all_max || of_user >= self.of_one_max {
            return Err(Error::Busy {
                retry_after: self.retry_after,
            });
        }
        taken.insert(user, of_user + 1);
        let places = Arc::clone(self);
        Ok(Place { places, user })
    }
}

/// A place; dropping it makes room.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    user: UserId,
}

impl Drop for Place {
    fn drop(&mut self) {
        let taken = self.places.taken.lock();
        let mut taken = taken.unwrap_or_else(PoisonError::into_inner);
        if let Some(of_user) = taken.get_mut(&self.user) {
            *of_user -= 1;
        }
        taken.retain(|_, of_user| *of_user > 0);
    }
}

/// Turns of each person: whoever asks for much at a time waits for themselves, and nobody else does.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    of: Mutex<HashMap<UserId, Arc<Semaphore>>>,
}

impl Turns {
    /// Waits until somebody has less than so many, and gives one more, until what this returns is dropped.
    pub(crate) async fn wait(
        &self,
        user: UserId,
        at_once_max: usize,
        wait_max: Duration,
    ) -> Result<OwnedSemaphorePermit> {
        let theirs = {
            let mut of = self.of.lock().unwrap_or_else(PoisonError::into_inner);
            // Before it grows, those are forgotten who have none.
            if of.len() == of.capacity() {
                of.retain(|_, turns| Arc::strong_count(turns) > 1);
                let left = of.len();
                of.reserve(left + 1);
            }
            let turns = of.entry(user);
            Arc::clone(turns.or_insert_with(|| Arc::new(Semaphore::new(at_once_max))))
        };
        match tokio::time::timeout(wait_max, theirs.acquire_owned()).await {
            Ok(turn) => turn.map_err(|_| Error::Closed),
            Err(_) => Err(Error::Busy {
                retry_after: TURN_AGAIN,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_much_waits_and_others_do_not() {
        let turns = Turns::default();
        let [alice, bob] = [1, 2].map(|n| UserId::from(Uuid::from_u128(n)));
        let wait = |user| turns.wait(user, 2, Duration::from_secs(1));

        let first = wait(alice).await.expect("a turn");
        let _second = wait(alice).await.expect("another");
        assert!(matches!(wait(alice).await, Err(Error::Busy { .. })));
        drop(wait(bob).await.expect("a turn"));

        drop(first);
        drop(wait(alice).await.expect("a turn again"));

        for n in 10..1_000 {
            let user = UserId::from(Uuid::from_u128(n));
            drop(wait(user).await.expect("a turn"));
        }
        let known = turns.of.lock().expect("nobody panics with it").len();
        assert!(known < 10, "who has none is forgotten: {known}");
        assert!(wait(alice).await.is_ok());
    }
}
