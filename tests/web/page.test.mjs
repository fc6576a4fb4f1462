// The page itself: who can use it, what it weighs, and what it lets nobody do.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import {
  actOn,
  assertAccessible,
  becomes,
  browser,
  message,
  online,
  Person,
  PASSWORD,
  picture,
  Server,
  texts,
} from "./harness.mjs";

const server = await Server.start();
after(async () => {
  await browser.close();
  await server.end();
});

for (const colorScheme of ["light", "dark"]) {
  test(`the accessibility checker finds nothing serious (${colorScheme})`, async () => {
    const alice = await Person.at(server, `alice_${colorScheme}`, { colorScheme });
    const bob = await Person.at(server, `bob_${colorScheme}`, { colorScheme });
    await picture(alice.page, `log-in-${colorScheme}`);
    await assertAccessible(alice.page, "the log-in");
    await alice.page.getByRole("button", { name: "I am new here" }).click();
    await assertAccessible(alice.page, "the registration");
    await alice.page.getByRole("button", { name: "I have an account" }).click();
    await alice.register();
    await assertAccessible(alice.page, "an empty list");
    await bob.register();
    await bob.open(alice.name);
    await bob.write("Shall we go climbing on Sunday?");
    await alice.page.getByText("Shall we go climbing").waitFor();
    await assertAccessible(alice.page, "the list");
    await alice.goTo(bob.name);
    await alice.write("Gladly! Where do we meet?");
    await actOn(alice.page, "Shall we go climbing on Sunday?", "React with ❤️");
    await alice.page.getByRole("button", { name: "❤️, 1" }).waitFor();
    await becomes(() => alice.page.locator('[data-progress="read"]').count(), 1);
    await alice.page.getByLabel("Message", { exact: true }).hover();
    await picture(alice.page, `conversation-${colorScheme}`);
    await assertAccessible(alice.page, "a conversation");
    for (const [button, name] of [
      ["Details", "details"],
      ["New conversation", "new"],
      [`Account of ${alice.name}`, "account"],
    ]) {
      await alice.page.getByRole("button", { name: button }).click();
      await alice.page.getByRole("dialog").waitFor();
      await alice.page.getByRole("dialog").evaluate((it) => Promise.all(it.getAnimations().map((one) => one.finished)));
      await picture(alice.page, `${name}-${colorScheme}`);
      await assertAccessible(alice.page, button);
      await alice.page.keyboard.press("Escape");
      await alice.page.getByRole("dialog").waitFor({ state: "hidden" });
    }
    await alice.end();
    await bob.end();
  });
}

test("everything can be done with the keyboard alone", async () => {
  await server.register("carol");
  const dave = await Person.at(server, "dave");
  const { page } = dave;
  const keys = page.keyboard;
  const focused = () =>
    page.evaluate(() => {
      const it = document.activeElement;
      return it?.getAttribute("aria-label") ?? it?.textContent?.trim() ?? "";
    });
  const tabTo = async (name) => {
    for (let steps = 0; steps < 30; steps++) {
      if ((await focused()).startsWith(name)) return;
      await keys.press("Tab");
    }
    assert.fail(`${name} can not be reached; the focus is at ${await focused()}`);
  };
  await tabTo("I am new here");
  await keys.press("Enter");
  await page.getByLabel("Username").focus();
  await keys.type("dave");
  await keys.press("Tab");
  await keys.type("Dave");
  await keys.press("Tab");
  await keys.type(PASSWORD);
  await keys.press("Enter");
  await online(page);

  await tabTo("New conversation");
  await keys.press("Enter");
  await page.getByLabel("Find people").waitFor();
  await keys.type("carol");
  await page.getByRole("dialog").getByRole("button", { name: "carol" }).waitFor();
  await tabTo("Ccarol");
  await keys.press("Enter");
  await page.getByRole("main", { name: "Conversation: carol" }).waitFor();
  await becomes(focused, "Message");
  await keys.type("one");
  await keys.press("Enter");
  await keys.type("two");
  await keys.press("Enter");
  await becomes(() => texts(page), ["one", "two"]);
  await becomes(() => page.locator('[data-progress="sent"]').count(), 2);

  await keys.press("ArrowUp");
  await becomes(async () => (await focused()).split(",")[0], "You: two");
  await keys.press("ArrowUp");
  await becomes(async () => (await focused()).split(",")[0], "You: one");
  await keys.press("Enter");
  await tabTo("Edit");
  await keys.press("Enter");
  await page.getByText("Edit message").waitFor();
  await keys.press("Escape");
  await becomes(() => page.getByText("Edit message").count(), 0);
  await becomes(focused, "Message");
  await keys.press("ArrowUp");
  await keys.press("Enter");
  await tabTo("Delete");
  await keys.press("Enter");
  await page.getByRole("dialog").waitFor();
  await tabTo("Delete");
  await keys.press("Enter");
  await becomes(() => texts(page), ["one", "Message deleted"]);

  await page.getByLabel("Search conversations").focus();
  await keys.press("ArrowDown");
  await becomes(async () => (await focused()).includes("carol"), true);
  await dave.end();
});

test("on a phone the list and the conversation are two screens", async () => {
  await server.register("erin");
  const options = { viewport: { width: 360, height: 720 }, hasTouch: true, isMobile: true };
  const frank = await Person.at(server, "frank", options);
  await frank.register();
  await frank.open("erin");
  await frank.write("A message that is longer than one line of such a small screen is.");
  assert.equal(await frank.page.getByRole("navigation").isVisible(), false);
  await frank.page.locator('[data-progress="sent"]').waitFor();
  await picture(frank.page, "phone-conversation");
  await assertAccessible(frank.page, "a conversation on a phone");
  const width = await frank.page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(width <= 360, `${width}`);

  await frank.page.getByRole("link", { name: "Back to all conversations" }).click();
  await frank.page.getByRole("link", { name: "erin" }).waitFor();
  assert.equal(await frank.page.getByRole("main").isVisible(), false);
  await picture(frank.page, "phone-list");
  await frank.page.goBack();
  await frank.page.getByRole("main", { name: "Conversation: erin" }).waitFor();
  await frank.end();
});

test("what is new is said to those who do not see it", async () => {
  const grace = await Person.at(server, "grace");
  await grace.register();
  const heidi = await server.register("heidi");
  await grace.open("heidi");
  await server.send(heidi.token, "Can you hear me?");

  await grace.page.locator('[aria-live="polite"]').getByText("heidi: Can you hear me?").waitFor({ state: "attached" });
  await grace.end();
});

test("the first load is less than 150 KiB, and nothing of it comes from elsewhere", async () => {
  const context = await browser.newContext({ serviceWorkers: "block" });
  const page = await context.newPage();
  const session = await context.newCDPSession(page);
  await session.send("Network.enable");
  let bytes = 0;
  session.on("Network.loadingFinished", (event) => {
    bytes += event.encodedDataLength;
  });
  const addresses = [];
  page.on("request", (request) => addresses.push(request.url()));
  await page.goto(server.url, { waitUntil: "networkidle" });
  await page.getByRole("heading", { name: "Log in" }).waitFor();

  assert.ok(bytes > 10_000 && bytes < 150 * 1024, `${bytes} bytes`);
  console.log(`the first load is ${bytes} bytes`);
  assert.deepEqual(
    addresses.filter((it) => !it.startsWith(server.url)),
    [],
  );
  await context.close();
});

test("the page runs no script but its own", async () => {
  const response = await fetch(server.url);
  const policy = response.headers.get("content-security-policy");
  for (const rule of ["default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"]) {
    assert.ok(policy.includes(rule), `${policy} lacks ${rule}`);
  }
  assert.ok(!policy.includes("unsafe"));
  assert.equal(response.headers.get("x-content-type-options"), "nosniff");
  assert.equal(response.headers.get("referrer-policy"), "no-referrer");
  const page = await response.text();
  assert.ok(!/<script(?![^>]* src=)/.test(page) && !/ style=| on\w+=/.test(page), page);
});

test("the page can be installed", async () => {
  const context = await browser.newContext();
  const page = await context.newPage();
  await page.goto(server.url);
  await page.evaluate(() => navigator.serviceWorker.ready.then(() => {}));
  const session = await context.newCDPSession(page);
  const { errors } = await session.send("Page.getAppManifest");
  assert.deepEqual(errors, []);
  const { installabilityErrors } = await session.send("Page.getInstallabilityErrors");
  // A context of a test is a private window, which is the only thing against it.
  assert.deepEqual(
    installabilityErrors.map((it) => it.errorId).filter((it) => it !== "in-incognito"),
    [],
  );
  await context.close();
});
