// What people do with each other while all is well.

import assert from "node:assert/strict";
import { after, test } from "node:test";
import {
  actOn,
  assertAccessible,
  becomes,
  browser,
  edit,
  message,
  Person,
  picture,
  Server,
  stored,
  texts,
  types,
} from "./harness.mjs";

const server = await Server.start();
after(async () => {
  await browser.close();
  await server.end();
});

/** People with names of their own, in browsers of their own. */
async function people(...names) {
  return Promise.all(names.map(async (name) => (await Person.at(server, name)).register()));
}

test("two people see at once what the other writes, and that it was read", async () => {
  const [alice, bob] = await people("alice", "bob");
  await alice.open("bob");
  await alice.write("Good morning, Bob!");

  const row = bob.page.getByRole("link", { name: /alice.*Good morning, Bob!.*1 unread/ });
  await row.waitFor();
  await becomes(async () => (await bob.page.title()).startsWith("(1)"), true);
  await message(alice.page, "Good morning, Bob!").and(alice.page.locator('[data-progress="delivered"]')).waitFor();

  await row.click();
  await message(alice.page, "Good morning, Bob!").and(alice.page.locator('[data-progress="read"]')).waitFor();
  await bob.write("Good morning, Alice! https://example.org/a?b=1.");
  await becomes(() => texts(alice.page), ["Good morning, Bob!", "Good morning, Alice! https://example.org/a?b=1."]);
  const link = alice.page.getByRole("link", { name: "https://example.org/a?b=1", exact: true });
  assert.equal(await link.getAttribute("href"), "https://example.org/a?b=1");
  assert.equal(await link.getAttribute("rel"), "noopener noreferrer");
  await becomes(() => bob.page.getByText("unread").count(), 0);
  await picture(alice.page, "conversation");
  await alice.end();
  await bob.end();
});

test("a message is text, whatever is in it", async () => {
  const [carol, dave] = await people("carol", "dave");
  await carol.open("dave");
  const text = "<img src=x onerror=alert(1)> <script>alert(2)</script> javascript:alert(3) &amp;";
  carol.page.on("dialog", () => assert.fail("a script has run"));
  await carol.write(text);
  await dave.goTo("carol");

  await becomes(() => texts(dave.page), [text]);
  assert.equal(await dave.page.locator(".timeline img, .timeline script, .timeline article a").count(), 0);
  await carol.end();
  await dave.end();
});

test("messages are answered, edited, deleted and reacted to, and both see it", async () => {
  const [erin, frank] = await people("erin", "frank");
  await erin.open("frank");
  await erin.write("Shall we meet at seven?");
  await erin.write("Or never");
  await frank.goTo("erin");

  await actOn(frank.page, "Shall we meet at seven?", "React with 👍");
  await actOn(frank.page, "Shall we meet at seven?", "Reply");
  await frank.page.getByText("Reply to erin").waitFor();
  await frank.write("Yes");
  await erin.page.getByRole("button", { name: "👍, 1" }).waitFor();
  await message(erin.page, "Yes").getByRole("button", { name: "erin Shall we meet at seven?" }).waitFor();

  await edit(erin, "Shall we meet at seven?", "Shall we meet at eight?");
  await actOn(erin.page, "Or never", "Delete");
  await erin.page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  for (const { page } of [erin, frank]) {
    await becomes(() => texts(page), ["Shall we meet at eight?", "Message deleted", "Yes"]);
    await message(page, "Shall we meet at eight?").getByText("edited").waitFor();
  }

  await picture(erin.page, "changes");
  await assertAccessible(erin.page, "messages that were changed");
  await frank.page.getByRole("button", { name: "👍, 1" }).click();
  await becomes(() => erin.page.getByRole("button", { name: "👍, 1" }).count(), 0);
  await erin.end();
  await frank.end();
});

test("who is there and who is writing shows, and that they have stopped", async () => {
  const [grace, heidi] = await people("grace", "heidi");
  await grace.open("heidi");
  await heidi.goTo("grace");
  await grace.page.getByRole("main").getByText("online").waitFor();

  await types(heidi.page, grace.page);
  await heidi.page.getByLabel("Message", { exact: true }).fill("");
  await grace.page.getByRole("main").getByText("online").waitFor();

  await heidi.end();
  await grace.page.getByRole("main").getByText("last seen").waitFor();
  await grace.end();
});

test("a group is made, renamed, and people are added and leave", async () => {
  const [ivan, judy, mallory] = await people("ivan", "judy", "mallory");
  await ivan.page.getByRole("button", { name: "New conversation" }).click();
  const dialog = ivan.page.getByRole("dialog");
  await dialog.getByRole("button", { name: "Make a group instead" }).click();
  await dialog.getByLabel("Title").fill("Climbing");
  await dialog.getByLabel("Find people").fill("judy");
  await dialog.getByRole("button", { name: "judy" }).click();
  await dialog.getByRole("button", { name: "Create group" }).click();
  await ivan.page.getByRole("main", { name: "Conversation: Climbing" }).waitFor();
  await ivan.write("Welcome!");
  await judy.goTo("Climbing");
  await becomes(() => texts(judy.page), ["Welcome!"]);
  await judy.write("Thank you. I bring the long rope, if nobody else has one.");
  await judy.write("And some tea");
  await actOn(ivan.page, "And some tea", "React with ❤️");
  await actOn(ivan.page, "And some tea", "Reply");
  await ivan.write("Then I bring cake");
  await message(judy.page, "Then I bring cake").getByRole("button", { name: "judy And some tea" }).waitFor();
  await ivan.page.getByLabel("Message", { exact: true }).hover();
  await picture(ivan.page, "group-conversation");
  await assertAccessible(ivan.page, "a group");

  await ivan.page.getByRole("button", { name: "Details" }).click();
  await dialog.getByLabel("Title").fill("Climbing on Sunday");
  await dialog.getByRole("button", { name: "Save" }).click();
  await judy.page.getByRole("main", { name: "Conversation: Climbing on Sunday" }).waitFor();
  await dialog.getByRole("button", { name: "Add people" }).click();
  await dialog.getByLabel("Find people").fill("mallory");
  await dialog.getByRole("button", { name: "mallory" }).click();
  await dialog.getByText("3 members").waitFor();
  await picture(ivan.page, "group-details");
  await assertAccessible(ivan.page, "the details of a group");
  await mallory.goTo("Climbing on Sunday");

  await dialog.getByRole("button", { name: "Remove judy" }).click();
  await dialog.getByText("2 members").waitFor();
  await becomes(() => judy.page.getByRole("link", { name: "Climbing" }).count(), 0);
  await mallory.page.getByRole("button", { name: "Details" }).click();
  await mallory.page.getByRole("button", { name: "Leave group" }).click();
  await dialog.getByText("1 member", { exact: true }).waitFor();
  await becomes(() => mallory.page.getByRole("link", { name: "Climbing" }).count(), 0);
  for (const person of [ivan, judy, mallory]) await person.end();
});

test("members are named with the keyboard alone, and see that they are meant", async () => {
  const [sybil, trent] = await people("sybil", "trent");
  const walter = await server.register("walter");
  const token = await server.logIn("sybil");
  const { id } = await server.call("GET", "/users/me", { token: await server.logIn("trent") });
  await server.call("POST", "/conversations/groups", { token, body: { title: "Cave", member_ids: [id, walter.id] } });
  await sybil.goTo("Cave");
  await trent.goTo("Cave");
  const { page } = sybil;
  const field = page.getByLabel("Message", { exact: true });
  const option = (name) => page.getByRole("option", { name });
  await field.pressSequentially("Ask @");
  await option("walter").waitFor();
  await becomes(() => field.getAttribute("aria-activedescendant"), "offered-0");
  await assertAccessible(page, "people who are offered");
  await picture(page, "mentions");
  await field.press("ArrowDown");
  await option("walter").and(page.locator('[aria-selected="true"]')).waitFor();
  await field.press("Escape");
  await becomes(() => page.getByRole("listbox").count(), 0);
  await field.pressSequentially("TR");
  await option("trent").waitFor();
  await becomes(() => page.getByRole("option").count(), 1);
  await field.press("Enter");
  await becomes(() => field.inputValue(), "Ask @trent ");
  await field.pressSequentially("and not mail@walter, or @nobody.");
  await field.press("Enter");

  await becomes(() => texts(trent.page), ["Ask @trent and not mail@walter, or @nobody."]);
  for (const { page } of [sybil, trent]) await becomes(() => page.locator(".mention").allTextContents(), ["@trent"]);
  const [{ mentions }] = await stored(trent.page, "messages");
  assert.deepEqual(mentions, [id]);
  await assertAccessible(trent.page, "a mention");
  await sybil.end();
  await trent.end();
});

test("a conversation is pinned, muted, put away and marked as unread on all devices", async () => {
  const [niaj] = await people("niaj");
  await server.register("olivia");
  await server.register("peggy");
  const phone = await Person.at(server, "niaj");
  await phone.logIn();
  await niaj.open("peggy");
  await niaj.write("first");
  await niaj.open("olivia");
  await niaj.write("second");
  const order = () => phone.page.locator(".rows .name").allTextContents();
  await becomes(order, ["olivia", "peggy"]);

  const change = async (title, name) => {
    await niaj.goTo(title);
    await niaj.page.getByRole("button", { name: "Details" }).click();
    await niaj.page.getByRole("dialog").getByText(name).click();
    if (name !== "Mark as unread") await niaj.page.keyboard.press("Escape");
    await niaj.page.getByRole("dialog").waitFor({ state: "hidden" });
  };
  await change("peggy", "Pin to the top");
  await becomes(order, ["peggy", "olivia"]);
  await change("peggy", "Mute");
  await phone.page.getByRole("link", { name: /peggy.*muted.*pinned/ }).waitFor();
  await change("olivia", "Mark as unread");
  await phone.page.getByRole("link", { name: /olivia.*unread/ }).waitFor();
  await change("olivia", "Archive");
  await becomes(order, ["peggy"]);
  await phone.page.getByRole("button", { name: "Archive" }).click();
  await becomes(order, ["olivia"]);

  await phone.page.getByLabel("Search conversations").fill("peg");
  await becomes(order, ["peggy"]);
  await niaj.end();
  await phone.end();
});

test("the past is read page by page as somebody scrolls up", async () => {
  const [quentin] = await people("quentin");
  const rupert = await server.register("rupert");
  await quentin.open("rupert");
  const written = Array.from({ length: 180 }, (_, index) => `line ${index + 1}`);
  await server.send(rupert.token, ...written);
  // A device that begins now has only the last of them, and a hole before.
  const tablet = await Person.at(server, "quentin");
  await tablet.logIn();
  await tablet.goTo("rupert");
  await becomes(async () => (await texts(tablet.page)).at(-1), "line 180");

  await becomes(async () => {
    await tablet.page.locator(".scroll").evaluate((box) => box.scrollTo({ top: 0 }));
    return (await texts(tablet.page))[0];
  }, "line 1");
  await becomes(() => texts(tablet.page), written);
  await quentin.end();
  await tablet.end();
});

test("messages are found by their text, and shown where they were said", async () => {
  const [nina] = await people("nina");
  const oscar = await server.register("oscar");
  await nina.open("oscar");
  const before = Array.from({ length: 150 }, (_, n) => `before ${n}`);
  const after = Array.from({ length: 150 }, (_, n) => `after ${n}`);
  await server.send(oscar.token, ...before, "我家在上海东边 <b>", ...after);
  const { page } = nina;
  await becomes(async () => (await texts(page)).at(-1), "after 149");
  const search = page.getByLabel("Search conversations");

  await search.fill("上海");
  const found = page.getByRole("region", { name: "Messages" }).first();
  const hit = found.getByRole("link", { name: /oscar.*我家在上海东边 <b>/ });
  await hit.waitFor();
  await assertAccessible(page, "found messages");
  await picture(page, "found");
  await hit.click();

  const said = message(page, "我家在上海东边 <b>").getByRole("article");
  await said.and(page.locator(":focus")).waitFor();
  assert.equal(await message(page, "after 149").count(), 0);
  await message(page, "before 149").waitFor();
  await page.getByRole("button", { name: "To the newest message" }).click();
  await message(page, "after 149").waitFor();
  await search.fill("evening");
  await found.getByText("No message was found.").waitFor();
  await search.fill("before");
  await found.getByRole("button", { name: "More" }).click();
  await becomes(() => found.getByRole("link").count(), 40);
  await nina.end();
});
