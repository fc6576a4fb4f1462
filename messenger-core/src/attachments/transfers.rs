//! What is under way at a time: how many uploads and downloads, of all and of one person, and whose turn
//! it is to make a preview.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::limits::Limits;
use crate::places::Places;

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
        Self {
            uploads: Places::new(limits.uploads_max, limits.uploads_per_user_max, AGAIN),
            downloads: Places::new(limits.downloads_max, limits.downloads_per_user_max, AGAIN),
            previews: Arc::new(Semaphore::new(1)),
        }
    }
}
