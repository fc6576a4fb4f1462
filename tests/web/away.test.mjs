// What happens when the server, the network or the session is not there.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { after, test } from "node:test";
import {
  actOn,
  becomes,
  browser,
  edit,
  fill,
  gate,
  message,
  offline,
  online,
  outbox,
  pair,
  Person,
  PASSWORD,
  picture,
  REFUSED,
  Server,
  stored,
  texts,
  types,
  UNREACHABLE,
} from "./harness.mjs";

after(() => browser.close());

for (const signal of ["SIGTERM", "SIGKILL"]) {
  test(`what is written while the server is away (${signal}) waits, and arrives once, in order`, async (t) => {
    const { server, alice, bob, end } = await pair(t);
    await server.stop(signal);
    await offline(alice.page);
    const written = ["one", "two", "three"];
    for (const text of written) await alice.write(text);
    await becomes(() => alice.page.locator('[data-progress="waiting"] .text').allTextContents(), written);
    await bob.write("from the other side");
    await picture(alice.page, `waiting-${signal}`);

    await server.again();
    await becomes(async () => (await texts(bob.page)).filter((it) => it !== "from the other side"), [
      "before",
      ...written,
    ]);
    await becomes(async () => (await texts(alice.page)).length, 5);
    await becomes(() => alice.page.locator('[data-progress="waiting"]').count(), 0);
    await becomes(() => texts(bob.page), await texts(alice.page));
    await end();
  });
}

test("a page that is reloaded without the server shows the conversations, and sends later", async (t) => {
  const { server, alice, bob, end } = await pair(t);
  await alice.page.evaluate(() => navigator.serviceWorker.ready.then(() => {}));
  await server.stop();
  await alice.page.reload();
  await alice.page.getByRole("main", { name: "Conversation: bob" }).waitFor();
  await becomes(() => texts(alice.page), ["before"]);
  await alice.write("written offline");
  await becomes(() => texts(alice.page), ["before", "written offline"]);
  await alice.page.reload();
  await becomes(() => texts(alice.page), ["before", "written offline"]);
  await alice.page.locator('[data-progress="waiting"]').waitFor();

  await server.again();
  await becomes(() => texts(bob.page), ["before", "written offline"]);
  await becomes(() => alice.page.locator('[data-progress="waiting"]').count(), 0);
  await end();
});

test("a page of another version is not kept in place of the one whose files are", async (t) => {
  const { server, alice, end } = await pair(t, { expected: [UNREACHABLE, /status of 404/] });
  await alice.page.evaluate(() => navigator.serviceWorker.ready.then(() => {}));
  await server.stop();
  const newer = createServer(({ url }, response) => {
    response.writeHead(url === "/" ? 200 : 404, { "content-type": "text/html" });
    response.end('<meta name="api" content="v1" /><title>newer</title><script src="app.js?v=0123456789abcdef"></script>');
  });
  newer.listen(server.port, "127.0.0.1");
  await once(newer, "listening");
  await alice.page.reload();
  await becomes(() => alice.page.title(), "newer");

  newer.close();
  newer.closeAllConnections();
  await alice.page.reload();
  await alice.page.getByRole("main", { name: "Conversation: bob" }).waitFor();
  await becomes(() => texts(alice.page), ["before"]);
  await end();
});

test("edits, reactions and deletions wait for the server, too", async (t) => {
  const { server, alice, bob, end } = await pair(t);
  await alice.write("doomed");
  await becomes(() => texts(bob.page), ["before", "doomed"]);
  await server.stop();
  await offline(alice.page);
  await actOn(alice.page, "before", "React with ❤️");
  await edit(alice, "before", "after");
  await actOn(alice.page, "doomed", "Delete");
  await alice.page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await becomes(() => texts(alice.page), ["after", "Message deleted"]);

  await server.again();
  await becomes(() => texts(bob.page), ["after", "Message deleted"]);
  await bob.page.getByRole("button", { name: "❤️, 1" }).waitFor();
  await end();
});

test("two tabs show the same, and one goes on when the other is closed", async (t) => {
  const { alice, bob, end } = await pair(t);
  const other = await alice.tab();
  await online(other);
  await alice.goTo("bob", other);
  await alice.write("from the second tab", other);
  await becomes(() => texts(alice.page), ["before", "from the second tab"]);
  await alice.write("from the first tab");
  await becomes(() => texts(other), ["before", "from the second tab", "from the first tab"]);
  await types(bob.page, other);

  await alice.page.close();
  await online(other);
  await bob.write("to whoever is left");
  await alice.write("still here", other);
  await becomes(async () => (await texts(bob.page)).at(-1), "still here");
  await becomes(() => texts(other), await texts(bob.page));
  await end();
});

test("who logs out in one tab is logged out in all, and nothing is kept", async (t) => {
  const { alice, end } = await pair(t);
  const other = await alice.tab();
  await online(other);
  await other.getByRole("button", { name: "Account of alice" }).click();
  await other.getByRole("button", { name: "Log out" }).click();
  for (const page of [alice.page, other]) await page.getByRole("heading", { name: "Log in" }).waitFor();
  await becomes(async () => {
    const databases = await other.evaluate(() => indexedDB.databases());
    return databases.map((it) => it.name);
  }, ["messenger"]);

  await alice.page.getByLabel("Password").fill(PASSWORD);
  await alice.page.getByRole("button", { name: "Log in" }).click();
  for (const page of [alice.page, other]) await online(page);
  await alice.goTo("bob", other);
  await becomes(() => texts(other), ["before"]);
  await end();
});

test("an access token that expires is renewed once, by whichever tab", async (t) => {
  // Three seconds.
  const settings = { ACCESS_TOKEN_EXPIRE_MINUTES: "0.05" };
  const { alice, bob, end } = await pair(t, { settings, expected: [REFUSED] });
  const other = await alice.tab();
  await online(other);
  let renewals = 0;
  alice.context.on("response", (response) => {
    if (response.url().endsWith("/auth/refresh")) {
      assert.equal(response.status(), 200);
      renewals += 1;
    }
  });
  await becomes(() => renewals >= 2, true);
  await alice.write("with another token");
  await alice.goTo("bob", other);
  await becomes(() => texts(bob.page), ["before", "with another token"]);
  await becomes(() => texts(other), ["before", "with another token"]);
  await end();
});

test("a session that was ended elsewhere leads to the log-in, and what was written is kept", async (t) => {
  const { server, alice, bob, end } = await pair(t, { expected: [REFUSED, UNREACHABLE] });
  await server.stop();
  await offline(alice.page);
  await alice.write("held back");
  await server.again();
  await becomes(() => texts(bob.page), ["before", "held back"]);
  await server.call("POST", "/auth/logout-all", { token: await server.logIn("alice") });

  await alice.page.getByRole("heading", { name: "Log in" }).waitFor();
  assert.equal(await alice.page.getByLabel("Username").inputValue(), "alice");
  await alice.logIn();
  await becomes(() => texts(alice.page), ["before", "held back"]);
  await end();
});

test("on a slow network a message is shown at once, and arrives", async (t) => {
  const { alice, bob, end } = await pair(t);
  const session = await alice.context.newCDPSession(alice.page);
  await session.send("Network.emulateNetworkConditions", {
    offline: false,
    latency: 1_500,
    downloadThroughput: 6_000,
    uploadThroughput: 3_000,
  });
  const seen = gate();
  await alice.context.route(/\/messages$/, async (route) => {
    await seen.opened;
    return route.continue();
  });
  await alice.write("slowly");
  await alice.write("but surely");
  await becomes(() => texts(alice.page), ["before", "slowly", "but surely"]);
  await becomes(() => alice.page.locator('[data-progress="waiting"]').count(), 2);
  seen.open();
  await becomes(() => texts(bob.page), ["before", "slowly", "but surely"]);
  await becomes(() => alice.page.locator('[data-progress="waiting"]').count(), 0);
  await end();
});

test("a message that the server refuses says why, and can be given up", async (t) => {
  const { server, alice, bob, end } = await pair(t, { expected: [/status of 403/] });
  const token = await server.logIn("bob");
  const blocked = async () => (await server.call("GET", "/users/me/blocks", { token })).blocks.length;
  await bob.page.getByRole("button", { name: "Details" }).click();
  await bob.page.getByRole("button", { name: "Block" }).click();
  await becomes(blocked, 1);
  await alice.write("unwanted");
  const failed = message(alice.page, "unwanted");
  await failed.getByText(/^Not sent:/).waitFor();
  await picture(alice.page, "refused");

  await bob.page.getByRole("button", { name: "Unblock" }).click();
  await becomes(blocked, 0);
  await failed.getByRole("button", { name: "Try again" }).click();
  await becomes(() => texts(bob.page), ["before", "unwanted"]);
  await becomes(() => alice.page.getByText(/^Not sent:/).count(), 0);
  await end();
});

test("whoever was away for long has the newest at once, and the rest when they look there", async (t) => {
  const { server, alice, end } = await pair(t);
  await alice.page.goto("about:blank");
  const written = Array.from({ length: 120 }, (_, index) => `line ${index + 1}`);
  await server.send(await server.logIn("bob"), ...written);
  await alice.page.goto(server.url);
  await alice.page.getByRole("link", { name: /bob.*99\+ unread/ }).click();
  await becomes(async () => (await texts(alice.page)).at(-1), "line 120");

  await becomes(async () => {
    await alice.page.locator(".scroll").evaluate((box) => box.scrollTo({ top: 0 }));
    return (await texts(alice.page))[0];
  }, "before");
  await becomes(() => texts(alice.page), ["before", ...written]);
  await end();
});

test("a page of a hotel in place of an answer costs no message", async (t) => {
  const { alice, bob, end } = await pair(t, { expected: [/status of (403|502)/] });
  const hotel = [200, 403, 502];
  await alice.context.route(/\/messages$/, (route) => {
    const status = hotel.shift();
    if (status === undefined) return route.continue();
    return route.fulfill({ status, contentType: "text/html", body: "<html>Welcome to our hotel</html>" });
  });
  await alice.write("through all of it");
  await alice.write("in order");

  await becomes(() => texts(bob.page), ["before", "through all of it", "in order"]);
  assert.deepEqual(hotel, []);
  await becomes(() => alice.page.locator('[data-progress="waiting"]').count(), 0);
  await end();
});

test("what a proxy refuses for ever holds nothing up, and is kept", async (t) => {
  const { alice, bob, end } = await pair(t, { expected: [/status of 413/] });
  const { page } = alice;
  let is_in_the_way = true;
  await alice.context.route(/\/messages$/, (route) =>
    is_in_the_way && route.request().postData().includes("heavy")
      ? route.fulfill({ status: 413, contentType: "text/html", body: "<h1>413 Request Entity Too Large</h1>" })
      : route.continue(),
  );
  await alice.write("heavy");
  await alice.write("light");
  const failed = message(page, "heavy").getByText(/^Not sent: it is too large/);
  // A network that comes is a reason to try at once.
  await becomes(async () => {
    await page.evaluate(() => void dispatchEvent(new Event("online")));
    return failed.isVisible();
  }, true);
  await becomes(() => texts(bob.page), ["before", "light"]);

  is_in_the_way = false;
  await message(page, "heavy").getByRole("button", { name: "Try again" }).click();
  await becomes(() => texts(bob.page), ["before", "light", "heavy"]);
  await becomes(() => texts(page), ["before", "light", "heavy"]);
  await end();
});

test("a mark that is refused is not asked for again", async (t) => {
  const { alice, bob, end } = await pair(t, { expected: [/status of 403/] });
  await alice.page.locator('[data-progress="read"]').waitFor();
  const asked = [];
  await bob.context.route(/\/read$/, (route) => {
    asked.push(route.request().postDataJSON().seq);
    return route.fulfill({ status: 403, json: { error: { code: "forbidden", message: "not today" } } });
  });
  await alice.write("one");
  await becomes(() => asked.length, 1);
  await bob.page.getByRole("alert").getByText("not today").waitFor();
  await alice.write("two");

  await becomes(() => asked.length, 2);
  assert.deepEqual(asked, [2, 3]);
  await end();
});

test("what was begun is there again after a reload, and goes when it is sent", async (t) => {
  const { server, alice, bob, end } = await pair(t);
  const field = alice.page.getByLabel("Message", { exact: true });
  await server.register("carol");
  await field.fill("half a thought");
  await alice.open("carol");
  await becomes(() => field.inputValue(), "");
  await becomes(() => stored(alice.page, "drafts"), ["half a thought"]);
  await alice.page.reload();
  await alice.goTo("bob");
  await becomes(() => field.inputValue(), "half a thought");
  await field.press("Enter");

  await becomes(() => texts(bob.page), ["before", "half a thought"]);
  await becomes(() => stored(alice.page, "drafts"), []);
  await end();
});

test("what still waits can be taken back", async (t) => {
  const { server, alice, bob, end } = await pair(t);
  await server.stop();
  await offline(alice.page);
  await alice.write("too hasty");
  await alice.write("considered");
  await actOn(alice.page, "too hasty", "Discard");
  await becomes(() => texts(alice.page), ["before", "considered"]);
  await server.again();

  await becomes(() => texts(bob.page), ["before", "considered"]);
  await becomes(() => outbox(alice.page), []);
  await end();
});

test("what is being sent is not taken back, but sent until there is an answer", async (t) => {
  const { alice, bob, end } = await pair(t);
  const [begun, seen] = [gate(), gate()];
  let tries = 0;
  await alice.context.route(/\/messages$/, async (route) => {
    tries += 1;
    if (tries > 1) return route.continue();
    begun.open();
    await seen.opened;
    await route.fetch();
    return route.abort();
  });
  await alice.write("on its way");
  await begun.opened;
  await alice.write("behind it");
  await actOn(alice.page, "behind it", "Discard");
  await becomes(() => texts(alice.page), ["before", "on its way"]);
  const discard = message(alice.page, "on its way").getByRole("button", { name: "Discard", includeHidden: true });
  assert.equal(await discard.count(), 0);
  seen.open();

  await becomes(() => texts(bob.page), ["before", "on its way"]);
  await becomes(() => texts(alice.page), ["before", "on its way"]);
  await becomes(() => outbox(alice.page), []);
  assert.equal(tries, 2);
  await end();
});

test("what was answered leaves the outbox when it has come back", async (t) => {
  const { alice, bob, end } = await pair(t);
  await alice.page.getByRole("button", { name: "Account of alice" }).click();
  await alice.page.getByLabel("Name that others see").fill("Alice Example");
  await alice.page.getByRole("button", { name: "Save" }).click();
  await bob.page.getByRole("main", { name: "Conversation: Alice Example" }).waitFor();

  await becomes(() => outbox(alice.page), []);
  await end();
});

test("what there is no room for stays where it is written", async (t) => {
  const { alice, bob, end } = await pair(t, { expected: [/the disk is full/] });
  const { page } = alice;
  const field = page.getByLabel("Message", { exact: true });
  await page.locator('.composer input[type="file"]').setInputFiles({
    name: "notes.txt",
    mimeType: "text/plain",
    buffer: Buffer.from("rope"),
  });
  await page.getByRole("button", { name: "Remove notes.txt" }).waitFor();
  await actOn(page, "before", "Reply");
  await fill(page, "outbox");
  await alice.write("a long thought");
  await page.getByRole("alert").getByText("this browser can not keep it").waitFor();
  await becomes(() => field.inputValue(), "a long thought");
  await page.getByText("Reply to alice").waitFor();
  await page.getByRole("button", { name: "Remove notes.txt" }).waitFor();
  assert.deepEqual(await stored(page, "drafts"), ["a long thought"]);
  await page.getByRole("alert").getByRole("button").click();
  await actOn(page, "before", "Edit");
  await alice.write("after");
  await page.getByRole("alert").getByText("this browser can not keep it").waitFor();
  assert.equal(await field.inputValue(), "after");

  await fill(page);
  await field.press("Enter");
  await becomes(() => texts(bob.page), ["after"]);
  await becomes(() => field.inputValue(), "a long thought");
  await field.press("Enter");
  await bob.page.getByRole("button", { name: "Download notes.txt" }).waitFor();
  await becomes(() => texts(bob.page), ["after", "a long thought"]);
  await end();
});

test("an outbox that could not be read says so, and goes on when it can", async (t) => {
  const { server, alice, bob, end } = await pair(t, { expected: [UNREACHABLE, /the disk is broken/] });
  const { page } = alice;
  await server.stop();
  await offline(page);
  await alice.write("held back");
  await becomes(() => texts(page), ["before", "held back"]);
  await page.evaluate(() => {
    const { prototype } = IDBObjectStore;
    const { getAll } = prototype;
    globalThis.is_broken = true;
    prototype.getAll = function (...query) {
      const is_read = this.name === "outbox" && this.transaction.mode === "readonly";
      if (globalThis.is_broken && is_read) throw new DOMException("the disk is broken", "UnknownError");
      return getAll.apply(this, query);
    };
  });
  await server.again();
  await page.getByRole("alert").getByText("this browser can not keep what came").waitFor();
  await page.evaluate(() => {
    globalThis.is_broken = false;
  });

  await becomes(() => texts(bob.page), ["before", "held back"]);
  await becomes(() => outbox(page), []);
  await end();
});

test("who logs out is logged out at the server, also if what is kept can not be deleted yet", async (t) => {
  // The other page is a text, which names no icon.
  const { server, alice, end } = await pair(t, { expected: [/status of 404/] });
  const token = await server.logIn("alice");
  const sessions = async () => (await server.call("GET", "/auth/sessions", { token })).sessions.length;
  assert.equal(await sessions(), 2);
  const other = await alice.tab("/NOTICES.txt");
  await other.evaluate(async () => {
    const { name } = (await indexedDB.databases()).find((it) => it.name !== "messenger");
    // It is held open for as long as this page is.
    await new Promise((resolve) => {
      globalThis.held = indexedDB.open(name);
      globalThis.held.onsuccess = resolve;
    });
  });
  await alice.page.getByRole("button", { name: "Account of alice" }).click();
  await alice.page.getByRole("button", { name: "Log out" }).click();

  await alice.page.getByRole("heading", { name: "Log in" }).waitFor();
  assert.equal(await sessions(), 1);
  await other.close();
  await becomes(async () => {
    const databases = await alice.page.evaluate(() => indexedDB.databases());
    return databases.map((it) => it.name);
  }, ["messenger"]);
  await end();
});

test("who logs out while a token is renewed stays logged out", async (t) => {
  const settings = { ACCESS_TOKEN_EXPIRE_MINUTES: "0.05" };
  const { alice, bob, end } = await pair(t, { settings, expected: [REFUSED] });
  const [begun, seen] = [gate(), gate()];
  await alice.context.route(/\/auth\/refresh$/, async (route) => {
    const response = await route.fetch();
    begun.open();
    await seen.opened;
    return route.fulfill({ response });
  });
  await begun.opened;
  await alice.page.getByRole("button", { name: "Account of alice" }).click();
  await alice.page.getByRole("button", { name: "Log out" }).click();
  seen.open();

  const heading = alice.page.getByRole("heading", { name: "Log in" });
  await heading.waitFor();
  await alice.page.reload();
  await heading.waitFor();
  await bob.page.getByRole("main", { name: "Conversation: alice" }).waitFor();
  await end();
});

test("without live events the messages come all the same", async (t) => {
  const server = await Server.start({ REALTIME_DISPATCHER_ENABLED: "false" });
  t.after(() => server.end());
  const [alice, bob] = await Promise.all(
    ["alice", "bob"].map(async (name) => (await Person.at(server, name)).register()),
  );
  await alice.open("bob");
  await alice.write("Can you see this?");
  await bob.goTo("alice");
  await bob.write("Yes");

  await becomes(() => texts(alice.page), ["Can you see this?", "Yes"]);
  await alice.end();
  await bob.end();
});

test("after a restore of the server the page shows what the server has, and goes on", async (t) => {
  const { server, alice, bob, end } = await pair(t, { expected: [UNREACHABLE, /status of 410/] });
  // The server asks clients to come back at random within half a minute: here, at once.
  const told = [];
  for (const { context } of [alice, bob]) {
    await context.route(/\/sync\/changes\?/, async (route) => {
      const response = await route.fetch().catch(() => undefined);
      if (response?.status() !== 410) return response ? route.fulfill({ response }) : route.abort();
      const json = await response.json();
      told.push(json.error.details.reason);
      json.error.details.retry_after_ms = 0;
      return route.fulfill({ response, json });
    });
  }
  await server.run("backup", "copy.db");
  await server.send(await server.logIn("bob"), "lost with the disk");
  await becomes(() => texts(alice.page), ["before", "lost with the disk"]);
  await server.stop();
  await server.run("restore", "copy.db");
  await alice.write("written meanwhile");
  await server.again();

  await becomes(() => texts(alice.page), ["before", "written meanwhile"]);
  await becomes(() => texts(bob.page), ["before", "written meanwhile"]);
  assert.ok(told.length >= 2 && told.every((it) => it === "history_diverged"), `${told}`);
  await bob.write("and on");
  await becomes(() => texts(alice.page), ["before", "written meanwhile", "and on"]);
  await end();
});
