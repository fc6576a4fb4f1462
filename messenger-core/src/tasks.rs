//! Every background task of the engine starts here, so that closing can wait for all of them.

use std::future::Future;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::error::{Error, Result};

#[derive(Clone, Debug, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    closing: CancellationToken,
}

impl Tasks {
    /// Starts a task that runs until it sees [`Tasks::closing`].
    pub(crate) fn start(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tracker.spawn(task);
    }

    /// Runs work to its end even if the caller goes away in the middle.
    ///
    /// A dropped future would otherwise leave a transaction open on a pooled connection.
    pub(crate) async fn finish<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.tracker
            .spawn(work)
            .await
            .unwrap_or_else(|panic| Err(Error::Internal(panic.to_string())))
    }

    /// The signal that the engine is closing.
    pub(crate) fn closing(&self) -> &CancellationToken {
        &self.closing
    }

    /// Tells every task to end, and waits until all have.
    pub(crate) async fn close(&self) {
        self.closing.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}
