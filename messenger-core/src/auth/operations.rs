//! The rules of accounts and sessions.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::error::{Error, Result};
use crate::ids::{SessionId, UserId};
use crate::store::entity::{event, refresh_token, session, user};
use crate::users::{DisplayName, User, Username};
use crate::write::{Batch, LogRefs, Needs, Operation};

/// What a session starts from.
pub(super) struct NewSession {
    pub(super) token: Vec<u8>,
    pub(super) device: Option<String>,
    pub(super) ttl: Duration,
}

/// A session that began or went on, and those that had to end for it.
pub(super) struct Begun {
    pub(super) user: User,
    pub(super) session_id: SessionId,
    pub(super) ended: Vec<SessionId>,
    pub(super) at: Timestamp,
}

impl NewSession {
    fn begin(&self, batch: &mut Batch, user: User) -> Begun {
        let id = batch.id();
        let now = batch.now();
        let row = session::Model {
            id,
            user_id: user.id.as_uuid(),
            device: self.device.clone(),
            created_at: now.as_micros(),
            last_used_at: now.as_micros(),
            expires_at: now.plus(self.ttl).as_micros(),
            revoked_at: None,
        };
        batch.sessions.insert(id, row);
        insert_token(batch, &self.token, id.into());
        Begun {
            user,
            session_id: id.into(),
            ended: Vec::new(),
            at: now,
        }
    }
}

fn insert_token(batch: &mut Batch, hash: &[u8], session: SessionId) {
    let row = refresh_token::Model {
        hash: hash.to_vec(),
        session_id: session.as_uuid(),
        created_at: batch.now().as_micros(),
        used_at: None,
        replaced_by: None,
    };
    batch.refresh_tokens.insert(hash.to_vec(), row);
}

/// The sessions of a user that are still good, the one unused for longest first.
pub(crate) fn live_sessions(batch: &Batch, user: UserId) -> Vec<SessionId> {
    let now = batch.now().as_micros();
    let mut live: Vec<&session::Model> = batch
        .sessions
        .rows()
        .filter(|row| row.user_id == user.as_uuid() && row.revoked_at.is_none())
        .filter(|row| row.expires_at > now)
        .collect();
    live.sort_by_key(|row| (row.last_used_at, row.id));
    live.iter().map(|row| row.id.into()).collect()
}

/// Makes an account that nobody is logged in to.
pub(super) struct CreateAccount {
    pub(super) username: Username,
    pub(super) display_name: DisplayName,
    pub(super) password_hash: String,
}

impl Operation for CreateAccount {
    type Output = User;

    fn needs(&self, needs: &mut Needs) {
        needs.username(self.username.key());
    }

    fn apply(&self, batch: &mut Batch) -> Result<User> {
        let Self {
            username,
            display_name,
            password_hash,
        } = self;
        insert_account(batch, username, display_name, password_hash)
    }
}

fn insert_account(
    batch: &mut Batch,
    username: &Username,
    display_name: &DisplayName,
    password_hash: &str,
) -> Result<User> {
    if batch.find_username(username.key()).is_some() {
        return Err(Error::UsernameTaken);
    }
    let id = batch.id().into();
    let password_hash = Some(password_hash.to_owned());
    Ok(User::insert(
        batch,
        id,
        username,
        display_name,
        password_hash,
    ))
}

pub(super) struct Register {
    pub(super) username: Username,
    pub(super) display_name: DisplayName,
    pub(super) password_hash: String,
    pub(super) session: NewSession,
}

impl Operation for Register {
    type Output = Begun;

    fn needs(&self, needs: &mut Needs) {
        needs.username(self.username.key());
    }

    fn apply(&self, batch: &mut Batch) -> Result<Begun> {
        let Self {
            username,
            display_name,
            password_hash,
            ..
        } = self;
        let user = insert_account(batch, username, display_name, password_hash)?;
        Ok(self.session.begin(batch, user))
    }
}

pub(super) struct LogIn {
    pub(super) user_id: UserId,
    /// The hash against which the password was verified.
    pub(super) password_hash: String,
    pub(super) session: NewSession,
    pub(super) sessions_max: usize,
}

impl Operation for LogIn {
    type Output = Begun;

    fn needs(&self, needs: &mut Needs) {
        needs.user(self.user_id);
        needs.sessions_of(self.user_id);
    }

    fn apply(&self, batch: &mut Batch) -> Result<Begun> {
        let user = batch.require_user(self.user_id);
        let user = user.map_err(|_| Error::InvalidCredentials)?;
        // The password may have changed since it was verified.
        if user.password_hash.as_ref() != Some(&self.password_hash) {
            return Err(Error::InvalidCredentials);
        }
        let user = User::from(user);

        let live = live_sessions(batch, self.user_id);
        let too_many = (live.len() + 1).saturating_sub(self.sessions_max);
        let ended = live[..too_many.min(live.len())].to_vec();
        batch.revoke_sessions(self.user_id, &ended);
        let begun = self.session.begin(batch, user);
        Ok(Begun { ended, ..begun })
    }
}

/// Spends a refresh token.
pub(super) struct Refresh {
    pub(super) hash: Vec<u8>,
    pub(super) next: Vec<u8>,
    pub(super) ttl: Duration,
    pub(super) grace: Duration,
}

pub(super) enum Refreshed {
    Rotated(Box<Begun>),
    /// The token had been spent before, so its session has ended.
    Reused(SessionId),
}

impl Operation for Refresh {
    type Output = Refreshed;

    fn needs(&self, needs: &mut Needs) {
        needs.refresh_token(&self.hash);
    }

    fn apply(&self, batch: &mut Batch) -> Result<Refreshed> {
        let now = batch.now();
        let token = batch.refresh_tokens.get(&self.hash);
        let token = token.ok_or(Error::InvalidRefreshToken)?.clone();
        let session = batch.sessions.get(&token.session_id);
        let session = session.ok_or(Error::InvalidRefreshToken)?;
        if session.revoked_at.is_some() || session.expires_at <= now.as_micros() {
            return Err(Error::InvalidRefreshToken);
        }
        let (session_id, user_id) = (SessionId::from(session.id), UserId::from(session.user_id));
        let user = User::from(batch.require_user(user_id)?);

        if let Some(used_at) = token.used_at {
            // A reply that got lost is forgiven for a while, as long as nobody has used what it
            // brought; the token that it brought is then spent in its place.
            let successor = token.replaced_by.as_ref();
            let unused = successor
                .and_then(|hash| batch.refresh_tokens.get(hash))
                .is_some_and(|successor| successor.used_at.is_none());
            let in_time = Timestamp::from_micros(used_at).plus(self.grace) > now;
            if self.grace.is_zero() || !in_time || !unused {
                batch.revoke_sessions(user_id, &[session_id]);
                return Ok(Refreshed::Reused(session_id));
            }
            if let Some(row) = successor.and_then(|hash| batch.refresh_tokens.change(hash)) {
                row.used_at = Some(now.as_micros());
            }
        }
        if let Some(row) = batch.refresh_tokens.change(&self.hash) {
            row.used_at.get_or_insert(now.as_micros());
            row.replaced_by = Some(self.next.clone());
        }
        if let Some(row) = batch.sessions.change(&session_id.as_uuid()) {
            row.last_used_at = now.as_micros();
            row.expires_at = now.plus(self.ttl).as_micros();
        }
        insert_token(batch, &self.next, session_id);
        Ok(Refreshed::Rotated(Box::new(Begun {
            user,
            session_id,
            ended: Vec::new(),
            at: now,
        })))
    }
}

/// Ends the session that a refresh token belongs to.
pub(super) struct LogOut {
    pub(super) hash: Vec<u8>,
}

impl Operation for LogOut {
    type Output = Vec<SessionId>;

    fn needs(&self, needs: &mut Needs) {
        needs.refresh_token(&self.hash);
    }

    fn apply(&self, batch: &mut Batch) -> Result<Vec<SessionId>> {
        let token = batch.refresh_tokens.get(&self.hash);
        let session = token.and_then(|token| batch.sessions.get(&token.session_id));
        let Some(session) = session.filter(|session| session.revoked_at.is_none()) else {
            return Ok(Vec::new());
        };
        let (user, ended) = (UserId::from(session.user_id), vec![session.id.into()]);
        batch.revoke_sessions(user, &ended);
        Ok(ended)
    }
}

/// Ends one or all of somebody's sessions.
pub(super) struct EndSessions {
    user_id: UserId,
    only: Option<SessionId>,
}

impl EndSessions {
    pub(super) fn one(user_id: UserId, session: SessionId) -> Self {
        Self {
            user_id,
            only: Some(session),
        }
    }

    pub(super) fn all(user_id: UserId) -> Self {
        Self {
            user_id,
            only: None,
        }
    }
}

impl Operation for EndSessions {
    type Output = Vec<SessionId>;

    fn needs(&self, needs: &mut Needs) {
        needs.sessions_of(self.user_id);
    }

    fn apply(&self, batch: &mut Batch) -> Result<Vec<SessionId>> {
        let mut ended = live_sessions(batch, self.user_id);
        ended.retain(|id| self.only.is_none_or(|only| only == *id));
        batch.revoke_sessions(self.user_id, &ended);
        Ok(ended)
    }
}

/// Changes a password and ends the other sessions.
pub(super) struct ChangePassword {
    pub(super) user_id: UserId,
    pub(super) keep: Option<SessionId>,
    /// The hash against which the old password was verified; `None` where nobody was asked for it.
    pub(super) expected: Option<String>,
    pub(super) password_hash: String,
}

impl Operation for ChangePassword {
    type Output = Vec<SessionId>;

    fn needs(&self, needs: &mut Needs) {
        needs.user(self.user_id);
        needs.sessions_of(self.user_id);
    }

    fn apply(&self, batch: &mut Batch) -> Result<Vec<SessionId>> {
        let user: &user::Model = batch.require_user(self.user_id)?;
        if self.expected.is_some() && user.password_hash != self.expected {
            return Err(Error::InvalidCredentials);
        }
        // It takes a position although nobody else sees it: other nodes keep the row in memory
        // for as long as the head does not move.
        let position = batch.next_position();
        if let Some(row) = batch.users.change(&self.user_id.as_uuid()) {
            row.password_hash = Some(self.password_hash.clone());
        }
        let refs = LogRefs {
            user: Some(self.user_id),
            ..LogRefs::default()
        };
        batch.log(position, event::Kind::PasswordChanged, &refs);
        batch.announce(crate::events::Change::Unseen { position });

        let mut ended = live_sessions(batch, self.user_id);
        ended.retain(|id| Some(*id) != self.keep);
        batch.revoke_sessions(self.user_id, &ended);
        Ok(ended)
    }
}
