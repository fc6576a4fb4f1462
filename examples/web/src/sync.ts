// What the tab that leads does with the server: catches up, follows what happens, and begins again
// whenever it was cut off.

import type { Bootstrap, Changes, ErrorBody, LiveFrame, MessageCreated, SocketCommand, SocketFrame } from "../generated/api";
import { api, ask, base } from "./api";
import type { Replica } from "./replica";
import { asPerson, required } from "./session";
import type { Live } from "./tabs";
import { Pause } from "./wait";

/** Rows of a page, and new messages of one conversation. */
const PAGE = { limit: 200, timeline_limit: 50 };

/** How often to show that one is there, unless the welcome says otherwise. */
const HEARTBEAT_MS = 25_000;

/** Without a socket: how long an answer may wait for something to say. */
const WAIT_SEC = 25;

/** How often to ask where no answer waits. */
const POLL_MS = 2_000;

/** After this time a socket is tried again. */
const WITHOUT_SOCKET_MS = 120_000;

/** How many people the server is asked about at once. */
const PEOPLE_MAX = 100;

/** The server can not be reached, or not now; what is tried again waits this long at least. */
class Offline extends Error {
  constructor(readonly wait_ms = 0) {
    super("the server can not be reached");
  }
}

/** A frame of a socket that has resumed. */
type Frame = LiveFrame | Exclude<SocketFrame, { type: LiveFrame["type"] }>;

export class Sync {
  readonly live: Omit<Live, "uploads"> = { connection: "connecting", people: new Map(), typing: new Map() };
  readonly pause = new Pause();
  #replica: Replica;
  /** Is told when `live` is other. */
  #tell: () => void;
  /** Is told when the server was reached, or is out of reach. */
  #reach: (is_reachable: boolean) => Promise<void>;
  /** Is told what somebody else has just written. */
  onMessage: (message: MessageCreated) => void = () => {};
  #socket: WebSocket | undefined;
  #asked_about = new Set<string>();

  constructor(replica: Replica, tell: () => void, reach: (is_reachable: boolean) => Promise<void>) {
    this.#replica = replica;
    this.#tell = tell;
    this.#reach = reach;
  }

  /** Runs until it is stopped, or the session ends: then it throws `SignedOut`. */
  async run(stop: AbortSignal): Promise<void> {
    while (!stop.aborted) {
      let wait_ms = 0;
      try {
        await this.#connected(stop);
        // Cut off, if only since the token has expired: it is not known yet whether that lasts.
        this.#is("connecting");
      } catch (error) {
        if (!(error instanceof Offline)) throw error;
        wait_ms = error.wait_ms;
        this.live.people.clear();
        this.live.typing.clear();
        this.#is("offline");
      }
      await this.#reach(false);
      await this.pause.next(stop, wait_ms);
    }
  }

  /** Closes the connection and syncs anew. */
  syncAnew(): void {
    this.#socket?.close();
    this.pause.wake();
  }

  /** Tells the others that the person is writing, if that can be done. */
  type(conversation_id: string, state: "start" | "stop"): void {
    if (this.live.connection === "online") this.#say({ op: "typing", conversation_id, state });
  }

  #is(connection: Live["connection"]): void {
    this.live.connection = connection;
    this.#tell();
  }

  /** Catches up, and follows what happens until the connection ends. */
  async #connected(stop: AbortSignal): Promise<void> {
    if (this.live.connection !== "offline") this.#is("connecting");
    await this.#catchUp(0);
    await this.#reach(true);
    for (;;) {
      const followed = await this.#follow(stop);
      if (followed === "ended" || stop.aborted) return;
      // There is no socket where a proxy forbids it, and no event where the server delivers none.
      this.#is("online");
      this.pause.begin();
      const until = Date.now() + WITHOUT_SOCKET_MS;
      while (Date.now() < until && !stop.aborted) {
        await this.#askAboutPeople();
        await this.#acknowledge();
        if (followed === "no_events") await this.pause.atMost(stop, POLL_MS);
        await this.#catchUp(followed === "no_events" ? 0 : WAIT_SEC);
      }
    }
  }

  /** Fetches what was missed, page by page; with `wait`, as soon as there is something. */
  async #catchUp(wait: number): Promise<void> {
    for (;;) {
      const { cursor, seen } = await this.#replica.nextPage();
      const reply = await asPerson<Bootstrap | Changes>((headers) => {
        const query = { ...PAGE, ...(seen && { seen }), ...(wait && { wait }) };
        return cursor === null
          ? ask(api.GET("/v1/sync/bootstrap", { headers, params: { query: PAGE } }))
          : ask(api.GET("/v1/sync/changes", { headers, params: { query: { cursor, ...query } } }));
      });
      if (reply.kind === "refused" && reply.error.code === "resync_required") {
        await this.#replica.beginAgain();
        throw new Offline(retryAfter(reply.error));
      }
      if (reply.kind !== "done") throw new Offline(reply.kind === "later" ? reply.wait_ms : 0);
      if ((await this.#replica.takePage(reply.data)) === "up_to_date") return;
    }
  }

  /** Follows what happens on a socket, and tells how that ended. */
  async #follow(stop: AbortSignal): Promise<"ended" | "no_socket" | "no_events"> {
    const session = await required();
    if (stop.aborted) return "ended";
    const url = new URL(`${base.pathname.replace(/\/$/, "")}/ws`, base);
    url.protocol = base.protocol.replace("http", "ws");
    url.searchParams.set("access_token", session.access_token);
    const socket = new WebSocket(url);
    this.#socket = socket;
    this.#asked_about.clear();
    const frames = framesOf(socket, stop);
    let was_open = false;
    try {
      for await (const frame of frames) {
        if (frame.type === "connection.welcome") {
          if (!frame.features.includes("resume")) return "no_events";
          was_open = true;
          frames.beatEvery(1000 * frame.heartbeat_sec || HEARTBEAT_MS, () => this.#say({ op: "ping" }));
          this.#say(await this.#replica.resume(PAGE.limit, PAGE.timeline_limit));
          continue;
        }
        await this.#take(frame);
      }
      return was_open ? "ended" : "no_socket";
    } finally {
      socket.close();
      this.#socket = undefined;
    }
  }

  async #take(frame: Frame): Promise<void> {
    switch (frame.type) {
      case "typing":
        return this.#types(frame.conversation_id, frame.payload);
      case "presence":
        return this.#come(frame.payload.people);
      case "ack":
      case "pong":
      case "error":
        return;
    }
    const next = await this.#replica.takeFrame(frame as LiveFrame);
    if (frame.type === "sync.reset") throw new Offline(frame.retry_after_ms);
    if (next === "ask_again") throw new Offline();
    if (frame.type === "message.created") {
      const { conversation_id, sender_id } = frame.payload;
      this.#types(conversation_id, { user_id: sender_id, state: "stop", ttl_ms: 0 });
      if (this.live.connection === "online") void this.#acknowledge(conversation_id).catch(() => {});
      if (sender_id !== this.#replica.me) this.onMessage(frame.payload);
    }
    if (frame.type === "sync.live") {
      this.pause.begin();
      this.#is("online");
    }
    if (frame.type === "sync.live" || (frame.type === "sync.page" && this.live.connection === "online")) {
      // Beside what comes next: neither is worth waiting for.
      void this.#askAboutPeople().catch(() => {});
      void this.#acknowledge().catch(() => {});
    }
  }

  #say(command: { op: string } & Partial<SocketCommand>): void {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(command));
  }

  #types(conversation_id: string, now: { user_id: string; state: string; ttl_ms: number }): void {
    const typing = this.live.typing.get(conversation_id) ?? new Map<string, number>();
    this.live.typing.set(conversation_id, typing);
    if (now.state === "start") typing.set(now.user_id, Date.now() + now.ttl_ms);
    else if (!typing.delete(now.user_id)) return;
    this.#tell();
  }

  #come(people: { user_id: string; online: boolean; last_seen_at: string | null }[]): void {
    for (const { user_id, ...presence } of people) this.live.people.set(user_id, presence);
    this.#tell();
  }

  /** Asks who is there of those with whom the person talks, and was not asked about yet. */
  async #askAboutPeople(): Promise<void> {
    const conversations = await this.#replica.conversations();
    const people = conversations.flatMap((it) => (it.members_mode === "full" ? it.member_ids : []));
    const ids = [...new Set(people)].filter((id) => id !== this.#replica.me && !this.#asked_about.has(id));
    for (const id of ids) this.#asked_about.add(id);
    for (let from = 0; from < ids.length; from += PEOPLE_MAX) {
      const body = { ids: ids.slice(from, from + PEOPLE_MAX) };
      const reply = await asPerson((headers) => ask(api.POST("/v1/users/presence", { headers, body })));
      if (reply.kind !== "done") continue;
      // Whoever is not told of is not shown as there.
      for (const id of body.ids) this.live.people.delete(id);
      this.#come(reply.data.people);
    }
  }

  /**
   * Tells what this device has received, of one conversation or of all. It needs no place in the
   * outbox: the replica knows it.
   */
  async #acknowledge(only?: string): Promise<void> {
    const one = only && (await this.#replica.findConversation(only));
    const conversations = one ? [one] : await this.#replica.conversations();
    for (const { id, last_seq, last_delivered_seq, members_mode } of conversations) {
      if (last_delivered_seq >= last_seq || members_mode === "lazy") continue;
      const params = { path: { conversation_id: id } };
      const body = { seq: last_seq };
      const reply = await asPerson((headers) =>
        ask(api.PUT("/v1/conversations/{conversation_id}/delivered", { headers, params, body })),
      );
      if (reply.kind !== "done") return;
      await this.#replica.see(reply.data.own_version);
    }
  }
}

const retryAfter = ({ details }: ErrorBody): number =>
  Number((details as { retry_after_ms?: number } | undefined)?.retry_after_ms ?? 0);

/** The frames of a socket until it is closed, and its heartbeat. */
interface Frames extends AsyncIterable<Frame> {
  /** Pings so often; a socket on which nothing came for two heartbeats is closed. */
  beatEvery(ms: number, ping: () => void): void;
}

function framesOf(socket: WebSocket, stop: AbortSignal): Frames {
  const waiting: Frame[] = [];
  let wake = () => {};
  let heard_at = Date.now();
  let timer: ReturnType<typeof setInterval> | undefined;
  const close = () => socket.close();
  // Who has stopped already is not told again.
  if (stop.aborted) close();
  else stop.addEventListener("abort", close);
  let is_closed = false;
  // A server that takes the connection and says nothing is none.
  const opening = setTimeout(close, HEARTBEAT_MS);
  socket.onmessage = ({ data }) => {
    heard_at = Date.now();
    clearTimeout(opening);
    waiting.push(JSON.parse(String(data)) as Frame);
    wake();
  };
  socket.onclose = () => {
    is_closed = true;
    clearTimeout(opening);
    clearInterval(timer);
    stop.removeEventListener("abort", close);
    wake();
  };
  return {
    beatEvery(ms, ping) {
      clearInterval(timer);
      timer = setInterval(() => {
        if (Date.now() - heard_at > 2 * ms) end();
        else ping();
      }, ms);
    },
    async *[Symbol.asyncIterator]() {
      for (;;) {
        const frame = waiting.shift();
        if (frame) yield frame;
        else if (is_closed) return;
        else
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
      }
    },
  };

  /** A line that is dead does not answer a close either. */
  function end(): void {
    socket.close();
    socket.onclose?.(new CloseEvent("close"));
  }
}
