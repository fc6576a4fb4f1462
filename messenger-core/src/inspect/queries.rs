//! What is read about a database as a whole.

use std::collections::HashMap;

use sea_orm::sea_query::{Expr, ExprTrait, Func};
use sea_orm::{
    ColumnTrait, Condition, DbBackend, EntityTrait, PaginatorTrait, QueryFilter, QueryOrder,
    QuerySelect, Select,
};
use uuid::Uuid;

use super::{Contents, PeopleQuery, Person};
use crate::clock::{self, Timestamp};
use crate::error::Result;
use crate::ids::Position;
use crate::store::entity::{conversation, event, message, session, user};
use crate::store::{IDS_PER_STATEMENT, Look, fence};
use crate::users::{User, Username};

/// How much there is.
pub(super) async fn contents(look: &Look) -> Result<Contents> {
    let db = look.db();
    let people = user::Entity::find();
    let of_kind = |kind| {
        conversation::Entity::find()
            .filter(conversation::Column::Kind.eq(kind))
            .filter(conversation::Column::State.eq(conversation::State::Open))
    };
    Ok(Contents {
        database: look.name(),
        schema_version: look.schema_version().to_owned(),
        database_bytes: look.bytes().await?,
        people: alive(people.clone()).count(db).await?,
        people_deleted: people
            .filter(user::Column::DeletedAt.is_not_null())
            .count(db)
            .await?,
        direct_conversations: of_kind(conversation::Kind::Direct).count(db).await?,
        groups: of_kind(conversation::Kind::Group).count(db).await?,
        messages: message::Entity::find().count(db).await?,
        sessions: live().count(db).await?,
        changes: event::Entity::find().count(db).await?,
        position: Position::stored(fence::head(db).await?.pos),
    })
}

/// People by username.
pub(super) async fn people(look: &Look, query: &PeopleQuery) -> Result<Vec<Person>> {
    let mut found = alive(user::Entity::find());
    if let Some(text) = &query.search {
        // A search for a place in the text has no wildcards that would have to be escaped.
        let place = match look.backend() {
            DbBackend::Postgres => "strpos",
            _ => "instr",
        };
        let folded = text.to_lowercase();
        let contains = |column: user::Column| {
            Expr::expr(Func::cust(place).args([Expr::col(column), Expr::val(folded.clone())])).gt(0)
        };
        found = found.filter(
            Condition::any()
                .add(contains(user::Column::UsernameKey))
                .add(contains(user::Column::DisplayNameKey)),
        );
    }
    if let Some(after) = &query.after {
        found = found.filter(user::Column::UsernameKey.gt(after.key()));
    }
    let rows = found
        .order_by_asc(user::Column::UsernameKey)
        .limit(u64::from(query.limit))
        .all(look.db())
        .await?;
    with_sessions(look, &rows).await
}

/// Somebody by their username.
pub(super) async fn person(look: &Look, username: &Username) -> Result<Option<Person>> {
    let row = alive(user::Entity::find())
        .filter(user::Column::UsernameKey.eq(username.key()))
        .one(look.db())
        .await?;
    let found = with_sessions(look, row.as_slice()).await?;
    Ok(found.into_iter().next())
}

fn alive(people: Select<user::Entity>) -> Select<user::Entity> {
    people.filter(user::Column::DeletedAt.is_null())
}

fn live() -> Select<session::Entity> {
    session::Entity::find()
        .filter(session::Column::RevokedAt.is_null())
        .filter(session::Column::ExpiresAt.gt(clock::now().as_micros()))
}

async fn with_sessions(look: &Look, rows: &[user::Model]) -> Result<Vec<Person>> {
    let mut sessions: HashMap<Uuid, i64> = HashMap::new();
    for some in rows.chunks(IDS_PER_STATEMENT) {
        let counted: Vec<(Uuid, i64)> = live()
            .filter(session::Column::UserId.is_in(some.iter().map(|row| row.id)))
            .select_only()
            .column(session::Column::UserId)
            .column_as(session::Column::Id.count(), "count")
            .group_by(session::Column::UserId)
            .into_tuple()
            .all(look.db())
            .await?;
        sessions.extend(counted);
    }
    let people = rows.iter().map(|row| Person {
        user: User::from(row),
        has_password: row.password_hash.is_some(),
        sessions: sessions
            .get(&row.id)
            .map_or(0, |count| count.unsigned_abs()),
        last_seen_at: row.last_seen_at.map(Timestamp::from_micros),
    });
    Ok(people.collect())
}
