//! Places of which there are so many, and of which each person takes no more than a few.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::ids::UserId;

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
