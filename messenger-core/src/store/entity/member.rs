//! Members of conversations; a row survives leaving.

use sea_orm::entity::prelude::*;

/// What a member may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "i16", db_type = "SmallInteger")]
pub enum Role {
    #[sea_orm(num_value = 1)]
    Member,
    #[sea_orm(num_value = 2)]
    Admin,
    #[sea_orm(num_value = 3)]
    Owner,
}

/// Whether the user is in the conversation now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "i16", db_type = "SmallInteger")]
pub enum State {
    #[sea_orm(num_value = 1)]
    Joined,
    #[sea_orm(num_value = 2)]
    Left,
    #[sea_orm(num_value = 3)]
    Removed,
}

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "members")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub conversation_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub user_id: Uuid,
    pub role: Role,
    pub state: State,
    pub joined_pos: i64,
    pub changed_pos: i64,
    pub visible_from_seq: i64,
    pub last_read_seq: i64,
    pub read_pos: i64,
    pub self_pos: i64,
    pub muted_until: Option<i64>,
    pub pinned_at: Option<i64>,
    pub archived_at: Option<i64>,
    pub delivered_seq: i64,
    pub marked_unread: bool,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
