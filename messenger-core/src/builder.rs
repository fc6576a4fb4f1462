//! [`EngineBuilder`]: each setting with its unit, its default and its reason.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_util::sync::DropGuard;

use crate::accounts;
#[cfg(feature = "attachments")]
use crate::attachments::{self, AttachmentStore, MediaRange, Objects, Transfers};
use crate::auth::{self, AccessTokens, Hasher, JwtAlgorithm, Revocations, Secret, TokenSettings};
use crate::clock::{self, Timestamp};
use crate::engine::{Inner, MessengerEngine};
use crate::error::{Error, Result};
use crate::events::{Hub, LiveSettings, presence};
#[cfg(feature = "test-util")]
use crate::fault::Fault;
use crate::fault::Planted;
use crate::hooks::{
    self, BeforeJoin, BeforeSend, Change, ChangeResult, ChangeSettings, Hook, HookResult,
    HookSettings, Hooks, OnChange,
};
use crate::inspect::Inspection;
use crate::limits::Limits;
use crate::messages::search::Index;
use crate::places::Turns;
use crate::stats::Counters;
use crate::store::{self, Store, Target};
use crate::tasks::Tasks;
use crate::write::Writer;

/// What an acknowledged write survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Power loss. SQLite syncs its log at every commit (`synchronous=FULL`); PostgreSQL keeps
    /// its own settings, which are durable unless somebody has changed them.
    #[default]
    Full,
    /// A crash of the process, but not of the machine: the last moments before a power loss may
    /// be gone, the rest is whole. For devices whose storage is slow to sync.
    Relaxed,
}

/// What [`EngineBuilder::migrate`] did: nothing, where both are the same.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SchemaChange {
    /// The name of the last migration before; `None` for a new database.
    pub from: Option<String>,
    /// The name of the last migration now.
    pub to: String,
}

/// A migration that [`EngineBuilder::migrate`] begins.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SchemaStep {
    /// Its name.
    pub name: String,
    /// Which one it is of those that are missing, from 1 on.
    pub number: usize,
    /// How many are missing.
    pub of: usize,
}

/// Describes an engine; [`open`](Self::open) starts it. Each method says its default.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is opened"]
pub struct EngineBuilder {
    database_url: String,
    secret: Option<Secret>,
    secret_file: Option<PathBuf>,
    tokens: TokenSettings,
    durability: Durability,
    limits: Limits,
    live: LiveSettings,
    hooks: Hooks,
    #[cfg(feature = "attachments")]
    attachments: Option<AttachmentStore>,
    #[cfg(feature = "attachments")]
    attachment_types: Vec<MediaRange>,
    planted: Planted,
}

impl EngineBuilder {
    pub(crate) fn new(database_url: String) -> Self {
        Self {
            database_url,
            secret: None,
            secret_file: None,
            tokens: TokenSettings {
                algorithm: JwtAlgorithm::default(),
                access_ttl: Duration::from_secs(15 * 60),
                refresh_ttl: Duration::from_secs(30 * 24 * 60 * 60),
                refresh_grace: Duration::ZERO,
            },
            durability: Durability::default(),
            limits: Limits::default(),
            live: LiveSettings::default(),
            hooks: Hooks::default(),
            #[cfg(feature = "attachments")]
            attachments: None,
            #[cfg(feature = "attachments")]
            attachment_types: Vec::new(),
            planted: Planted::default(),
        }
    }

    /// Sets the secret that signs access tokens. All nodes over one database need the same.
    ///
    /// Default: the [`secret_file`](Self::secret_file).
    pub fn secret(mut self, secret: Secret) -> Self {
        self.secret = Some(secret);
        self
    }

    /// Sets the file of the secret, which is made with a random one and mode 0600 if it does not
    /// exist. Not looked at where [`secret`](Self::secret) is set.
    ///
    /// Default: beside an SQLite file, with `.secret` after its name. PostgreSQL has none.
    pub fn secret_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.secret_file = Some(path.into());
        self
    }

    /// Sets how access tokens are signed. Default: HS256.
    pub fn jwt_algorithm(mut self, algorithm: JwtAlgorithm) -> Self {
        self.tokens.algorithm = algorithm;
        self
    }

    /// Sets how long an access token lives. Default: 15 minutes. A session that ends takes its
    /// tokens with it at once, so this only bounds what a clock may get wrong.
    pub fn access_token_ttl(mut self, ttl: Duration) -> Self {
        self.tokens.access_ttl = ttl;
        self
    }

    /// Sets how long a session lives without being used. Default: 30 days.
    pub fn refresh_token_ttl(mut self, ttl: Duration) -> Self {
        self.tokens.refresh_ttl = ttl;
        self
    }

    /// Sets for how long a spent refresh token is accepted once more, as long as nobody has used
    /// what it brought: for clients who lose replies. Default: zero, since a spent token that
    /// shows up again is how a theft is seen.
    pub fn refresh_grace(mut self, grace: Duration) -> Self {
        self.tokens.refresh_grace = grace;
        self
    }

    /// Sets what an acknowledged write survives. Default: [`Durability::Full`].
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// Sets the engine's bounds. Default: [`Limits::default`].
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets how live events are delivered. Default: [`LiveSettings::default`].
    pub fn live(mut self, live: LiveSettings) -> Self {
        self.live = live;
        self
    }

    /// Asks the host before a message is sent or edited.
    ///
    /// The hook sees it before it is known whether the sender belongs to the conversation. It is not
    /// asked for what the engine itself changes, and a send that is repeated gets its first message
    /// whatever the hook says of the repetition. Default: nobody is asked.
    ///
    /// # Examples
    ///
    /// ```
    /// use messenger_core::MessengerEngine;
    /// use messenger_core::hooks::{Decision, HookSettings};
    ///
    /// let builder = MessengerEngine::builder("sqlite://chat.db");
    /// let builder = builder.before_send(HookSettings::default(), |message| async move {
    ///     Ok(match message.body.as_str().contains("spam") {
    ///         true => Decision::Refuse("this looks like spam".to_owned()),
    ///         false => Decision::Allow,
    ///     })
    /// });
    /// ```
    pub fn before_send<F, D>(mut self, settings: HookSettings, decide: F) -> Self
    where
        F: Fn(BeforeSend) -> D + Send + Sync + 'static,
        D: Future<Output = HookResult> + Send + 'static,
    {
        self.hooks.before_send = Some(Hook::new(settings, decide));
        self
    }

    /// Asks the host before people come to belong together: before a direct conversation is opened, a
    /// group is created, or members are added. Default: nobody is asked.
    ///
    /// Whoever belongs to it already stays, and a direct conversation that exists is given back,
    /// whatever the hook says.
    pub fn before_join<F, D>(mut self, settings: HookSettings, decide: F) -> Self
    where
        F: Fn(BeforeJoin) -> D + Send + Sync + 'static,
        D: Future<Output = HookResult> + Send + 'static,
    {
        self.hooks.before_join = Some(Hook::new(settings, decide));
        self
    }

    /// Sets where the bytes of attachments are. Default: nowhere, and nobody can upload any.
    #[cfg(feature = "attachments")]
    pub fn attachments(mut self, place: AttachmentStore) -> Self {
        self.attachments = Some(place);
        self
    }

    /// Sets which types of attachments are taken, by what their uploaders say that they are. Default:
    /// an empty list, which stands for all.
    #[cfg(feature = "attachments")]
    pub fn attachment_types(mut self, types: impl IntoIterator<Item = MediaRange>) -> Self {
        self.attachment_types = types.into_iter().collect();
        self
    }

    /// Tells the host of what has happened, under a name: at least once, in order within each
    /// conversation, and different conversations side by side.
    ///
    /// The database keeps how far each name was told, so nothing that was committed is missed while
    /// the host fails, the engine is closed or the process is killed. What was told but not written
    /// down yet is told again, with the same [`id`](Change::id). A name that the database does not
    /// know begins at the head of the change log, or where
    /// [`ChangeSettings::from`](ChangeSettings::from) says. Of several engines on one database that
    /// know a name, one tells; where it goes away, another goes on within [`Limits::hook_lease`]. A
    /// name is 1 to 64 letters, digits, `.`, `_` or `-`.
    ///
    /// A change that is not taken (an error, a panic, no answer in time) is told again later, as
    /// `settings` say, and its conversation waits meanwhile while others go on. Default: nobody is
    /// told.
    ///
    /// # Examples
    ///
    /// ```
    /// use messenger_core::MessengerEngine;
    /// use messenger_core::hooks::{ChangeKind, ChangeSettings, Topic};
    ///
    /// # async fn notify(_: messenger_core::UserId, _: String) -> std::io::Result<()> { Ok(()) }
    /// let mut settings = ChangeSettings::default();
    /// settings.topics = vec![Topic::MessageCreated];
    /// let builder = MessengerEngine::builder("sqlite://chat.db");
    /// let builder = builder.on_change("push", settings, |change| async move {
    ///     if let ChangeKind::MessageCreated(new) = change.kind {
    ///         for user in new.notify {
    ///             notify(user, format!("{}: {}", new.sender.display_name, new.message.content)).await?;
    ///         }
    ///     }
    ///     Ok(())
    /// });
    /// ```
    pub fn on_change<F, D>(
        mut self,
        name: impl Into<String>,
        settings: ChangeSettings,
        take: F,
    ) -> Self
    where
        F: Fn(Change) -> D + Send + Sync + 'static,
        D: Future<Output = ChangeResult> + Send + 'static,
    {
        let hook = OnChange::new(name.into(), settings, take);
        self.hooks.on_change.push(hook);
        self
    }

    /// Tells an endpoint over HTTP of what has happened, as [`on_change`](Self::on_change) tells the
    /// host. [`Webhook::settings`](crate::hooks::Webhook::settings) suit it.
    #[cfg(feature = "webhooks")]
    pub fn webhook(
        self,
        name: impl Into<String>,
        settings: ChangeSettings,
        webhook: hooks::Webhook,
    ) -> Self {
        self.on_change(name, settings, move |change| {
            let webhook = webhook.clone();
            async move { webhook.take(change).await }
        })
    }

    /// Plants a fault in the engine, for a test that must find it.
    #[cfg(feature = "test-util")]
    pub fn plant(mut self, fault: Fault) -> Self {
        self.planted = Planted(Some(fault));
        self
    }

    /// Opens the database, brings its schema up to date and starts the engine.
    ///
    /// # Errors
    ///
    /// - [`Error::Invalid`]: the database URL can not be read.
    /// - [`Error::Setup`]: a server, a file or a schema that can not be used, with what to do
    ///   about it in its text.
    /// - [`Error::AttachmentsSetup`]: the place of attachments can not be used, likewise.
    /// - [`Error::SecretSetup`]: the file of the secret can not be used, or there is none, likewise.
    ///
    /// # Cancel safety
    ///
    /// If dropped, the database is migrated whole or not at all, and no engine runs.
    pub async fn open(mut self) -> Result<MessengerEngine> {
        self.limits.planted = self.planted;
        hooks::check_names(&self.hooks.on_change)?;
        let target = Target::parse(&self.database_url)?;
        let store = Arc::new(Store::open(&target, self.durability, &self.limits).await?);
        let (secret, secret_created) = self.signing_secret(&target)?;
        let tokens = AccessTokens::new(&secret, self.tokens);
        let hasher = Hasher::new(&self.limits).await?;
        #[cfg(feature = "attachments")]
        let transfers = Transfers::new(&self.limits);
        let exports = accounts::places(&self.limits);
        #[cfg(feature = "attachments")]
        let objects = match &self.attachments {
            Some(place) => {
                let objects = Objects::open(place, self.durability).await?;
                objects.settle(place, &store).await?;
                Some(Arc::new(objects))
            }
            None => None,
        };

        let access_ttl = tokens.settings().access_ttl;
        let remembered = self.limits.revocations_remembered_max;
        let revocations = Arc::new(Revocations::new(access_ttl, remembered));
        let since = revocations.horizon(clock::now());
        let (tasks, telling) = (Tasks::default(), Tasks::default());
        // What was started goes with an opening that fails or is given up.
        let given_up = [&tasks, &telling].map(|tasks| tasks.closing().clone().drop_guard());
        let counters = Arc::new(Counters::default());
        let hub = Hub::start(
            store.clone(),
            revocations.clone(),
            self.live.clone(),
            &self.limits,
            &counters,
            &tasks,
        )
        .await?;
        // Read after the hub has taken its place in the change log: what ends from here on comes
        // to it.
        for session in auth::queries::ended_since(&store, since).await? {
            let at = Timestamp::from_micros(session.revoked_at.unwrap_or_default());
            revocations.add([session.id.into()], at);
        }
        let freed = Arc::new(Notify::new());
        let (to_store, to_hub) = (store.clone(), hub.clone());
        let writer = Writer::start(to_store, to_hub, &self.limits, &counters, &freed, &tasks);
        if self.live.enabled && self.live.presence_ms > 0 {
            tasks.start(presence::run(
                store.clone(),
                writer.clone(),
                hub.clone(),
                self.limits.clone(),
                Duration::from_millis(self.live.presence_ms),
                tasks.closing().clone(),
            ));
        }
        let erasing = Arc::new(Notify::new());
        tasks.start(accounts::erase::run(
            store.clone(),
            writer.clone(),
            self.limits.clone(),
            erasing.clone(),
            tasks.closing().clone(),
        ));
        #[cfg(feature = "attachments")]
        if let Some(objects) = &objects {
            tasks.start(attachments::collect::run(
                store.clone(),
                writer.clone(),
                objects.clone(),
                self.limits.clone(),
                freed,
                tasks.closing().clone(),
            ));
        }
        let index = Index::start(
            store.clone(),
            writer.clone(),
            self.limits.clone(),
            counters.clone(),
            &tasks,
        );
        let mut told = Vec::with_capacity(self.hooks.on_change.len());
        for hook in self.hooks.on_change.drain(..) {
            let with = hooks::With {
                store: &store,
                writer: &writer,
                hub: &hub,
                limits: &self.limits,
                tasks: &tasks,
                telling: &telling,
            };
            told.push(hooks::start(hook, with).await?);
        }
        let _running = given_up.map(DropGuard::disarm);
        Ok(MessengerEngine::of(Inner {
            store,
            writer,
            hub,
            hasher,
            tokens,
            revocations,
            limits: self.limits,
            live: self.live,
            secret_created,
            erasing,
            exports,
            syncs: Turns::default(),
            index,
            hooks: self.hooks,
            #[cfg(feature = "attachments")]
            objects,
            #[cfg(feature = "attachments")]
            attachment_types: self.attachment_types,
            #[cfg(feature = "attachments")]
            transfers,
            told,
            telling,
            counters,
            wrote_at: Default::default(),
            tasks,
        }))
    }

    /// Brings the schema of the database up to date without starting an engine; makes the database if
    /// there is none.
    ///
    /// [`open`](Self::open) does it as well: this is for whoever wants to see it done. `on_step` is told
    /// of each migration before it begins; those of a large database may take a while.
    ///
    /// # Errors
    ///
    /// As of [`open`](Self::open).
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, the database is migrated whole or not at all.
    pub async fn migrate(self, on_step: impl FnMut(SchemaStep) + Send) -> Result<SchemaChange> {
        let target = Target::parse(&self.database_url)?;
        let (from, to) = store::migrate_only(&target, &self.limits, on_step).await?;
        Ok(SchemaChange { from, to })
    }

    /// Opens the database to look at it: nothing is migrated, and whoever uses it notices nothing.
    ///
    /// # Errors
    ///
    /// - [`Error::Invalid`]: the database URL can not be read.
    /// - [`Error::Setup`]: there is no such database, or it must be migrated first.
    pub async fn inspect(self) -> Result<Inspection> {
        let target = Target::parse(&self.database_url)?;
        Inspection::open(&target, &self.limits).await
    }

    /// Copies the SQLite database into a new file as [`MessengerEngine::backup`] does, without an
    /// engine of its own: others may use the database meanwhile.
    ///
    /// # Errors
    ///
    /// - [`Error::Invalid`]: the database URL can not be read.
    /// - [`Error::Setup`]: as of [`MessengerEngine::backup`].
    ///
    /// # Cancel safety
    ///
    /// As of [`MessengerEngine::backup`].
    pub async fn backup(self, file: impl AsRef<Path>) -> Result<()> {
        let target = Target::parse(&self.database_url)?;
        store::backup::backup(&target, file.as_ref()).await
    }

    /// Returns the file of an SQLite database, whether it is there or not; `None` for PostgreSQL.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`]: the database URL can not be read.
    pub fn sqlite_file(&self) -> Result<Option<PathBuf>> {
        Ok(match Target::parse(&self.database_url)? {
            Target::Sqlite(file) => Some(file),
            Target::Postgres(_) => None,
        })
    }

    /// Puts a backup in the place of the SQLite database, which nobody may have open. The one that
    /// was there is kept beside it; its path is returned.
    ///
    /// Clients are told that the history is another one: they begin again, and send again what the
    /// copy does not have and they still know.
    ///
    /// # Errors
    ///
    /// - [`Error::Invalid`]: the database URL can not be read.
    /// - [`Error::Setup`]: the file is no whole backup, the database is in use, a file can not be
    ///   written, or the database is PostgreSQL.
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, the database is the former one, or it stands beside its place
    /// with `.before-` and a time after its name.
    pub async fn restore(self, file: impl AsRef<Path>) -> Result<Option<PathBuf>> {
        let target = Target::parse(&self.database_url)?;
        store::backup::restore(&target, file.as_ref(), &self.limits).await
    }

    fn signing_secret(&self, target: &Target) -> Result<(Secret, Option<PathBuf>)> {
        if let Some(secret) = &self.secret {
            return Ok((secret.clone(), None));
        }
        let path = match (&self.secret_file, target) {
            (Some(path), _) => path.clone(),
            (None, Target::Sqlite(database)) => {
                let mut path = database.clone().into_os_string();
                path.push(".secret");
                path.into()
            }
            (None, Target::Postgres(_)) => {
                let what =
                    "a secret is missing: with PostgreSQL, set one (all nodes need the same)";
                return Err(Error::SecretSetup(what.to_owned(), None));
            }
        };
        let (secret, created) = Secret::load_or_create(&path)?;
        Ok((secret, created.then_some(path)))
    }
}
