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
    /// Message `seq` of `conversation_id` has other content.
    #[sea_orm(num_value = 6)]
    MessageEdited,
    /// Message `seq` of `conversation_id` is a tombstone.
    #[sea_orm(num_value = 7)]
    MessageDeleted,
    /// `actor_id` reacts to message `seq` of `conversation_id`, or no longer: `aux` is 1 or 0 in
    /// one byte, and then the emoji.
    #[sea_orm(num_value = 8)]
    ReactionChanged,
    /// `conversation_id` has another title.
    #[sea_orm(num_value = 9)]
    ConversationChanged,
    /// `aux` has the ids of those who joined `conversation_id`.
    #[sea_orm(num_value = 10)]
    MembersAdded,
    /// `user_id` left `conversation_id`, or was removed by `actor_id`.
    #[sea_orm(num_value = 11)]
    MemberRemoved,
    /// `user_id` has another role in `conversation_id`.
    #[sea_orm(num_value = 12)]
    RoleChanged,
    /// `conversation_id` is no more.
    #[sea_orm(num_value = 13)]
    ConversationDeleted,
    /// `user_id` has read or received `conversation_id` up to another message.
    #[sea_orm(num_value = 14)]
    MarkerChanged,
    /// Something that only `user_id` sees has changed, of `conversation_id` or of their own.
    #[sea_orm(num_value = 15)]
    SelfChanged,
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
