// The picture of the README: two people who talk. `UPDATE=1 .ci/web readme.test.mjs` takes it again.

import { copyFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { after, test } from "node:test";
import { actOn, becomes, browser, drawing, message, Person, picture, Server, shownPicture } from "./harness.mjs";

const server = await Server.start();
after(async () => {
  await browser.close();
  await server.end();
});

test("two people talk about a picture", async () => {
  const viewport = { width: 1120, height: 700 };
  const [alice, bob] = await Promise.all(
    ["alice", "bob"].map(async (name) => (await Person.at(server, name, { viewport, deviceScaleFactor: 1.5 })).register()),
  );
  const name = async (username, display_name) => {
    const token = await server.logIn(username);
    await server.call("PATCH", "/users/me", { token, body: { display_name } });
    return token;
  };
  const tokens = { alice: await name("alice", "Alice Baker"), bob: await name("bob", "Bob Carter") };
  const carol = await server.register("carol");
  await server.call("PATCH", "/users/me", { token: carol.token, body: { display_name: "Carol Dean" } });
  const me = await server.call("GET", "/users/me", { token: tokens.alice });
  const say = (token, id, content) =>
    server.call("POST", `/conversations/${id}/messages`, { token, body: { client_message_id: crypto.randomUUID(), content } });
  const direct = await server.call("POST", "/conversations/direct", { token: carol.token, body: { other_user_id: me.id } });
  await say(carol.token, direct.id, "See you on Friday then");
  const group = await server.call("POST", "/conversations/groups", {
    token: tokens.bob,
    body: { title: "Climbing on Sunday", member_ids: [me.id, carol.id] },
  });
  await say(tokens.bob, group.id, "I bring the long rope");
  await say(carol.token, group.id, "And I some cake");

  await alice.open("Bob Carter");
  await alice.write("We made it to the hut before the rain.");
  await bob.goTo("Alice Baker");
  const evening = { name: "evening.png", mimeType: "image/png", buffer: await drawing(alice.page, 960, 600) };
  await alice.page.locator('.composer input[type="file"]').setInputFiles(evening);
  await alice.write("This was the view from the bench.");
  for (const { page } of [alice, bob]) await becomes(() => shownPicture(page, "evening.png"), true);
  await actOn(bob.page, "This was the view from the bench.", "React with ❤️");
  await actOn(bob.page, "We made it to the hut before the rain.", "Reply");
  await bob.write("Lucky you! We were soaked when we came down.");
  await bob.write("Next time I come up with you.");
  await message(alice.page, "Next time I come up with you.").waitFor();
  await alice.page.getByRole("button", { name: "❤️, 1" }).waitFor();
  await becomes(() => alice.page.locator('[data-progress="read"]').count(), 2);
  await alice.page.getByLabel("Message", { exact: true }).hover();
  const taken = await picture(alice.page, "readme");
  if (process.env.UPDATE) {
    await copyFile(taken, fileURLToPath(new URL("../../messenger-server/assets/web-client.png", import.meta.url)));
  }
  await alice.end();
  await bob.end();
});
