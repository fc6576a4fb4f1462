//! What is under way at a time: how many uploads and downloads, of all and of one person, and whose turn
//! it is to make a preview.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::error::{Error, Result};
use crate::ids::UserId;
use crate::limits::Limits;

/// How long to wait before that is tried again for which there was no place.
const AGAIN: Duration = Duration::from_secs(2);

/// What is under way in one engine.
#[derive(Debug)]
pub(crate) struct Transfers {
    pub(super) uploads: Arc<Places>,
    pub(super) downloads: Arc<Places>,
    pub(super) previews: Arc<Semaphore>,
}

impl Transfers {
    pub(crate) fn new(limits: &Limits) -> Self {
        let places = |of_all_max, of_one_max| {
            Arc::new(Places {
                taken: Mutex::default(),
                of_all_max,
                of_one_max,
            })
        };
        Self {
            uploads: places(limits.uploads_max, limits.uploads_per_user_max),
            downloads: places(limits.downloads_max, limits.downloads_per_user_max),
            previews: Arc::new(Semaphore::new(1)),
        }
    }
}

/// Places of one kind, and how many of them each person has taken.
#[derive(Debug)]
pub(super) struct Places {
    taken: Mutex<HashMap<UserId, usize>>,
    of_all_max: usize,
    of_one_max: usize,
}

impl Places {
    pub(super) fn enter(self: &Arc<Self>, user: UserId) -> Result<Place> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_user = taken.get(&user).copied().unwrap_or(0);
        let all: usize = taken.values().sum();
        if all >= self.of_all_max || of_user >= self.of_one_max {
            return Err(Error::Busy { retry_after: AGAIN });
        }
        taken.insert(user, of_user + 1);
        let places = Arc::clone(self);
        Ok(Place { places, user })
    }
}

/// A place; dropping it makes room.
#[derive(Debug)]
pub(super) struct Place {
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
