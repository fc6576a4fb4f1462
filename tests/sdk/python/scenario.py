"""The scenario of all clients that are made of the document, in Python. MESSENGER_URL names a
server of its own. The steps have the same names in every language."""

import os
from typing import Protocol, TypeVar
from uuid import UUID

from messenger import AuthenticatedClient, Client
from messenger.api.auth import login, refresh, register
from messenger.api.conversations import get_conversation, open_direct_conversation
from messenger.api.messages import send_message
from messenger.api.sync import bootstrap, changes
from messenger.api.users import block, me
from messenger.models import (
    AuthResult,
    Changes,
    DirectRequest,
    EnvelopeAuthResult,
    EnvelopeMessage,
    ErrorBody,
    ErrorEnvelope,
    LoginRequest,
    RefreshRequest,
    RegisterRequest,
    SendRequest,
    TokenPair,
)
from messenger.types import Response

PASSWORD = "correct horse battery staple"
NOBODY = UUID("01989f70-0000-7000-8000-000000000000")

T = TypeVar("T", covariant=True)


class Envelope(Protocol[T]):
    @property
    def data(self) -> T: ...


class Answer(Protocol[T]):
    @property
    def status_code(self) -> int: ...
    @property
    def content(self) -> bytes: ...
    @property
    def parsed(self) -> T | None: ...


def client(token: str) -> AuthenticatedClient:
    """A client of the server with an access token."""
    return AuthenticatedClient(base_url=os.environ["MESSENGER_URL"], token=token)


def succeeds(status: int, answer: Answer[Envelope[T] | ErrorEnvelope]) -> T:
    """What a call brings: `data` of the answer, which must be a success with this status."""
    assert answer.status_code == status, answer.content
    assert answer.parsed is not None and not isinstance(answer.parsed, ErrorEnvelope)
    return answer.parsed.data


def fails(status: int, answer: Answer[object]) -> ErrorBody:
    """How a call fails: its error, which must come with this status."""
    assert answer.status_code == status, answer.content
    assert isinstance(answer.parsed, ErrorEnvelope)
    return answer.parsed.error


def handle(status: int, error: ErrorBody) -> str:
    """What a client does about an error: by its code, and by its status if the code is unknown."""
    match error.code:
        case "blocked":
            return "say that they are not reached"
        case "conversation_not_found":
            return "forget the conversation"
        case "invalid_credentials" | "invalid_refresh_token" | "invalid_token":
            return "log in"
        case "username_taken":
            return "choose another name"
        case "validation_error":
            return "correct it"
        case _:
            return "try again" if status >= 500 else "give up"


def step(name: str) -> None:
    print(f"python: {name}", flush=True)


anybody = Client(base_url=os.environ["MESSENGER_URL"])

step("register")


def registering(username: str) -> Response[EnvelopeAuthResult | ErrorEnvelope]:
    body = RegisterRequest(username=username, password=PASSWORD)
    return register.sync_detailed(client=anybody, body=body)


alice: AuthResult = succeeds(201, registering("alice"))
bob: AuthResult = succeeds(201, registering("bob"))
assert alice.user.username == "alice"
assert alice.user.id != bob.user.id
error = fails(409, registering("ALICE"))
assert handle(409, error) == "choose another name"

step("log in")


def logging_in(password: str) -> Response[EnvelopeAuthResult | ErrorEnvelope]:
    body = LoginRequest(username="alice", password=password)
    return login.sync_detailed(client=anybody, body=body)


error = fails(401, logging_in("wrong horse"))
assert error.code == "invalid_credentials"
assert handle(401, error) == "log in"
session: AuthResult = succeeds(200, logging_in(PASSWORD))
assert session.user.id == alice.user.id
assert session.tokens.token_type == "bearer"

step("refresh")


def refreshing(tokens: TokenPair) -> Response[EnvelopeAuthResult | ErrorEnvelope]:
    body = RefreshRequest(refresh_token=tokens.refresh_token)
    return refresh.sync_detailed(client=anybody, body=body)


fresh: AuthResult = succeeds(200, refreshing(session.tokens))
assert fresh.tokens.access_token != session.tokens.access_token
assert fresh.tokens.refresh_token != session.tokens.refresh_token
fresh_client = client(fresh.tokens.access_token)
assert succeeds(200, me.sync_detailed(client=fresh_client)).id == alice.user.id
error = fails(401, refreshing(session.tokens))
assert error.code == "invalid_refresh_token"
# A token that is used twice may be stolen: its session has ended.
error = fails(401, me.sync_detailed(client=fresh_client))
assert error.code == "invalid_token"
assert handle(401, error) == "log in"

alices, bobs = client(alice.tokens.access_token), client(bob.tokens.access_token)

step("open a conversation")
body = DirectRequest(other_user_id=bob.user.id)
conversation = succeeds(200, open_direct_conversation.sync_detailed(client=alices, body=body))
assert conversation.type_ == "direct"
body = DirectRequest(other_user_id=alice.user.id)
same = succeeds(200, open_direct_conversation.sync_detailed(client=bobs, body=body))
assert same.id == conversation.id

step("start")
start = succeeds(200, bootstrap.sync_detailed(client=bobs, limit=200))
assert start.has_more is False
assert [it.id for it in start.conversations] == [conversation.id]
assert start.recent_messages == []

step("send twice with one id")
client_message_id = "01989f70-0f5e-7c1d-9a44-0d8e2c5b7f10"


def sending(
    content: str, client_id: str = client_message_id
) -> Response[EnvelopeMessage | ErrorEnvelope]:
    message = SendRequest(client_message_id=client_id, content=content)
    return send_message.sync_detailed(conversation.id, client=alices, body=message)


first = succeeds(201, sending("Good morning!"))
second = succeeds(200, sending("Good morning!"))
assert second == first
assert (first.seq, first.client_message_id) == (1, client_message_id)
assert (first.sender_id, first.content) == (alice.user.id, "Good morning!")
assert (first.edited_at, first.metadata) == (None, None)

step("sync by cursor")


def changed(cursor: str) -> Changes:
    return succeeds(200, changes.sync_detailed(client=bobs, cursor=cursor))


page = changed(start.next_cursor)
assert page.messages == [first]
assert page.conversations[0].unread_count == 1
assert page.has_more is False
assert page.next_cursor is not None
nothing = changed(page.next_cursor)
assert (nothing.messages, nothing.has_more) == ([], False)

step("handle errors by their codes")
blocking = block.sync_detailed(alice.user.id, client=bobs, idempotency_key=client_message_id)
succeeds(200, blocking)
error = fails(403, sending("Are you there?", "01989f70-0f5e-7c1d-9a44-0d8e2c5b7f11"))
assert handle(403, error) == "say that they are not reached"
error = fails(404, get_conversation.sync_detailed(NOBODY, client=alices))
assert handle(404, error) == "forget the conversation"
error = fails(422, sending("x" * 2_001))
assert handle(422, error) == "correct it"
assert error.details == [{"loc": ["body", "content"], "msg": "must be 1 to 2000 characters"}]
later = ErrorBody.from_dict({"code": "invented_later", "message": "new"})
assert handle(409, later) == "give up"
assert handle(503, later) == "try again"

step("done")
