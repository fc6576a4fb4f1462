// Pictures and other files: they wait with their message, and whoever may read it has them.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, test } from "node:test";
import {
  actOn,
  assertAccessible,
  becomes,
  browser,
  clear,
  drawing,
  fill,
  gate,
  message,
  offline,
  outbox,
  pair,
  picture,
  shownPicture,
  stored,
  texts,
  UNREACHABLE,
} from "./harness.mjs";

after(() => browser.close());

const file = (name, mimeType, content) => ({ name, mimeType, buffer: Buffer.from(content) });

/** Chooses files, as the dialog of the browser does. */
async function choose(page, ...files) {
  await page.locator('.composer input[type="file"]').setInputFiles(files);
  for (const { name } of files) await page.getByRole("button", { name: `Remove ${name}` }).waitFor();
}

/** What a page gives as a download when something is pressed. */
async function download(page, name) {
  const [got] = await Promise.all([page.waitForEvent("download"), page.getByRole("button", { name }).click()]);
  return { name: got.suggestedFilename(), content: await readFile(await got.path()) };
}

test("a picture that is sent offline waits with its message, also over a reload, and arrives", async (t) => {
  const { server, alice, bob, end } = await pair(t);
  await alice.page.evaluate(() => navigator.serviceWorker.ready.then(() => {}));
  const sunset = file("sunset.png", "image/png", await drawing(alice.page, 900, 600));
  await server.stop();
  await offline(alice.page);
  await choose(alice.page, sunset);
  await assertAccessible(alice.page, "a picture that was chosen");
  await alice.write("Look at this!");
  await becomes(() => shownPicture(alice.page, "sunset.png"), true);
  await alice.write("It was yesterday");
  await becomes(() => texts(alice.page), ["before", "Look at this!", "It was yesterday"]);
  await alice.page.reload();
  await becomes(() => texts(alice.page), ["before", "Look at this!", "It was yesterday"]);
  await becomes(() => shownPicture(alice.page, "sunset.png"), true);
  await becomes(() => alice.page.locator('[data-progress="waiting"]').count(), 2);

  await server.again();
  await becomes(() => texts(bob.page), ["before", "Look at this!", "It was yesterday"]);
  for (const { page } of [alice, bob]) await becomes(() => shownPicture(page, "sunset.png"), true);
  await becomes(() => alice.page.locator('[data-progress="waiting"]').count(), 0);
  await becomes(() => outbox(alice.page), []);
  assert.deepEqual(await stored(alice.page, "files"), []);
  await bob.page.getByRole("button", { name: "Open sunset.png" }).click();
  const dialog = bob.page.getByRole("dialog", { name: "sunset.png" });
  await dialog.getByRole("img", { name: "sunset.png" }).waitFor();
  await assertAccessible(bob.page, "a picture that is open");
  await picture(bob.page, "picture-open");
  const got = await download(bob.page, "Download sunset.png");
  assert.equal(got.name, "sunset.png");
  assert.ok(got.content.equals(sunset.buffer));

  // Its small form is kept: also without the server it is shown.
  await bob.page.keyboard.press("Escape");
  await dialog.waitFor({ state: "hidden" });
  await bob.page.evaluate(() => navigator.serviceWorker.ready.then(() => {}));
  await server.stop();
  await bob.page.reload();
  await becomes(() => shownPicture(bob.page, "sunset.png"), true);
  await end();
});

test("files of any kind are sent together, with a text or without, and are only ever downloaded", async (t) => {
  const { server, alice, bob, end } = await pair(t);
  const evil = "<script>parent.document.title = 'taken'</script>";
  await choose(alice.page, file("page.html", "text/html", evil), file("notes.txt", "text/plain", "rope, tea, cake"));
  await alice.page.getByRole("button", { name: "Send" }).click();
  const row = bob.page.getByRole("button", { name: "Download page.html" });
  await row.waitFor();
  await bob.page.getByRole("link", { name: /alice.*page\.html, notes\.txt/ }).waitFor();
  await assertAccessible(bob.page, "files");
  await picture(bob.page, "files");

  const got = await download(bob.page, "Download page.html");
  assert.equal(got.content.toString(), evil);
  assert.equal((await download(bob.page, "Download notes.txt")).content.toString(), "rope, tea, cake");
  assert.equal(bob.page.context().pages().length, 1);

  // A stranger can not tell that it exists.
  const carol = await server.register("carol");
  const [{ attachments }] = (await stored(bob.page, "messages")).filter((it) => it.attachments?.length);
  for (const form of ["", "/content", "/preview"]) {
    const response = await fetch(new URL(`v1/attachments/${attachments[0].id}${form}`, server.url), {
      headers: { authorization: `Bearer ${carol.token}` },
    });
    assert.equal(response.status, 404, form);
  }

  await actOn(alice.page, "before", "Reply");
  await choose(alice.page, file("more.txt", "text/plain", "more"));
  await alice.write("and this");
  await bob.page.getByRole("button", { name: "Download more.txt" }).waitFor();
  await actOn(alice.page, "and this", "Delete");
  await alice.page.getByRole("dialog").getByRole("button", { name: "Delete" }).click();
  await becomes(() => bob.page.getByRole("button", { name: "Download more.txt" }).count(), 0);
  await end();
});

test("a picture that is closed before it has come is no longer fetched", async (t) => {
  const { alice, bob, end } = await pair(t);
  const closed = gate();
  await bob.context.route(/\/content$/, async (route) => {
    await closed.opened;
    return route.continue();
  });
  await choose(alice.page, file("sunset.png", "image/png", await drawing(alice.page, 90, 60)));
  await alice.write("Look!");
  await becomes(() => shownPicture(bob.page, "sunset.png"), true);
  const { page } = bob;
  const asked = page.waitForRequest(/\/content$/);
  await page.getByRole("button", { name: "Open sunset.png" }).click();
  await asked;
  const given_up = page.waitForEvent("requestfailed", (it) => it.url().endsWith("/content"));
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "hidden" });

  await given_up;
  closed.open();
  await end();
});

test("a picture that calls itself a page is a picture, also where there is no room to keep it", async (t) => {
  const { alice, bob, end } = await pair(t);
  await fill(bob.page, "previews");
  await bob.page.evaluate(() => {
    const { createObjectURL } = URL;
    globalThis.kinds = [];
    URL.createObjectURL = (content) => {
      globalThis.kinds.push(content.type);
      return createObjectURL.call(URL, content);
    };
  });
  await choose(alice.page, file("page.html", "text/html", await drawing(alice.page, 90, 60)));
  await alice.write("Look!");
  await becomes(() => shownPicture(bob.page, "page.html"), true);
  await bob.page.getByRole("button", { name: "Open page.html" }).click();
  const dialog = bob.page.getByRole("dialog", { name: "page.html" });
  const whole = dialog.getByRole("img", { name: "page.html" });
  await becomes(() => whole.evaluateAll((all) => all.some((it) => it.naturalWidth === 90)), true);
  await download(bob.page, "Download page.html");

  const kinds = await bob.page.evaluate(() => globalThis.kinds);
  assert.equal(kinds.length, 3);
  assert.match(kinds[0], /^image\/(jpeg|png|webp)$/);
  assert.deepEqual(kinds.slice(1), ["application/octet-stream", "application/octet-stream"]);
  assert.deepEqual(await stored(bob.page, "previews"), []);
  await end();
});

test("files are dropped and pasted, and taken back before they are sent", async (t) => {
  const { alice, bob, end } = await pair(t);
  // Says whether the page leaves the rest to the browser.
  const give = (kind, name, text = "") =>
    alice.page.evaluate(
      ([kind, name, text]) => {
        const data = new DataTransfer();
        data.items.add(new File(["content"], name, { type: "text/plain" }));
        if (text) data.items.add(text, "text/plain");
        const shared = { bubbles: true, cancelable: true };
        const event =
          kind === "paste"
            ? new ClipboardEvent(kind, { ...shared, clipboardData: data })
            : new DragEvent(kind, { ...shared, dataTransfer: data });
        return document.querySelector(".composer textarea").dispatchEvent(event);
      },
      [kind, name, text],
    );
  await give("dragover", "dropped.txt");
  await alice.page.getByText("Let go to attach").waitFor();
  await give("drop", "dropped.txt");
  await alice.page.getByRole("button", { name: "Remove dropped.txt" }).waitFor();
  await becomes(() => alice.page.getByText("Let go to attach").count(), 0);
  assert.equal(await give("paste", "table.png", "two words"), true);
  await alice.page.getByRole("button", { name: "Remove table.png" }).click();
  assert.equal(await give("paste", "pasted.txt"), false);
  await alice.page.getByRole("button", { name: "Remove pasted.txt" }).waitFor();
  await alice.page.getByRole("button", { name: "Remove dropped.txt" }).click();
  await alice.write("only one");

  await bob.page.getByRole("button", { name: "Download pasted.txt" }).waitFor();
  assert.equal(await bob.page.getByRole("button", { name: "Download dropped.txt" }).count(), 0);
  await choose(alice.page, ...Array.from({ length: 12 }, (_, n) => file(`${n}.txt`, "text/plain", "x")).slice(0, 10));
  await give("paste", "eleventh.txt");
  await alice.page.getByRole("alert").getByText("at most 10 files").waitFor();
  await end();
});

test("a file that the server refuses says why, and holds nothing up", async (t) => {
  const settings = { ATTACHMENT_TYPES: "image/*", ATTACHMENT_BYTES_MAX: "5000" };
  const { alice, bob, end } = await pair(t, { settings, expected: [UNREACHABLE, /status of (413|415)/] });
  await choose(alice.page, file("notes.txt", "text/plain", "rope"));
  await alice.write("refused");
  await choose(alice.page, file("large.png", "image/png", "x".repeat(6_000)));
  await alice.write("too large");
  await alice.write("words alone");
  const failure = (text) => message(alice.page, text).getByText(/^Not sent: /);
  await failure("refused").getByText("notes.txt").waitFor();
  await failure("too large").getByText("large.png").waitFor();
  await becomes(() => texts(bob.page), ["before", "words alone"]);
  await picture(alice.page, "files-refused");

  for (const text of ["refused", "too large"]) {
    await message(alice.page, text).getByRole("button", { name: "Discard" }).click();
  }
  await becomes(() => texts(alice.page), ["before", "words alone"]);
  assert.deepEqual(await stored(alice.page, "files"), []);
  await end();
});

test("a file that is on its way says how far it is, and can be given up", async (t) => {
  const { alice, bob, end } = await pair(t);
  const session = await alice.context.newCDPSession(alice.page);
  await session.send("Network.emulateNetworkConditions", {
    offline: false,
    latency: 0,
    downloadThroughput: -1,
    uploadThroughput: 50_000,
  });
  await choose(alice.page, file("video.mp4", "video/mp4", Buffer.alloc(20_000_000)));
  await alice.write("a long one");
  await alice.page.getByRole("progressbar", { name: /^video\.mp4: \d+ % sent$/ }).waitFor();
  await picture(alice.page, "files-on-their-way");
  await actOn(alice.page, "a long one", "Discard");
  await becomes(() => texts(alice.page), ["before"]);
  await alice.write("never mind");

  await becomes(() => texts(bob.page), ["before", "never mind"]);
  assert.deepEqual(await stored(alice.page, "files"), []);
  await end();
});

test("an upload whose answer is lost is not made twice", async (t) => {
  const { alice, bob, end } = await pair(t);
  const keys = [];
  await alice.context.route(/\/attachments\?/, async (route) => {
    keys.push(route.request().headers()["idempotency-key"]);
    const response = await route.fetch();
    return keys.length === 1 ? route.abort() : route.fulfill({ response });
  });
  await choose(alice.page, file("notes.txt", "text/plain", "rope"));
  await alice.write("once");

  await bob.page.getByRole("button", { name: "Download notes.txt" }).waitFor();
  assert.equal(keys.length, 2);
  assert.equal(keys[0], keys[1]);
  await becomes(() => texts(bob.page), ["before", "once"]);
  await end();
});

test("what is written behind a file waits for it, and what is written elsewhere does not", async (t) => {
  const { server, alice, bob, end } = await pair(t);
  const carol = await server.register("carol");
  const seen = gate();
  await alice.context.route(/\/attachments\?/, async (route) => {
    await seen.opened;
    return route.continue();
  });
  await choose(alice.page, file("notes.txt", "text/plain", "rope"));
  await alice.write("with a file");
  await alice.write("after it");
  await alice.open("carol");
  await alice.write("elsewhere");
  await becomes(async () => {
    const conversations = await server.call("GET", "/conversations", { token: carol.token });
    return conversations.map((it) => it.last_message_preview);
  }, ["elsewhere"]);
  await alice.goTo("bob");
  await becomes(() => alice.page.locator('[data-progress="waiting"]').count(), 2);
  assert.deepEqual(await texts(bob.page), ["before"]);

  seen.open();
  await becomes(() => texts(bob.page), ["before", "with a file", "after it"]);
  await end();
});

test("a file that the server no longer has is sent up again", async (t) => {
  const { server, alice, bob, end } = await pair(t, { expected: [UNREACHABLE, /status of 404/] });
  const token = await server.logIn("alice");
  let is_first = true;
  await alice.context.route(/\/messages$/, async (route) => {
    const [attachment_id] = route.request().postDataJSON().attachment_ids;
    if (is_first) await server.call("DELETE", `/attachments/${attachment_id}`, { token });
    is_first = false;
    return route.continue();
  });
  await choose(alice.page, file("notes.txt", "text/plain", "rope"));
  await alice.write("late");

  await becomes(() => texts(bob.page), ["before", "late"]);
  assert.equal((await download(bob.page, "Download notes.txt")).content.toString(), "rope");
  await becomes(() => outbox(alice.page), []);
  await end();
});

test("a file that the browser has lost is told of, and holds nothing up", async (t) => {
  const { server, alice, bob, end } = await pair(t);
  await server.stop();
  await offline(alice.page);
  await choose(alice.page, file("lost.txt", "text/plain", "rope"));
  await alice.write("gone");
  await message(alice.page, "gone").waitFor();
  await clear(alice.page, "files");
  await choose(alice.page, file("tea\u202etxt.exe", "text/plain", "tea"));
  await alice.write("here");
  await server.again();

  await message(alice.page, "gone").getByText("Not sent: lost.txt: this browser can not read it any more").waitFor();
  await becomes(() => texts(bob.page), ["before", "here"]);
  await bob.page.getByRole("button", { name: "Download tea_txt.exe" }).waitFor();
  await message(alice.page, "gone").getByRole("button", { name: "Discard" }).click();
  await becomes(() => outbox(alice.page), []);
  await end();
});

test("a file for which there is no room among those that wait says so, and is sent once there is", async (t) => {
  const { alice, bob, end } = await pair(t, { expected: [UNREACHABLE, /status of 409/] });
  const error = { code: "attachments_full", message: "too many attachments were not sent yet" };
  await alice.context.route(/\/attachments\?/, (route) => route.fulfill({ status: 409, json: { error } }), { times: 1 });
  await choose(alice.page, file("notes.txt", "text/plain", "rope"));
  await alice.write("with a file");
  const full = "Not sent: notes.txt: too many of your files wait for their messages; try again when those are sent";
  await message(alice.page, "with a file").getByText(full).waitFor();
  await message(alice.page, "with a file").getByRole("button", { name: "Try again" }).click();

  await becomes(() => texts(bob.page), ["before", "with a file"]);
  await bob.page.getByRole("button", { name: "Download notes.txt" }).waitFor();
  await end();
});
