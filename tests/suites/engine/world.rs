//! An engine of one's own, and people to act in it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use messenger_core::auth::Actor;
use messenger_core::conversations::{
    Conversation, HistoryPolicy, Markers, NewGroup, Role, SettingsChange, Title,
};
use messenger_core::events::{Event, EventKind, Resumed, Subscription, Update};
use messenger_core::messages::{ClientMessageId, Message, MessageBody, NewMessage, Sent};
use messenger_core::sync::Pull;
use messenger_core::users::{DisplayName, HostUser, PrefKey, PrefValue, User, Username};
use messenger_core::{
    ConversationId, EngineBuilder, Error, LiveSettings, MessengerEngine, Position, Result, Secret,
    Seq,
};
use sqlx::Connection as _;
use tempfile::TempDir;
use tests::{Database, DatabaseKind, soon};
use uuid::Uuid;

/// Makes two tests of each function, `sqlite::the_rule` and `postgres::the_rule`, each with a
/// [`World`] of its own.
macro_rules! on_both_databases {
    ($(async fn $rule:ident($world:ident: World $(,)?) $body:block)+) => {
        $(async fn $rule($world: $crate::world::World) $body)+

        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $rule() {
                let world = $crate::world::World::new(tests::DatabaseKind::Sqlite).await;
                super::$rule(world).await;
            })+
        }

        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $rule() {
                let world = $crate::world::World::new(tests::DatabaseKind::Postgres).await;
                super::$rule(world).await;
            })+
        }
    };
}
pub(crate) use on_both_databases;

/// A fresh database with an engine that runs on it.
pub(crate) struct World {
    pub(crate) engine: MessengerEngine,
    pub(crate) place: Place,
}

/// A fresh database.
pub(crate) struct Place {
    database: Database,
    folder: TempDir,
}

/// What was in a database at a moment.
pub(crate) enum Copy {
    File(PathBuf),
    Database(Database),
}

impl Place {
    pub(crate) async fn new(kind: DatabaseKind) -> Self {
        Self {
            database: Database::create(kind).await,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn kind(&self) -> DatabaseKind {
        self.database.kind()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn url(&self) -> String {
        match self.kind() {
            DatabaseKind::Sqlite => {
                format!("sqlite://{}", self.folder().join("chat.db").display())
            }
            DatabaseKind::Postgres => self.database.url().to_owned(),
        }
    }

    /// Copies what is stored. On PostgreSQL no engine may run on it.
    pub(crate) async fn copy(&self) -> Copy {
        match self.kind() {
            DatabaseKind::Sqlite => {
                let file = self.folder().join(format!("{}.copy", Uuid::now_v7()));
                let into = format!("VACUUM INTO '{}'", file.display());
                self.execute(&into).await;
                Copy::File(file)
            }
            DatabaseKind::Postgres => Copy::Database(self.database.copy().await),
        }
    }

    /// A number that a copy has.
    pub(crate) async fn number_in(&self, copy: &Copy, sql: &str) -> i64 {
        let url = match copy {
            Copy::File(file) => format!("sqlite://{}", file.display()),
            Copy::Database(copy) => copy.url().to_owned(),
        };
        number(self.kind(), &url, sql).await
    }

    /// Puts a copy in the place of what is stored. No engine may run on it.
    pub(crate) async fn put_back(&self, copy: &Copy) {
        match copy {
            Copy::File(file) => {
                let database = self.folder().join("chat.db");
                for log in ["chat.db-wal", "chat.db-shm"] {
                    let _ = std::fs::remove_file(self.folder().join(log));
                }
                // Not over the old one, which a connection may still have open.
                std::fs::remove_file(&database).unwrap();
                std::fs::copy(file, &database).unwrap();
            }
            Copy::Database(copy) => self.database.put_back(copy).await,
        }
    }

    /// The rows of a table, counted behind the engine's back.
    pub(crate) async fn count(&self, table: &str) -> i64 {
        self.number(&format!("SELECT count(*) FROM {table}")).await
    }

    /// The connections that PostgreSQL sees inside of a transaction without doing anything.
    pub(crate) async fn idle_in_transaction(&self) -> i64 {
        self.number(
            "SELECT count(*) FROM pg_stat_activity \
             WHERE datname = current_database() AND state LIKE 'idle in transaction%'",
        )
        .await
    }

    /// Cuts every connection to the PostgreSQL database but the one that asks for it.
    pub(crate) async fn cut_connections(&self) -> i64 {
        self.number(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
             WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        .await
    }

    /// Executes SQL behind the engine's back.
    pub(crate) async fn execute(&self, sql: &str) {
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        match self.kind() {
            DatabaseKind::Sqlite => {
                let mut db = sqlx::SqliteConnection::connect(&self.url()).await.unwrap();
                sqlx::query(sql).execute(&mut db).await.unwrap();
            }
            DatabaseKind::Postgres => {
                let mut db = sqlx::PgConnection::connect(&self.url()).await.unwrap();
                sqlx::query(sql).execute(&mut db).await.unwrap();
            }
        }
    }

    /// Keeps every engine from writing until it is dropped.
    pub(crate) async fn lock(&self) -> Box<dyn Send> {
        match self.kind() {
            DatabaseKind::Sqlite => {
                let mut db = sqlx::SqliteConnection::connect(&self.url()).await.unwrap();
                sqlx::raw_sql("BEGIN IMMEDIATE")
                    .execute(&mut db)
                    .await
                    .unwrap();
                Box::new(db)
            }
            DatabaseKind::Postgres => {
                let mut db = sqlx::PgConnection::connect(&self.url()).await.unwrap();
                let lock = "BEGIN; SELECT pos FROM sync_heads FOR UPDATE";
                sqlx::raw_sql(lock).execute(&mut db).await.unwrap();
                Box::new(db)
            }
        }
    }

    /// Whether the server syncs at all, which a throw-away one need not.
    pub(crate) async fn is_synced(&self) -> bool {
        match self.kind() {
            DatabaseKind::Sqlite => true,
            DatabaseKind::Postgres => {
                let sql = "SELECT (current_setting('fsync') = 'on')::integer::bigint";
                self.number(sql).await == 1
            }
        }
    }

    pub(crate) async fn number(&self, sql: &str) -> i64 {
        number(self.kind(), &self.url(), sql).await
    }

    pub(crate) fn builder(&self) -> EngineBuilder {
        MessengerEngine::builder(self.url())
            .secret(secret())
            .live(live_settings())
    }

    pub(crate) async fn open(&self) -> MessengerEngine {
        self.builder().open().await.unwrap()
    }
}

/// Live events, of which presence seldom is one: what a stream brings is to be known.
pub(crate) fn live_settings() -> LiveSettings {
    let mut settings = LiveSettings::default();
    settings.presence_ms = 3_600_000;
    settings
}

async fn number(kind: DatabaseKind, url: &str, sql: &str) -> i64 {
    let sql = sqlx::AssertSqlSafe(sql.to_owned());
    match kind {
        DatabaseKind::Sqlite => {
            let mut db = sqlx::SqliteConnection::connect(url).await.unwrap();
            sqlx::query_scalar(sql).fetch_one(&mut db).await.unwrap()
        }
        DatabaseKind::Postgres => {
            let mut db = sqlx::PgConnection::connect(url).await.unwrap();
            sqlx::query_scalar(sql).fetch_one(&mut db).await.unwrap()
        }
    }
}

impl World {
    pub(crate) async fn new(kind: DatabaseKind) -> Self {
        let place = Place::new(kind).await;
        let engine = place.open().await;
        Self { engine, place }
    }

    pub(crate) async fn person(&self, name: &str) -> Person {
        Person::join(&self.engine, name).await
    }

    /// Alice, Bob, and their conversation.
    pub(crate) async fn alice_and_bob(&self) -> (Person, Person, Conversation) {
        let (alice, bob) = (self.person("alice").await, self.person("bob").await);
        let conversation = alice.open_direct(&bob).await;
        (alice, bob, conversation)
    }
}

pub(crate) fn secret() -> Secret {
    Secret::new("Zq8vK2mWx4Lr7TnB0pYc5HsD9fGjE3aU").unwrap()
}

/// Somebody whom the host has logged in.
#[derive(Clone)]
pub(crate) struct Person {
    pub(crate) engine: MessengerEngine,
    pub(crate) user: User,
    pub(crate) actor: Actor,
}

impl Person {
    pub(crate) async fn join(engine: &MessengerEngine, name: &str) -> Self {
        let user = engine.users().ensure(host_user(name)).await.unwrap();
        Self {
            engine: engine.clone(),
            actor: engine.trust(user.id),
            user,
        }
    }

    /// A stream that has brought everything up to now.
    pub(crate) async fn follow(&self) -> Resumed {
        let mut stream = self.engine.events().resume(&self.actor, Pull::default());
        while !matches!(next_update(&mut stream).await, Update::Live { .. }) {}
        stream
    }

    /// The same person through another engine.
    pub(crate) fn at(&self, engine: &MessengerEngine) -> Self {
        Self {
            engine: engine.clone(),
            ..self.clone()
        }
    }

    pub(crate) async fn open_direct(&self, other: &Self) -> Conversation {
        let conversations = self.engine.conversations();
        conversations
            .open_direct(&self.actor, other.user.id)
            .await
            .unwrap()
    }

    /// Creates a group that shows its past to those who join later.
    pub(crate) async fn create_group(&self, members: &[&Self]) -> ConversationId {
        let group = NewGroup {
            title: Title::parse("Hikers", self.engine.limits()).unwrap(),
            members: members.iter().map(|person| person.user.id).collect(),
            history: HistoryPolicy::All,
        };
        let conversations = self.engine.conversations();
        let group = conversations.create_group(&self.actor, group).await;
        group.unwrap().id
    }

    pub(crate) async fn rename(&self, group: ConversationId, title: &str) -> Result<Position> {
        let title = Title::parse(title, self.engine.limits())?;
        let conversations = self.engine.conversations();
        conversations.rename(&self.actor, group, title).await
    }

    pub(crate) async fn add(&self, group: ConversationId, people: &[&Self]) -> Result<Position> {
        let users: Vec<_> = people.iter().map(|person| person.user.id).collect();
        let conversations = self.engine.conversations();
        conversations.add_members(&self.actor, group, &users).await
    }

    pub(crate) async fn remove(&self, group: ConversationId, person: &Self) -> Result<Position> {
        let conversations = self.engine.conversations();
        conversations
            .remove_member(&self.actor, group, person.user.id)
            .await
    }

    pub(crate) async fn leave(&self, group: ConversationId) -> Result<Position> {
        self.engine.conversations().leave(&self.actor, group).await
    }

    pub(crate) async fn set_role(
        &self,
        group: ConversationId,
        person: &Self,
        role: Role,
    ) -> Result<Position> {
        let conversations = self.engine.conversations();
        conversations
            .set_role(&self.actor, group, person.user.id, role)
            .await
    }

    pub(crate) async fn delete(&self, group: ConversationId) -> Result<Position> {
        self.engine.conversations().delete(&self.actor, group).await
    }

    pub(crate) async fn mark_read(&self, group: ConversationId, seq: Seq) -> Result<Markers> {
        let conversations = self.engine.conversations();
        conversations.mark_read(&self.actor, group, seq).await
    }

    pub(crate) async fn mark_delivered(&self, group: ConversationId, seq: Seq) -> Result<Markers> {
        let conversations = self.engine.conversations();
        conversations.mark_delivered(&self.actor, group, seq).await
    }

    pub(crate) async fn change_settings(
        &self,
        conversation: ConversationId,
        change: SettingsChange,
    ) -> Result<Position> {
        let conversations = self.engine.conversations();
        conversations
            .change_settings(&self.actor, conversation, change)
            .await
    }

    pub(crate) async fn try_send(
        &self,
        conversation: ConversationId,
        message: NewMessage,
    ) -> Result<Sent> {
        self.engine
            .messages()
            .send(&self.actor, conversation, message)
            .await
    }

    pub(crate) async fn send(&self, conversation: ConversationId, text: &str) -> Message {
        let sent = self.try_send(conversation, message(text)).await.unwrap();
        assert!(sent.created);
        sent.message
    }

    /// The whole conversation.
    pub(crate) async fn history(&self, conversation: ConversationId) -> Vec<Message> {
        let conversations = self.engine.conversations();
        let membership = conversations
            .membership(&self.actor, conversation)
            .await
            .unwrap();
        let mut history: Vec<Message> = Vec::new();
        loop {
            let after = history.last().map_or(Seq::ZERO, |message| message.seq);
            let page = self
                .engine
                .messages()
                .page(&membership, after, 100)
                .await
                .unwrap();
            if page.is_empty() {
                return history;
            }
            history.extend(page);
        }
    }

    pub(crate) async fn block(&self, person: &Self) -> Result<Position> {
        self.engine.users().block(&self.actor, person.user.id).await
    }

    pub(crate) async fn unblock(&self, person: &Self) -> Result<Position> {
        let users = self.engine.users();
        users.unblock(&self.actor, person.user.id).await
    }

    /// Keeps a value under a key; forgets it without one.
    pub(crate) async fn keep(&self, key: &str, value: Option<&str>) -> Result<Position> {
        let (users, key) = (self.engine.users(), PrefKey::parse(key)?);
        match value {
            Some(json) => {
                let value = PrefValue::parse(json, self.engine.limits())?;
                users.set_pref(&self.actor, key, value).await
            }
            None => users.delete_pref(&self.actor, key).await,
        }
    }

    pub(crate) async fn subscribe(&self) -> Subscription {
        self.engine.events().subscribe(&self.actor).await.unwrap()
    }
}

pub(crate) fn host_user(name: &str) -> HostUser {
    HostUser {
        id: Uuid::now_v7().into(),
        username: Username::parse(name).unwrap(),
        display_name: DisplayName::parse(name).unwrap(),
    }
}

pub(crate) fn message(text: &str) -> NewMessage {
    message_as(&Uuid::now_v7().to_string(), text)
}

pub(crate) fn message_as(client_id: &str, text: &str) -> NewMessage {
    NewMessage::new(
        ClientMessageId::parse(client_id).unwrap(),
        MessageBody::parse(text, &messenger_core::Limits::default()).unwrap(),
    )
}

/// The next item of a subscription, which must come soon.
pub(crate) async fn next(
    events: &mut (impl Stream<Item = Result<Arc<Event>>> + Unpin),
) -> Option<Result<Arc<Event>>> {
    soon("an event", events.next()).await
}

/// The next thing that a stream brings which goes on from a cursor.
pub(crate) async fn next_update(stream: &mut Resumed) -> Update {
    let update = soon("an update", stream.next()).await;
    update.expect("the stream goes on").unwrap()
}

/// The next event, which must be a message.
pub(crate) async fn next_message(events: &mut Subscription) -> Message {
    match &next(events).await.unwrap().unwrap().kind {
        EventKind::MessageCreated { message, .. } => message.clone(),
        other => panic!("not a message: {other:?}"),
    }
}

/// The text of the next event, which must be a message.
pub(crate) async fn next_text(events: &mut Subscription) -> String {
    next_message(events).await.content
}

/// That a conversation is 1, 2, 3, … without a gap.
pub(crate) fn assert_contiguous(history: &[Message]) {
    for (i, message) in history.iter().enumerate() {
        assert_eq!(message.seq.get(), i as i64 + 1);
    }
}

/// Waits for what another process or task does without telling: asks until it is so.
pub(crate) async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    soon(what, async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

pub(crate) fn is_not_found<T: std::fmt::Debug>(outcome: &Result<T>) -> bool {
    matches!(outcome, Err(Error::ConversationNotFound))
}
