//! Accounts whose deletion is not finished.

use sea_orm::entity::prelude::*;

/// What is still to be taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "i16", db_type = "SmallInteger")]
pub enum Scope {
    /// Memberships of groups and what the person kept.
    #[sea_orm(num_value = 1)]
    Account,
    /// Also all that the person wrote.
    #[sea_orm(num_value = 2)]
    Messages,
}

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "erasures")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub user_id: Uuid,
    pub scope: Scope,
    pub created_at: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
