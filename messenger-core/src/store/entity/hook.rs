//! How far the host was told of changes, by the name of whoever is told.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "hooks")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub name: String,
    /// What the change log says up to here was told, but for lanes that wait.
    pub pos: i64,
    /// The engine that tells.
    pub holder: Option<Uuid>,
    /// Until when nobody else does.
    pub held_until: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
