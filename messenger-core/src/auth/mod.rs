//! Accounts that log in with a password, their sessions, and who is calling.
//!
//! - A log-in starts a *session*. It gives an *access token* (a JWT that lives for minutes) and
//!   a *refresh token* (random, single use, kept here only as its SHA-256).
//! - To refresh spends the token and gives the next one. A spent token that is seen again means
//!   that two parties hold it: the whole session ends at once.
//! - A host with its own log-in needs none of this:
//!   [`MessengerEngine::trust`](crate::MessengerEngine::trust).

mod actor;
mod operations;
mod password;
pub(crate) mod queries;
mod revocations;
mod secret;
mod token;

use std::fmt;
use std::time::Duration;

pub use self::actor::Actor;
pub(crate) use self::operations::live_sessions;
use self::operations::{
    ChangePassword, CreateAccount, EndSessions, LogIn, LogOut, Refresh, Refreshed, Register,
};
pub(crate) use self::password::Hasher;
pub use self::password::Password;
pub(crate) use self::revocations::Revocations;
pub use self::secret::Secret;
pub use self::token::JwtAlgorithm;
use self::token::RefreshToken;
pub(crate) use self::token::{AccessTokens, TokenSettings};
use crate::clock::Timestamp;
use crate::engine::MessengerEngine;
use crate::error::{Error, Result};
use crate::ids::SessionId;
use crate::users::{DisplayName, User, Username};

/// The longest name of a device that is kept, in characters; the rest is cut off.
const DEVICE_CHARS_MAX: usize = 128;

/// Accounts and sessions: the view that [`MessengerEngine::auth`] gives.
#[derive(Debug)]
pub struct Auth<'a> {
    engine: &'a MessengerEngine,
}

/// What a new account needs.
#[derive(Clone, Debug)]
pub struct NewAccount {
    /// The name to log in with; unique whatever the capitals.
    pub username: Username,
    /// The name to show; the username if there is none.
    pub display_name: Option<DisplayName>,
    /// The password.
    pub password: Password,
    /// What the person may know the device by in a list of sessions, like `Pixel 9`. Cut after
    /// 128 characters.
    pub device: Option<String>,
}

/// A session that has just begun or gone on.
#[derive(Clone, Debug)]
pub struct Login {
    /// Who logged in.
    pub user: User,
    /// The session.
    pub session_id: SessionId,
    /// Its tokens.
    pub tokens: Tokens,
}

/// The tokens of a session. `Debug` does not show them.
#[derive(Clone)]
pub struct Tokens {
    /// A JWT for [`Auth::verify`].
    pub access_token: String,
    /// Good for one [`Auth::refresh`]: 64 characters.
    pub refresh_token: String,
    /// How long the access token is good for.
    pub expires_in: Duration,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("expires_in", &self.expires_in)
            .finish_non_exhaustive()
    }
}

/// A session of somebody, as they may look at it.
#[derive(Clone, Debug)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// The device, if it was named at the log-in.
    pub device: Option<String>,
    /// When it began.
    pub created_at: Timestamp,
    /// When it last got new tokens.
    pub last_used_at: Timestamp,
    /// When it ends if it is not used before.
    pub expires_at: Timestamp,
    /// Whether it is the session that is asking.
    pub current: bool,
}

impl<'a> Auth<'a> {
    pub(crate) fn new(engine: &'a MessengerEngine) -> Self {
        Self { engine }
    }

    /// Registers an account and logs it in.
    ///
    /// # Errors
    ///
    /// - [`Error::UsernameTaken`]: somebody has the username, perhaps in other capitals.
    /// - [`Error::Busy`]: too many passwords are being hashed; try again.
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, the account exists with a session, or nothing does.
    pub async fn register(&self, account: NewAccount) -> Result<Login> {
        let NewAccount {
            username,
            display_name,
            password,
            device,
        } = account;
        // A taken name is refused before the costly part; the operation has the last word.
        if queries::account(self.engine.store(), username.key())
            .await?
            .is_some()
        {
            return Err(Error::UsernameTaken);
        }
        let password_hash = self.engine.hasher().hash(password).await?;
        let token = RefreshToken::generate()?;
        let begun = self
            .engine
            .writer()
            .run(Register {
                display_name: display_name.unwrap_or_else(|| DisplayName::of(&username)),
                username,
                password_hash,
                session: self.new_session(&token, device),
            })
            .await?;
        self.login(begun, &token)
    }

    /// Logs in with a password.
    ///
    /// An unknown username costs as much time as a wrong password.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidCredentials`]: the username or the password is wrong.
    /// - [`Error::Busy`]: too many passwords are being hashed; try again.
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, a session has begun or not; nobody has its tokens.
    pub async fn log_in(
        &self,
        username: &str,
        password: &str,
        device: Option<String>,
    ) -> Result<Login> {
        // What can not be a username is nobody's.
        let account = match Username::parse(username) {
            Ok(username) => queries::account(self.engine.store(), username.key()).await?,
            Err(_) => None,
        };
        let hash = account.as_ref().and_then(|row| row.password_hash.clone());
        let right = self.engine.hasher().verify(password, hash.clone()).await?;
        let (Some(account), Some(password_hash), true) = (account, hash, right) else {
            return Err(Error::InvalidCredentials);
        };
        let token = RefreshToken::generate()?;
        let begun = self
            .engine
            .writer()
            .run(LogIn {
                user_id: account.id.into(),
                password_hash,
                session: self.new_session(&token, device),
                sessions_max: self.engine.limits().sessions_per_user_max,
            })
            .await?;
        self.login(begun, &token)
    }

    /// Spends a refresh token and gives the next tokens of its session.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidRefreshToken`]: the token is unknown, expired or revoked; or it was spent
    /// before, in which case its session has now ended, with every token that came of it
    /// (RFC 9700, section 4.14).
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, the token may be spent and the next one lost: log in again.
    pub async fn refresh(&self, refresh_token: &str) -> Result<Login> {
        let next = RefreshToken::generate()?;
        let refreshed = self
            .engine
            .writer()
            .run(Refresh {
                hash: RefreshToken::hash_of(refresh_token),
                next: next.hash(),
                ttl: self.engine.tokens().settings().refresh_ttl,
                grace: self.engine.tokens().settings().refresh_grace,
            })
            .await?;
        match refreshed {
            Refreshed::Rotated(begun) => self.login(*begun, &next),
            Refreshed::Reused(session) => {
                self.engine
                    .revocations()
                    .add([session], crate::clock::now());
                Err(Error::InvalidRefreshToken)
            }
        }
    }

    /// Ends the session that a refresh token belongs to. An unknown token is no error.
    ///
    /// # Errors
    ///
    /// Only when the database fails.
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, the session has ended or it has not.
    pub async fn log_out(&self, refresh_token: &str) -> Result<()> {
        let hash = RefreshToken::hash_of(refresh_token);
        let ended = self.engine.writer().run(LogOut { hash }).await?;
        self.engine.revocations().add(ended, crate::clock::now());
        Ok(())
    }

    /// Verifies an access token: who is calling, in which session.
    ///
    /// Reads nothing from the database, unless very many sessions have ended lately.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidToken`]: the token is malformed, signed by somebody else, expired, of
    /// another kind, or its session has ended.
    ///
    /// # Examples
    ///
    /// ```
    /// # use messenger_core::{MessengerEngine, Error};
    /// # async fn example(engine: &MessengerEngine) -> Result<(), Error> {
    /// let refused = engine.auth().verify("not a token").await;
    /// assert!(matches!(refused, Err(Error::InvalidToken)));
    /// # Ok(()) }
    /// ```
    pub async fn verify(&self, access_token: &str) -> Result<Actor> {
        let actor = self.engine.tokens().verify(access_token)?;
        let Some(session) = actor.session_id() else {
            return Err(Error::InvalidToken);
        };
        if self.has_ended(session).await? {
            Err(Error::InvalidToken)
        } else {
            Ok(actor)
        }
    }

    /// Whether a session has ended; asks the database only where memory does not know.
    pub(crate) async fn has_ended(&self, session: SessionId) -> Result<bool> {
        match self.engine.revocations().contains(session) {
            Some(known) => Ok(known),
            None => queries::is_revoked(self.engine.store(), session).await,
        }
    }

    /// Lists the actor's sessions that have not ended, the newest first.
    ///
    /// # Errors
    ///
    /// Only when the database fails.
    pub async fn sessions(&self, actor: &Actor) -> Result<Vec<Session>> {
        queries::sessions(&self.engine.store().read(), actor).await
    }

    /// Ends one of the actor's sessions. Its tokens stop working and its subscriptions end.
    ///
    /// # Errors
    ///
    /// [`Error::SessionNotFound`]: the actor has no such session, or it has ended already.
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, the session has ended or it has not.
    pub async fn revoke(&self, actor: &Actor, session: SessionId) -> Result<()> {
        let ended = self.end(EndSessions::one(actor.user_id(), session)).await?;
        if ended == 0 {
            Err(Error::SessionNotFound)
        } else {
            Ok(())
        }
    }

    /// Ends all of the actor's sessions, this one too, and says how many.
    ///
    /// # Errors
    ///
    /// Only when the database fails.
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, all have ended or none has.
    pub async fn log_out_all(&self, actor: &Actor) -> Result<u64> {
        self.end(EndSessions::all(actor.user_id())).await
    }

    async fn end(&self, operation: EndSessions) -> Result<u64> {
        let ended = self.engine.writer().run(operation).await?;
        let count = ended.len() as u64;
        self.engine.revocations().add(ended, crate::clock::now());
        Ok(count)
    }

    /// Insists on the actor's password, before something that can not be undone. An account without
    /// one, whose host is its log-in, has nothing to show.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidCredentials`]: it is wrong.
    /// - [`Error::Busy`]: too many passwords are being hashed; try again.
    pub async fn confirm(&self, actor: &Actor, password: &str) -> Result<()> {
        let account = queries::account_of(self.engine.store(), actor.user_id()).await?;
        let Some(hash) = account.and_then(|row| row.password_hash) else {
            return Ok(());
        };
        match self.engine.hasher().verify(password, Some(hash)).await? {
            true => Ok(()),
            false => Err(Error::InvalidCredentials),
        }
    }

    /// Changes the actor's password, and ends all their other sessions.
    ///
    /// # Errors
    ///
    /// - [`Error::InvalidCredentials`]: `current` is wrong, or the account has no password.
    /// - [`Error::Busy`]: too many passwords are being hashed; try again.
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, both has happened or neither.
    pub async fn change_password(&self, actor: &Actor, current: &str, new: Password) -> Result<()> {
        let account = queries::account_of(self.engine.store(), actor.user_id()).await?;
        let hash = account.and_then(|row| row.password_hash);
        let right = self.engine.hasher().verify(current, hash.clone()).await?;
        let (Some(expected), true) = (hash, right) else {
            return Err(Error::InvalidCredentials);
        };
        let password_hash = self.engine.hasher().hash(new).await?;
        let ended = self
            .engine
            .writer()
            .run(ChangePassword {
                user_id: actor.user_id(),
                keep: actor.session_id(),
                expected: Some(expected),
                password_hash,
            })
            .await?;
        self.engine.revocations().add(ended, crate::clock::now());
        Ok(())
    }

    /// Makes an account for somebody without logging them in: an administrator's way, of which the
    /// account's `device` is not looked at.
    ///
    /// # Errors
    ///
    /// - [`Error::UsernameTaken`]: somebody has or had the username, perhaps in other capitals.
    /// - [`Error::Busy`]: too many passwords are being hashed; try again.
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, the account exists or nothing does.
    pub async fn create(&self, account: NewAccount) -> Result<User> {
        let NewAccount {
            username,
            display_name,
            password,
            ..
        } = account;
        let create = CreateAccount {
            display_name: display_name.unwrap_or_else(|| DisplayName::of(&username)),
            username,
            password_hash: self.engine.hasher().hash(password).await?,
        };
        self.engine.writer().run(create).await
    }

    /// Gives somebody another password without asking for the one before, ends all their sessions and
    /// says how many: an administrator's way. Somebody whose log-in was the host's alone can log in
    /// here with it from now on.
    ///
    /// # Errors
    ///
    /// - [`Error::Forbidden`]: the actor comes from a token. Only who is
    ///   [`trust`](crate::MessengerEngine::trust)ed by the host is, so no remote caller can be.
    /// - [`Error::UserNotFound`]: there is no such account, or it was deleted.
    /// - [`Error::Busy`]: too many passwords are being hashed; try again.
    ///
    /// # Cancel safety
    ///
    /// If dropped before it resolves, both has happened or neither.
    pub async fn set_password(&self, actor: &Actor, new: Password) -> Result<u64> {
        if actor.session_id().is_some() {
            return Err(Error::Forbidden);
        }
        let change = ChangePassword {
            user_id: actor.user_id(),
            keep: None,
            expected: None,
            password_hash: self.engine.hasher().hash(new).await?,
        };
        let ended = self.engine.writer().run(change).await?;
        let count = ended.len() as u64;
        self.engine.revocations().add(ended, crate::clock::now());
        Ok(count)
    }

    fn new_session(&self, token: &RefreshToken, device: Option<String>) -> operations::NewSession {
        operations::NewSession {
            token: token.hash(),
            device: device.map(|name| {
                let kept = name.chars().filter(|c| !c.is_control());
                kept.take(DEVICE_CHARS_MAX).collect()
            }),
            ttl: self.engine.tokens().settings().refresh_ttl,
        }
    }

    fn login(&self, begun: operations::Begun, token: &RefreshToken) -> Result<Login> {
        self.engine.revocations().add(begun.ended, begun.at);
        let access_token =
            self.engine
                .tokens()
                .issue(begun.user.id, begun.session_id, crate::clock::now())?;
        Ok(Login {
            user: begun.user,
            session_id: begun.session_id,
            tokens: Tokens {
                access_token,
                refresh_token: token.reveal(),
                expires_in: self.engine.tokens().settings().access_ttl,
            },
        })
    }
}
