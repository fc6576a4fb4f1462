// Whatever has happened, and whenever a browser was cut off: what it keeps is what a browser has that
// begins now.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { becomes, browser, online, Person, REFUSED, Server, UNREACHABLE } from "./harness.mjs";

after(() => browser.close());

const STEPS = Number(process.env.STEPS ?? 200);
const SEED = Number(process.env.SEED ?? 20_26);

/** Numbers that only look random (mulberry32). */
function dice(seed) {
  let state = seed;
  return (sides) => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % sides;
  };
}

/** All that a browser keeps of its person, without what only says how it came there. */
async function kept(page) {
  const stores = await page.evaluate(async () => {
    const { name } = (await indexedDB.databases()).find((it) => it.name !== "messenger");
    const result = (request) =>
      new Promise((resolve, reject) => {
        request.onsuccess = () => resolve(request.result);
        request.onerror = () => reject(request.error);
      });
    const db = await result(indexedDB.open(name));
    const tx = db.transaction(["users", "conversations", "messages", "reads", "own", "holes", "outbox"]);
    const rows = {};
    for (const store of tx.objectStoreNames) rows[store] = await result(tx.objectStore(store).getAll());
    db.close();
    return rows;
  });
  const by_id = (rows) => Object.fromEntries(rows.map(({ row }) => [row.id, row]));
  return { ...stores, users: by_id(stores.users), conversations: by_id(stores.conversations) };
}

/** What two browsers keep, as far as both know it for certain. */
function common(a, b) {
  const holes = [...a.holes, ...b.holes];
  const is_known = ({ conversation_id, seq }) =>
    !holes.some((it) => it.conversation_id === conversation_id && it.from_seq <= seq && seq <= it.to_seq);
  const of = (one, other) => ({
    users: Object.fromEntries(Object.entries(one.users).filter(([id]) => id in other.users)),
    conversations: one.conversations,
    messages: one.messages.filter(is_known),
    reads: one.reads,
    blocks: one.own.map(({ row }) => row).filter((row) => row.blocked),
    outbox: one.outbox,
  });
  return [of(a, b), of(b, a)];
}

test(`a browser that was cut off at any moment keeps what one has that begins now (SEED=${SEED})`, async (t) => {
  const server = await Server.start();
  t.after(() => server.end());
  // Who was removed a moment ago may still tell what they received.
  const expected = [UNREACHABLE, REFUSED, /status of 404/];
  const alice = await (await Person.at(server, "alice", { expected })).register();
  const people = { alice: { token: await server.logIn("alice") } };
  people.alice.id = (await server.call("GET", "/users/me", { token: people.alice.token })).id;
  for (const name of ["bob", "carol", "dave"]) people[name] = await server.register(name);
  const names = Object.keys(people);
  const roll = dice(SEED);
  const one = (list) => list[roll(list.length)];
  const groups = [];
  const history = [];

  /** Does something as somebody; what is not allowed does not happen. */
  const attempt = async (name, method, path, body) => {
    try {
      return await server.call(method, path, { token: people[name].token, body });
    } catch (error) {
      assert.ok(/"code":"(?!internal)/.test(error.message), error.message);
      return undefined;
    }
  };
  const conversationOf = async (name) => one((await attempt(name, "GET", "/conversations")) ?? []);
  const say = async (name, conversation, content) => {
    const body = { client_message_id: crypto.randomUUID(), content };
    const sent = await attempt(name, "POST", `/conversations/${conversation.id}/messages`, body);
    if (sent) history.push(sent);
  };
  const happenings = [
    async (name) => {
      const conversation = await conversationOf(name);
      if (conversation) await say(name, conversation, `${name} says ${history.length}`);
    },
    async (name) => {
      // More than a page has of one conversation.
      const conversation = roll(4) === 0 && (await conversationOf(name));
      for (let count = 0; conversation && count < 60; count++) await say(name, conversation, `${count}`);
    },
    async (name) => {
      const other = people[one(names)];
      await attempt(name, "POST", "/conversations/direct", { other_user_id: other.id });
    },
    async (name) => {
      const body = { title: `group ${groups.length}`, member_ids: names.map((it) => people[it].id).filter(() => roll(2)) };
      const group = groups.length < 4 && (await attempt(name, "POST", "/conversations/groups", body));
      if (group) groups.push({ id: group.id, owner: name });
    },
    async () => {
      const { id, owner } = one(groups);
      const who = people[one(["alice", ...names])].id;
      const path = `/conversations/${id}/members`;
      if (roll(2)) await attempt(owner, "POST", path, { member_ids: [who] });
      else await attempt(owner, "DELETE", `${path}/${who}`);
    },
    async () => {
      const { id, owner } = one(groups);
      await attempt(owner, "PATCH", `/conversations/${id}`, { title: `title ${roll(100)}` });
    },
    async (name) => {
      const message = one(history);
      const path = message && `/conversations/${message.conversation_id}/messages/${message.id}`;
      if (!path) return;
      const emoji = encodeURIComponent(one(["👍", "❤️"]));
      const [method, route, body] = one([
        ["PATCH", path, { content: `edited ${roll(100)}` }],
        ["DELETE", path],
        ["PUT", `${path}/reactions/${emoji}`],
        ["PUT", `${path}/reactions/${emoji}`],
        ["DELETE", `${path}/reactions/${emoji}`],
      ]);
      await attempt(name, method, route, body);
    },
    async (name) => {
      const conversation = await conversationOf(name);
      if (!conversation) return;
      const [path, body] = one([
        ["read", { seq: conversation.last_seq - roll(3) }],
        ["delivered", { seq: conversation.last_seq }],
      ]);
      if (body.seq > 0) await attempt(name, "PUT", `/conversations/${conversation.id}/${path}`, body);
    },
    async (name) => {
      const conversation = await conversationOf(name);
      const body = one([{ pinned: true }, { pinned: false }, { archived: true }, { archived: false }, { marked_unread: true }]);
      if (conversation) await attempt(name, "PATCH", `/conversations/${conversation.id}/settings`, body);
    },
    async (name) => {
      await attempt(name, "PATCH", "/users/me", { display_name: `${name} ${roll(100)}` });
    },
    async (name) => {
      await attempt(name, one(["PUT", "DELETE", "DELETE"]), `/users/me/blocks/${people.dave.id}`);
    },
  ];
  const cuts = [
    () => alice.page.goto("about:blank"),
    () => alice.page.reload(),
    async () => {
      await server.stop(one(["SIGTERM", "SIGKILL"]));
      await server.again();
    },
  ];
  await attempt("bob", "POST", "/conversations/direct", { other_user_id: people.alice.id });
  const all = { title: "all", member_ids: ["alice", "carol", "dave"].map((it) => people[it].id) };
  groups.push({ id: (await attempt("bob", "POST", "/conversations/groups", all)).id, owner: "bob" });
  const back = async () => {
    if (alice.page.url() === "about:blank") await alice.page.goto(server.url);
  };
  for (let step = 0; step < STEPS; step++) {
    await one(happenings)(one(names));
    if (roll(15) > 0) continue;
    if (alice.page.url() === "about:blank") await back();
    else await one(cuts)();
  }
  await back();
  await online(alice.page);
  // And with nothing that cuts it off.
  for (let step = 0; step < STEPS / 4; step++) await one(happenings)(one(names));
  const fresh = await Person.at(server, "alice", { expected });
  await fresh.logIn();

  await becomes(async () => {
    const [mine, theirs] = common(await kept(alice.page), await kept(fresh.page));
    try {
      assert.deepEqual(mine, theirs);
      return true;
    } catch (error) {
      return error.message;
    }
  }, true);
  const { messages, conversations } = await kept(fresh.page);
  assert.ok(messages.length > 20 && Object.keys(conversations).length > 1, "too little has happened");
  await alice.end();
  await fresh.end();
});
