"""Who asks, for schemathesis, and what no schema can say about an answer."""

import functools
import itertools
import json
import os

import jsonschema_rs
import requests
import schemathesis

SERVER = os.environ["MESSENGER_URL"]
PASSWORD = "correct horse battery staple"

# These end sessions or accounts: each call is by somebody who is not needed afterwards.
ENDINGS = [
    "changePassword",
    "deleteMe",
    "deleteMeByPost",
    "endSession",
    "listSessions",
    "logoutAll",
]

# Rules that JSON Schema can not state, so that a request which fits the document may break them.
RULES = {
    # It counts characters, and these are bytes.
    "must be 1 to 64 bytes",
    "must be the `next_after` of a page",
    # Whether it may be empty depends on what is attached.
    "must be 1 to 2000 characters",
    # It is not `.` or `..`, which are allowed elsewhere in it.
    "must be the name of a file, without control characters and folders",
    # It does not know of all letters, digits and symbols.
    "must have a letter or a digit",
    # It does not bound a number in a text.
    "must be 0:as_of, from a stamp",
}

# Texts in a form of their own, with JSON in it for example.
TEXTS = {"after_seq_by_conversation"}

with open("../../messenger-server/asyncapi.json") as file:
    EVENTS = json.load(file)["components"]

# Seconds that a long poll may wait.
WAITS = {str(seconds) for seconds in range(26)}

numbers = itertools.count(1)


def call(token, method, path, body=None):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    answer = requests.request(method, SERVER + path, json=body, headers=headers, timeout=60)
    answer.raise_for_status()
    return answer.json()["data"]


def register(name):
    body = {"username": f"{name}.{next(numbers)}", "password": PASSWORD}
    answer = call(None, "POST", "/v1/auth/register", body)
    return answer["user"]["id"], answer["tokens"]["access_token"]


class Bearer:
    def set(self, case, token, context):
        case.headers["Authorization"] = f"Bearer {token}"


@schemathesis.auth().skip_for(operation_id=ENDINGS)
class Alice(Bearer):
    """Somebody who has what can be asked for."""

    def get(self, case, context):
        _, alice = register("alice")
        bob, _ = register("bob")
        direct = call(alice, "POST", "/v1/conversations/direct", {"other_user_id": bob})
        group = {"title": "Hikers", "member_ids": [bob]}
        group = call(alice, "POST", "/v1/conversations/groups", group)
        for conversation in [direct, group]:
            messages = f"/v1/conversations/{conversation['id']}/messages"
            message = {"client_message_id": conversation["id"], "content": "Good morning!"}
            message = call(alice, "POST", messages, message)
            call(alice, "PUT", f"{messages}/{message['id']}/reactions/hello")
        return alice


@schemathesis.auth(refresh_interval=None).apply_to(operation_id=ENDINGS)
class Somebody(Bearer):
    def get(self, case, context):
        return register("somebody")[1]


@functools.cache
def stranger():
    return register("stranger")[1]


@schemathesis.hook
def before_call(context, case, kwargs):
    query = case.query if case.query is not None else {}
    if str(query.get("wait", "")) in WAITS:
        query["wait"] = 0  # it would take as long as it says
    # A group has one id, in the header and in the body, which no schema can say.
    key = (case.headers or {}).get("Idempotency-Key")
    is_valid = case.meta is not None and case.meta.generation.mode.is_positive
    is_group = name_of(case) == "createGroup" and isinstance(case.body, dict)
    if is_group and is_valid and key is not None and case.body.get("client_conversation_id"):
        case.body["client_conversation_id"] = key
    # Without these the server takes the caller for an older client, see `is_old`.
    if name_of(case) == "bootstrap" and "timeline_limit" in query:
        query.setdefault("limit", 200)
    if name_of(case) == "changes" and "after_seq_by_conversation" not in query:
        query.setdefault("cursor", "")


@schemathesis.hook
def filter_failure(context, failure, case, response):
    if failure.code == "ST108":
        # OpenAPI 3.0 has no word for the events of a stream: see `every_frame_is_in_the_document`.
        return False
    if failure.code == "ST301":
        # A deleted message stays in its place, without what it said.
        return name_of(case) not in {"getMessage", "listReactions"}
    if failure.code == "ST401":
        # A token in the query is enough, whatever else is in the header.
        return name_of(case) != "followEvents" or "access_token" not in (case.query or {})
    if failure.code == "ST202" and response.status_code == 422:
        faults = json.loads(response.content)["error"]["details"]
        return not all(fault["msg"] in RULES or fault["loc"][-1] in TEXTS for fault in faults)
    if failure.code == "ST201":
        # What is no id is nobody, who is left out of the answer.
        is_nobody = name_of(case) in {"presence", "usersByIds"} and "/ids/items" in failure.message
        return not is_nobody and not is_old(case)
    return True


def is_old(case):
    """Whether it is a call of an older client, who knows of no cursors and no limits: they are not
    looked at then."""
    newer = {"bootstrap": "limit", "changes": "cursor"}.get(name_of(case))
    return newer is not None and newer not in (case.query or {})


def name_of(case):
    return case.operation.definition.raw["operationId"]


@schemathesis.check
def every_frame_is_in_the_document(context, response, case):
    if name_of(case) != "followEvents" or response.status_code != 200:
        return
    lines = response.text.splitlines()
    frames = [json.loads(line.removeprefix("data:")) for line in lines if line.startswith("data:")]
    assert frames, "the stream says nothing"
    payloads = {
        message["name"]: message["payload"]
        for key, message in EVENTS["messages"].items()
        if key.startswith("LiveFrame_")
    }
    for frame in frames:
        schema = payloads[frame["type"]] | {"components": EVENTS}
        jsonschema_rs.Draft7Validator(schema).validate(frame)


@schemathesis.check
def a_stranger_cannot_tell_that_it_exists(context, response, case):
    is_read = case.method == "GET" and response.status_code in (200, 206, 304)
    for kind in ("conversation", "attachment"):
        if is_read and f"{{{kind}_id}}" in case.operation.path:
            headers = {"Authorization": f"Bearer {stranger()}"}
            answer = requests.get(response.request.url, headers=headers, timeout=60)
            assert answer.status_code == 404, answer.text
            assert answer.json()["error"]["code"] == f"{kind}_not_found", answer.text
