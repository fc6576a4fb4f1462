//! Changes of one conversation that could not be told yet, while those of others are.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "hook_lanes")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub name: String,
    /// The conversation; nil for what belongs to none.
    #[sea_orm(primary_key, auto_increment = false)]
    pub lane: Uuid,
    /// What the change log says of it up to here was told.
    pub pos: i64,
    /// How often the next one was tried.
    pub tries: i64,
    /// When it is tried again.
    pub next_at: i64,
    /// Since when none was told.
    pub since: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
