// A person who is logged in: the replica, the outbox, the tabs and the model that the view shows.

import { effect } from "@preact/signals";
import { v7 } from "uuid";
import type { MessageCreated } from "../generated/api";
import { api, ask, type Reply } from "./api";
import { fetchFile, Uploader } from "./files";
import { gistOf, isMuted, Model, type ShownFile } from "./model";
import { Notices } from "./notices";
import { type Deed, filesOf, Sender } from "./outbox";
import { attachmentsOf, Replica } from "./replica";
import { asPerson, be, logOut, type Session, SignedOut } from "./session";
import { Sync } from "./sync";
import { Tabs, type Word } from "./tabs";
import { Pause, settled } from "./wait";

/** How often the others are told that the person is still writing. */
const TYPING_MS = 4_000;

/** How long a log-out waits until what is kept is deleted. */
const DROP_MS = 3_000;

/** What no name of a file may have: it would be a path, or look like another name. */
const UNFIT = /[\p{Cc}\p{Cs}\u202a-\u202e\u2066-\u2069/\\]/gu;

export class Client {
  readonly me: string;
  readonly model: Model;
  readonly notices: Notices;
  #replica: Replica;
  #tabs: Tabs;
  #stop = new AbortController();
  #leads: { sync: Sync; sender: Sender; uploader: Uploader } | undefined;
  #is_leaving = false;
  #drafts: Map<string, string>;
  #typing: { conversation_id: string; told_at: number } | undefined;

  static async start(session: Session): Promise<Client> {
    be(session.user_id);
    const replica = await Replica.open(session.user_id);
    const client = new Client(session, replica, await replica.drafts());
    await client.model.load();
    void client.#run();
    return client;
  }

  private constructor(session: Session, replica: Replica, drafts: Map<string, string>) {
    this.me = session.user_id;
    this.#drafts = drafts;
    this.#replica = replica;
    this.model = new Model(replica);
    this.notices = new Notices(this.me, this.#stop.signal);
    this.#tabs = new Tabs(`messenger-${session.user_id}`, (word) => this.#hear(word));
    replica.onChange = (touched) => this.#tabs.say({ kind: "changed", touched });
    replica.onOver = () => this.#beginAgain();
    window.addEventListener("online", () => this.wake());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.wake();
    });
    // A hole that comes into sight is filled, when that can be done.
    effect(() => {
      const wanted = this.model.missing.value;
      if (wanted && this.model.live.value.connection === "online") void this.#fill(wanted.conversation_id);
    });
  }

  /**
   * Keeps what the person does. From here on it is sent, once, whatever happens. Says whether it
   * could be kept.
   */
  async act(deed: Deed, contents: Blob[] = []): Promise<boolean> {
    try {
      await this.#replica.write(v7(), deed, contents);
    } catch (error) {
      console.error(error);
      this.model.notice.value = "this browser can not keep it. Is the disk full?";
      return false;
    }
    this.#tabs.say({ kind: "deed" });
    // A browser that runs out of space is not to delete what waits.
    void navigator.storage?.persist?.().catch(() => false);
    return true;
  }

  /** What was begun in a conversation, and not sent. */
  draft(conversation_id: string): string {
    return this.#drafts.get(conversation_id) ?? "";
  }

  /** Keeps what was begun, for when the person comes back. */
  keepDraft(conversation_id: string, text: string): void {
    this.#drafts.set(conversation_id, text);
    // Who leaves meanwhile keeps nothing.
    this.#replica.keepDraft(conversation_id, text).catch((error: unknown) => this.#complain(error));
  }

  /** Sends a message, with files and the members whom it names. */
  send(message: Omit<Extract<Deed, { kind: "send" }>, "kind" | "files">, files: File[]): Promise<boolean> {
    const picked = files.map(({ name, type, size }) => {
      const media_type = type || "application/octet-stream";
      // What the server takes as a name.
      const named = [...name.replace(UNFIT, "_")].slice(0, 255).join("") || "file";
      return { file: v7(), key: v7(), name: named, media_type, size, id: null };
    });
    // What is kept of it goes with the same step that keeps the message.
    this.#drafts.delete(message.conversation_id);
    return this.act({ kind: "send", ...message, files: picked }, files);
  }

  /** A picture in its small form, if it is here or can be fetched. */
  async picture(conversation_id: string, { id, file }: ShownFile): Promise<Blob | undefined> {
    if (id === null) return file === null ? undefined : this.#replica.findFile(file);
    // One that can not be read is fetched again.
    const known = await this.#replica.findPreview(conversation_id, id).catch(() => undefined);
    if (known) return known;
    const reply = await this.#signedIn(fetchFile(id, "preview"));
    if (reply.kind !== "done") return undefined;
    // Where there is no room, it is fetched again another time.
    await this.#replica.keepPreview(conversation_id, id, reply.data).catch(() => {});
    return reply.data;
  }

  /** What is in a file, unless it is no longer wanted; this takes the server. */
  content(id: string, stop?: AbortSignal): Promise<Reply<Blob>> {
    return this.#signedIn(fetchFile(id, "content", stop));
  }

  /** Sends once more what was refused or parked. */
  async actAgain(write_id: number): Promise<void> {
    await this.#replica.again(write_id);
    this.#tabs.say({ kind: "deed" });
  }

  /** Gives up what was not sent, and what of it was sent up already, if the server can be reached. */
  async discard(write_id: number): Promise<void> {
    const write = await this.#replica.discard(write_id);
    if (!write) {
      this.model.notice.value = "it is being sent already";
      return;
    }
    this.#tabs.say({ kind: "deed" });
    for (const { id: attachment_id } of filesOf(write.deed)) {
      if (attachment_id === null) continue;
      const params = { path: { attachment_id } };
      await this.#ask((headers) => ask(api.DELETE("/v1/attachments/{attachment_id}", { headers, params })));
    }
  }

  /** Tells that the person is writing in a conversation, now and then, or has stopped. */
  types(conversation_id: string, is_typing: boolean): void {
    const told = this.#typing?.conversation_id === conversation_id ? this.#typing : undefined;
    if (is_typing ? told && Date.now() - told.told_at < TYPING_MS : !told) return;
    this.#typing = is_typing ? { conversation_id, told_at: Date.now() } : undefined;
    this.#tabs.say({ kind: "i_type", conversation_id, state: is_typing ? "start" : "stop" });
  }

  /** Finds people; this takes the server. */
  findPeople(query: string) {
    const params = { query: { query, limit: 20 } };
    return this.#ask((headers) => ask(api.GET("/v1/users/search", { headers, params })));
  }

  /** Finds messages by their text, the newest first, those before a place; this takes the server. */
  async findMessages(query: string, before?: number) {
    const params = { query: { query, limit: 20, ...(before && { before }) } };
    const found = await this.#ask((headers) => ask(api.GET("/v1/messages/search", { headers, params })));
    if (found.kind === "done") await this.#meet(found.data.messages.map((it) => it.sender_id));
    return found;
  }

  /** Opens the conversation with somebody. Its id is the server's to say, so it takes the server. */
  openDirect(other_user_id: string) {
    const body = { other_user_id };
    return this.#begun(this.#ask((headers) => ask(api.POST("/v1/conversations/direct", { headers, body }))));
  }

  /** Makes a group; the same `key` makes the same group. */
  createGroup(key: string, title: string, member_ids: string[]) {
    const body = { title, member_ids, client_conversation_id: key };
    return this.#begun(this.#ask((headers) => ask(api.POST("/v1/conversations/groups", { headers, body }))));
  }

  /** Asks as the person. */
  #ask<T>(request: Parameters<typeof asPerson<T>>[0]): Promise<Reply<T>> {
    return this.#signedIn(asPerson(request));
  }

  /** Where the session has ended, there is no answer, and this page is over. */
  async #signedIn<T>(reply: Promise<Reply<T>>): Promise<Reply<T>> {
    try {
      return await reply;
    } catch (error) {
      if (!(error instanceof SignedOut)) throw error;
      this.#tabs.say({ kind: "session" });
      return { kind: "later", wait_ms: 0 };
    }
  }

  /** The conversation comes with the next page; its version is what a restore is noticed by. */
  async #begun<T extends { version: number; membership_version: number }>(
    reply: Promise<Reply<T>>,
  ): Promise<Reply<T>> {
    const begun = await reply;
    if (begun.kind === "done") {
      await this.#replica.see(Math.max(begun.data.version, begun.data.membership_version));
      this.#tabs.say({ kind: "deed" });
    }
    return begun;
  }

  /** Where the person is logged in; this takes the server. */
  sessions() {
    return this.#ask((headers) => ask(api.GET("/v1/auth/sessions", { headers })));
  }

  /** Ends a session of the person; this takes the server. */
  endSession(session_id: string) {
    const params = { path: { session_id } };
    return this.#ask((headers) => ask(api.DELETE("/v1/auth/sessions/{session_id}", { headers, params })));
  }

  /** Looks for the server now. */
  wake(): void {
    for (const part of Object.values(this.#leads ?? {})) part.pause.wake();
  }

  /** Logs out on all tabs, and deletes what is kept here. */
  async logOut(): Promise<void> {
    this.#is_leaving = true;
    this.#stop.abort();
    try {
      const tellServer = await logOut();
      this.notices.forget();
      this.#tabs.sayToOthers({ kind: "session" });
      // What another page holds open is deleted when that page is gone.
      await Promise.all([settled(Replica.drop(this.me), DROP_MS), tellServer()]);
    } finally {
      location.reload();
    }
  }

  #hear(word: Word): void {
    switch (word.kind) {
      case "changed":
        this.model.reload(word.touched).catch((error: unknown) => this.#complain(error));
        if (word.touched.outbox) this.#leads?.uploader.check().catch((error: unknown) => this.#complain(error));
        break;
      case "live":
        this.model.live.value = word.live;
        break;
      case "refused":
        this.model.notice.value = word.text;
        break;
      case "session":
        this.#beginAgain();
        break;
      case "deed":
        this.wake();
        break;
      case "hello":
        this.#tellLive();
        break;
      case "sync_anew":
        this.#leads?.sync.syncAnew();
        break;
      case "i_type":
        this.#leads?.sync.type(word.conversation_id, word.state);
        break;
    }
  }

  /** Somebody has logged in or out, or another tab has deleted what is kept: so this page is over. */
  #beginAgain(): void {
    // Who logs out here begins again when that is done.
    if (this.#is_leaving) return;
    this.#stop.abort();
    location.reload();
  }

  #complain(error: unknown): void {
    if (this.#stop.signal.aborted) return;
    console.error(error);
    this.model.notice.value = "this browser can not keep what came";
  }

  #tellLive(): void {
    if (!this.#leads) return;
    const { sync, uploader } = this.#leads;
    // Copies, so that whoever shows them sees that they are others.
    const { connection, people, typing } = sync.live;
    const live = { connection, people: new Map(people), typing: new Map(typing), uploads: new Map(uploader.progress) };
    this.#tabs.say({ kind: "live", live });
  }

  async #run(): Promise<void> {
    this.#tabs.say({ kind: "hello" });
    const pause = new Pause();
    while (!this.#stop.signal.aborted) {
      try {
        await this.#tabs.lead(this.#stop.signal, () => this.#lead());
      } catch (error) {
        if (error instanceof SignedOut) return;
        // The disk is full, for example: nothing was taken in, so it can be tried again.
        this.#complain(error);
        await pause.next(this.#stop.signal);
      }
    }
  }

  /** Talks to the server, in place of all tabs. */
  async #lead(): Promise<void> {
    const done = new AbortController();
    const stop = AbortSignal.any([this.#stop.signal, done.signal]);
    const sender: Sender = new Sender(
      this.#replica,
      (deed, reason) => {
        // A message says by itself that it did not go.
        if (deed.kind !== "send") this.#tabs.say({ kind: "refused", text: reason });
      },
      () => uploader.pause.wake(),
    );
    const uploader = new Uploader(
      this.#replica,
      () => this.#tellLive(),
      () => sender.pause.wake(),
    );
    const sync = new Sync(
      this.#replica,
      () => this.#tellLive(),
      async (is_reachable) => {
        sender.is_reachable = uploader.is_reachable = is_reachable;
        if (!is_reachable) return;
        // What the server failed at may go now.
        await this.#replica.again();
        sender.pause.wake();
        uploader.pause.wake();
      },
    );
    sync.onMessage = (message) => void this.#notify(message).catch((error: unknown) => this.#complain(error));
    this.#leads = { sync, sender, uploader };
    // What one part fails at ends the others, and nobody else leads before they have ended.
    const parts = [sync, sender, uploader].map((part) =>
      part.run(stop).catch((error: unknown) => {
        done.abort();
        if (error instanceof SignedOut) this.#tabs.say({ kind: "session" });
        throw error;
      }),
    );
    const ends = await Promise.allSettled(parts);
    this.#leads = undefined;
    for (const end of ends) if (end.status === "rejected") throw end.reason;
  }

  /** Tells whoever does not look that somebody has written, unless they have muted it. */
  async #notify(message: MessageCreated): Promise<void> {
    const { conversation_id, sender } = message;
    const conversation = await this.#replica.findConversation(conversation_id);
    if (!conversation || isMuted(conversation)) return;
    const gist = gistOf(message.content, attachmentsOf(message));
    const is_group = conversation.type === "group";
    const title = is_group ? conversation.title || "Group" : sender.display_name;
    await this.notices.show({ conversation_id, title, text: is_group ? `${sender.display_name}: ${gist}` : gist });
  }

  /** Asks who they are, of those who are not known here. */
  async #meet(people: string[]): Promise<void> {
    const known = this.model.users.peek();
    const ids = [...new Set(people)].filter((id) => !known.has(id));
    if (ids.length === 0) return;
    const reply = await this.#ask((headers) => ask(api.POST("/v1/users/batch", { headers, body: { ids } })));
    if (reply.kind === "done") await this.#replica.takeUsers(reply.data.users);
  }

  #filling: string | undefined;

  /** Reads what is missing of a conversation in sight, until nothing is. */
  async #fill(conversation_id: string): Promise<void> {
    if (this.#filling === conversation_id) return;
    this.#filling = conversation_id;
    try {
      let before = "";
      for (;;) {
        const hole = this.model.missing.peek();
        // An answer that is older than the hole, or of another stay, fills nothing.
        if (hole?.conversation_id !== conversation_id || JSON.stringify(hole) === before) return;
        before = JSON.stringify(hole);
        const query = { after_seq: hole.from_seq - 1, before_seq: hole.to_seq + 1, limit: 100 };
        const params = { path: { conversation_id }, query };
        const reply = await this.#ask((headers) =>
          ask(api.GET("/v1/conversations/{conversation_id}/messages", { headers, params })),
        );
        if (reply.kind !== "done") return;
        if ((await this.#replica.takeHistory(conversation_id, reply.data)) === "ask_again") {
          this.#tabs.say({ kind: "sync_anew" });
          return;
        }
        await this.model.settled();
        await this.#meet(reply.data.messages.map((it) => it.sender_id));
      }
    } finally {
      this.#filling = undefined;
    }
  }
}
