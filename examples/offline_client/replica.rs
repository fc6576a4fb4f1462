//! What a client keeps on its device: a replica of everything that its person may see, the cursor
//! that says how far it goes, and an outbox. One SQLite file; no network in here.
//!
//! It follows the manual's chapter "Writing a client" rule by rule, and the project's tests compare
//! it, after random histories, with one that has just begun. Rows are kept as the JSON in which they
//! came; only what is looked for has a column of its own.

use std::path::Path;

use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{ConnectOptions, Connection, SqliteConnection};

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS place (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        cursor TEXT,
        fence INTEGER,        -- of the last sync
        seen INTEGER,         -- the newest position of any other answer, until a page has it
        generation INTEGER    -- counts how often the replica began again
    ) STRICT;
    INSERT OR IGNORE INTO place VALUES (1, NULL, NULL, NULL, 1);
    CREATE TABLE IF NOT EXISTS users (
        id TEXT PRIMARY KEY, version INTEGER, row TEXT, generation INTEGER
    ) STRICT;
    CREATE TABLE IF NOT EXISTS conversations (
        id TEXT PRIMARY KEY, row TEXT, generation INTEGER
    ) STRICT;
    CREATE TABLE IF NOT EXISTS messages (
        conversation_id TEXT, seq INTEGER, version INTEGER, row TEXT,
        PRIMARY KEY (conversation_id, seq)
    ) STRICT;
    CREATE TABLE IF NOT EXISTS reads (
        conversation_id TEXT, user_id TEXT, version INTEGER, row TEXT,
        PRIMARY KEY (conversation_id, user_id)
    ) STRICT;
    -- What is only the person's: settings by key, people blocked by id.
    CREATE TABLE IF NOT EXISTS own (
        kind TEXT, key TEXT, version INTEGER, row TEXT, generation INTEGER,
        PRIMARY KEY (kind, key)
    ) STRICT;
    -- Messages that are there and not here for certain, both ends included.
    CREATE TABLE IF NOT EXISTS holes (
        conversation_id TEXT, from_seq INTEGER, to_seq INTEGER, as_of INTEGER,
        PRIMARY KEY (conversation_id, from_seq)
    ) STRICT;
    -- Writes that no sync has brought back, in their order.
    CREATE TABLE IF NOT EXISTS outbox (
        id INTEGER PRIMARY KEY, key TEXT, method TEXT, path TEXT, body TEXT,
        failures INTEGER DEFAULT 0,
        version INTEGER       -- of its answer, once there is one
    ) STRICT;";

/// How often the server may fail at a write before it is parked.
const FAILURES_MAX: i64 = 8;

/// Fields of an answer to a write that say of what moment it is.
const VERSIONS: [&str; 4] = [
    "version",
    "own_version",
    "members_version",
    "membership_version",
];

/// Fields of a frame's payload that are not part of the message.
const BESIDE_THE_MESSAGE: [&str; 3] = ["sender", "conversation", "reaction"];

/// The replica of one person.
#[derive(Debug)]
pub(crate) struct Replica {
    db: SqliteConnection,
    /// The person's id.
    me: String,
    /// The newest moment that was seen when it was asked last.
    asked: Option<i64>,
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// There is more to fetch, at once.
    More,
    /// Nothing is missing.
    UpToDate,
    /// The replica has to begin again; what it shows stays until it has.
    BeginAgain,
    /// Nothing was taken in: sync first, on a new connection.
    AskAgain,
}

/// Messages of a conversation that are missing, both ends included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hole {
    /// The conversation.
    pub(crate) conversation: String,
    /// The first of them.
    pub(crate) from_seq: i64,
    /// The last of them.
    pub(crate) to_seq: i64,
    /// Only an answer of this moment or later fills it.
    pub(crate) as_of: i64,
}

/// A write that waits to be answered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Write {
    /// Its place in the outbox.
    pub(crate) id: i64,
    /// Sent as `Idempotency-Key`, and the same at every attempt.
    pub(crate) key: String,
    /// `POST`, `PUT`, `PATCH` or `DELETE`.
    pub(crate) method: String,
    /// Where to.
    pub(crate) path: String,
    /// The body.
    pub(crate) body: Value,
}

impl Replica {
    /// Opens the replica of a person in a file, and makes it if it is not there. Writes that were
    /// parked are in the outbox again.
    pub(crate) async fn open(file: &Path, me: &str) -> sqlx::Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal);
        let mut db = options.connect().await?;
        sqlx::raw_sql(SCHEMA).execute(&mut db).await?;
        sqlx::query("UPDATE outbox SET failures = 0")
            .execute(&mut db)
            .await?;
        Ok(Self {
            db,
            me: me.to_owned(),
            asked: None,
        })
    }

    /// The path to ask for the next page with.
    pub(crate) async fn next_page(
        &mut self,
        limit: u32,
        timeline_limit: u32,
    ) -> sqlx::Result<String> {
        let (cursor, seen) = self.place().await?;
        self.asked = seen;
        let bounds = format!("limit={limit}&timeline_limit={timeline_limit}");
        Ok(match (cursor, seen) {
            (None, _) => format!("/v1/sync/bootstrap?{bounds}"),
            (Some(cursor), None) => format!("/v1/sync/changes?cursor={cursor}&{bounds}"),
            (Some(cursor), Some(seen)) => {
                format!("/v1/sync/changes?cursor={cursor}&seen=0:{seen}&{bounds}")
            }
        })
    }

    /// The command with which a socket goes on from here.
    pub(crate) async fn resume(&mut self, limit: u32, timeline_limit: u32) -> sqlx::Result<Value> {
        let (cursor, seen) = self.place().await?;
        self.asked = seen;
        let mut command = json!({"op": "resume", "limit": limit, "timeline_limit": timeline_limit});
        if let Some(cursor) = cursor {
            command["cursor"] = json!(cursor);
        }
        if let Some(seen) = seen {
            command["seen"] = json!(format!("0:{seen}"));
        }
        Ok(command)
    }

    /// Takes in the `data` of an answer to [`next_page`](Self::next_page).
    pub(crate) async fn take_page(&mut self, data: &Value) -> sqlx::Result<Next> {
        let mut change = Change::begin(self).await?;
        if !change.page(data).await? {
            return Ok(Next::AskAgain);
        }
        if data["has_more"] == false {
            change.sweep().await?;
        }
        change.keep(&data["next_cursor"]).await?;
        Ok(match data["has_more"] == true {
            true => Next::More,
            false => Next::UpToDate,
        })
    }

    /// Takes in a frame of a socket that has resumed, or of an event stream. Says nothing if the
    /// frame is none of those that bring data.
    pub(crate) async fn take_frame(&mut self, frame: &Value) -> sqlx::Result<Option<Next>> {
        let kind = frame["type"].as_str().unwrap_or_default();
        if kind == "sync.reset" {
            self.begin_again().await?;
            return Ok(Some(Next::BeginAgain));
        }
        let cursor = &frame["cursor"];
        if !cursor.is_string() {
            return Ok(None);
        }
        let mut change = Change::begin(self).await?;
        let payload = &frame["payload"];
        let version = match kind {
            "user.updated" => &payload["user"]["version"],
            _ => &payload["version"],
        };
        let mut next = Next::UpToDate;
        match kind {
            "sync.page" => {
                if !change.page(&frame["data"]).await? {
                    return Ok(Some(Next::AskAgain));
                }
                match frame["data"]["has_more"] == true {
                    true => next = Next::More,
                    false => change.sweep().await?,
                }
            }
            // Nothing is missing, whatever the last page has said.
            "sync.live" => change.sweep().await?,
            "message.created" => change.message_created(payload).await?,
            "message.updated" | "message.deleted" => change.message_changed(payload).await?,
            "read.updated" => change.read(payload, number(version)).await?,
            "user.updated" => change.user(&payload["user"]).await?,
            // Whatever a later server says beside this, its cursor goes with it.
            _ => {}
        }
        // What happens comes in its order.
        change.brought(number(version)).await?;
        change.keep(cursor).await?;
        Ok(Some(next))
    }

    /// Takes in the `data` of an answer to a question for messages of a conversation, whenever it
    /// was asked.
    pub(crate) async fn take_history(
        &mut self,
        conversation: &str,
        data: &Value,
    ) -> sqlx::Result<Next> {
        let mut change = Change::begin(self).await?;
        let (as_of, fence) = (number(&data["stamp"]["as_of"]), &data["stamp"]["fence"]);
        let known: Option<i64> = sqlx::query_scalar("SELECT fence FROM place")
            .fetch_one(&mut *change.tx)
            .await?;
        // Of another life of the database: only a sync can tell whether it goes together.
        if known != fence.as_i64() {
            return Ok(Next::AskAgain);
        }
        change.see(as_of).await?;
        let row = change.find("conversations", conversation).await?;
        let is_same =
            row.is_some_and(|row| row["membership_version"] == data["membership_version"]);
        if is_same {
            for message in rows(&data["messages"]) {
                change.message(message).await?;
                let seq = number(&message["seq"]);
                change.fill(conversation, seq, as_of).await?;
            }
        }
        change.tx.commit().await?;
        Ok(Next::UpToDate)
    }

    /// After `resync_required`: begins without a cursor. What does not come again is dropped when
    /// the replica is up to date; the outbox stays, and what no sync has brought back is sent again.
    pub(crate) async fn begin_again(&mut self) -> sqlx::Result<()> {
        let sql = "UPDATE place SET cursor = NULL, fence = NULL, seen = NULL, \
                       generation = generation + 1; \
                   UPDATE outbox SET version = NULL";
        let mut tx = self.db.begin().await?;
        sqlx::raw_sql(sql).execute(&mut *tx).await?;
        tx.commit().await
    }

    /// Puts a write into the outbox. Whoever shows it at once shows it as not confirmed.
    pub(crate) async fn write(
        &mut self,
        key: &str,
        method: &str,
        path: &str,
        body: &Value,
    ) -> sqlx::Result<()> {
        sqlx::query("INSERT INTO outbox (key, method, path, body) VALUES (?, ?, ?, ?)")
            .bind(key)
            .bind(method)
            .bind(path)
            .bind(body.to_string())
            .execute(&mut self.db)
            .await?;
        Ok(())
    }

    /// The oldest write of the outbox that is neither answered nor parked: until it is
    /// [`confirmed`](Self::confirmed) or [`refused`](Self::refused), it is the next one.
    pub(crate) async fn next_write(&mut self) -> sqlx::Result<Option<Write>> {
        let sql = "SELECT id, key, method, path, body FROM outbox \
                   WHERE version IS NULL AND failures < ? ORDER BY id LIMIT 1";
        let row: Option<(i64, String, String, String, String)> = sqlx::query_as(sql)
            .bind(FAILURES_MAX)
            .fetch_optional(&mut self.db)
            .await?;
        Ok(row.map(|(id, key, method, path, body)| Write {
            id,
            key,
            method,
            path,
            body: parsed(&body),
        }))
    }

    /// Notes that a write took place, and of what moment the `data` of its answer is: a server that
    /// does not know that moment any more has lost the write. It stays in the outbox until a sync
    /// has brought what it did, so that it is not lost with the server's copy.
    pub(crate) async fn confirmed(&mut self, write: &Write, data: &Value) -> sqlx::Result<()> {
        let version = VERSIONS.iter().filter_map(|it| data[*it].as_i64()).max();
        let version = version.unwrap_or_default();
        let mut change = Change::begin(self).await?;
        change.see(version).await?;
        let sql = "UPDATE outbox SET version = ? WHERE id = ?";
        sqlx::query(sql)
            .bind(version)
            .bind(write.id)
            .execute(&mut *change.tx)
            .await?;
        change.tx.commit().await
    }

    /// Takes a write out of the outbox that never will take place.
    pub(crate) async fn refused(&mut self, write: &Write) -> sqlx::Result<()> {
        sqlx::query("DELETE FROM outbox WHERE id = ?")
            .bind(write.id)
            .execute(&mut self.db)
            .await?;
        Ok(())
    }

    /// Counts that the server failed at a write. Tells whether it is parked now: it is kept, and
    /// those behind it go on.
    pub(crate) async fn failed(&mut self, write: &Write) -> sqlx::Result<bool> {
        let sql = "UPDATE outbox SET failures = failures + 1 WHERE id = ? RETURNING failures";
        let failures: i64 = sqlx::query_scalar(sql)
            .bind(write.id)
            .fetch_one(&mut self.db)
            .await?;
        Ok(failures >= FAILURES_MAX)
    }

    /// The conversations, the one with the newest message first.
    pub(crate) async fn conversations(&mut self) -> sqlx::Result<Vec<Value>> {
        let sql = "SELECT row FROM conversations ORDER BY row ->> 'last_message_at' DESC, id";
        let rows: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut self.db).await?;
        Ok(rows.iter().map(|row| parsed(row)).collect())
    }

    /// The messages of a conversation after a place, those that are known.
    pub(crate) async fn messages(
        &mut self,
        conversation: &str,
        after: i64,
    ) -> sqlx::Result<Vec<Value>> {
        let sql = "SELECT row FROM messages WHERE conversation_id = ? AND seq > ? ORDER BY seq";
        let rows: Vec<String> = sqlx::query_scalar(sql)
            .bind(conversation)
            .bind(after)
            .fetch_all(&mut self.db)
            .await?;
        Ok(rows.iter().map(|row| parsed(row)).collect())
    }

    /// How far the members of a conversation have read, by person.
    pub(crate) async fn reads(&mut self, conversation: &str) -> sqlx::Result<Vec<Value>> {
        let sql = "SELECT row FROM reads WHERE conversation_id = ? ORDER BY user_id";
        let rows: Vec<String> = sqlx::query_scalar(sql)
            .bind(conversation)
            .fetch_all(&mut self.db)
            .await?;
        Ok(rows.iter().map(|row| parsed(row)).collect())
    }

    /// Somebody's profile.
    pub(crate) async fn find_user(&mut self, id: &str) -> sqlx::Result<Option<Value>> {
        let sql = "SELECT row FROM users WHERE id = ?";
        let row: Option<String> = sqlx::query_scalar(sql)
            .bind(id)
            .fetch_optional(&mut self.db)
            .await?;
        Ok(row.as_deref().map(parsed))
    }

    /// Whom the person has blocked, by id.
    #[allow(
        dead_code,
        reason = "an app with more screens shows it; the tests compare it"
    )]
    pub(crate) async fn blocks(&mut self) -> sqlx::Result<Vec<Value>> {
        let sql = "SELECT row FROM own WHERE kind = 'block' AND row ->> 'blocked' ORDER BY key";
        let rows: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut self.db).await?;
        Ok(rows.iter().map(|row| parsed(row)).collect())
    }

    /// What the person keeps by keys.
    #[allow(
        dead_code,
        reason = "an app with more screens shows it; the tests compare it"
    )]
    pub(crate) async fn prefs(&mut self) -> sqlx::Result<Vec<Value>> {
        let sql = "SELECT row FROM own WHERE kind = 'pref' AND NOT row ->> 'deleted' ORDER BY key";
        let rows: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut self.db).await?;
        Ok(rows.iter().map(|row| parsed(row)).collect())
    }

    /// What is missing, to be read when somebody looks there.
    pub(crate) async fn holes(&mut self) -> sqlx::Result<Vec<Hole>> {
        let sql = "SELECT conversation_id, from_seq, to_seq, as_of FROM holes ORDER BY 1, 2";
        let holes: Vec<(String, i64, i64, i64)> =
            sqlx::query_as(sql).fetch_all(&mut self.db).await?;
        let hole = |(conversation, from_seq, to_seq, as_of)| Hole {
            conversation,
            from_seq,
            to_seq,
            as_of,
        };
        Ok(holes.into_iter().map(hole).collect())
    }

    async fn place(&mut self) -> sqlx::Result<(Option<String>, Option<i64>)> {
        sqlx::query_as("SELECT cursor, seen FROM place")
            .fetch_one(&mut self.db)
            .await
    }
}

/// One transaction: rows, and the cursor that goes with them.
struct Change<'a> {
    tx: sqlx::Transaction<'a, sqlx::Sqlite>,
    me: &'a str,
    asked: Option<i64>,
    generation: i64,
}

impl<'a> Change<'a> {
    async fn begin(replica: &'a mut Replica) -> sqlx::Result<Self> {
        let mut tx = replica.db.begin().await?;
        let generation = sqlx::query_scalar("SELECT generation FROM place")
            .fetch_one(&mut *tx)
            .await?;
        Ok(Self {
            tx,
            me: &replica.me,
            asked: replica.asked,
            generation,
        })
    }

    /// Keeps the cursor of what was taken in, with it.
    async fn keep(mut self, cursor: &Value) -> sqlx::Result<()> {
        sqlx::query("UPDATE place SET cursor = ?")
            .bind(cursor.as_str())
            .execute(&mut *self.tx)
            .await?;
        self.tx.commit().await
    }

    /// Remembers the moment of an answer that is no page.
    async fn see(&mut self, moment: i64) -> sqlx::Result<()> {
        sqlx::query("UPDATE place SET seen = max(coalesce(seen, 0), ?)")
            .bind(moment)
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    /// Takes in a page, unless something was seen since it was asked for that may be of another life
    /// of the database.
    async fn page(&mut self, data: &Value) -> sqlx::Result<bool> {
        let stamp = &data["stamps"][0];
        let place: (Option<i64>, Option<i64>) = sqlx::query_as("SELECT fence, seen FROM place")
            .fetch_one(&mut *self.tx)
            .await?;
        let (known, seen) = place;
        if known.is_some() && known != stamp["fence"].as_i64() && seen > self.asked {
            return Ok(false);
        }
        // The page may have been under way while a later answer came.
        let sql = "UPDATE place SET fence = ?, seen = CASE WHEN seen > ? THEN seen END";
        sqlx::query(sql)
            .bind(stamp["fence"].as_i64())
            .bind(number(&stamp["as_of"]))
            .execute(&mut *self.tx)
            .await?;
        for user in rows(&data["users"]) {
            self.user(user).await?;
        }
        for removal in rows(&data["removed_conversations"]) {
            let id = text(&removal["id"]);
            let known = self.find("conversations", id).await?;
            let joined_since =
                |row: &Value| number(&row["membership_version"]) >= number(&removal["version"]);
            if known.is_some_and(|row| !joined_since(&row)) {
                self.forget(id).await?;
            }
        }
        for conversation in rows(&data["conversations"]) {
            self.conversation(conversation).await?;
        }
        for gap in rows(&data["gaps"]) {
            let conversation = text(&gap["conversation_id"]);
            let (from, to) = (number(&gap["from_seq"]), number(&gap["to_seq"]));
            self.cut(conversation, from, to).await?;
            self.hole(conversation, from, to, number(&gap["as_of"]))
                .await?;
        }
        // The first page calls them `recent_messages`.
        for messages in [&data["messages"], &data["recent_messages"]] {
            for message in rows(messages) {
                self.message(message).await?;
            }
        }
        for read in rows(&data["reads"]) {
            self.mark(read).await?;
        }
        for pref in rows(&data["self"]["prefs"]) {
            self.own("pref", text(&pref["key"]), pref).await?;
        }
        for block in rows(&data["self"]["blocks"]) {
            self.own("block", text(&block["user_id"]), block).await?;
        }
        if data["has_more"] == false {
            self.brought(number(&stamp["as_of"])).await?;
        }
        Ok(true)
    }

    /// Takes the writes out of the outbox that a sync has brought back, which is whole up to here.
    async fn brought(&mut self, upto: i64) -> sqlx::Result<()> {
        sqlx::query("DELETE FROM outbox WHERE version <= ?")
            .bind(upto)
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    /// Drops what has not come again since the replica began again.
    async fn sweep(&mut self) -> sqlx::Result<()> {
        let sql = "SELECT id FROM conversations WHERE generation < ?";
        let old: Vec<String> = sqlx::query_scalar(sql)
            .bind(self.generation)
            .fetch_all(&mut *self.tx)
            .await?;
        for id in old {
            self.forget(&id).await?;
        }
        for sql in [
            "DELETE FROM users WHERE generation < ?",
            "DELETE FROM own WHERE generation < ?",
        ] {
            sqlx::query(sql)
                .bind(self.generation)
                .execute(&mut *self.tx)
                .await?;
        }
        Ok(())
    }

    /// Keeps the newer one of two forms of what is the person's own, also if it says that it is no
    /// more.
    async fn own(&mut self, kind: &str, key: &str, row: &Value) -> sqlx::Result<()> {
        let sql = "INSERT INTO own VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE \
                   SET version = excluded.version, row = excluded.row, \
                       generation = excluded.generation \
                   WHERE excluded.version >= version OR excluded.generation > generation";
        sqlx::query(sql)
            .bind(kind)
            .bind(key)
            .bind(number(&row["version"]))
            .bind(row.to_string())
            .bind(self.generation)
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    async fn user(&mut self, user: &Value) -> sqlx::Result<()> {
        let sql = "INSERT INTO users VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE \
                   SET version = excluded.version, row = excluded.row, \
                       generation = excluded.generation \
                   WHERE excluded.version >= version OR excluded.generation > generation";
        sqlx::query(sql)
            .bind(text(&user["id"]))
            .bind(number(&user["version"]))
            .bind(user.to_string())
            .bind(self.generation)
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    async fn conversation(&mut self, conversation: &Value) -> sqlx::Result<()> {
        let id = text(&conversation["id"]);
        let sql = "SELECT row FROM conversations WHERE id = ? AND generation = ?";
        let known: Option<String> = sqlx::query_scalar(sql)
            .bind(id)
            .bind(self.generation)
            .fetch_optional(&mut *self.tx)
            .await?;
        let mut row = conversation.clone();
        row["initial"] = json!(false);
        // Who the members are, `users` says.
        row["members"] = rows(&row["members"])
            .map(|member| json!({"id": member["id"], "role": member["role"]}))
            .collect();
        match known.as_deref().map(parsed) {
            Some(known) if conversation["initial"] != true => {
                if row["members_mode"] == "unchanged" {
                    for field in ["members", "member_ids", "members_mode"] {
                        row[field] = known[field].clone();
                    }
                }
            }
            // All that is known of it from before is void.
            _ => self.forget(id).await?,
        }
        // Whoever is gone has no marker; in a large group nobody's is kept.
        let sql = "DELETE FROM reads WHERE conversation_id = ?1 AND (?2 ->> 'members_mode' = 'lazy' \
                   OR user_id NOT IN (SELECT value FROM json_each(?2, '$.member_ids')))";
        sqlx::query(sql)
            .bind(id)
            .bind(row.to_string())
            .execute(&mut *self.tx)
            .await?;
        self.store(&row).await
    }

    /// Stores a conversation.
    async fn store(&mut self, row: &Value) -> sqlx::Result<()> {
        sqlx::query("INSERT OR REPLACE INTO conversations VALUES (?, ?, ?)")
            .bind(text(&row["id"]))
            .bind(row.to_string())
            .bind(self.generation)
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    async fn forget(&mut self, conversation: &str) -> sqlx::Result<()> {
        for sql in [
            "DELETE FROM conversations WHERE id = ?",
            "DELETE FROM messages WHERE conversation_id = ?",
            "DELETE FROM reads WHERE conversation_id = ?",
            "DELETE FROM holes WHERE conversation_id = ?",
        ] {
            sqlx::query(sql)
                .bind(conversation)
                .execute(&mut *self.tx)
                .await?;
        }
        Ok(())
    }

    /// Keeps the newer one of two forms of a message. In a hole, the hole stays.
    async fn message(&mut self, message: &Value) -> sqlx::Result<()> {
        let sql = "INSERT INTO messages VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE \
                   SET version = excluded.version, row = excluded.row \
                   WHERE excluded.version >= version";
        sqlx::query(sql)
            .bind(text(&message["conversation_id"]))
            .bind(number(&message["seq"]))
            .bind(number(&message["version"]))
            .bind(message.to_string())
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    async fn mark(&mut self, read: &Value) -> sqlx::Result<()> {
        let sql = "INSERT INTO reads VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE \
                   SET version = excluded.version, row = excluded.row \
                   WHERE excluded.version >= version";
        sqlx::query(sql)
            .bind(text(&read["conversation_id"]))
            .bind(text(&read["user_id"]))
            .bind(number(&read["version"]))
            .bind(read.to_string())
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    async fn message_created(&mut self, payload: &Value) -> sqlx::Result<()> {
        self.user(&payload["sender"]).await?;
        let message = self.message_of(payload, None);
        let (seq, version) = (message["seq"].clone(), message["version"].clone());
        let (conversation, sender) = (&message["conversation_id"], &message["sender_id"]);
        let Some(mut row) = self.find("conversations", text(conversation)).await? else {
            return Ok(());
        };
        head(&mut row, &payload["conversation"]);
        row["last_seq"] = seq.clone();
        if *sender == self.me {
            // Whoever sends has read all before.
            row["last_read_seq"] = seq.clone();
            row["last_delivered_seq"] = seq.clone();
            row["unread_count"] = json!(0);
            row["marked_unread"] = json!(false);
            row["own_version"] = version.clone();
        } else {
            row["unread_count"] = json!(number(&row["unread_count"]) + 1);
        }
        self.store(&row).await?;
        if row["members_mode"] != "lazy" {
            let read = json!({
                "conversation_id": conversation, "user_id": sender,
                "last_read_seq": seq, "last_delivered_seq": seq, "version": version,
            });
            self.mark(&read).await?;
        }
        self.message(&message).await
    }

    async fn message_changed(&mut self, payload: &Value) -> sqlx::Result<()> {
        let conversation = text(&payload["conversation_id"]);
        let seq = number(&payload["seq"]);
        let Some(mut row) = self.find("conversations", conversation).await? else {
            return Ok(());
        };
        head(&mut row, &payload["conversation"]);
        let sql = "SELECT row FROM messages WHERE conversation_id = ? AND seq = ?";
        let known: Option<String> = sqlx::query_scalar(sql)
            .bind(conversation)
            .bind(seq)
            .fetch_optional(&mut *self.tx)
            .await?;
        let known = known.as_deref().map(parsed);
        let is_deleted = !payload["deleted_at"].is_null();
        if is_deleted && seq > number(&row["last_read_seq"]) {
            row["unread_count"] = json!(number(&row["unread_count"]) - 1);
        }
        self.store(&row).await?;
        let version = number(&payload["version"]);
        if !is_deleted && self.is_missing(conversation, seq).await? {
            // Whose its reactions are is not said here, so this is not the whole message: the hole
            // asks for an answer that is not older.
            self.cut(conversation, seq, seq).await?;
            return self.hole(conversation, seq, seq, version).await;
        }
        let message = self.message_of(payload, known.as_ref());
        self.message(&message).await
    }

    /// The message of a payload, as an answer would have it: with what the reader had known about
    /// its own reactions, and what has changed about them.
    fn message_of(&self, payload: &Value, known: Option<&Value>) -> Value {
        let mut message = payload.clone();
        if let Some(fields) = message.as_object_mut() {
            fields.retain(|name, _| !BESIDE_THE_MESSAGE.contains(&name.as_str()));
        }
        let moved = &payload["reaction"];
        for reaction in message["reactions"].as_array_mut().into_iter().flatten() {
            let is_moved = moved["user_id"] == self.me && moved["emoji"] == reaction["emoji"];
            let was_mine = known.is_some_and(|known| {
                rows(&known["reactions"])
                    .any(|it| it["emoji"] == reaction["emoji"] && it["mine"] == true)
            });
            reaction["mine"] = match is_moved {
                true => moved["added"].clone(),
                false => json!(was_mine),
            };
        }
        message
    }

    async fn read(&mut self, payload: &Value, version: i64) -> sqlx::Result<()> {
        let Some(mut row) = self
            .find("conversations", text(&payload["conversation_id"]))
            .await?
        else {
            return Ok(());
        };
        if payload["user_id"] == self.me {
            if row["last_read_seq"] != payload["last_read_seq"] {
                row["marked_unread"] = json!(false);
            }
            for field in ["last_read_seq", "last_delivered_seq", "unread_count"] {
                row[field] = payload[field].clone();
            }
            row["own_version"] = json!(version);
            self.store(&row).await?;
        }
        if row["members_mode"] != "lazy" {
            let mut read = payload.clone();
            if let Some(fields) = read.as_object_mut() {
                fields.remove("unread_count");
            }
            self.mark(&read).await?;
        }
        Ok(())
    }

    /// Makes a hole.
    async fn hole(
        &mut self,
        conversation: &str,
        from: i64,
        to: i64,
        as_of: i64,
    ) -> sqlx::Result<()> {
        if from <= to {
            sqlx::query("INSERT OR REPLACE INTO holes VALUES (?, ?, ?, ?)")
                .bind(conversation)
                .bind(from)
                .bind(to)
                .bind(as_of)
                .execute(&mut *self.tx)
                .await?;
        }
        Ok(())
    }

    /// Takes places out of the holes that they are in.
    async fn cut(&mut self, conversation: &str, from: i64, to: i64) -> sqlx::Result<()> {
        let sql = "DELETE FROM holes WHERE conversation_id = ? AND from_seq <= ? AND to_seq >= ? \
                   RETURNING from_seq, to_seq, as_of";
        let holes: Vec<(i64, i64, i64)> = sqlx::query_as(sql)
            .bind(conversation)
            .bind(to)
            .bind(from)
            .fetch_all(&mut *self.tx)
            .await?;
        for (first, last, as_of) in holes {
            self.hole(conversation, first, from - 1, as_of).await?;
            self.hole(conversation, to + 1, last, as_of).await?;
        }
        Ok(())
    }

    /// Fills a place with what was read at a moment, unless its hole asks for a later one.
    async fn fill(&mut self, conversation: &str, seq: i64, as_of: i64) -> sqlx::Result<()> {
        let wanted = self.find_hole(conversation, seq).await?;
        if wanted.is_some_and(|wanted| wanted <= as_of) {
            self.cut(conversation, seq, seq).await?;
        }
        Ok(())
    }

    async fn is_missing(&mut self, conversation: &str, seq: i64) -> sqlx::Result<bool> {
        Ok(self.find_hole(conversation, seq).await?.is_some())
    }

    /// The moment that the hole at a place asks for.
    async fn find_hole(&mut self, conversation: &str, seq: i64) -> sqlx::Result<Option<i64>> {
        let sql = "SELECT as_of FROM holes \
                   WHERE conversation_id = ? AND from_seq <= ? AND to_seq >= ?";
        sqlx::query_scalar(sql)
            .bind(conversation)
            .bind(seq)
            .bind(seq)
            .fetch_optional(&mut *self.tx)
            .await
    }

    async fn find(&mut self, table: &'static str, id: &str) -> sqlx::Result<Option<Value>> {
        let sql = format!("SELECT row FROM {table} WHERE id = ?");
        let row: Option<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(sql))
            .bind(id)
            .fetch_optional(&mut *self.tx)
            .await?;
        Ok(row.as_deref().map(parsed))
    }
}

/// Takes in what a message has changed about its conversation.
fn head(row: &mut Value, head: &Value) {
    for (field, value) in head.as_object().into_iter().flatten() {
        row[field.as_str()] = value.clone();
    }
}

fn parsed(row: &str) -> Value {
    serde_json::from_str(row).unwrap_or_default()
}

fn rows(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn number(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}
