//! [`EngineBuilder`]: each setting with its unit, its default and its reason.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::accounts;
use crate::auth::{self, AccessTokens, Hasher, JwtAlgorithm, Revocations, Secret, TokenSettings};
use crate::clock::{self, Timestamp};
use crate::engine::{Inner, MessengerEngine};
use crate::error::{Error, Result};
use crate::events::{Hub, LiveSettings, presence};
#[cfg(feature = "test-util")]
use crate::fault::Fault;
use crate::fault::Planted;
use crate::limits::Limits;
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
    ///
    /// # Cancel safety
    ///
    /// If dropped, the database is migrated whole or not at all, and no engine runs.
    pub async fn open(mut self) -> Result<MessengerEngine> {
        self.limits.planted = self.planted;
        let target = Target::parse(&self.database_url)?;
        let store = Arc::new(Store::open(&target, self.durability, &self.limits).await?);
        let (secret, secret_created) = self.signing_secret(&target)?;
        let tokens = AccessTokens::new(&secret, self.tokens);
        let hasher = Hasher::new(&self.limits).await?;

        let access_ttl = tokens.settings().access_ttl;
        let remembered = self.limits.revocations_remembered_max;
        let revocations = Arc::new(Revocations::new(access_ttl, remembered));
        let since = revocations.horizon(clock::now());
        let tasks = Tasks::default();
        let hub = Hub::start(
            store.clone(),
            revocations.clone(),
            self.live.clone(),
            &self.limits,
            &tasks,
        )
        .await?;
        // Read after the hub has taken its place in the change log: what ends from here on comes
        // to it.
        for session in auth::queries::ended_since(&store, since).await? {
            let at = Timestamp::from_micros(session.revoked_at.unwrap_or_default());
            revocations.add([session.id.into()], at);
        }
        let writer = Writer::start(store.clone(), hub.clone(), &self.limits, &tasks);
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
            exports: Arc::default(),
            tasks,
        }))
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
                return Err(Error::Setup(what.to_owned(), None));
            }
        };
        let (secret, created) = Secret::load_or_create(&path)?;
        Ok((secret, created.then_some(path)))
    }
}
