//! The index of messages: what it has, what it lacks, and what is found in it.
//!
//! A term stands in it behind the [`scope`] of its conversation: a search looks only through
//! conversations in which the searcher is, however many messages there are in others. SQLite keeps
//! the terms in an FTS5 table, PostgreSQL in a `tsvector` with a GIN index; both take them as they
//! are.

use std::collections::{BTreeSet, HashMap};
use std::time::Instant;

use sea_orm::sea_query::OnConflict;
use sea_orm::{
    ColumnTrait, ConnectionTrait, DbBackend, DbErr, EntityTrait, QueryFilter, QueryOrder,
    QuerySelect, Value,
};
use uuid::Uuid;

use super::terms::{SearchText, Term, scope, terms};
use crate::error::Result;
use crate::ids::{ConversationId, Position, Seq, UserId};
use crate::messages::Message;
use crate::messages::queries::mark_mine;
use crate::store::entity::{event, head, message, search_head};
use crate::store::windows::{self, Window};
use crate::store::{SHARD, fence, statement};

/// Lines of the change log that need no note that they have nothing for the index.
const UNNOTED_MAX: i64 = 1_000;

/// Bytes of text that one step takes, and what the last message goes past it: long messages make
/// shorter steps.
const STEP_BYTES_MAX: usize = 64 * 1024;

/// Conversations that one expression asks for. SQLite goes through those of one expression side by
/// side; PostgreSQL asks all of them about each message that it finds.
const SQLITE_CONVERSATIONS_AT_ONCE: usize = 100;
const POSTGRES_CONVERSATIONS_AT_ONCE: usize = 20;

/// Positions that are one age: an age is a term of its own to PostgreSQL, which otherwise gets all
/// messages that match before it can tell which are the newest.
const AGE_BITS: u32 = 16;

/// Messages that are looked at together.
const LOOKED_AT_TOGETHER: usize = 100;

/// Brings the index a step further.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// Where the index stands before it, which must still be so.
    from: Option<search_head::Model>,
    /// The end of the change log.
    head: head::Model,
    to: search_head::Model,
    /// Messages with their terms.
    found: Vec<Entry>,
    /// The positions of messages that are not to be found any more.
    gone: Vec<i64>,
}

#[derive(Clone, Debug)]
struct Entry {
    /// The position at which the message was sent, which orders what is found.
    pos: i64,
    conversation: Uuid,
    seq: i64,
    /// With spaces in between.
    terms: String,
}

impl Step {
    /// Whether it begins where another one did, which then has not been taken.
    pub(super) fn is_where(&self, other: &Self) -> bool {
        self.from == other.from
    }

    /// Positions that the index is behind.
    pub(super) fn behind(&self) -> u64 {
        let from = self.from.as_ref();
        from.map_or(u64::MAX, |from| self.head.pos.abs_diff(from.pos))
    }

    /// Whether the index lacks something of what there was at a position.
    pub(super) fn is_before(&self, position: i64) -> bool {
        let position = position.min(self.head.pos);
        let has_it = |from: &search_head::Model| from.filled.is_none() && from.pos >= position;
        !self.from.as_ref().is_some_and(has_it)
    }

    /// Bytes of what it writes.
    pub(super) fn bytes(&self) -> usize {
        self.found.iter().map(|entry| entry.terms.len()).sum()
    }
}

/// Where the index stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) position: i64,
    /// It has the messages from before there was an index, too.
    pub(super) is_filled: bool,
}

impl Reached {
    pub(super) const NOTHING: Self = Self {
        position: i64::MIN,
        is_filled: false,
    };
}

/// Where the index stands, and what is next to do, in the snapshot of one moment.
pub(super) async fn next(
    db: &impl ConnectionTrait,
    messages_max: u64,
) -> Result<(Reached, Option<Step>)> {
    let head = fence::head(db).await?;
    let from = search_head::Entity::find_by_id(SHARD).one(db).await?;
    let Some(place) = from.clone().filter(|place| place.pos <= head.pos) else {
        return Ok((Reached::NOTHING, Some(begin(from, head))));
    };
    let mut reached = Reached {
        position: place.pos,
        is_filled: place.filled.is_none(),
    };
    if place.pos < head.pos {
        if !is_kept(db, place.pos).await? {
            return Ok((Reached::NOTHING, Some(begin(from, head))));
        }
        let lines = changed(db, place.pos, messages_max).await?;
        let named: BTreeSet<(Uuid, i64)> = lines.iter().map(|line| line.message).collect();
        let named: Vec<Window> = named.into_iter().map(one).collect();
        let rows = windows::rows(db, &named).await?.into_iter();
        let mut rows: HashMap<(Uuid, i64), message::Model> = rows
            .map(|row| ((row.conversation_id, row.seq), row))
            .collect();
        let lengths = lines.iter().map(|line| {
            let row = rows.get(&line.message);
            row.map_or(0, |row| row.content.len())
        });
        let fitting = &lines[..fitting(lengths)];
        let are_all = fitting.len() == lines.len() && count(lines.len()) < messages_max;
        let upto = match fitting.last() {
            Some(last) if !are_all => last.pos,
            _ => head.pos,
        };
        if !fitting.is_empty() || upto - place.pos > UNNOTED_MAX {
            let rows = fitting.iter().filter_map(|line| rows.remove(&line.message));
            let to = search_head::Model { pos: upto, ..place };
            return Ok((reached, Some(step(from, head, to, rows.collect()))));
        }
        reached.position = head.pos;
    }
    let Some(filled) = place.filled else {
        return Ok((reached, None));
    };
    let mut rows = message::Entity::find()
        .filter(message::Column::Id.gt(filled))
        .order_by_asc(message::Column::Id)
        .limit(messages_max)
        .all(db)
        .await?;
    rows.truncate(fitting(rows.iter().map(|row| row.content.len())));
    let to = search_head::Model {
        filled: rows.last().map(|row| row.id),
        ..place
    };
    Ok((reached, Some(step(from, head, to, rows))))
}

/// Whether the change log still has all that came after a position. It is cut at its beginning, and
/// positions have no gaps but where the database was opened.
async fn is_kept(db: &impl ConnectionTrait, position: i64) -> Result<bool> {
    let lines = || {
        event::Entity::find()
            .select_only()
            .column(event::Column::Pos)
            .filter(event::Column::Shard.eq(SHARD))
            .order_by_asc(event::Column::Pos)
            .limit(1)
    };
    let before = lines().filter(event::Column::Pos.lte(position));
    if before.into_tuple::<i64>().one(db).await?.is_some() {
        return Ok(true);
    }
    let after = lines().filter(event::Column::Pos.gt(position));
    let first = after.into_tuple::<i64>().one(db).await?;
    Ok(first == Some(position + 1))
}

/// An index that has nothing yet but follows the change log from here on.
fn begin(from: Option<search_head::Model>, head: head::Model) -> Step {
    let to = search_head::Model {
        shard: SHARD,
        pos: head.pos,
        filled: Some(Uuid::nil()),
    };
    step(from, head, to, Vec::new())
}

fn step(
    from: Option<search_head::Model>,
    head: head::Model,
    to: search_head::Model,
    rows: Vec<message::Model>,
) -> Step {
    let mut found = Vec::with_capacity(rows.len());
    let mut gone = Vec::new();
    for row in rows {
        let scope = scope(row.conversation_id.into());
        let scoped = terms(&row.content)
            .into_iter()
            .map(|term| scope.clone() + &term);
        let terms: Vec<String> = scoped.collect();
        // What was found by its text before may have none any more.
        if terms.is_empty() {
            gone.push(row.created_pos);
        } else {
            found.push(Entry {
                pos: row.created_pos,
                conversation: row.conversation_id,
                seq: row.seq,
                terms: terms.join(" "),
            });
        }
    }
    Step {
        from,
        head,
        to,
        found,
        gone,
    }
}

/// How many texts one step takes, of these lengths: one at least.
fn fitting(lengths: impl Iterator<Item = usize>) -> usize {
    let sums = lengths.scan(0, |sum, length| {
        let before = *sum;
        *sum += length;
        Some(before)
    });
    sums.take_while(|before| *before < STEP_BYTES_MAX).count()
}

fn count(rows: usize) -> u64 {
    u64::try_from(rows).unwrap_or(u64::MAX)
}

/// A line of the change log that says that a text has changed.
struct Line {
    pos: i64,
    message: (Uuid, i64),
}

/// The messages whose text has changed after a position.
async fn changed(db: &impl ConnectionTrait, after: i64, limit: u64) -> Result<Vec<Line>> {
    let kinds = [
        event::Kind::MessageCreated,
        event::Kind::MessageEdited,
        event::Kind::MessageDeleted,
    ];
    let lines: Vec<(i64, Option<Uuid>, Option<i64>)> = event::Entity::find()
        .select_only()
        .column(event::Column::Pos)
        .column(event::Column::ConversationId)
        .column(event::Column::Seq)
        .filter(event::Column::Shard.eq(SHARD))
        .filter(event::Column::Pos.gt(after))
        .filter(event::Column::Kind.is_in(kinds))
        .order_by_asc(event::Column::Pos)
        .limit(limit)
        .into_tuple()
        .all(db)
        .await?;
    let named = lines.into_iter();
    Ok(named
        .filter_map(|(pos, conversation, seq)| {
            let message = (conversation?, seq?);
            Some(Line { pos, message })
        })
        .collect())
}

fn one((conversation, seq): (Uuid, i64)) -> Window {
    Window {
        conversation,
        first: seq,
        last: seq,
    }
}

/// Takes a step as [`take`] does. If the index can not be written, that is its own affair: what else is
/// in the transaction stays.
pub(crate) async fn try_to_take(db: &impl ConnectionTrait, step: &Step) -> Result<(), DbErr> {
    db.execute_unprepared("SAVEPOINT search").await?;
    if let Err(error) = take(db, step).await {
        db.execute_unprepared("ROLLBACK TO SAVEPOINT search")
            .await?;
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "the index for searches can not be written"
        );
    }
    db.execute_unprepared("RELEASE SAVEPOINT search").await?;
    Ok(())
}

/// Takes a step, under the lock of the change log's head; nothing, where somebody else took one
/// meanwhile, or a fence began, after which other messages may be at the same positions.
async fn take(db: &impl ConnectionTrait, step: &Step) -> Result<(), DbErr> {
    let now = search_head::Entity::find_by_id(SHARD).one(db).await?;
    let head = head::Entity::find_by_id(SHARD).one(db).await?;
    if now != step.from || head.is_none_or(|head| head.fence_start != step.head.fence_start) {
        return Ok(());
    }
    let moved = [search_head::Column::Pos, search_head::Column::Filled];
    let mut shard = OnConflict::column(search_head::Column::Shard);
    search_head::Entity::insert(search_head::ActiveModel::from(step.to.clone()))
        .on_conflict(shard.update_columns(moved).to_owned())
        .exec_without_returning(db)
        .await?;
    let postgres = db.get_database_backend() == DbBackend::Postgres;
    let (gone, found) = match postgres {
        true => (&GONE_POSTGRES[..], &FOUND_POSTGRES[..]),
        false => (&GONE_SQLITE[..], &FOUND_SQLITE[..]),
    };
    if !step.gone.is_empty() {
        let list = serde_json::json!(step.gone).to_string();
        for sql in gone {
            db.execute_raw(statement(db, sql, [Value::from(list.clone())]))
                .await?;
        }
    }
    if !step.found.is_empty() {
        let rows = step.found.iter().map(|entry| {
            let conversation = entry.conversation.simple().to_string();
            serde_json::json!([entry.pos, conversation, entry.seq, entry.terms])
        });
        let list = serde_json::Value::from_iter(rows).to_string();
        for sql in found {
            db.execute_raw(statement(db, sql, [Value::from(list.clone())]))
                .await?;
        }
    }
    Ok(())
}

// The rows come as one value, so that a statement has one text whatever their number.
const GONE_SQLITE: [&str; 2] = [
    "DELETE FROM search_terms WHERE rowid IN (SELECT value FROM json_each(?))",
    "DELETE FROM search_messages WHERE pos IN (SELECT value FROM json_each(?))",
];
const FOUND_SQLITE: [&str; 2] = [
    "INSERT OR REPLACE INTO search_terms (rowid, terms) \
     SELECT value ->> 0, value ->> 3 FROM json_each(?)",
    "INSERT OR REPLACE INTO search_messages (pos, conversation_id, seq) \
     SELECT value ->> 0, unhex(value ->> 1), value ->> 2 FROM json_each(?)",
];
const GONE_POSTGRES: [&str; 1] = ["DELETE FROM search_messages WHERE pos IN \
     (SELECT value::bigint FROM json_array_elements_text(?::json))"];
// With the age of the message: see [`AGE_BITS`].
const FOUND_POSTGRES: [&str; 1] = [
    "INSERT INTO search_messages (pos, conversation_id, seq, terms) \
     SELECT (value ->> 0)::bigint, (value ->> 1)::uuid, (value ->> 2)::bigint, \
     array_to_tsvector(string_to_array(value ->> 3, ' ') || ('@' || ((value ->> 0)::bigint >> 16))) \
     FROM json_array_elements(?::json) \
     ON CONFLICT (pos) DO UPDATE SET conversation_id = excluded.conversation_id, \
     seq = excluded.seq, terms = excluded.terms",
];

/// What is looked for, and where.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) text: SearchText,
    /// Conversations with the first message that may be seen.
    pub(super) places: Vec<(ConversationId, Seq)>,
    /// Messages that were sent before it.
    pub(super) before: i64,
    pub(super) limit: usize,
    /// Messages to look at.
    pub(super) looked_at_max: usize,
    /// When to leave the rest to the next page.
    pub(super) until: Option<Instant>,
}

/// Messages that have a text, the newest first, as somebody sees them; and the position before
/// which there may be more.
pub(super) async fn find(
    db: &impl ConnectionTrait,
    user: UserId,
    wanted: &Wanted,
) -> Result<(Vec<Message>, Option<Position>)> {
    let visible: HashMap<ConversationId, Seq> = wanted.places.iter().copied().collect();
    let mut found: Vec<Message> = Vec::new();
    let mut before = wanted.before;
    // What is frequent is found among the newest already.
    let mut age = newest_age(db, before).await?;
    let mut looked_at = 0;
    let next = loop {
        let candidates = candidates(db, wanted, age, before).await?;
        let windows = candidates
            .iter()
            .map(|(_, conversation, seq)| (*conversation, *seq));
        let windows: Vec<Window> = windows.map(one).collect();
        let rows = windows::rows(db, &windows).await?.into_iter();
        let mut rows: HashMap<(Uuid, i64), message::Model> = rows
            .map(|row| ((row.conversation_id, row.seq), row))
            .collect();
        for (pos, conversation, seq) in &candidates {
            if found.len() == wanted.limit {
                break;
            }
            before = *pos;
            looked_at += 1;
            let Some(row) = rows.remove(&(*conversation, *seq)) else {
                continue;
            };
            let message = Message::from(row);
            let is_visible = visible
                .get(&message.conversation_id)
                .is_some_and(|from| message.seq >= *from);
            if is_visible && message.deleted_at.is_none() && wanted.text.matches(&message.content) {
                found.push(message);
            }
        }
        let seen_all = candidates.last().is_none_or(|(pos, ..)| *pos == before);
        if seen_all && candidates.len() < LOOKED_AT_TOGETHER {
            match age.take() {
                // Older ones on this page already: where little is found, ages are many and empty.
                Some(age) => {
                    before = before.min((age - 1) << AGE_BITS);
                    if found.len() < wanted.limit {
                        continue;
                    }
                }
                None => break None,
            }
        }
        let is_long_enough = looked_at >= wanted.looked_at_max
            || wanted.until.is_some_and(|until| Instant::now() >= until);
        if found.len() == wanted.limit || is_long_enough {
            break Some(Position::stored(before));
        }
    };
    mark_mine(db, user, &mut found).await?;
    Ok((found, next))
}

/// The age of the newest message before a position, on PostgreSQL. Positions follow the clock where
/// an engine opens, so many ages have none.
async fn newest_age(db: &impl ConnectionTrait, before: i64) -> Result<Option<i64>> {
    if db.get_database_backend() != DbBackend::Postgres {
        return Ok(None);
    }
    let newest = statement(db, NEWEST_POSTGRES, [before.into()]);
    let newest = match db.query_one_raw(newest).await? {
        Some(row) => row.try_get_by_index::<Option<i64>>(0)?,
        None => None,
    };
    Ok(newest.map(|newest| newest >> AGE_BITS))
}

const NEWEST_POSTGRES: &str = "SELECT max(pos) FROM search_messages WHERE pos < ?";

/// Messages that may have the text, the newest first: up to [`LOOKED_AT_TOGETHER`]; on PostgreSQL only
/// those of an age and the one before it, if it is given.
async fn candidates(
    db: &impl ConnectionTrait,
    wanted: &Wanted,
    age: Option<i64>,
    before: i64,
) -> Result<Vec<(i64, Uuid, i64)>> {
    let looked_up = wanted.text.looked_up();
    let expressions = |postgres: bool, at_once: usize| {
        let expressions = wanted.places.chunks(at_once).map(|places| {
            let places = places.iter();
            let scopes = places.map(|(id, _)| expression(postgres, *id, &looked_up));
            let scopes: Vec<String> = scopes.collect();
            scopes.join(if postgres { "|" } else { " OR " })
        });
        expressions.collect::<Vec<_>>()
    };
    let (sql, expressions) = match db.get_database_backend() {
        DbBackend::Postgres => {
            let mut expressions = expressions(true, POSTGRES_CONVERSATIONS_AT_ONCE);
            if let Some(age) = age {
                for expression in &mut expressions {
                    *expression = format!("('@{}'|'@{age}')&({expression})", age - 1);
                }
            }
            (CANDIDATES_POSTGRES, vec![expressions.join("\n")])
        }
        _ => {
            let expressions = expressions(false, SQLITE_CONVERSATIONS_AT_ONCE);
            (CANDIDATES_SQLITE, expressions)
        }
    };
    let mut found: Vec<(i64, Uuid, i64)> = Vec::new();
    for expression in expressions {
        let limit = i64::try_from(LOOKED_AT_TOGETHER).unwrap_or(i64::MAX);
        let values: [Value; 3] = [expression.into(), before.into(), limit.into()];
        for row in db.query_all_raw(statement(db, sql, values)).await? {
            found.push((
                row.try_get_by_index(0)?,
                row.try_get_by_index(1)?,
                row.try_get_by_index(2)?,
            ));
        }
    }
    found.sort_by_key(|(pos, ..)| std::cmp::Reverse(*pos));
    found.truncate(LOOKED_AT_TOGETHER);
    Ok(found)
}

const CANDIDATES_SQLITE: &str = "SELECT s.pos, s.conversation_id, s.seq FROM search_terms \
     JOIN search_messages AS s ON s.pos = search_terms.rowid \
     WHERE search_terms MATCH ? AND search_terms.rowid < ? \
     ORDER BY search_terms.rowid DESC LIMIT ?";
// The planner does not see what is asked for: after what it believes of beginnings of words it would
// rather read all messages from end to end, or all in their order.
const CANDIDATES_POSTGRES: &str = "SELECT s.pos, s.conversation_id, s.seq \
     FROM unnest(string_to_array(?, E'\\n')::tsquery[]) AS w(query) CROSS JOIN LATERAL \
     (SELECT * FROM search_messages WHERE terms @@ w.query OFFSET 0) AS s \
     WHERE s.pos < ? ORDER BY s.pos DESC LIMIT ?";

/// All terms in one conversation, as a database asks for them. Terms are letters, digits and
/// symbols, so nothing in them has a meaning of its own.
fn expression(postgres: bool, conversation: ConversationId, terms: &[Term]) -> String {
    let scope = scope(conversation);
    let terms = terms.iter().map(|term| match (postgres, term) {
        (true, Term::Is(term)) => format!("'{scope}{term}'"),
        (true, Term::Begins(term)) => format!("'{scope}{term}':*"),
        (false, Term::Is(term)) => format!("\"{scope}{term}\""),
        (false, Term::Begins(term)) => format!("\"{scope}{term}\" *"),
    });
    let terms: Vec<String> = terms.collect();
    format!("({})", terms.join(if postgres { "&" } else { " AND " }))
}
