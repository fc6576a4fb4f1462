//! Accounts, sessions and their tokens.
//!
//! | route | what |
//! |---|---|
//! | `POST /auth/register` | a new account, logged in |
//! | `POST /auth/login` | a new session |
//! | `POST /auth/refresh` | new tokens for old |
//! | `POST /auth/logout` | the end of the session of a refresh token |
//! | `POST /auth/logout-all` | the end of all sessions |
//! | `POST /auth/password` | another password |
//! | `GET /auth/sessions` | who is logged in, from where |
//! | `DELETE /auth/sessions/{session_id}` | the end of one session |

use messenger_core::auth::{Login, NewAccount, Password, Session as EngineSession};
use messenger_core::users::{DisplayName, Username};
use messenger_core::{Error as EngineError, MessengerEngine, SessionId};
use poem::Request;
use poem::http::header;
use poem::web::Data;
use poem_openapi::param::Path;
use poem_openapi::types::Example;
use poem_openapi::{Object, OpenApi};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::api::Tag;
use crate::api::bearer::{Caller, CallerFailure};
use crate::api::body::ApiJson;
use crate::api::envelope::{Answer, Created, Done, Failure, Fault, failures};
use crate::api::quota::Quota;
use crate::api::users::UserPublic;
use crate::api::wire::{Nullable, PathId, Time};

/// Length of a refresh token, in characters.
const REFRESH_TOKEN_CHARS: std::ops::RangeInclusive<usize> = 20..=512;

/// The routes of this file.
#[derive(Debug)]
pub(crate) struct Auth;

#[OpenApi(prefix_path = "/auth", tag = "Tag::Auth")]
impl Auth {
    /// Register
    ///
    /// Makes an account and logs it in. Usernames that differ only in capitals are the same.
    #[oai(path = "/register", method = "post", operation_id = "register")]
    async fn register(
        &self,
        _quota: Quota,
        engine: Data<&MessengerEngine>,
        request: &Request,
        body: ApiJson<RegisterRequest>,
    ) -> Result<Created<AuthResult>, RegisterFailure> {
        let ApiJson(body) = body;
        let username = Username::parse(&body.username);
        let password = Password::parse(&body.password);
        let display_name = body.display_name.as_deref().map(DisplayName::parse);
        let account = match (username, password, display_name.transpose()) {
            (Ok(username), Ok(password), Ok(display_name)) => NewAccount {
                username,
                display_name,
                password,
                device: device(request),
            },
            (username, password, display_name) => {
                let broken = [username.err(), password.err(), display_name.err()];
                let faults = broken.iter().flatten();
                return Err(Failure::invalid(faults.map(|rule| Fault::of("body", rule))).into());
            }
        };
        let login = engine.auth().register(account).await?;
        Ok(Answer(login.into()))
    }

    /// Log in
    ///
    /// Starts a session. A wrong password and an unknown user get the same answer.
    #[oai(path = "/login", method = "post", operation_id = "login")]
    async fn login(
        &self,
        _quota: Quota,
        engine: Data<&MessengerEngine>,
        request: &Request,
        body: ApiJson<LoginRequest>,
    ) -> Result<Answer<AuthResult>, LoginFailure> {
        let LoginRequest { username, password } = &body.0;
        let auth = engine.auth();
        let login = auth.log_in(username, password, device(request)).await?;
        Ok(Answer(login.into()))
    }

    /// Refresh tokens
    ///
    /// Gives new tokens for a refresh token, which is dead afterwards. Using a dead one again ends
    /// the session, since one of the two users must be a thief.
    #[oai(path = "/refresh", method = "post", operation_id = "refresh")]
    async fn refresh(
        &self,
        _quota: Quota,
        engine: Data<&MessengerEngine>,
        body: ApiJson<RefreshRequest>,
    ) -> Result<Answer<AuthResult>, RefreshFailure> {
        let login = engine.auth().refresh(body.0.checked()?).await?;
        Ok(Answer(login.into()))
    }

    /// Log out
    ///
    /// Ends the session of a refresh token. An unknown token is no failure.
    #[oai(path = "/logout", method = "post", operation_id = "logout")]
    async fn logout(
        &self,
        engine: Data<&MessengerEngine>,
        body: ApiJson<RefreshRequest>,
    ) -> Result<Answer<Done>, LogoutFailure> {
        engine.auth().log_out(body.0.checked()?).await?;
        Ok(Answer(Done::OK))
    }

    /// Log out everywhere
    ///
    /// Ends all sessions of the caller, this one too. Their tokens and WebSockets stop working.
    #[oai(path = "/logout-all", method = "post", operation_id = "logoutAll")]
    async fn logout_all(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
    ) -> Result<Answer<SessionsEnded>, LogoutAllFailure> {
        let ended = engine.auth().log_out_all(&actor).await?;
        Ok(Answer(SessionsEnded { ok: true, ended }))
    }

    /// Change the password
    ///
    /// Takes the current password and a new one, and ends all other sessions of the caller.
    #[oai(path = "/password", method = "post", operation_id = "changePassword")]
    async fn change_password(
        &self,
        _quota: Quota,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        body: ApiJson<PasswordRequest>,
    ) -> Result<Answer<Done>, PasswordFailure> {
        let new = Password::parse(&body.0.new_password)
            .map_err(|rule| Failure::invalid([Fault::new("body", "new_password", rule.message)]))?;
        let current = &body.0.current_password;
        engine.auth().change_password(&actor, current, new).await?;
        Ok(Answer(Done::OK))
    }

    /// List sessions
    ///
    /// Returns the sessions of the caller, newest first.
    #[oai(path = "/sessions", method = "get", operation_id = "listSessions")]
    async fn sessions(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
    ) -> Result<Answer<SessionList>, CallerFailure> {
        let sessions = engine.auth().sessions(&actor).await?;
        let sessions = sessions.into_iter().map(Session::from).collect();
        Ok(Answer(SessionList { sessions }))
    }

    /// End a session
    ///
    /// Logs one device of the caller out. Its tokens and WebSockets stop working.
    #[oai(
        path = "/sessions/:session_id",
        method = "delete",
        operation_id = "endSession"
    )]
    async fn end_session(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// The session.
        session_id: Path<PathId>,
    ) -> Result<Answer<Done>, EndSessionFailure> {
        let session_id: Option<SessionId> = session_id.0.read();
        let session_id = session_id.ok_or(EngineError::SessionNotFound)?;
        engine.auth().revoke(&actor, session_id).await?;
        Ok(Answer(Done::OK))
    }
}

/// Returns what the client says it is, to tell sessions apart by.
fn device(request: &Request) -> Option<String> {
    let agent = request.headers().get(header::USER_AGENT)?.to_str().ok()?;
    let agent = agent.trim();
    (!agent.is_empty()).then(|| agent.to_owned())
}

failures! {
    /// How registering can fail.
    RegisterFailure: BODY, QUOTA, WRITE;
    409: "`username_taken`"
}
failures! {
    /// How logging in can fail.
    LoginFailure: BODY, QUOTA, WRITE;
    401: "`invalid_credentials`"
}
failures! {
    /// How refreshing can fail.
    RefreshFailure: BODY, QUOTA, WRITE;
    401: "`invalid_refresh_token`"
}
failures! {
    /// How logging out can fail.
    LogoutFailure: BODY, WRITE;
}
failures! {
    /// How logging out everywhere can fail.
    LogoutAllFailure: CALLER, WRITE;
}
failures! {
    /// How changing the password can fail.
    PasswordFailure: BODY, QUOTA, WRITE;
    401: "`not_authenticated`, `invalid_token`, or `invalid_credentials` for the current password"
}
failures! {
    /// How ending a session can fail.
    EndSessionFailure: CALLER, WRITE;
    404: "`session_not_found`"
}

/// A new account.
#[derive(Object, Deserialize)]
#[oai(example)]
pub(crate) struct RegisterRequest {
    /// The name to log in with.
    #[oai(validator(min_length = 3, max_length = 32, pattern = "^[A-Za-z0-9_.-]+$"))]
    username: String,
    /// The name that others see; the username if there is none.
    #[oai(validator(min_length = 1, max_length = 64))]
    display_name: Option<String>,
    /// The password.
    #[oai(validator(min_length = 8, max_length = 128))]
    password: String,
}

impl Example for RegisterRequest {
    fn example() -> Self {
        Self {
            username: "alice".to_owned(),
            display_name: Some("Alice".to_owned()),
            password: "correct horse battery staple".to_owned(),
        }
    }
}

/// Who wants to log in.
#[derive(Object, Deserialize)]
#[oai(example)]
pub(crate) struct LoginRequest {
    /// The username, in any capitals.
    username: String,
    /// The password.
    password: String,
}

impl Example for LoginRequest {
    fn example() -> Self {
        Self {
            username: "alice".to_owned(),
            password: "correct horse battery staple".to_owned(),
        }
    }
}

/// A refresh token to use or to end.
#[derive(Object, Deserialize)]
#[oai(example)]
pub(crate) struct RefreshRequest {
    /// The refresh token.
    #[oai(validator(min_length = 20, max_length = 512))]
    refresh_token: String,
}

impl RefreshRequest {
    fn checked(&self) -> Result<&str, Failure> {
        if REFRESH_TOKEN_CHARS.contains(&self.refresh_token.chars().count()) {
            return Ok(&self.refresh_token);
        }
        let fault = Fault::new("body", "refresh_token", "must be 20 to 512 characters");
        Err(Failure::invalid([fault]))
    }
}

impl Example for RefreshRequest {
    fn example() -> Self {
        Self {
            refresh_token: "the-refresh-token-of-the-last-log-in".to_owned(),
        }
    }
}

/// The old password and the new one.
#[derive(Object, Deserialize)]
#[oai(example)]
pub(crate) struct PasswordRequest {
    /// The password of today.
    current_password: String,
    /// The password from now on.
    #[oai(validator(min_length = 8, max_length = 128))]
    new_password: String,
}

impl Example for PasswordRequest {
    fn example() -> Self {
        Self {
            current_password: "correct horse battery staple".to_owned(),
            new_password: "purple monkey dishwasher lamp".to_owned(),
        }
    }
}

/// Who is logged in, and the tokens of the session.
#[derive(Object, Serialize)]
pub(crate) struct AuthResult {
    /// Who is logged in.
    user: UserPublic,
    /// The tokens of the session.
    tokens: TokenPair,
}

impl From<Login> for AuthResult {
    fn from(login: Login) -> Self {
        let tokens = login.tokens;
        Self {
            user: login.user.into(),
            tokens: TokenPair {
                access_token: tokens.access_token,
                refresh_token: tokens.refresh_token,
                token_type: "bearer".to_owned(),
                expires_in: tokens.expires_in.as_secs(),
            },
        }
    }
}

/// The tokens of a session.
#[derive(Object, Serialize)]
pub(crate) struct TokenPair {
    /// For the header `Authorization: Bearer`.
    access_token: String,
    /// For new tokens, once.
    refresh_token: String,
    /// How to send the access token: `bearer`.
    token_type: String,
    /// Life of the access token, in seconds.
    expires_in: u64,
}

/// The sessions of a user.
#[derive(Object, Serialize)]
pub(crate) struct SessionList {
    /// Newest first.
    sessions: Vec<Session>,
}

/// One log-in of one device.
#[derive(Object, Serialize)]
pub(crate) struct Session {
    /// The id.
    id: Uuid,
    /// What the device said it is.
    device: Nullable<String>,
    /// When it logged in.
    created_at: Time,
    /// When it last got new tokens.
    last_used_at: Time,
    /// When it ends if it is not used until then.
    expires_at: Time,
    /// Whether it is the session of this request.
    current: bool,
}

impl From<EngineSession> for Session {
    fn from(session: EngineSession) -> Self {
        Self {
            id: session.id.as_uuid(),
            device: Nullable(session.device),
            created_at: session.created_at.into(),
            last_used_at: session.last_used_at.into(),
            expires_at: session.expires_at.into(),
            current: session.current,
        }
    }
}

/// How many sessions were ended.
#[derive(Object, Serialize)]
pub(crate) struct SessionsEnded {
    /// Always `true`.
    ok: bool,
    /// How many.
    ended: u64,
}
