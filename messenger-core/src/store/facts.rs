//! Facts about the deployment that change, by their keys.

use sea_orm::sea_query::OnConflict;
use sea_orm::{ConnectionTrait, DbErr, EntityTrait};

use super::entity::meta;

/// When it was last shown that something can be written, in microseconds since 1970.
pub(crate) const READY_AT: &str = "ready_at";
/// Up to where the change log was cut.
pub(crate) const LOG_CUT: &str = "log_cut";

/// What is noted under a key; 0 if nothing is.
pub(crate) async fn noted(db: &impl ConnectionTrait, key: &str) -> Result<i64, DbErr> {
    let row = meta::Entity::find_by_id(key).one(db).await?;
    let damaged = || DbErr::Custom(format!("{key} in the table sync_meta is damaged"));
    row.map_or(Ok(0), |row| row.value.parse().map_err(|_| damaged()))
}

/// Notes a number under a key.
pub(crate) async fn note(db: &impl ConnectionTrait, key: &str, value: i64) -> Result<(), DbErr> {
    let row = meta::Model {
        key: key.to_owned(),
        value: value.to_string(),
    };
    let mut known = OnConflict::column(meta::Column::Key);
    meta::Entity::insert(meta::ActiveModel::from(row))
        .on_conflict(known.update_column(meta::Column::Value).to_owned())
        .exec_without_returning(db)
        .await?;
    Ok(())
}
