//! Cuts the change log: what is both old and far behind its head goes, a little at a time.

use std::sync::Arc;
use std::time::Duration;

use sea_orm::{ColumnTrait, EntityTrait, QueryFilter, QueryOrder, QuerySelect};
use tokio_util::sync::CancellationToken;

use super::{Batch, Needs, Operation, Writer};
use crate::clock;
use crate::error::Result;
use crate::ids::Position;
use crate::limits::Limits;
use crate::store::entity::{event, head};
use crate::store::{SHARD, Store};

/// How often it is looked whether there is something to cut.
const INTERVAL: Duration = Duration::from_secs(60);
/// Lines cut in one transaction: few, since senders wait for it.
const LINES_PER_CUT: u64 = 1_000;

struct Prune {
    to: Position,
}

impl Operation for Prune {
    type Output = ();

    fn needs(&self, _needs: &mut Needs) {}

    fn apply(&self, batch: &mut Batch) -> Result<()> {
        batch.prune_events(self.to);
        Ok(())
    }
}

/// Prunes until the engine closes.
pub(super) async fn run(
    store: Arc<Store>,
    writer: Writer,
    limits: Limits,
    closing: CancellationToken,
) {
    let work = async {
        loop {
            tokio::time::sleep(INTERVAL).await;
            if let Err(error) = prune(&store, &writer, &limits).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "cutting the change log failed; it is tried again"
                );
            }
        }
    };
    closing.run_until_cancelled(work).await;
}

/// Cuts all that may go.
pub(super) async fn prune(store: &Store, writer: &Writer, limits: &Limits) -> Result<()> {
    while let Some(to) = cut(store, limits).await? {
        writer.run(Prune { to }).await?;
    }
    Ok(())
}

/// The position up to which the next cut goes, if there is anything to cut.
async fn cut(store: &Store, limits: &Limits) -> Result<Option<Position>> {
    let Some(head) = head::Entity::find_by_id(SHARD).one(store.read()).await? else {
        return Ok(None);
    };
    let kept = i64::try_from(limits.events_kept_min).unwrap_or(i64::MAX);
    let old = clock::now().minus(limits.event_age_min);
    let oldest: Vec<(i64, i64)> = event::Entity::find()
        .select_only()
        .column(event::Column::Pos)
        .column(event::Column::CreatedAt)
        .filter(event::Column::Shard.eq(SHARD))
        .order_by_asc(event::Column::Pos)
        .limit(LINES_PER_CUT)
        .into_tuple()
        .all(store.read())
        .await?;
    let may_go = oldest.iter().take_while(|(pos, created_at)| {
        *pos <= head.pos.saturating_sub(kept) && *created_at < old.as_micros()
    });
    Ok(may_go.last().map(|(pos, _)| Position::stored(*pos)))
}
