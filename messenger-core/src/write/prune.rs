//! Deletes what has had its time, a little at a time: old lines of the change log, sessions and
//! refresh tokens that ended long ago.

use std::sync::Arc;

use sea_orm::sea_query::{Expr, ExprTrait, Query};
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
};
use tokio_util::sync::CancellationToken;

use super::{Batch, Needs, Operation, Writer};
use crate::clock::{self, Timestamp};
use crate::error::Result;
use crate::limits::Limits;
use crate::store::entity::{event, head, hook, hook_lane, refresh_token, session};
use crate::store::{SHARD, Store, facts};

/// Rows in one statement: few, since senders wait for it.
const ROWS_PER_CUT: u64 = 1_000;

/// What may go.
#[derive(Clone, Debug)]
pub(super) struct Prune {
    /// Lines of the change log up to and including this position.
    events_to: Option<i64>,
    /// Sessions that have expired, and tokens that were spent, before this time.
    ended_before: Timestamp,
}

impl Operation for Prune {
    type Output = ();
    const IS_UPKEEP: bool = true;

    fn needs(&self, _needs: &mut Needs) {}

    fn apply(&self, batch: &mut Batch) -> Result<()> {
        batch.prune(self.clone());
        Ok(())
    }
}

impl Prune {
    /// Deletes it, up to [`ROWS_PER_CUT`] of each kind in one statement.
    pub(super) async fn delete(&self, db: &impl ConnectionTrait) -> Result<(), DbErr> {
        if let Some(position) = self.events_to {
            // Whoever is behind it has missed something, and is told so.
            // Another engine may have cut more meanwhile.
            let cut = facts::noted(db, facts::LOG_CUT).await?;
            facts::note(db, facts::LOG_CUT, Ord::max(cut, position)).await?;
            event::Entity::delete_many()
                .filter(event::Column::Shard.eq(SHARD))
                .filter(event::Column::Pos.lte(position))
                .exec(db)
                .await?;
        }
        let before = self.ended_before.as_micros();
        let is_expired = session::Column::ExpiresAt.lt(before);
        let mut expired = Query::select();
        expired
            .column(session::Column::Id)
            .from(session::Entity)
            .and_where(is_expired.clone());
        for may_go in [
            refresh_token::Column::UsedAt.lt(before),
            refresh_token::Column::SessionId.in_subquery(expired),
        ] {
            let mut tokens = Query::select();
            tokens
                .column(refresh_token::Column::Hash)
                .from(refresh_token::Entity)
                .and_where(may_go)
                .limit(ROWS_PER_CUT);
            refresh_token::Entity::delete_many()
                .filter(refresh_token::Column::Hash.in_subquery(tokens))
                .exec(db)
                .await?;
        }
        // A session may have more tokens than one cut takes; it goes when it has none left.
        let of_it = (refresh_token::Entity, refresh_token::Column::SessionId);
        let mut tokens = Query::select();
        tokens
            .expr(Expr::val(1))
            .from(refresh_token::Entity)
            .and_where(Expr::col(of_it).equals((session::Entity, session::Column::Id)));
        let mut sessions = Query::select();
        sessions
            .column(session::Column::Id)
            .from(session::Entity)
            .and_where(is_expired)
            .and_where(Expr::exists(tokens).not())
            .limit(ROWS_PER_CUT);
        session::Entity::delete_many()
            .filter(session::Column::Id.in_subquery(sessions))
            .exec(db)
            .await?;
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
            tokio::time::sleep(limits.prune_interval).await;
            if let Err(error) = prune(&store, &writer, &limits).await {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "deleting old rows failed; it is tried again"
                );
            }
        }
    };
    closing.run_until_cancelled(work).await;
}

/// Deletes all that may go.
async fn prune(store: &Store, writer: &Writer, limits: &Limits) -> Result<()> {
    while let Some(prune) = next(store, limits).await? {
        writer.run(prune).await?;
    }
    Ok(())
}

/// The next cut, if there is anything to delete.
async fn next(store: &Store, limits: &Limits) -> Result<Option<Prune>> {
    let now = clock::now();
    let ended_before = now.minus(limits.ended_sessions_kept);
    let expired = session::Entity::find()
        .filter(session::Column::ExpiresAt.lt(ended_before.as_micros()))
        .one(&store.read())
        .await?;
    let spent = refresh_token::Entity::find()
        .filter(refresh_token::Column::UsedAt.lt(ended_before.as_micros()))
        .one(&store.read())
        .await?;
    let events_to = old_events(store, limits, now).await?;
    let any = expired.is_some() || spent.is_some() || events_to.is_some();
    Ok(any.then_some(Prune {
        events_to,
        ended_before,
    }))
}

/// The end of the next stretch of the change log that is both old and far behind its head.
async fn old_events(store: &Store, limits: &Limits, now: Timestamp) -> Result<Option<i64>> {
    let Some(head) = head::Entity::find_by_id(SHARD).one(&store.read()).await? else {
        return Ok(None);
    };
    let kept = i64::try_from(limits.events_kept_min).unwrap_or(i64::MAX);
    let old = now.minus(limits.event_age_min).as_micros();
    let oldest: Vec<(i64, i64)> = event::Entity::find()
        .select_only()
        .column(event::Column::Pos)
        .column(event::Column::CreatedAt)
        .filter(event::Column::Shard.eq(SHARD))
        .order_by_asc(event::Column::Pos)
        .limit(ROWS_PER_CUT)
        .into_tuple()
        .all(&store.read())
        .await?;
    let too_old = now.minus(limits.hook_behind_max).as_micros();
    let untold = untold_from(store, too_old).await?;
    let may_go = oldest.iter().take_while(|(pos, created_at)| {
        *pos <= head.pos.saturating_sub(kept)
            && *created_at < old
            && (untold.is_none_or(|untold| *pos <= untold) || *created_at < too_old)
    });
    Ok(may_go.last().map(|(pos, _)| *pos))
}

/// The position after which the host has not been told of everything yet, unless nobody has tried
/// to tell it for so long.
async fn untold_from(store: &Store, too_old: i64) -> Result<Option<i64>> {
    let db = store.read();
    let hooks = hook::Entity::find()
        .filter(hook::Column::HeldUntil.gte(too_old))
        .all(&db)
        .await?;
    let names = hooks.iter().map(|hook| hook.name.as_str());
    let lane: Option<i64> = hook_lane::Entity::find()
        .select_only()
        .column_as(hook_lane::Column::Pos.min(), "pos")
        .filter(hook_lane::Column::Name.is_in(names))
        .into_tuple()
        .one(&db)
        .await?
        .flatten();
    let hook = hooks.iter().map(|hook| hook.pos).min();
    Ok(hook.into_iter().chain(lane).min())
}
