// What people set for themselves: notifications, and where they are logged in.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import { assertAccessible, becomes, browser, message, online, outbox, Person, picture, REFUSED, Server, texts } from "./harness.mjs";

const server = await Server.start();
after(async () => {
  await browser.close();
  await server.end();
});

/** What notifications a page's person sees now. */
const notifications = (page) =>
  page.evaluate(async () => {
    const worker = await navigator.serviceWorker.ready;
    return (await worker.getNotifications()).map(({ title, body }) => `${title}: ${body}`);
  });

/** What a page's person wants of notifications, on this device. */
const wanted = (page) =>
  page.evaluate(() => Object.entries(localStorage).find(([key]) => key.startsWith("notifications-"))?.[1] ?? "off");

/** Lets a page believe that it is looked at, or that it is not. */
const look = (page, is_seen) =>
  page.evaluate((is_seen) => {
    Object.defineProperty(document, "hidden", { configurable: true, get: () => !is_seen });
    document.dispatchEvent(new Event("visibilitychange"));
  }, is_seen);

test("who does not look is told, once, if they want that, and of no more than they want", async () => {
  const [bob, grace] = [await server.register("bob"), await server.register("grace")];
  const alice = await (await Person.at(server, "alice", { permissions: ["notifications"] })).register();
  await alice.open("grace");
  await alice.open("bob");
  const { page } = alice;
  const other = await alice.tab();
  await online(other);
  const set = async (name, kept) => {
    await page.getByRole("button", { name: "Account of alice" }).click();
    await page.getByRole("dialog").getByText(name).click();
    await becomes(() => wanted(page), kept);
    await page.keyboard.press("Escape");
    await page.getByRole("dialog").waitFor({ state: "hidden" });
  };
  await server.send(bob.token, "not asked for");
  await becomes(() => texts(page), ["not asked for"]);
  await set("Notifications on this device", "texts");
  await server.send(bob.token, "looked at");
  await becomes(() => texts(page), ["not asked for", "looked at"]);
  for (const it of [page, other]) await look(it, false);
  // What comes later is told of, so whatever was to be told of before is.
  await server.send(grace.token, "Hello");
  await becomes(() => notifications(page), ["grace: Hello"]);
  await server.send(bob.token, "Are you there?");
  await becomes(async () => (await notifications(page)).sort(), ["bob: Are you there?", "grace: Hello"]);
  // Whoever looks at any tab has seen it.
  await look(other, true);
  await becomes(() => notifications(page), []);
  await server.send(bob.token, "I see you");
  await message(page, "I see you").waitFor();
  await look(other, false);
  await server.send(grace.token, "And now?");
  await becomes(() => notifications(page), ["grace: And now?"]);

  await look(page, true);
  await set("Show what was written", "names");
  await becomes(() => notifications(page), []);
  await look(page, false);
  await server.send(bob.token, "a secret");
  await becomes(() => notifications(page), ["bob: New message"]);
  await alice.end();
});

test("a muted conversation is silent", async () => {
  const [dave, erin] = [await server.register("dave"), await server.register("erin")];
  const carol = await (await Person.at(server, "carol", { permissions: ["notifications"] })).register();
  await carol.open("dave");
  await carol.open("erin");
  const { page } = carol;
  await page.getByRole("button", { name: "Details" }).click();
  await page.getByRole("dialog").getByText("Mute").click();
  await page.keyboard.press("Escape");
  await page.getByRole("link", { name: /erin.*muted/ }).waitFor();
  // The link shows it at once: here, it is so.
  await becomes(() => outbox(page), []);
  await page.getByRole("button", { name: "Account of carol" }).click();
  await page.getByRole("dialog").getByText("Notifications on this device").click();
  await becomes(() => wanted(page), "texts");
  await look(page, false);
  await server.send(erin.token, "psst");
  await server.send(dave.token, "hello");

  await becomes(() => notifications(page), ["dave: hello"]);
  await carol.end();
});

test("the sessions are listed, and others are ended", async () => {
  const frank = await (await Person.at(server, "frank")).register();
  const phone = await Person.at(server, "frank", { expected: [REFUSED], userAgent: "Mozilla/5.0 (iPhone) Safari/605" });
  await phone.logIn();
  for (let n = 0; n < 2; n++) await server.logIn("frank");
  const { page } = frank;
  await page.getByRole("button", { name: "Account of frank" }).click();
  const dialog = page.getByRole("dialog");
  await dialog.getByText("this device", { exact: true }).waitFor();
  await dialog.getByText("Safari on iPhone").waitFor();
  await assertAccessible(page, "the sessions");
  await picture(page, "sessions");
  await dialog.getByRole("button", { name: "End the session on Safari on iPhone" }).click();
  await phone.page.getByRole("heading", { name: "Log in" }).waitFor();
  // The others are those of the list that was read since.
  await dialog.getByText("Safari on iPhone").waitFor({ state: "hidden" });
  await dialog.getByRole("button", { name: "End all others" }).click();

  await becomes(() => dialog.getByRole("button", { name: /^End the session/ }).count(), 0);
  await dialog.getByText("this device", { exact: true }).waitFor();
  const token = await server.logIn("frank");
  const { sessions } = await server.call("GET", "/auth/sessions", { token });
  assert.equal(sessions.length, 2);
  await frank.end();
  await phone.end();
});
