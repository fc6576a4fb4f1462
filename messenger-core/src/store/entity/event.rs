//! The change log: references, no content.

use sea_orm::entity::prelude::*;

/// What happened at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "i16", db_type = "SmallInteger")]
pub enum Kind {
    /// `user_id` exists, or shows another profile.
    #[sea_orm(num_value = 1)]
    UserChanged,
    /// `conversation_id` exists; `aux` has the ids of its members.
    #[sea_orm(num_value = 2)]
    ConversationCreated,
    /// `conversation_id` has a message `seq`.
    #[sea_orm(num_value = 3)]
    MessageCreated,
    /// Sessions of `user_id` ended; `aux` has their ids.
    #[sea_orm(num_value = 4)]
    SessionsRevoked,
    /// `user_id` has another password.
    #[sea_orm(num_value = 5)]
    PasswordChanged,
}

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "events")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub shard: i16,
    #[sea_orm(primary_key, auto_increment = false)]
    pub pos: i64,
    pub kind: Kind,
    pub conversation_id: Option<Uuid>,
    pub user_id: Option<Uuid>,
    pub actor_id: Option<Uuid>,
    pub seq: Option<i64>,
    pub aux: Option<Vec<u8>>,
    pub created_at: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
