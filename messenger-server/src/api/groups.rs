//! Groups and who belongs to them.
//!
//! | route | what |
//! |---|---|
//! | `POST /conversations/groups` | a new group |
//! | `GET /conversations/{conversation_id}/members` | a page of its members |
//! | `POST /conversations/{conversation_id}/members` | more members |
//! | `PATCH /conversations/{conversation_id}/members/{user_id}` | what a member may do |
//! | `DELETE /conversations/{conversation_id}/members/{user_id}` | one member less |

use messenger_core::conversations::{HistoryPolicy, NewGroup, Role, Title};
use messenger_core::{ClientWriteId, Error as EngineError, Invalid, MessengerEngine, UserId};
use poem::web::Data;
use poem_openapi::param::{Path, Query};
use poem_openapi::types::Example;
use poem_openapi::{Object, OpenApi};
use serde::{Deserialize, Serialize};

use crate::api::Tag;
use crate::api::bearer::Caller;
use crate::api::body::ApiJson;
use crate::api::conversations::{ConversationSummary, MemberPublic, named};
use crate::api::envelope::{Answer, Created, Failure, Fault, Written, failures};
use crate::api::idempotency::IdempotencyKey;
use crate::api::users::{hundred, page};
use crate::api::wire::{PathId, Whole};

/// The routes of this file.
#[derive(Debug)]
pub(crate) struct Groups;

#[OpenApi(prefix_path = "/conversations", tag = "Tag::Conversations")]
impl Groups {
    /// Create a group
    ///
    /// Makes a group that the caller owns. Up to 128 people belong to it from the beginning; others
    /// are added later. Sending again with the same `client_conversation_id`, or with the same
    /// `Idempotency-Key`, which is another name for it, returns the same group and changes nothing.
    #[oai(path = "/groups", method = "post", operation_id = "createGroup")]
    async fn create(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// An id of this write, to repeat it safely.
        #[oai(name = "Idempotency-Key")]
        key: IdempotencyKey,
        body: ApiJson<GroupRequest>,
    ) -> Result<Created<ConversationSummary>, CreateGroupFailure> {
        let ApiJson(body) = body;
        let title = Title::parse(body.title, engine.limits());
        let history = body.history.as_deref().unwrap_or("all");
        let history = HistoryPolicy::parse(history);
        let id = write_id(key, body.client_conversation_id.as_deref());
        let (title, history, id) = match (title, history, id) {
            (Ok(title), Ok(history), Ok(id)) => (title, history, id),
            (title, history, id) => {
                let broken = [title.err(), history.err()];
                let broken = broken.iter().flatten();
                let faults = broken.map(|rule| Fault::of("body", rule)).chain(id.err());
                return Err(Failure::invalid(faults).into());
            }
        };
        let group = NewGroup {
            title,
            members: people(&body.member_ids)?,
            history,
        };
        let conversations = engine.conversations().once(id);
        let group = conversations.create_group(&actor, group).await?;
        Ok(Answer(group.into()))
    }

    /// List members
    ///
    /// Returns the members of a conversation after a given one, ordered by id. A page with fewer
    /// than `limit` is the last one.
    #[oai(
        path = "/:conversation_id/members",
        method = "get",
        operation_id = "listMembers"
    )]
    async fn members(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// The conversation.
        conversation_id: Path<PathId>,
        /// The id of the last member that the client has; nothing for none.
        after: Query<Option<PathId>>,
        /// How many members at most.
        #[oai(default = "hundred")]
        limit: Query<Whole<1, 500>>,
    ) -> Result<Answer<MemberPage>, MembersFailure> {
        let (after, limit) = page(after.0.as_ref(), limit.0)?;
        let conversations = engine.conversations();
        let conversation = named(&conversation_id)?;
        let membership = conversations.membership(&actor, conversation).await?;
        let members = conversations.members(&membership, after, limit).await?;
        let members = members.iter().map(MemberPublic::from).collect();
        Ok(Answer(MemberPage { members }))
    }

    /// Add members
    ///
    /// Adds up to 128 people to a group, which takes an owner or an admin, and returns the group.
    /// Who belongs to it already stays as they are.
    #[oai(
        path = "/:conversation_id/members",
        method = "post",
        operation_id = "addMembers"
    )]
    async fn add(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// The group.
        conversation_id: Path<PathId>,
        /// An id of this write, to repeat it safely.
        #[oai(name = "Idempotency-Key")]
        key: IdempotencyKey,
        body: ApiJson<MembersRequest>,
    ) -> Result<Answer<ConversationSummary>, AddMembersFailure> {
        let conversation = named(&conversation_id)?;
        let users = people(&body.0.member_ids)?;
        let conversations = engine.conversations().once(key.0);
        conversations
            .add_members(&actor, conversation, &users)
            .await?;
        let group = conversations.get(&actor, conversation).await?;
        Ok(Answer(group.into()))
    }

    /// Change what a member may do
    ///
    /// Makes a member an owner, an admin or a plain member, which takes an owner, and returns the
    /// group. There may be several owners, and there must be one.
    #[oai(
        path = "/:conversation_id/members/:user_id",
        method = "patch",
        operation_id = "setRole"
    )]
    async fn set_role(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// The group.
        conversation_id: Path<PathId>,
        /// The member.
        user_id: Path<PathId>,
        /// An id of this write, to repeat it safely.
        #[oai(name = "Idempotency-Key")]
        key: IdempotencyKey,
        body: ApiJson<RoleRequest>,
    ) -> Result<Answer<ConversationSummary>, SetRoleFailure> {
        let role = Role::parse(&body.0.role)?;
        let (conversation, user) = (named(&conversation_id)?, member(&user_id)?);
        let conversations = engine.conversations().once(key.0);
        conversations
            .set_role(&actor, conversation, user, role)
            .await?;
        let group = conversations.get(&actor, conversation).await?;
        Ok(Answer(group.into()))
    }

    /// Remove a member
    ///
    /// Removes somebody from a group: an owner anybody, an admin members. Whoever removes
    /// themselves leaves, which the last owner can not while others are there.
    #[oai(
        path = "/:conversation_id/members/:user_id",
        method = "delete",
        operation_id = "removeMember"
    )]
    async fn remove(
        &self,
        Caller(actor): Caller,
        engine: Data<&MessengerEngine>,
        /// The group.
        conversation_id: Path<PathId>,
        /// The member.
        user_id: Path<PathId>,
        /// An id of this write, to repeat it safely.
        #[oai(name = "Idempotency-Key")]
        key: IdempotencyKey,
    ) -> Result<Answer<Written>, RemoveMemberFailure> {
        let (conversation, user) = (named(&conversation_id)?, member(&user_id)?);
        let conversations = engine.conversations().once(key.0);
        let position = conversations
            .remove_member(&actor, conversation, user)
            .await?;
        Ok(Answer(position.into()))
    }
}

/// The one id of a write that has two names for it.
fn write_id(key: IdempotencyKey, named: Option<&str>) -> Result<Option<ClientWriteId>, Fault> {
    let Some(named) = named else {
        return Ok(key.0);
    };
    let wrong = |msg| Err(Fault::new("body", "client_conversation_id", msg));
    match (ClientWriteId::parse(named), key.0) {
        (Err(Invalid { message, .. }), _) => wrong(message),
        (Ok(named), Some(key)) if named != key => {
            wrong("must be the same as the header Idempotency-Key".to_owned())
        }
        (Ok(named), _) => Ok(Some(named)),
    }
}

/// People by their ids. What is no id is nobody.
fn people(ids: &[String]) -> Result<Vec<UserId>, EngineError> {
    let ids = ids.iter().map(|id| id.trim().parse());
    let ids = ids.map(|id| id.map_err(|_| EngineError::UserNotFound));
    ids.collect()
}

fn member(id: &Path<PathId>) -> Result<UserId, EngineError> {
    id.0.read().ok_or(EngineError::MemberNotFound)
}

failures! {
    /// How creating a group can fail.
    CreateGroupFailure: CALLER, BODY, WRITE;
    403: "`refused`: the application does not allow it",
    404: "`user_not_found`",
    409: "`group_full`, or `client_write_conflict`: the id was used for another write"
}
failures! {
    /// How listing members can fail.
    MembersFailure: CALLER, INPUT;
    404: "`conversation_not_found`"
}
failures! {
    /// How adding members can fail.
    AddMembersFailure: CALLER, BODY, WRITE;
    400: "`not_a_group`",
    403: "`forbidden`: neither owner nor admin; or `refused`: the application does not allow it",
    404: "`conversation_not_found` or `user_not_found`",
    409: "`group_full`, or `client_write_conflict`: the id was used for another write"
}
failures! {
    /// How changing a role can fail.
    SetRoleFailure: CALLER, BODY, WRITE;
    400: "`not_a_group`",
    403: "`forbidden`: no owner",
    404: "`conversation_not_found` or `member_not_found`",
    409: "`last_owner`, or `client_write_conflict`: the id was used for another write"
}
failures! {
    /// How removing a member can fail.
    RemoveMemberFailure: CALLER, INPUT, WRITE;
    400: "`not_a_group`",
    403: "`forbidden`: no owner, and no admin who removes a plain member",
    404: "`conversation_not_found` or `member_not_found`",
    409: "`last_owner`, or `client_write_conflict`: the id was used for another write"
}

/// A group to create.
#[derive(Debug, Object, Deserialize)]
#[oai(example)]
pub(crate) struct GroupRequest {
    /// What it is called, 1 to 128 characters.
    #[oai(validator(min_length = 1, max_length = 128))]
    title: String,
    /// The ids of those who belong to it from the beginning, beside the caller: up to 128.
    member_ids: Vec<String>,
    /// What those who join later see of its past: `all`, which is the default, or `since_join`,
    /// which is nothing.
    history: Option<String>,
    /// An id that the client makes, once for each group, to create it again safely.
    #[oai(validator(min_length = 8, max_length = 64))]
    client_conversation_id: Option<String>,
}

impl Example for GroupRequest {
    fn example() -> Self {
        Self {
            title: "Hikers".to_owned(),
            member_ids: vec!["01989f6e-6d3b-7a52-8f0c-3f6f0f6d2b11".to_owned()],
            history: Some("all".to_owned()),
            client_conversation_id: Some("01989f70-0f5e-7c1d-9a44-0d8e2c5b7f10".to_owned()),
        }
    }
}

/// Whom to add.
#[derive(Debug, Object, Deserialize)]
#[oai(example)]
pub(crate) struct MembersRequest {
    /// The ids of up to 128 people.
    member_ids: Vec<String>,
}

impl Example for MembersRequest {
    fn example() -> Self {
        Self {
            member_ids: vec!["01989f6e-6d3b-7a52-8f0c-3f6f0f6d2b11".to_owned()],
        }
    }
}

/// What a member may do.
#[derive(Debug, Object, Deserialize)]
#[oai(example)]
pub(crate) struct RoleRequest {
    /// `member`, `admin` or `owner`.
    role: String,
}

impl Example for RoleRequest {
    fn example() -> Self {
        Self {
            role: "admin".to_owned(),
        }
    }
}

/// A page of members.
#[derive(Debug, Object, Serialize)]
pub(crate) struct MemberPage {
    /// The members, ordered by id.
    members: Vec<MemberPublic>,
}
