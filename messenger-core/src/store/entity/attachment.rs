//! Files that somebody has sent up, for a message.

use sea_orm::entity::prelude::*;

/// How far an attachment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, DeriveActiveEnum)]
#[sea_orm(rs_type = "i16", db_type = "SmallInteger")]
pub enum State {
    /// Its bytes are under way, or were broken off.
    #[sea_orm(num_value = 1)]
    Begun,
    /// It is there.
    #[sea_orm(num_value = 2)]
    Ready,
    /// It is nobody's any more, and goes as soon as its file has gone.
    #[sea_orm(num_value = 3)]
    Released,
}

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "attachments")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub owner_id: Uuid,
    pub client_id: Option<String>,
    pub name: String,
    pub media_type: String,
    pub size: i64,
    pub sha256: Option<Vec<u8>>,
    pub width: Option<i64>,
    pub height: Option<i64>,
    pub has_preview: bool,
    pub state: State,
    pub conversation_id: Option<Uuid>,
    pub message_id: Option<Uuid>,
    pub created_at: i64,
    /// When it may be taken away; 0 for at once, `None` while a message has it.
    pub due_at: Option<i64>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
