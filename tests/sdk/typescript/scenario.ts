// The scenario of all clients that are made of the document, in TypeScript. MESSENGER_URL names a
// server of its own. The steps have the same names in every language.

import assert from "node:assert/strict";

import createClient from "openapi-fetch";

import type { components, paths } from "./messenger.js";

type Message = components["schemas"]["Message"];
type ErrorBody = components["schemas"]["ErrorBody"];
type Tokens = components["schemas"]["TokenPair"];

const PASSWORD = "correct horse battery staple";
const NOBODY = "01989f70-0000-7000-8000-000000000000";

/** A client of the server, with an access token or without. */
function client(token?: string) {
  const headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
  return createClient<paths>({ baseUrl: process.env["MESSENGER_URL"] ?? "", headers });
}

/** What a call brings: `data` of the answer, which must be a success with this status. */
async function succeeds<T>(
  status: number,
  call: Promise<{ data?: { data: T }; error?: unknown; response: Response }>,
): Promise<T> {
  const { data, error, response } = await call;
  assert.equal(response.status, status, JSON.stringify(error));
  assert(data !== undefined);
  return data.data;
}

/** How a call fails: its error, which must come with this status. */
async function fails(
  status: number,
  call: Promise<{ error?: { error: ErrorBody }; response: Response }>,
): Promise<ErrorBody> {
  const { error, response } = await call;
  assert.equal(response.status, status);
  assert(error !== undefined);
  return error.error;
}

/** What a client does about an error: by its code, and by its status if the code is unknown. */
function handle(status: number, error: ErrorBody): string {
  switch (error.code) {
    case "blocked":
      return "say that they are not reached";
    case "conversation_not_found":
      return "forget the conversation";
    case "invalid_credentials":
    case "invalid_refresh_token":
    case "invalid_token":
      return "log in";
    case "username_taken":
      return "choose another name";
    case "validation_error":
      return "correct it";
    default:
      return status >= 500 ? "try again" : "give up";
  }
}

function step(name: string): void {
  console.log(`typescript: ${name}`);
}

step("register");
const registered = async (username: string) =>
  succeeds(201, client().POST("/v1/auth/register", { body: { username, password: PASSWORD } }));
const alice = await registered("alice");
const bob = await registered("bob");
assert.equal(alice.user.username, "alice");
assert.notEqual(alice.user.id, bob.user.id);
let error = await fails(
  409,
  client().POST("/v1/auth/register", { body: { username: "ALICE", password: PASSWORD } }),
);
assert.equal(handle(409, error), "choose another name");

step("log in");
error = await fails(
  401,
  client().POST("/v1/auth/login", { body: { username: "alice", password: "wrong horse" } }),
);
assert.equal(error.code, "invalid_credentials");
assert.equal(handle(401, error), "log in");
const login = await succeeds(
  200,
  client().POST("/v1/auth/login", { body: { username: "alice", password: PASSWORD } }),
);
assert.equal(login.user.id, alice.user.id);
assert.equal(login.tokens.token_type, "bearer");

step("refresh");
const refresh = (tokens: Tokens) =>
  client().POST("/v1/auth/refresh", { body: { refresh_token: tokens.refresh_token } });
const fresh = await succeeds(200, refresh(login.tokens));
assert.notEqual(fresh.tokens.access_token, login.tokens.access_token);
assert.notEqual(fresh.tokens.refresh_token, login.tokens.refresh_token);
const me = await succeeds(200, client(fresh.tokens.access_token).GET("/v1/users/me"));
assert.equal(me.id, alice.user.id);
error = await fails(401, refresh(login.tokens));
assert.equal(error.code, "invalid_refresh_token");
// A token that is used twice may be stolen: its session has ended.
error = await fails(401, client(fresh.tokens.access_token).GET("/v1/users/me"));
assert.equal(error.code, "invalid_token");
assert.equal(handle(401, error), "log in");

const [alices, bobs] = [alice, bob].map(({ tokens }) => client(tokens.access_token));
assert(alices !== undefined && bobs !== undefined);

step("open a conversation");
const conversation = await succeeds(
  200,
  alices.POST("/v1/conversations/direct", { body: { other_user_id: bob.user.id } }),
);
assert.equal(conversation.type, "direct");
const same = await succeeds(
  200,
  bobs.POST("/v1/conversations/direct", { body: { other_user_id: alice.user.id } }),
);
assert.equal(same.id, conversation.id);

step("start");
const start = await succeeds(
  200,
  bobs.GET("/v1/sync/bootstrap", { params: { query: { limit: 200 } } }),
);
assert.equal(start.has_more, false);
assert.deepEqual(start.conversations.map(({ id }) => id), [conversation.id]);
assert.deepEqual(start.recent_messages, []);

step("send twice with one id");
const clientMessageId = "01989f70-0f5e-7c1d-9a44-0d8e2c5b7f10";
const path = { conversation_id: conversation.id };
const send = (content: string, client_message_id = clientMessageId) =>
  alices.POST("/v1/conversations/{conversation_id}/messages", {
    params: { path },
    body: { client_message_id, content },
  });
const first: Message = await succeeds(201, send("Good morning!"));
const second: Message = await succeeds(200, send("Good morning!"));
assert.deepEqual(second, first);
assert.deepEqual([first.seq, first.client_message_id], [1, clientMessageId]);
assert.deepEqual([first.sender_id, first.content], [alice.user.id, "Good morning!"]);
assert.deepEqual([first.edited_at, first.metadata], [null, null]);

step("sync by cursor");
const changes = (cursor: string) =>
  succeeds(200, bobs.GET("/v1/sync/changes", { params: { query: { cursor } } }));
const page = await changes(start.next_cursor);
assert.deepEqual(page.messages, [first]);
assert.equal(page.conversations[0]?.unread_count, 1);
assert.equal(page.has_more, false);
assert(page.next_cursor !== null);
const nothing = await changes(page.next_cursor);
assert.deepEqual([nothing.messages, nothing.has_more], [[], false]);

step("handle errors by their codes");
const block = bobs.PUT("/v1/users/me/blocks/{user_id}", {
  params: { path: { user_id: alice.user.id }, header: { "Idempotency-Key": clientMessageId } },
});
await succeeds(200, block);
error = await fails(403, send("Are you there?", "01989f70-0f5e-7c1d-9a44-0d8e2c5b7f11"));
assert.equal(handle(403, error), "say that they are not reached");
error = await fails(
  404,
  alices.GET("/v1/conversations/{conversation_id}", {
    params: { path: { conversation_id: NOBODY } },
  }),
);
assert.equal(handle(404, error), "forget the conversation");
error = await fails(422, send("x".repeat(2_001)));
assert.equal(handle(422, error), "correct it");
assert.deepEqual(error.details, [
  { loc: ["body", "content"], msg: "must be 1 to 2000 characters" },
]);
const later: ErrorBody = JSON.parse('{"code": "invented_later", "message": "new"}');
assert.equal(handle(409, later), "give up");
assert.equal(handle(503, later), "try again");

step("done");
