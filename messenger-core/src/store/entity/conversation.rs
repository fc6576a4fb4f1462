//! Conversations.

use sea_orm::entity::prelude::*;

/// What kind of conversation it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "i16", db_type = "SmallInteger")]
pub enum Kind {
    #[sea_orm(num_value = 1)]
    Direct,
    #[sea_orm(num_value = 2)]
    Group,
}

/// Whether it can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "i16", db_type = "SmallInteger")]
pub enum State {
    #[sea_orm(num_value = 1)]
    Open,
    #[sea_orm(num_value = 2)]
    Deleted,
}

/// What a new member sees of the past.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "i16", db_type = "SmallInteger")]
pub enum HistoryPolicy {
    #[sea_orm(num_value = 1)]
    All,
    #[sea_orm(num_value = 2)]
    SinceJoin,
}

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "conversations")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub shard: i16,
    pub kind: Kind,
    pub state: State,
    pub created_by: Uuid,
    pub client_conversation_id: Option<String>,
    pub direct_key: Option<Vec<u8>>,
    pub title: Option<String>,
    pub history_policy: HistoryPolicy,
    pub last_seq: i64,
    pub min_seq: i64,
    pub member_count: i64,
    pub members_pos: i64,
    pub changed_pos: i64,
    pub last_pos: i64,
    pub last_message_at: Option<i64>,
    pub last_message_preview: Option<String>,
    pub created_at: i64,
    pub updated_at: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
