// What the tests of the web client share: a server of their own that can be stopped and started
// again, people in browsers, and what must be true of every page.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, mkdir, readFile, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const root = fileURLToPath(new URL("../../", import.meta.url));
const binary = process.env.MESSENGER_SERVER ?? join(root, "target/debug/messenger-server");
const screenshots = join(root, "target/web/screenshots");
const axe = await readFile(new URL(import.meta.resolve("axe-core/axe.min.js")), "utf8");

export const PASSWORD = "correct horse battery staple";

/** How long anything that must happen may take, on a machine that has much else to do. */
export const SOON_MS = 60_000;

/** A server with a database of its own. */
export class Server {
  #process;
  #folder;
  #settings;

  static async start(settings = {}) {
    const server = new Server();
    server.#folder = await mkdtemp(join(tmpdir(), "messenger-web-"));
    server.#settings = settings;
    server.port = await freePort();
    server.url = `http://localhost:${server.port}/`;
    await server.again();
    return server;
  }

  /** Starts it again, at the same place. */
  async again(settings = {}) {
    Object.assign(this.#settings, settings);
    this.#process = this.#spawn();
    let log = "";
    await new Promise((resolve, reject) => {
      this.#process.once("error", reject);
      this.#process.once("exit", () => reject(new Error(`the server does not start: ${log}`)));
      this.#process.stderr.on("data", (chunk) => {
        log += chunk;
        if (log.includes("listening")) resolve();
      });
    });
    this.#process.removeAllListeners("exit");
  }

  /** Runs one of its other commands, such as `backup`. */
  async run(...command) {
    const [code] = await once(this.#spawn(...command), "exit");
    assert.equal(code, 0, command.join(" "));
  }

  #spawn(...command) {
    return spawn(binary, command, {
      cwd: this.#folder,
      env: {
        PATH: process.env.PATH,
        HOST: "127.0.0.1",
        PORT: String(this.port),
        DATABASE_URL: `sqlite://${join(this.#folder, "messenger.db")}`,
        AUTH_RATE_LIMIT_MAX_REQUESTS: "1000",
        PRESENCE_INTERVAL_MS: "100",
        ...this.#settings,
      },
      stdio: ["ignore", "ignore", "pipe"],
    });
  }

  /** Ends it, and waits until it is gone. */
  async stop(signal = "SIGTERM") {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const gone = once(this.#process, "exit");
    this.#process.kill(signal);
    await gone;
  }

  /** Ends it for good. */
  async end() {
    await this.stop("SIGKILL");
    await rm(this.#folder, { recursive: true, force: true });
  }

  /** Asks the API, as somebody with a token. */
  async call(method, path, { token, body } = {}) {
    const response = await fetch(new URL(`v1${path}`, this.url), {
      method,
      headers: { "content-type": "application/json", ...(token && { authorization: `Bearer ${token}` }) },
      ...(body && { body: JSON.stringify(body) }),
    });
    const answer = await response.json();
    assert.ok(response.ok, `${method} ${path}: ${JSON.stringify(answer)}`);
    return answer.data;
  }

  /** Registers somebody without a browser; gives a token and an id. */
  async register(name) {
    const { tokens, user } = await this.call("POST", "/auth/register", {
      body: { username: name, password: PASSWORD },
    });
    return { token: tokens.access_token, id: user.id };
  }

  /** Logs somebody in without a browser; gives a token. */
  async logIn(username) {
    const { tokens } = await this.call("POST", "/auth/login", { body: { username, password: PASSWORD } });
    return tokens.access_token;
  }

  /** Sends something as somebody without a browser, in their only conversation. */
  async send(token, ...contents) {
    const [{ id }] = await this.call("GET", "/conversations", { token });
    for (const content of contents) {
      const body = { client_message_id: crypto.randomUUID(), content };
      await this.call("POST", `/conversations/${id}/messages`, { token, body });
    }
  }
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** A browser for the tests of one file. */
export const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});

/** What a browser writes by itself when a request does not get through. */
export const UNREACHABLE = /net::ERR_|WebSocket connection to|ERR_INTERNET_DISCONNECTED/;
/** What a browser writes by itself when a token is refused. */
export const REFUSED = /status of 401|WebSocket connection to/;

/** A browser of somebody: its tabs share what is kept. */
export class Person {
  /** What was written to the console, and is no news to the test. */
  #expected;
  /** What was written to the console, or thrown and not caught. */
  errors = [];

  static async at(server, name, { expected = [], ...options } = {}) {
    const person = new Person();
    person.name = name;
    person.server = server;
    person.#expected = expected;
    person.context = await browser.newContext({ baseURL: server.url, locale: "en-GB", ...options });
    person.context.setDefaultTimeout(SOON_MS);
    person.page = await person.tab();
    return person;
  }

  /** Opens another tab. */
  async tab(address = "/") {
    const page = await this.context.newPage();
    page.on("pageerror", (error) => this.errors.push(String(error)));
    page.on("console", (message) => {
      if (message.type() === "error" || message.type() === "warning") this.errors.push(message.text());
    });
    await page.goto(address);
    return page;
  }

  /** Registers with the form. */
  async register(page = this.page) {
    await page.getByRole("button", { name: "I am new here" }).click();
    await page.getByLabel("Username").fill(this.name);
    await page.getByLabel("Password").fill(PASSWORD);
    await page.getByRole("button", { name: "Create an account" }).click();
    await online(page);
    return this;
  }

  async logIn(page = this.page) {
    await page.getByLabel("Username").fill(this.name);
    await page.getByLabel("Password").fill(PASSWORD);
    await page.getByRole("button", { name: "Log in" }).click();
    await online(page);
  }

  /** Finds somebody and opens the conversation with them. */
  async open(name, page = this.page) {
    await page.getByRole("button", { name: "New conversation" }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByLabel("Find people").fill(name);
    await dialog.getByRole("button", { name }).click();
    await page.getByRole("main", { name: `Conversation: ${name}` }).waitFor();
  }

  /** Goes to a conversation of the list. */
  async goTo(title, page = this.page) {
    await page.getByRole("navigation").getByRole("link", { name: title }).click();
    await page.getByRole("main", { name: `Conversation: ${title}` }).waitFor();
  }

  async write(text, page = this.page) {
    const field = page.getByLabel("Message", { exact: true });
    await field.fill(text);
    await field.press("Enter");
  }

  /** Closes the browser, and asserts that it had nothing to complain of. */
  async end() {
    await this.context.close();
    const unexpected = this.errors.filter((it) => !this.#expected.some((pattern) => pattern.test(it)));
    assert.deepEqual(unexpected, [], `the console of ${this.name}`);
  }
}

/** Two people who talk, on a server of their own. */
export async function pair(t, { settings, expected = [UNREACHABLE] } = {}) {
  const server = await Server.start(settings);
  t.after(() => server.end());
  const [alice, bob] = await Promise.all(
    ["alice", "bob"].map(async (name) => (await Person.at(server, name, { expected })).register()),
  );
  await alice.open("bob");
  await alice.write("before");
  await bob.goTo("alice");
  await becomes(() => texts(bob.page), ["before"]);
  const end = async () => {
    await alice.end();
    await bob.end();
  };
  return { server, alice, bob, end };
}

/** Writes, until another page shows that somebody is writing. */
export async function types(page, other) {
  const field = page.getByLabel("Message", { exact: true });
  const seen = other.getByRole("main").getByText("writing…");
  // What is not shown in time is forgotten: so again.
  await becomes(async () => {
    await field.pressSequentially("x");
    return seen.isVisible();
  }, true);
}

/** Waits until a page says that it is in touch with the server. */
export const online = (page) => page.locator('[data-connection="online"]').waitFor();
export const offline = (page) => page.locator('[data-connection="offline"]').waitFor();

/** The messages that a page shows, from the top down. */
export const texts = (page) => page.locator(".timeline article .text").allTextContents();

/** A message that a page shows, by its text. */
export function message(page, text) {
  const whole = new RegExp(`^${text.replace(/[^\w\s]/g, "\\$&")}$`);
  return page.locator(".message").filter({ has: page.locator(".text", { hasText: whole }) });
}

/**
 * Does something with a message that a page shows, by its button. The focus holds the buttons, also
 * if what comes meanwhile moves the message away from the pointer.
 */
export async function actOn(page, text, button) {
  const article = message(page, text).getByRole("article");
  await article.focus();
  await article.getByRole("button", { name: button }).click();
}

/** Gives other words to a message. */
export async function edit(person, text, other) {
  await actOn(person.page, text, "Edit");
  await person.page.getByText("Edit message").waitFor();
  await person.write(other);
  await message(person.page, other)
    .waitFor()
    .catch(async (error) => {
      const rows = await person.page.locator(".timeline ol").innerHTML();
      assert.fail(`${error}\n${rows}\n${person.errors.join("\n")}`);
    });
}

/** What waits in the outbox of a page's person. */
export const outbox = (page) => stored(page, "outbox");

/** All that a page's person keeps in one store. */
export const stored = (page, store) => inStore(page, store, "getAll");

/** Takes away what a page's person keeps in one store, as a browser may that runs out of space. */
export const clear = (page, store) => inStore(page, store, "clear");

function inStore(page, store, method) {
  return page.evaluate(async ([store, method]) => {
    const { name } = (await indexedDB.databases()).find((it) => it.name !== "messenger");
    const result = (request) =>
      new Promise((resolve, reject) => {
        request.onsuccess = () => resolve(request.result);
        request.onerror = () => reject(request.error);
      });
    const db = await result(indexedDB.open(name));
    const rows = await result(db.transaction(store, "readwrite").objectStore(store)[method]());
    db.close();
    return rows;
  }, [store, method]);
}

/** Lets a page have no room for more in some stores, or have it again. */
export const fill = (page, ...stores) =>
  page.evaluate((stores) => {
    const { prototype } = IDBObjectStore;
    globalThis.put ??= prototype.put;
    const { put } = globalThis;
    prototype.put = function (...row) {
      if (stores.includes(this.name)) throw new DOMException("the disk is full", "QuotaExceededError");
      return put.apply(this, row);
    };
  }, stores);

/** A promise, and what fulfils it: for whatever is to wait for the test. */
export function gate() {
  let open;
  const opened = new Promise((resolve) => {
    open = resolve;
  });
  return { opened, open };
}

/** Waits until something is what it must become. */
export async function becomes(what, expected) {
  const until = Date.now() + SOON_MS;
  for (;;) {
    const is = await what();
    try {
      assert.deepEqual(is, expected);
      return;
    } catch (error) {
      if (Date.now() > until) throw error;
    }
    // Anything may change it: look again with the next frame of the page.
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** A PNG of evening over hills, drawn by a page. */
export async function drawing(page, width, height) {
  const url = await page.evaluate(
    ([width, height]) => {
      const canvas = Object.assign(document.createElement("canvas"), { width, height });
      const pen = canvas.getContext("2d");
      const sky = pen.createLinearGradient(0, 0, 0, height);
      for (const [at, colour] of [[0, "#2b3a75"], [0.45, "#b0578d"], [0.7, "#f7a35c"], [1, "#ffe3a3"]]) {
        sky.addColorStop(at, colour);
      }
      pen.fillStyle = sky;
      pen.fillRect(0, 0, width, height);
      pen.fillStyle = "#fff3cf";
      pen.beginPath();
      pen.arc(0.66 * width, 0.58 * height, 0.09 * height, 0, 2 * Math.PI);
      pen.fill();
      for (const [depth, colour] of [[0.62, "#7a4676"], [0.72, "#4f3566"], [0.84, "#2a2347"]]) {
        pen.fillStyle = colour;
        pen.beginPath();
        pen.moveTo(0, height);
        for (let x = 0; x <= width; x += 2) {
          const t = (9 * x) / width;
          const y = depth + 0.05 * Math.sin(t + 20 * depth) + 0.03 * Math.sin(2.3 * t * depth + 5) ;
          pen.lineTo(x, y * height);
        }
        pen.lineTo(width, height);
        pen.fill();
      }
      return canvas.toDataURL("image/png");
    },
    [width, height],
  );
  return Buffer.from(url.split(",")[1], "base64");
}

/** Keeps a picture, for people to look at, and says where. */
export async function picture(page, name) {
  await mkdir(screenshots, { recursive: true });
  const path = join(screenshots, `${name}.png`);
  await page.screenshot({ path });
  return path;
}

/** Whether a picture with this name is shown among the messages, and not only its frame. */
export function shownPicture(page, name) {
  const pictures = page.locator(".timeline").getByRole("img", { name });
  return pictures.evaluateAll((all) => all.some((it) => it.complete && it.naturalWidth > 0));
}

/** Asserts that a checker of accessibility finds nothing serious. */
export async function assertAccessible(page, what) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  const serious = violations.filter((it) => it.impact === "serious" || it.impact === "critical");
  const found = serious.map((it) => `${it.id}: ${it.nodes.map((node) => node.html).join("\n")}`);
  assert.deepEqual(found, [], what);
}
