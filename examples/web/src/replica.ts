// What a client keeps in the browser: a replica of everything that its person may see, the cursor
// that says how far it goes, and the outbox. One IndexedDB database for each person; no network in
// here.
//
// It follows the manual's chapter "Writing a client" rule by rule, as `examples/offline_client` does
// in Rust. Every change is one transaction; all tabs read and write the same database.

import { type DBSchema, deleteDB, type IDBPDatabase, type IDBPTransaction, openDB, type StoreNames } from "idb";
import type {
  Attachment,
  Block,
  Bootstrap,
  Changes,
  ConversationSummary,
  ErrorBody,
  LiveFrame,
  Message,
  MessageCreated,
  MessageDeleted,
  MessagePage,
  MessageUpdated,
  Pref,
  Read,
  ReadUpdated,
  Resume,
  UserPublic,
} from "../generated/api";
import { type Deed, filesOf, type Picked, subjectOf, type Write } from "./outbox";

/** A conversation as it is kept: who the members are, the users say. */
export type Conversation = Omit<ConversationSummary, "initial" | "members"> & {
  members: { id: string; role: string }[];
};

/** Messages of a conversation that are missing, both ends included. */
export interface Hole {
  conversation_id: string;
  from_seq: number;
  to_seq: number;
  /** Only an answer of this moment or later fills it. */
  as_of: number;
}

/** The files of a message. One that was kept by an earlier client has none. */
export const attachmentsOf = ({ attachments }: { attachments?: Attachment[] }): Attachment[] => attachments ?? [];

/** A file that is to be sent up next. */
export interface Upload {
  write: Write;
  picked: Picked;
  /** None if the browser has lost it. */
  content: Blob | undefined;
}

/** The small form of a picture. */
interface Preview {
  conversation_id: string;
  id: string;
  content: Blob;
  /** When it was fetched, in milliseconds. */
  at: number;
}

/** How far the replica goes. */
interface Place {
  cursor: string | null;
  /** The fence of the last sync. */
  fence: number | null;
  /** The newest position of any other answer, until a page has it. */
  seen: number | null;
  /** The moment up to which a sync is whole. */
  brought: number | null;
  /** Counts how often the replica began again. */
  generation: number;
  /** The last generation whose leftovers were dropped. */
  swept: number;
}

interface Kept<T> {
  row: T;
  generation: number;
}

interface Schema extends DBSchema {
  place: { key: number; value: Place };
  users: { key: string; value: Kept<UserPublic> };
  conversations: { key: string; value: Kept<Conversation> };
  messages: { key: [string, number]; value: Message; indexes: { id: string } };
  reads: { key: [string, string]; value: Read };
  /** What is only the person's: settings by key, people blocked by id. */
  own: { key: [string, string]; value: Kept<Pref | Block> };
  holes: { key: [string, number]; value: Hole };
  /** Writes that no sync has brought back, in their order. */
  outbox: { key: number; value: Write };
  /** What is in the files of messages that wait. */
  files: { key: string; value: Blob };
  previews: { key: [string, string]; value: Preview; indexes: { at: number } };
  /** What was begun and not sent, by conversation. */
  drafts: { key: string; value: string };
}

type Store = StoreNames<Schema>;
const STORES: Store[] = [
  "place",
  "users",
  "conversations",
  "messages",
  "reads",
  "own",
  "holes",
  "outbox",
  "files",
  "previews",
  "drafts",
];

/** What a change has touched, by id: what is shown of it is read again. */
export interface Touched {
  users: Set<string>;
  conversations: Set<string>;
  /** Conversations whose messages, holes or markers are others now. */
  messages: Set<string>;
  own: boolean;
  outbox: boolean;
}

/** What to do next. */
export type Next =
  /** There is more to fetch, at once. */
  | "more"
  /** Nothing is missing. */
  | "up_to_date"
  /** The replica has to begin again; what it shows stays until it has. */
  | "begin_again"
  /** Nothing was taken in: sync first, on a new connection. */
  | "ask_again";

/** How often the server may fail at a write before it is parked. */
const FAILURES_MAX = 8;

/** How many previews are kept; the oldest go. */
const PREVIEWS_MAX = 300;

/** Every place of a conversation in a store whose keys begin with its id. */
const all = (conversation: string) => IDBKeyRange.bound([conversation], [conversation, []]);

/** The replica of one person. */
export class Replica {
  readonly me: string;
  /** Is told what was changed here. */
  onChange: (touched: Touched) => void = () => {};
  /** Is told when another tab deletes this, or a newer client changes it. */
  onOver: () => void = () => {};
  #db: IDBPDatabase<Schema>;
  /** The newest moment that was seen when it was asked last. */
  #asked: number | null = null;
  /** The newest moment of a write that was answered when a socket last went on. */
  #answered = 0;

  private constructor(me: string, db: IDBPDatabase<Schema>) {
    this.me = me;
    this.#db = db;
  }

  /** Opens the replica of a person, and makes it if it is not there. */
  static async open(me: string): Promise<Replica> {
    let replica: Replica | undefined;
    const db = await openDB<Schema>(name(me), 2, {
      upgrade(db, before) {
        db.createObjectStore("drafts");
        db.createObjectStore("files");
        db.createObjectStore("previews", { keyPath: ["conversation_id", "id"] }).createIndex("at", "at");
        if (before > 0) return;
        db.createObjectStore("place");
        db.createObjectStore("users", { keyPath: "row.id" });
        db.createObjectStore("conversations", { keyPath: "row.id" });
        db.createObjectStore("messages", { keyPath: ["conversation_id", "seq"] }).createIndex("id", "id");
        db.createObjectStore("reads", { keyPath: ["conversation_id", "user_id"] });
        db.createObjectStore("own");
        db.createObjectStore("holes", { keyPath: ["conversation_id", "from_seq"] });
        db.createObjectStore("outbox", { keyPath: "id", autoIncrement: true });
      },
      blocking(_current, _blocked, event) {
        (event.target as IDBDatabase).close();
        replica?.onOver();
      },
    });
    replica = new Replica(me, db);
    return replica;
  }

  /** Deletes all that is kept of a person. */
  static async drop(me: string): Promise<void> {
    await deleteDB(name(me));
  }

  /** What to ask for the next page with. */
  async nextPage(): Promise<{ cursor: string | null; seen: string | undefined }> {
    const { cursor, seen } = await this.#place();
    this.#asked = seen;
    return { cursor, seen: seen === null ? undefined : `0:${seen}` };
  }

  /** The command with which a socket goes on from here. */
  async resume(limit: number, timeline_limit: number): Promise<Resume & { op: "resume" }> {
    const { cursor, seen } = await this.nextPage();
    this.#answered = Math.max(0, ...(await this.outbox()).map((it) => it.version ?? 0));
    return { op: "resume", limit, timeline_limit, ...(cursor && { cursor }), ...(seen && { seen }) };
  }

  /** Takes in the answer to `nextPage`. */
  takePage(data: Bootstrap | Changes): Promise<Next> {
    return this.#change(async (change) => {
      if (!(await change.page(data, this.#asked))) return "ask_again";
      if (!data.has_more) await change.sweep();
      change.place.cursor = data.next_cursor;
      return data.has_more ? "more" : "up_to_date";
    });
  }

  /**
   * Takes in a frame of a socket that has resumed. Says nothing if the frame is none of those that
   * bring data.
   */
  async takeFrame(frame: LiveFrame): Promise<Next | undefined> {
    if (frame.type === "sync.reset") {
      await this.beginAgain();
      return "begin_again";
    }
    if (!("cursor" in frame) || typeof frame.cursor !== "string") return undefined;
    return this.#change(async (change) => {
      let next: Next = "up_to_date";
      switch (frame.type) {
        case "sync.page":
          if (!(await change.page(frame.data, this.#asked))) return "ask_again";
          if (frame.data.has_more) next = "more";
          else await change.sweep();
          break;
        // Nothing is missing, whatever the last page has said.
        case "sync.live":
          await change.sweep();
          await change.brought(this.#answered);
          break;
        case "message.created":
          await change.messageCreated(frame.payload);
          await change.brought(frame.payload.version);
          break;
        case "message.updated":
        case "message.deleted":
          await change.messageChanged(frame.payload);
          await change.brought(frame.payload.version);
          break;
        case "read.updated":
          await change.read(frame.payload);
          await change.brought(frame.payload.version);
          break;
        case "user.updated":
          await change.user(frame.payload.user);
          await change.brought(frame.payload.user.version);
          break;
        // Whatever a later server says beside this, its cursor goes with it.
      }
      change.place.cursor = frame.cursor;
      return next;
    });
  }

  /** Takes in the answer to a question for messages of a conversation, whenever it was asked. */
  takeHistory(conversation: string, data: MessagePage): Promise<Next> {
    return this.#change(async (change) => {
      const { as_of, fence } = data.stamp;
      // Of another life of the database: only a sync can tell whether it goes together.
      if (change.place.fence !== fence) return "ask_again";
      change.see(as_of);
      const row = await change.findConversation(conversation);
      if (row?.membership_version === data.membership_version) {
        for (const message of data.messages) {
          await change.message(message);
          await change.fill(conversation, message.seq, as_of);
        }
      }
      return "up_to_date";
    });
  }

  /** Keeps people who were asked for. They do not take the place of those whom a sync has brought. */
  takeUsers(users: UserPublic[]): Promise<void> {
    return this.#change(async (change) => {
      for (const user of users) {
        if (!(await change.tx.objectStore("users").get(user.id))) await change.user(user);
      }
    });
  }

  /**
   * After `resync_required`: begins without a cursor. What does not come again is dropped when the
   * replica is up to date; the outbox stays, and what no sync has brought back is sent again.
   */
  beginAgain(): Promise<void> {
    return this.#change(async (change) => {
      const { generation, swept } = change.place;
      Object.assign(change.place, { ...NOWHERE, generation: generation + 1, swept });
      for (const write of await change.tx.objectStore("outbox").getAll()) {
        await change.put({ ...write, version: null });
      }
    });
  }

  /** Remembers the moment of an answer that is no page. */
  see(moment: number): Promise<void> {
    return this.#change(async (change) => change.see(moment));
  }

  /**
   * Puts a write into the outbox, with what is in its files. A marker takes the place of one that
   * waits for the same conversation, a message that of what was begun there.
   */
  write(key: string, deed: Deed, contents: Blob[] = []): Promise<void> {
    return this.#change(async (change) => {
      for (const [index, { file }] of filesOf(deed).entries()) {
        await change.tx.objectStore("files").put(contents[index] as Blob, file);
      }
      const outbox = change.tx.objectStore("outbox");
      if (deed.kind === "send") await change.tx.objectStore("drafts").delete(deed.conversation_id);
      if (deed.kind === "read") {
        for (const { id, deed: other, version } of await outbox.getAll()) {
          const is_same = other.kind === "read" && other.conversation_id === deed.conversation_id;
          if (is_same && version === null) await outbox.delete(id);
        }
      }
      const nothing = { failures: 0, status: null, version: null, refused: null };
      const write = { key, deed, at: Date.now(), is_tried: false, ...nothing };
      await change.put(write as Write);
    });
  }

  /**
   * The oldest write of the outbox that is neither answered, refused nor parked, nor behind one that
   * it must not come before.
   */
  async nextWrite(): Promise<Write | undefined> {
    const held = new Set<string>();
    for (const write of await this.outbox()) {
      if (write.version !== null || write.refused) continue;
      const subject = subjectOf(write);
      const is_parked = isParked(write);
      // A message that is parked lets others go; one whose files are on their way does not.
      if (is_parked ? write.deed.kind !== "send" : missingOf(write)) held.add(subject);
      else if (!is_parked && !held.has(subject)) return write;
    }
    return undefined;
  }

  /**
   * The first file that is to be sent up, so that its message can be sent. Only of one message at a
   * time: the server keeps few files that no message has.
   */
  async nextUpload(): Promise<Upload | undefined> {
    const is_next = (it: Write) => it.version === null && !it.refused && !isParked(it);
    const write = (await this.outbox()).find((it) => filesOf(it.deed).length > 0 && is_next(it));
    const picked = write && missingOf(write);
    // A content that can not be read is none: what waits behind it is not to wait for ever.
    return picked && { write, picked, content: await this.findFile(picked.file).catch(() => undefined) };
  }

  /**
   * Notes that a write is about to be sent: from here on nobody can tell whether it took place, until
   * it is answered. Says whether it still is to be sent.
   */
  tried({ id }: Write): Promise<boolean> {
    return this.#change(async (change) => {
      const write = await change.tx.objectStore("outbox").get(id);
      if (write && !write.is_tried) await change.put({ ...write, is_tried: true });
      return write !== undefined;
    });
  }

  /** Notes what the server calls a file that was sent up. */
  uploaded({ id }: Write, { file }: Picked, as: string): Promise<void> {
    return this.#change(async (change) => {
      await change.amend(id, (write) => withFiles(write, (it) => (it.file === file ? { ...it, id: as } : it)));
    });
  }

  /**
   * Notes that a write took place, and of what moment its answer is. It stays in the outbox until a
   * sync has brought what it did, which may be so already, so that it is not lost with the server's
   * copy.
   */
  confirmed(write: Write, version: number): Promise<void> {
    return this.#change(async (change) => {
      const { brought } = change.place;
      if (brought !== null && version <= brought) return change.take(write.id);
      change.see(version);
      await change.amend(write.id, (it) => ({ ...it, version }));
    });
  }

  /**
   * Notes that a write never will take place. A message is kept, for the person to look at; one whose
   * files are no longer at the server has them sent up again.
   */
  refused(write: Write, error: ErrorBody): Promise<void> {
    return this.#change(async (change) => {
      if (error.code === "attachment_not_found") await change.amend(write.id, toUpload);
      else if (write.deed.kind === "send") await change.amend(write.id, (it) => ({ ...it, refused: error }));
      else await change.take(write.id);
    });
  }

  /**
   * Counts that a write failed, and says whether it is parked now: it is after some tries, and others
   * go on.
   */
  failed({ id }: Write, status: number): Promise<boolean> {
    return this.#change(async (change) => {
      const write = await change.amend(id, (it) => ({ ...it, failures: it.failures + 1, status }));
      return write !== undefined && write.failures >= FAILURES_MAX;
    });
  }

  /** Lets what was parked or refused be sent again: one write, or all that was parked. */
  again(id?: number): Promise<void> {
    return this.#change(async (change) => {
      for (const write of await change.tx.objectStore("outbox").getAll()) {
        // What was sent up for a message that was refused may be gone from the server by now.
        const anew = write.refused ? toUpload(write) : write;
        if (id === write.id) await change.put({ ...anew, failures: 0, refused: null });
        else if (id === undefined && write.failures > 0) await change.put({ ...write, failures: 0 });
      }
    });
  }

  /** Takes a write out of the outbox, and gives it, unless it may be taking place. */
  discard(id: number): Promise<Write | undefined> {
    return this.#change(async (change) => {
      const write = await change.tx.objectStore("outbox").get(id);
      if (!write || !mayDiscard(write)) return undefined;
      await change.take(id);
      return write;
    });
  }

  async conversations(): Promise<Conversation[]> {
    return (await this.#db.getAll("conversations")).map((it) => it.row);
  }

  async findConversation(id: string): Promise<Conversation | undefined> {
    return (await this.#db.get("conversations", id))?.row;
  }

  async users(): Promise<UserPublic[]> {
    return (await this.#db.getAll("users")).map((it) => it.row);
  }

  async findUser(id: string): Promise<UserPublic | undefined> {
    return (await this.#db.get("users", id))?.row;
  }

  /** Whom the person has blocked, by id. */
  async blocks(): Promise<Set<string>> {
    const rows = await this.#db.getAll("own", IDBKeyRange.bound(["block"], ["block", []]));
    return new Set(rows.flatMap(({ row }) => ("blocked" in row && row.blocked ? [row.user_id] : [])));
  }

  /** The messages of a conversation from one place to another, both included, those that are known. */
  messages(conversation: string, from_seq: number, to_seq: number): Promise<Message[]> {
    return this.#db.getAll("messages", IDBKeyRange.bound([conversation, from_seq], [conversation, to_seq]));
  }

  /** A message, wherever it is. */
  findMessage(id: string): Promise<Message | undefined> {
    return this.#db.getFromIndex("messages", "id", id);
  }

  /** How far the members of a conversation have read. */
  reads(conversation: string): Promise<Read[]> {
    return this.#db.getAll("reads", all(conversation));
  }

  /** What is missing of a conversation, to be read when somebody looks there. */
  holes(conversation: string): Promise<Hole[]> {
    return this.#db.getAll("holes", all(conversation));
  }

  outbox(): Promise<Write[]> {
    return this.#db.getAll("outbox");
  }

  /** What is in a file that waits. */
  findFile(file: string): Promise<Blob | undefined> {
    return this.#db.get("files", file);
  }

  /** What was begun, by conversation. */
  async drafts(): Promise<Map<string, string>> {
    const { store } = this.#db.transaction("drafts");
    const [keys, texts] = await Promise.all([store.getAllKeys(), store.getAll()]);
    return new Map(keys.map((key, index) => [key, texts[index] ?? ""]));
  }

  async keepDraft(conversation: string, text: string): Promise<void> {
    if (text) await this.#db.put("drafts", text, conversation);
    else await this.#db.delete("drafts", conversation);
  }

  async findPreview(conversation: string, id: string): Promise<Blob | undefined> {
    return (await this.#db.get("previews", [conversation, id]))?.content;
  }

  /** Keeps the small form of a picture, in place of the oldest if there are many. */
  async keepPreview(conversation_id: string, id: string, content: Blob): Promise<void> {
    const { store, done } = this.#db.transaction("previews", "readwrite");
    const keep = async () => {
      await store.put({ conversation_id, id, content, at: Date.now() });
      const more = (await store.count()) - PREVIEWS_MAX;
      for (const key of more > 0 ? await store.index("at").getAllKeys(null, more) : []) await store.delete(key);
    };
    await Promise.all([keep(), done]);
  }

  async #place(): Promise<Place> {
    return (await this.#db.get("place", 0)) ?? { ...NOWHERE };
  }

  /** Runs one transaction: rows, and the place that goes with them. */
  async #change<T>(work: (change: Change) => Promise<T>): Promise<T> {
    const tx = this.#db.transaction(STORES, "readwrite", { durability: "strict" });
    const place = (await tx.objectStore("place").get(0)) ?? { ...NOWHERE };
    const change = new Change(tx, this.me, place);
    let result: T;
    try {
      result = await work(change);
      await tx.objectStore("place").put(change.place, 0);
    } catch (error) {
      tx.done.catch(() => {});
      tx.abort();
      throw error;
    }
    await tx.done;
    this.onChange(change.touched);
    return result;
  }
}

/** Whether a write failed so often that it is parked. */
export const isParked = ({ failures }: Write): boolean => failures >= FAILURES_MAX;

/**
 * Whether a write can be given up: it was never sent, or has failed. What was sent and not answered
 * may have taken place, so it is sent until there is an answer.
 */
export const mayDiscard = (write: Write): boolean =>
  write.version === null && (write.is_tried === false || write.refused !== null || isParked(write));

/** A file of a write that was not sent up yet. */
const missingOf = ({ deed }: Write): Picked | undefined => filesOf(deed).find((it) => it.id === null);

const withFiles = (write: Write, change: (file: Picked) => Picked): Write =>
  write.deed.kind === "send" ? { ...write, deed: { ...write.deed, files: filesOf(write.deed).map(change) } } : write;

/**
 * A write whose files are to be sent up anew, since the server did not take it without them. It counts
 * as a failure, lest that goes on for ever.
 */
const toUpload = (write: Write): Write => ({
  ...withFiles(write, (it) => ({ ...it, id: null })),
  is_tried: false,
  failures: write.failures + 1,
});

const NOWHERE: Place = { cursor: null, fence: null, seen: null, brought: null, generation: 1, swept: 1 };

const name = (me: string) => `messenger-${me}`;

/** One transaction. */
class Change {
  readonly touched: Touched = {
    users: new Set(),
    conversations: new Set(),
    messages: new Set(),
    own: false,
    outbox: false,
  };
  readonly tx: IDBPTransaction<Schema, Store[], "readwrite">;
  readonly place: Place;
  #me: string;

  constructor(tx: IDBPTransaction<Schema, Store[], "readwrite">, me: string, place: Place) {
    this.tx = tx;
    this.#me = me;
    this.place = place;
  }

  see(moment: number): void {
    this.place.seen = Math.max(this.place.seen ?? 0, moment);
  }

  /**
   * Takes in a page, unless something was seen since it was asked for that may be of another life of
   * the database.
   */
  async page(data: Bootstrap | Changes, asked: number | null): Promise<boolean> {
    const stamp = data.stamps[0];
    if (!stamp) return false;
    const { fence, seen } = this.place;
    const has_grown = seen !== null && (asked === null || seen > asked);
    if (fence !== null && fence !== stamp.fence && has_grown) return false;
    this.place.fence = stamp.fence;
    // The page may have been under way while a later answer came.
    if (seen !== null && seen <= stamp.as_of) this.place.seen = null;
    for (const user of data.users) await this.user(user);
    for (const removal of "removed_conversations" in data ? data.removed_conversations : []) {
      const known = await this.findConversation(removal.id);
      if (known && known.membership_version < (removal.version ?? 0)) await this.forget(removal.id);
    }
    for (const conversation of data.conversations) await this.conversation(conversation);
    for (const gap of data.gaps) {
      await this.cut(gap.conversation_id, gap.from_seq, gap.to_seq);
      await this.hole(gap);
    }
    // The first page calls them `recent_messages`.
    for (const message of "messages" in data ? data.messages : data.recent_messages) {
      await this.message(message);
    }
    for (const read of data.reads) await this.mark(read);
    for (const pref of data.self.prefs) await this.own("pref", pref.key, pref);
    for (const block of data.self.blocks) await this.own("block", block.user_id, block);
    if (!data.has_more) await this.brought(stamp.as_of);
    return true;
  }

  /** Takes the writes out of the outbox that a sync has brought back, which is whole up to here. */
  async brought(upto: number): Promise<void> {
    this.place.brought = Math.max(this.place.brought ?? 0, upto);
    for (const { id, version } of await this.tx.objectStore("outbox").getAll()) {
      if (version !== null && version <= upto) await this.take(id);
    }
  }

  /** Drops what has not come again since the replica began again. */
  async sweep(): Promise<void> {
    const { generation, swept } = this.place;
    if (swept === generation) return;
    for (const { row, generation: of } of await this.tx.objectStore("conversations").getAll()) {
      if (of < generation) await this.forget(row.id);
    }
    for (const store of ["users", "own"] as const) {
      let cursor = await this.tx.objectStore(store).openCursor();
      while (cursor) {
        if (cursor.value.generation < generation) await cursor.delete();
        cursor = await cursor.continue();
      }
    }
    this.place.swept = generation;
    this.touched.own = true;
  }

  /** Keeps the newer of two forms of what is the person's own, also if it says that it is no more. */
  async own(kind: string, key: string, row: Pref | Block): Promise<void> {
    const store = this.tx.objectStore("own");
    if (!this.#isNewer(await store.get([kind, key]), row)) return;
    await store.put({ row, generation: this.place.generation }, [kind, key]);
    this.touched.own = true;
  }

  async user(row: UserPublic): Promise<void> {
    const store = this.tx.objectStore("users");
    if (!this.#isNewer(await store.get(row.id), row)) return;
    await store.put({ row, generation: this.place.generation });
    this.touched.users.add(row.id);
  }

  /** What was known before the replica began again takes no part in any merging. */
  #isNewer(known: Kept<{ version: number }> | undefined, row: { version: number }): boolean {
    return !known || known.generation < this.place.generation || known.row.version <= row.version;
  }

  async conversation({ initial, members, ...rest }: ConversationSummary): Promise<void> {
    const found = await this.tx.objectStore("conversations").get(rest.id);
    const known = found?.generation === this.place.generation && !initial ? found.row : undefined;
    let row: Conversation = { ...rest, members: members.map(({ id, role }) => ({ id, role })) };
    // All that is known of it from before is void.
    if (!known) await this.forget(row.id);
    else if (row.members_mode === "unchanged") {
      const { members, member_ids, members_mode } = known;
      row = { ...row, members, member_ids, members_mode };
    }
    // Whoever is gone has no marker; in a large group nobody's is kept.
    const reads = this.tx.objectStore("reads");
    for (const key of await reads.getAllKeys(all(row.id))) {
      if (row.members_mode === "lazy" || !row.member_ids.includes(key[1])) await reads.delete(key);
    }
    await this.store(row);
  }

  async store(row: Conversation): Promise<void> {
    await this.tx.objectStore("conversations").put({ row, generation: this.place.generation });
    this.touched.conversations.add(row.id);
  }

  async findConversation(id: string): Promise<Conversation | undefined> {
    return (await this.tx.objectStore("conversations").get(id))?.row;
  }

  async forget(conversation: string): Promise<void> {
    await this.tx.objectStore("conversations").delete(conversation);
    await this.tx.objectStore("messages").delete(all(conversation));
    await this.tx.objectStore("reads").delete(all(conversation));
    await this.tx.objectStore("holes").delete(all(conversation));
    await this.tx.objectStore("previews").delete(all(conversation));
    this.touched.conversations.add(conversation);
    this.touched.messages.add(conversation);
  }

  /** Keeps the newer one of two forms of a message. In a hole, the hole stays. */
  async message(message: Message): Promise<void> {
    const store = this.tx.objectStore("messages");
    const known = await store.get([message.conversation_id, message.seq]);
    if (known && known.version > message.version) return;
    await store.put(message);
    // What was deleted is not kept here either.
    for (const { id } of known && message.deleted_at !== null ? attachmentsOf(known) : []) {
      await this.tx.objectStore("previews").delete([message.conversation_id, id]);
    }
    this.touched.messages.add(message.conversation_id);
  }

  async mark(read: Read): Promise<void> {
    const store = this.tx.objectStore("reads");
    const known = await store.get([read.conversation_id, read.user_id]);
    if (known && known.version > read.version) return;
    await store.put(read);
    this.touched.messages.add(read.conversation_id);
  }

  async messageCreated({ sender, conversation: head, ...created }: MessageCreated): Promise<void> {
    await this.user(sender);
    const { conversation_id, sender_id, seq, version } = created;
    const known = await this.findConversation(conversation_id);
    if (!known) return;
    const row: Conversation = { ...known, ...head, last_seq: seq };
    if (sender_id === this.#me) {
      // Whoever sends has read all before.
      Object.assign(row, { last_read_seq: seq, last_delivered_seq: seq, unread_count: 0 });
      Object.assign(row, { marked_unread: false, own_version: version });
    } else {
      row.unread_count += 1;
    }
    await this.store(row);
    if (row.members_mode !== "lazy") {
      const read = { conversation_id, user_id: sender_id, last_read_seq: seq, last_delivered_seq: seq, version };
      await this.mark(read);
    }
    await this.message(created);
  }

  async messageChanged(payload: MessageUpdated | MessageDeleted): Promise<void> {
    const { conversation: head, ...changed } = payload;
    const { conversation_id, seq, version } = changed;
    const row = await this.findConversation(conversation_id);
    if (!row) return;
    const is_deleted = changed.deleted_at !== null;
    const one_less = is_deleted && seq > row.last_read_seq ? 1 : 0;
    await this.store({ ...row, ...head, unread_count: row.unread_count - one_less });
    if (!is_deleted && (await this.findHole(conversation_id, seq))) {
      // Whose its reactions are is not said here, so this is not the whole message: the hole asks
      // for an answer that is not older.
      await this.cut(conversation_id, seq, seq);
      await this.hole({ conversation_id, from_seq: seq, to_seq: seq, as_of: version });
      return;
    }
    const known = await this.tx.objectStore("messages").get([conversation_id, seq]);
    const { reaction: moved, ...message } = { reaction: null, ...changed };
    const was_mine = (emoji: string) => known?.reactions.some((it) => it.emoji === emoji && it.mine) ?? false;
    const reactions = message.reactions.map((it) => ({
      ...it,
      mine: moved?.user_id === this.#me && moved.emoji === it.emoji ? moved.added : was_mine(it.emoji),
    }));
    await this.message({ ...message, reactions });
  }

  async read({ unread_count, ...read }: ReadUpdated): Promise<void> {
    const row = await this.findConversation(read.conversation_id);
    if (!row) return;
    if (read.user_id === this.#me) {
      const { last_read_seq, last_delivered_seq, version } = read;
      const marked_unread = row.marked_unread && row.last_read_seq === last_read_seq;
      const own = { last_read_seq, last_delivered_seq, unread_count: unread_count ?? row.unread_count };
      await this.store({ ...row, ...own, marked_unread, own_version: version });
    }
    if (row.members_mode !== "lazy") await this.mark(read);
  }

  /** Makes a hole. */
  async hole(hole: Hole): Promise<void> {
    if (hole.from_seq > hole.to_seq) return;
    await this.tx.objectStore("holes").put(hole);
    this.touched.messages.add(hole.conversation_id);
  }

  /** Takes places out of the holes that they are in. */
  async cut(conversation: string, from: number, to: number): Promise<void> {
    const store = this.tx.objectStore("holes");
    for (const hole of await store.getAll(all(conversation))) {
      if (hole.from_seq > to || hole.to_seq < from) continue;
      await store.delete([conversation, hole.from_seq]);
      await this.hole({ ...hole, to_seq: from - 1 });
      await this.hole({ ...hole, from_seq: to + 1 });
    }
    this.touched.messages.add(conversation);
  }

  /** Fills a place with what was read at a moment, unless its hole asks for a later one. */
  async fill(conversation: string, seq: number, as_of: number): Promise<void> {
    const hole = await this.findHole(conversation, seq);
    if (hole && hole.as_of <= as_of) await this.cut(conversation, seq, seq);
  }

  async findHole(conversation: string, seq: number): Promise<Hole | undefined> {
    const before = IDBKeyRange.bound([conversation], [conversation, seq]);
    const cursor = await this.tx.objectStore("holes").openCursor(before, "prev");
    return cursor && cursor.value.to_seq >= seq ? cursor.value : undefined;
  }

  async put(write: Write): Promise<void> {
    await this.tx.objectStore("outbox").put(write);
    this.touched.outbox = true;
  }

  /** Changes a write, if it is still there, from what it is by now; gives what it is then. */
  async amend(id: number, change: (write: Write) => Write): Promise<Write | undefined> {
    const write = await this.tx.objectStore("outbox").get(id);
    const changed = write && change(write);
    if (changed) await this.put(changed);
    return changed;
  }

  async take(id: number): Promise<void> {
    const write = await this.tx.objectStore("outbox").get(id);
    for (const { file } of write ? filesOf(write.deed) : []) await this.tx.objectStore("files").delete(file);
    await this.tx.objectStore("outbox").delete(id);
    this.touched.outbox = true;
  }
}

