//! Takes away what nobody has any more: at once what was deleted, after a while what no message got.
//!
//! First the row is taken from everybody, so that no message gets it meanwhile, then the files go, and
//! then the row. Whoever dies in between leaves a row, by which the next one goes on.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

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
        again: limits.prune_interval,
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
    /// How long what could not be taken away waits.
    again: Duration,
}

impl Task {
    /// Takes away all whose time is over. What can not be taken away is left for later, and holds up
    /// nothing else, unless nothing can.
    async fn collect(&self) -> Result<()> {
        let (mut failures, mut outcome) = (0, Ok(()));
        while failures < FAILURES_MAX {
            let now = clock::now();
            let ids = queries::due(&self.store.read(), now, AT_ONCE).await?;
            if ids.is_empty() {
                break;
            }
            let claimed = self.writer.run(Claim { ids, now }).await?;
            let (mut gone, mut left) = (Vec::with_capacity(claimed.len()), Vec::new());
            for claimed in claimed {
                match self.objects.remove(claimed.id).await {
                    Ok(()) => gone.push(claimed),
                    Err(error) => {
                        failures += 1;
                        left.push(claimed.id);
                        outcome = Err(error);
                    }
                }
                if failures == FAILURES_MAX {
                    break;
                }
            }
            let again_at = now.plus(self.again);
            let forget = Forget {
                gone,
                left,
                again_at,
            };
            self.writer.run(forget).await?;
        }
        outcome
    }
}
