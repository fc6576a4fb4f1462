//! Takes away what nobody has any more: at once what was deleted, after a while what no message got.
//!
//! First the row is taken from everybody, so that no message gets it meanwhile, then the files go, and
//! then the row. Whoever dies in between leaves a row, by which the next one goes on.

use std::sync::Arc;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::operations::{Claim, Forget};
use super::{Objects, queries};
use crate::clock;
use crate::error::Result;
use crate::limits::Limits;
use crate::store::Store;
use crate::write::Writer;

/// Attachments that are taken away in one step: few, since senders wait for it.
const AT_ONCE: u64 = 100;
/// Failures after which a round ends: the place can not be reached.
const FAILURES_MAX: usize = 3;

/// Takes away until the engine closes.
pub(crate) async fn run(
    store: Arc<Store>,
    writer: Writer,
    objects: Arc<Objects>,
    limits: Limits,
    wake: Arc<Notify>,
    closing: CancellationToken,
) {
    let task = Task {
        store,
        writer,
        objects,
    };
    let work = async {
        loop {
            if let Err(error) = task.collect().await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "taking attachments away failed; it is tried again"
                );
            }
            // Another process may have freed some, and some have had their time.
            let _ = tokio::time::timeout(limits.prune_interval, wake.notified()).await;
        }
    };
    closing.run_until_cancelled(work).await;
}

struct Task {
    store: Arc<Store>,
    writer: Writer,
    objects: Arc<Objects>,
}

impl Task {
    /// Takes away all whose time is over. What can not be taken away holds up nothing else, unless
    /// nothing can.
    async fn collect(&self) -> Result<()> {
        let (mut key, mut failures, mut outcome) = (Uuid::nil(), 0, Ok(()));
        let now = clock::now();
        while failures < FAILURES_MAX {
            let ids = queries::due(&self.store.read(), now, key, AT_ONCE).await?;
            let Some(last) = ids.last() else { break };
            key = *last;
            let claimed = self.writer.run(Claim { ids, now }).await?;
            let mut gone = Vec::with_capacity(claimed.len());
            for id in claimed {
                match self.objects.remove(id.into()).await {
                    Ok(()) => gone.push(id),
                    Err(error) => {
                        failures += 1;
                        outcome = Err(error);
                    }
                }
                if failures == FAILURES_MAX {
                    break;
                }
            }
            self.writer.run(Forget { ids: gone }).await?;
        }
        outcome
    }
}
