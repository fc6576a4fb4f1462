//! People.
//!
//! | route | what |
//! |---|---|
//! | `GET /users/me` | the caller |
//! | `PATCH /users/me` | another profile |
//! | `DELETE /users/me` | the end of the account |
//! | `POST /users/me/delete` | the same |
//! | `GET /users/search` | people by a part of their names |
//! | `POST /users/batch` | people by their ids |
//! | `POST /users/presence` | which of them are there |

use std::collections::BTreeSet;

use messenger_core::accounts::Erase;
use messenger_core::users::{self, DisplayName, User};
use messenger_core::{Error as EngineError, MessengerEngine, UserId};
use poem::web::Data;
use poem_openapi::param::Query;
use poem_openapi::types::Example;
use poem_openapi::{Object, OpenApi};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::api::Tag;
use crate::api::bearer::{Caller, CallerFailure};
use crate::api::body::ApiJson;
use crate::api::envelope::{Answer, Done, Failure, Fault, failures};
use crate::api::idempotency::IdempotencyKey;
use crate::api::quota::Quota;
use crate::api::wire::{Nullable, PathId, Text, Time, Whole};

/// The routes of this file.
#[derive(Debug)]
pub(crate) struct Users;

#[OpenApi(prefix_path = "/users", tag = "Tag::Users")]
impl Users {
    /// Who am I
    ///
    /// Returns the caller.
    #[oai(path = "/me", method = "get", operation_id = "me")]
    async fn me(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
    ) -> Result<Answer<UserPublic>, CallerFailure> {
        let me = engine.users().me(&actor).await?;
        Ok(Answer(me.into()))
    }

    /// Change my profile
    ///
    /// Shows another name of the caller to everybody.
    #[oai(path = "/me", method = "patch", operation_id = "changeProfile")]
    async fn change(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// An id of this write, to repeat it safely.
        #[oai(name = "Idempotency-Key")]
        once: IdempotencyKey,
        body: ApiJson<ProfileRequest>,
    ) -> Result<Answer<UserPublic>, ProfileFailure> {
        let display_name = DisplayName::parse(&body.0.display_name)?;
        let users = engine.users().once(once.0);
        let me = users.change_profile(&actor, display_name).await?;
        Ok(Answer(me.into()))
    }

    /// Delete my account
    ///
    /// Ends every session and empties the profile, at once and for good; the username is given to
    /// nobody else. Soon after, the caller leaves all groups (a last owner leaves it to the oldest
    /// admin, else to the oldest member), and with `erase` as `messages` all that the caller wrote
    /// becomes tombstones. Direct conversations stay readable for the others, who can not send
    /// there any more (409 `user_deleted`).
    #[oai(path = "/me", method = "delete", operation_id = "deleteMe")]
    async fn delete(
        &self,
        _quota: Quota,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        body: ApiJson<DeleteRequest>,
    ) -> Result<Answer<Done>, DeleteFailure> {
        let erase = body.0.erase.as_deref().unwrap_or("nothing");
        let erase = Erase::parse(erase)?;
        let password = body.0.password.unwrap_or_default();
        engine.auth().confirm(&actor, &password).await?;
        engine.users().delete_me(&actor, erase).await?;
        Ok(Answer(Done::OK))
    }

    /// Delete my account, by another method
    ///
    /// The same as `DELETE /users/me`, for whatever drops the body of a `DELETE`.
    #[oai(path = "/me/delete", method = "post", operation_id = "deleteMeByPost")]
    async fn delete_by_post(
        &self,
        quota: Quota,
        caller: Caller,
        engine: Data<&MessengerEngine>,
        body: ApiJson<DeleteRequest>,
    ) -> Result<Answer<Done>, DeleteFailure> {
        self.delete(quota, caller, engine, body).await
    }

    /// Search people
    ///
    /// Returns people whose username or display name contains the text, whatever its capitals,
    /// ordered by username and without the caller. No character has a special meaning.
    #[oai(path = "/search", method = "get", operation_id = "searchUsers")]
    async fn search(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// The text to look for.
        query: Query<Text<64>>,
        /// How many people at most.
        #[oai(default = "twenty")]
        limit: Query<Whole<1, 50>>,
    ) -> Result<Answer<UserList>, SearchFailure> {
        let (query, limit) = match (query.0.given("query"), limit.0.within("limit")) {
            (Ok(query), Ok(limit)) => (query, u32::try_from(limit).unwrap_or(u32::MAX)),
            (query, limit) => {
                let faults = [query.err(), limit.err()].into_iter().flatten();
                return Err(Failure::invalid(faults).into());
            }
        };
        let found = engine.users().search(&actor, query, limit).await;
        let users = found.map_err(|error| match error {
            EngineError::Invalid(rule) => Failure::invalid([Fault::of("query", &rule)]),
            error => error.into(),
        })?;
        Ok(Answer(users.into()))
    }

    /// Look people up
    ///
    /// Returns the people with these ids, ordered by username: the caller, and those who share a
    /// conversation with the caller. Others are left out, and so is what is no id.
    #[oai(path = "/batch", method = "post", operation_id = "usersByIds")]
    async fn batch(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        body: ApiJson<UserIds>,
    ) -> Result<Answer<UserList>, BatchFailure> {
        let ids = body.0.read(engine.limits().batch_users_max)?;
        if ids.is_empty() {
            return Ok(Answer(Vec::new().into()));
        }
        let users = engine.users().batch(&actor, &ids).await?;
        Ok(Answer(users.into()))
    }

    /// Who is there
    ///
    /// Tells which of the people with these ids are connected, ordered by id. Who comes and goes after
    /// that is told to sockets and event streams that go on from a cursor, by `presence`. Left out are
    /// people with whom the caller shares no conversation of up to 128 members, who have blocked the
    /// caller or whom the caller has blocked, and who keep `false` under the key `presence`
    /// (`/users/me/prefs/presence`).
    #[oai(path = "/presence", method = "post", operation_id = "presence")]
    async fn presence(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        body: ApiJson<UserIds>,
    ) -> Result<Answer<Presences>, BatchFailure> {
        let ids = body.0.read(engine.limits().batch_users_max)?;
        let people = engine.users().presence(&actor, &ids).await?;
        Ok(Answer(Presences::of(&people)))
    }
}

fn twenty() -> Whole<1, 50> {
    Whole(Some(20))
}

pub(super) fn hundred() -> Whole<1, 500> {
    Whole(Some(100))
}

/// Reads which page of people is meant: after whom, and how many at most.
pub(super) fn page(
    after: Option<&PathId>,
    limit: Whole<1, 500>,
) -> Result<(Option<UserId>, u32), Failure> {
    let wrong = || Fault::new("query", "after", "must be a UUID");
    let after = after.map(|id| id.read().ok_or_else(wrong)).transpose();
    match (after, limit.within("limit")) {
        (Ok(after), Ok(limit)) => Ok((after, u32::try_from(limit).unwrap_or(u32::MAX))),
        (after, limit) => {
            let faults = [limit.err(), after.err()].into_iter().flatten();
            Err(Failure::invalid(faults))
        }
    }
}

failures! {
    /// How changing the profile can fail.
    ProfileFailure: CALLER, BODY, WRITE;
    409: "`client_write_conflict`: the id was used for another write"
}
failures! {
    /// How deleting the account can fail.
    DeleteFailure: BODY, QUOTA, WRITE;
    401: "`not_authenticated`, `invalid_token`, or `invalid_credentials` for the password"
}
failures! {
    /// How a search can fail.
    SearchFailure: CALLER, INPUT;
}
failures! {
    /// How looking people up can fail.
    BatchFailure: CALLER, BODY;
}

/// A person, as everybody may see them.
#[derive(Clone, Debug, Object, Serialize)]
#[oai(skip_serializing_if_is_none)]
pub(crate) struct UserPublic {
    /// The id.
    id: Uuid,
    /// The name to log in with.
    username: String,
    /// The name to show.
    display_name: String,
    /// When the account was made.
    created_at: Time,
    /// When the account was deleted, if it was; then the names are empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted_at: Option<Time>,
    /// The position of the last change: of two forms, the one with the greater version is newer.
    version: i64,
}

impl From<User> for UserPublic {
    fn from(user: User) -> Self {
        Self::from(&user)
    }
}

impl From<&User> for UserPublic {
    fn from(user: &User) -> Self {
        Self {
            id: user.id.as_uuid(),
            username: user.username.as_str().to_owned(),
            display_name: user.display_name.as_str().to_owned(),
            created_at: user.created_at.into(),
            deleted_at: user.deleted_at.map(Time),
            version: user.version.get(),
        }
    }
}

/// People.
#[derive(Debug, Object, Serialize)]
pub(crate) struct UserList {
    /// Ordered by username.
    users: Vec<UserPublic>,
}

impl From<Vec<User>> for UserList {
    fn from(users: Vec<User>) -> Self {
        let users = users.iter().map(UserPublic::from).collect();
        Self { users }
    }
}

/// Who is there.
#[derive(Debug, Object, Serialize)]
pub(crate) struct Presences {
    /// Some of those who were asked for, or who have come or gone.
    people: Vec<Presence>,
}

impl Presences {
    pub(crate) fn of(people: &[users::Presence]) -> Self {
        let people = people.iter().map(|presence| Presence {
            user_id: presence.user_id.as_uuid(),
            online: presence.is_online,
            last_seen_at: Nullable(presence.last_seen_at.map(Time)),
        });
        Self {
            people: people.collect(),
        }
    }
}

/// Whether somebody is there.
#[derive(Debug, Object, Serialize)]
pub(crate) struct Presence {
    /// Who it is.
    user_id: Uuid,
    /// Whether they are connected.
    online: bool,
    /// When they last were; null while they are, and where that is not known or not told.
    last_seen_at: Nullable<Time>,
}

/// How to end an account.
#[derive(Object, Deserialize)]
#[oai(example)]
pub(crate) struct DeleteRequest {
    /// The password, if the account has one.
    #[oai(validator(max_length = 128))]
    password: Option<String>,
    /// What else goes: `nothing`, which is the default, or `messages`.
    erase: Option<String>,
}

impl Example for DeleteRequest {
    fn example() -> Self {
        Self {
            password: Some("correct horse battery staple".to_owned()),
            erase: Some("messages".to_owned()),
        }
    }
}

/// Another profile.
#[derive(Debug, Object, Deserialize)]
#[oai(example)]
pub(crate) struct ProfileRequest {
    /// The name to show, 1 to 64 characters.
    #[oai(validator(min_length = 1, max_length = 64))]
    display_name: String,
}

impl Example for ProfileRequest {
    fn example() -> Self {
        Self {
            display_name: "Alice A.".to_owned(),
        }
    }
}

/// The ids of people.
#[derive(Debug, Object, Deserialize)]
#[oai(example)]
pub(crate) struct UserIds {
    /// 1 to 100 ids, blanks and repeats not counted.
    #[oai(validator(min_items = 1))]
    ids: Vec<String>,
}

impl UserIds {
    /// The ids, each once, in their order. What is no id is left out.
    fn read(&self, most: usize) -> Result<Vec<UserId>, Failure> {
        let ids = self.ids.iter().map(|id| id.trim());
        let ids: BTreeSet<&str> = ids.filter(|id| !id.is_empty()).collect();
        if !(1..=most).contains(&ids.len()) {
            let fault = Fault::new("body", "ids", format!("must be 1 to {most} ids"));
            return Err(Failure::invalid([fault]));
        }
        let ids: BTreeSet<UserId> = ids.iter().filter_map(|id| id.parse().ok()).collect();
        Ok(ids.into_iter().collect())
    }
}

impl Example for UserIds {
    fn example() -> Self {
        Self {
            ids: vec!["01989f6e-6d3b-7a52-8f0c-3f6f0f6d2b11".to_owned()],
        }
    }
}
