//! Users: the public profile, and the password's hash.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "users")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub username: String,
    pub username_key: String,
    pub display_name: String,
    pub display_name_key: String,
    pub password_hash: Option<String>,
    pub created_at: i64,
    pub changed_pos: i64,
    pub deleted_at: Option<i64>,
    /// Only as current as the row was when it was read: it is written without a position.
    pub last_seen_at: Option<i64>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
