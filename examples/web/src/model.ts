// What a tab shows, as signals: the replica with the outbox laid over it. It is read again, piece by
// piece, whenever a tab has changed something.

import { batch, computed, signal } from "@preact/signals";
import type { Message, Read, UserPublic } from "../generated/api";
import { attachmentsOf, type Conversation, type Hole, isParked, mayDiscard, type Replica, type Touched } from "./replica";
import { type Deed, failureOf, filesOf, type Write } from "./outbox";
import type { Live } from "./tabs";

/** Messages that are shown at first, and more at each step back. */
const WINDOW = 50;

/** The conversation that is open. */
interface Open {
  id: string;
  /** The first message that is shown. */
  from_seq: number;
  /** The last one; infinity shows the newest, whatever comes. */
  to_seq: number;
  /** The message that was looked for. */
  wanted_seq: number | null;
  /** The first message that was new when it was opened. */
  new_from_seq: number | null;
  messages: Message[];
  holes: Hole[];
  reads: Read[];
  /** Messages that are answered and lie elsewhere. */
  quoted: Map<string, Message>;
}

/** How far a message of the person's own has come. */
export type Progress = "waiting" | "failed" | "sent" | "delivered" | "read";

/** A file of a message as it is shown. */
export interface ShownFile {
  /** None while the server does not know it. */
  id: string | null;
  /** Where it is kept while it waits. */
  file: string | null;
  name: string;
  size: number;
  is_picture: boolean;
  /** In pixels, where it is known. */
  width: number | null;
  height: number | null;
}

/** A message as it is shown. */
export interface Shown {
  key: string;
  /** None while the server does not know it. */
  id: string | null;
  write_id: number | null;
  /** Whether it can be given up. */
  may_discard: boolean;
  sender_id: string;
  content: string;
  files: ShownFile[];
  /** The members whom it names. */
  mentions: string[];
  at: Date;
  is_edited: boolean;
  is_deleted: boolean;
  /** The message that it answers; null if it is not known here. */
  answers: { id: string; message: Message | null } | null;
  reactions: { emoji: string; count: number; mine: boolean }[];
  /** Of one's own. */
  progress: Progress | null;
  /** Why it failed. */
  error: string | null;
  /** Whether the sender is not that of the message before. */
  begins: boolean;
}

/** A row of the timeline. */
export type Item =
  | { kind: "day"; key: string; at: Date }
  | { kind: "new"; key: string }
  | { kind: "hole"; key: string }
  | { kind: "message"; key: string; message: Shown; is_wanted: boolean };

export class Model {
  readonly conversations = signal<Map<string, Conversation>>(new Map());
  readonly users = signal<Map<string, UserPublic>>(new Map());
  readonly outbox = signal<Write[]>([]);
  readonly blocks = signal<Set<string>>(new Set());
  readonly open = signal<Open | undefined>(undefined);
  readonly live = signal<Live>({ connection: "connecting", people: new Map(), typing: new Map(), uploads: new Map() });
  /** A line for the person, until it is dismissed. */
  readonly notice = signal("");
  #replica: Replica;
  /** Readings come one after the other, so that what was read later is what is shown. */
  #reloading: Promise<void> = Promise.resolve();
  #waiting: Touched | undefined;

  constructor(replica: Replica) {
    this.#replica = replica;
  }

  /** Reads everything. */
  load(): Promise<void> {
    return this.#next(async () => {
      const rows = await this.#replica.conversations();
      const [conversations, users] = await Promise.all([this.#previewed(rows), this.#replica.users()]);
      this.conversations.value = new Map(conversations.map((it) => [it.id, it]));
      this.users.value = new Map(users.map((it) => [it.id, it]));
      this.outbox.value = await this.#replica.outbox();
      this.blocks.value = await this.#replica.blocks();
    });
  }

  /** Reads again what was touched; what comes meanwhile is read together. */
  reload(touched: Touched): Promise<void> {
    const waiting = this.#waiting;
    if (waiting) {
      for (const part of ["users", "conversations", "messages"] as const) {
        for (const id of touched[part]) waiting[part].add(id);
      }
      waiting.own ||= touched.own;
      waiting.outbox ||= touched.outbox;
      return this.#reloading;
    }
    this.#waiting = {
      ...touched,
      users: new Set(touched.users),
      conversations: new Set(touched.conversations),
      messages: new Set(touched.messages),
    };
    return this.#next(async () => {
      const all = this.#waiting;
      this.#waiting = undefined;
      if (all) await this.#reload(all);
    });
  }

  #next(read: () => Promise<void>): Promise<void> {
    this.#reloading = this.#reloading.catch(() => {}).then(read);
    return this.#reloading;
  }

  /** Resolves when everything that was touched so far is shown. */
  settled(): Promise<void> {
    return this.#reloading;
  }

  async #reload(touched: Touched): Promise<void> {
    const outbox = touched.outbox ? await this.#replica.outbox() : undefined;
    const open = this.open.peek();
    const shown = open && touched.messages.has(open.id) ? await this.#read(open) : undefined;
    const find = <T>(ids: Set<string>, one: (id: string) => Promise<T | undefined>) =>
      Promise.all([...ids].map(async (id) => [id, await one(id)] as const));
    const conversations = await find(touched.conversations, async (id) => {
      const row = await this.#replica.findConversation(id);
      return row && (await this.#previewed([row]))[0];
    });
    const users = await find(touched.users, (id) => this.#replica.findUser(id));
    const blocks = touched.own ? await this.#replica.blocks() : undefined;
    // All at once, so that a message that arrives is not shown twice, or not at all.
    batch(() => {
      if (conversations.length) this.conversations.value = merged(this.conversations.peek(), conversations);
      if (users.length) this.users.value = merged(this.users.peek(), users);
      if (outbox) this.outbox.value = outbox;
      if (shown) this.open.value = shown;
      if (blocks) this.blocks.value = blocks;
    });
  }

  /** Says of conversations whose last message has no text which files it has. */
  #previewed(rows: Conversation[]): Promise<Conversation[]> {
    const all = rows.map(async (row) => {
      if (row.last_message_preview !== "") return row;
      const [last] = await this.#replica.messages(row.id, row.last_seq, row.last_seq);
      return { ...row, last_message_preview: last ? gistOf(last.content, attachmentsOf(last)) : "" };
    });
    return Promise.all(all);
  }

  /** Opens a conversation, or none: at its end, or at a message. */
  show(id: string | undefined, wanted_seq: number | null = null): Promise<void> {
    return this.#next(async () => {
      if (id === undefined) {
        this.open.value = undefined;
        return;
      }
      const conversation = await this.#replica.findConversation(id);
      const { last_seq, last_read_seq, unread_count } = conversation ?? NOTHING;
      const middle = wanted_seq ?? last_seq;
      const is_far = last_seq - middle > WINDOW;
      const from_seq = Math.max(1, Math.min(last_seq - WINDOW + 1, middle - WINDOW / 2));
      const to_seq = is_far ? middle + WINDOW / 2 : Infinity;
      const new_from_seq = unread_count > 0 ? last_read_seq + 1 : null;
      const empty = { messages: [], holes: [], reads: [], quoted: new Map<string, Message>() };
      this.open.value = await this.#read({ id, from_seq, to_seq, wanted_seq, new_from_seq, ...empty });
    });
  }

  /** Whether there is something before what is shown. */
  readonly has_earlier = computed(() => {
    const open = this.open.value;
    const conversation = open && this.conversations.value.get(open.id);
    return conversation !== undefined && open !== undefined && open.from_seq > first(conversation);
  });

  /** Shows more of the past. */
  async showEarlier(): Promise<void> {
    const asked = this.open.peek();
    await this.#next(async () => {
      const open = this.open.peek();
      // Asked twice meanwhile is asked once.
      const is_same = open?.id === asked?.id && open?.from_seq === asked?.from_seq;
      if (!open || !is_same || !this.has_earlier.peek()) return;
      this.open.value = await this.#read({ ...open, from_seq: Math.max(1, open.from_seq - WINDOW) });
    });
  }

  /** Whether there is something after what is shown. */
  readonly has_later = computed(() => this.open.value !== undefined && this.open.value.to_seq < Infinity);

  /** Shows more of what came then. */
  async showLater(): Promise<void> {
    const asked = this.open.peek();
    await this.#next(async () => {
      const open = this.open.peek();
      if (!open || open.id !== asked?.id || open.to_seq !== asked.to_seq || !this.has_later.peek()) return;
      const { last_seq } = (await this.#replica.findConversation(open.id)) ?? NOTHING;
      const to_seq = open.to_seq + WINDOW;
      this.open.value = await this.#read({ ...open, to_seq: to_seq < last_seq ? to_seq : Infinity });
    });
  }

  async #read(open: Open): Promise<Open> {
    const { id, from_seq, to_seq } = open;
    const [messages, all_holes, reads] = await Promise.all([
      this.#replica.messages(id, from_seq, to_seq),
      this.#replica.holes(id),
      this.#replica.reads(id),
    ]);
    const holes = all_holes.filter((hole) => hole.to_seq >= from_seq && hole.from_seq <= to_seq);
    const here = new Set(messages.map((it) => it.id));
    const quoted = new Map<string, Message>();
    for (const { reply_to } of messages) {
      if (!reply_to || here.has(reply_to)) continue;
      const message = await this.#replica.findMessage(reply_to);
      if (message) quoted.set(reply_to, message);
    }
    return { ...open, messages, holes, reads, quoted };
  }

  /** The newest hole in sight, which is to be filled. */
  readonly missing = computed<Hole | undefined>(() => {
    const open = this.open.value;
    const hole = open?.holes.at(-1);
    return open && hole && { ...hole, to_seq: Math.min(hole.to_seq, open.to_seq) };
  });

  /** The conversations with what the outbox will change about them, newest first, pinned on top. */
  readonly list = computed<Conversation[]>(() => {
    const writes = this.outbox.value.filter((it) => !it.refused);
    const rows = [...this.conversations.value.values()].map((row) => overlaid(row, writes));
    const pinned = (it: Conversation) => (it.pinned_at ? 1 : 0);
    const time = (it: Conversation) => it.last_message_at ?? it.updated_at;
    return rows.sort((a, b) => pinned(b) - pinned(a) || time(b).localeCompare(time(a)) || a.id.localeCompare(b.id));
  });

  /** How many conversations are unread and not muted. */
  readonly unread = computed(
    () => this.list.value.filter((it) => isUnread(it) && !isMuted(it) && !it.archived_at).length,
  );

  /** What is shown of the open conversation, from the top down. */
  readonly timeline = computed<Item[]>(() => {
    const open = this.open.value;
    const conversation = open && this.conversations.value.get(open.id);
    if (!open || !conversation) return [];
    const me = this.#replica.me;
    const writes = this.outbox.value.filter((it) => conversationOf(it.deed) === open.id);
    const by_id = new Map(open.messages.map((it) => [it.id, it]));
    const answered = (id: string | null) =>
      id ? { id, message: by_id.get(id) ?? open.quoted.get(id) ?? null } : null;
    const sent = new Set(open.messages.filter((it) => it.sender_id === me).map((it) => it.client_message_id));
    const others = conversation.member_ids.filter((id) => id !== me);
    const reached = (field: "last_read_seq" | "last_delivered_seq") => {
      if (conversation.members_mode !== "full" || others.length === 0) return 0;
      const marks = new Map(open.reads.map((it) => [it.user_id, it[field]]));
      return Math.min(...others.map((id) => marks.get(id) ?? 0));
    };
    const [read, delivered] = [reached("last_read_seq"), reached("last_delivered_seq")];
    const items: Item[] = [];
    let before: Shown | undefined;
    let new_from_seq = open.new_from_seq ?? Infinity;
    const add = (message: Omit<Shown, "begins">, seq = 0) => {
      const day = message.at.toDateString();
      const is_new_day = day !== before?.at.toDateString();
      if (is_new_day) items.push({ kind: "day", key: `day ${day} ${message.key}`, at: message.at });
      if (seq >= new_from_seq && message.sender_id !== me) {
        items.push({ kind: "new", key: "new" });
        new_from_seq = Infinity;
      }
      const pause_ms = message.at.getTime() - (before?.at.getTime() ?? 0);
      const begins = is_new_day || items.at(-1)?.kind !== "message" || before?.sender_id !== message.sender_id;
      before = { ...message, begins: begins || pause_ms > 600_000 };
      items.push({ kind: "message", key: message.key, message: before, is_wanted: seq === open.wanted_seq });
    };
    const holes = [...open.holes];
    const addHolesBefore = (seq: number) => {
      while (holes[0] && holes[0].from_seq < seq) {
        items.push({ kind: "hole", key: `hole ${holes[0].from_seq}` });
        holes.shift();
      }
    };
    const in_hole = (seq: number) => open.holes.some((it) => it.from_seq <= seq && seq <= it.to_seq);
    for (const message of open.messages) {
      if (in_hole(message.seq)) continue;
      addHolesBefore(message.seq);
      const is_mine = message.sender_id === me;
      const progress = message.seq <= read ? "read" : message.seq <= delivered ? "delivered" : "sent";
      const shown = {
        key: is_mine ? message.client_message_id : message.id,
        id: message.id,
        write_id: null,
        may_discard: false,
        sender_id: message.sender_id,
        content: message.content,
        files: attachmentsOf(message).map((it) => ({ ...it, file: null, is_picture: it.has_preview })),
        mentions: message.mentions,
        at: new Date(message.created_at),
        is_edited: message.edited_at !== null,
        is_deleted: message.deleted_at !== null,
        answers: answered(message.reply_to),
        reactions: message.reactions.map((it) => ({ ...it, mine: it.mine ?? false })),
        progress: is_mine ? (progress as Progress) : null,
        error: null,
      };
      add(writes.reduce(laidOver, shown), message.seq);
    }
    addHolesBefore(Infinity);
    // What waits comes after the newest.
    if (open.to_seq < Infinity) return items;
    for (const write of writes) {
      const { id, key, at, deed, refused, version } = write;
      if (deed.kind !== "send" || sent.has(key)) continue;
      const is_parked = isParked(write);
      add({
        key,
        id: null,
        write_id: id,
        may_discard: mayDiscard(write),
        sender_id: me,
        content: deed.content,
        files: filesOf(deed).map((it) => ({ ...it, id: null, is_picture: isPicture(it.media_type), ...NO_SIZE })),
        mentions: deed.mentions ?? [],
        at: new Date(at),
        is_edited: false,
        is_deleted: false,
        answers: answered(deed.reply_to),
        reactions: [],
        progress: refused || is_parked ? "failed" : version === null ? "waiting" : "sent",
        error: refused?.message ?? (is_parked ? failureOf(write) : null),
      });
    }
    return items;
  });
}

/** Pictures that the server makes previews of, and every browser shows. */
export const isPicture = (media_type: string): boolean => /^image\/(jpeg|png|gif|webp)$/.test(media_type);

/** A message in a line: its text, or what it brings. */
export const gistOf = (content: string, files: { name: string }[]): string =>
  content || files.map((it) => it.name).join(", ");

const NO_SIZE = { width: null, height: null };

const NOTHING = { last_seq: 0, last_read_seq: 0, unread_count: 0 };

/** The first message of a conversation that the person may see. */
export const first = (conversation: Conversation): number => Math.max(1, conversation.visible_from_seq);

export const isUnread = (it: Conversation): boolean => it.unread_count > 0 || it.marked_unread;

export const isMuted = (it: Conversation): boolean => it.muted_until !== null && new Date(it.muted_until) > new Date();

function merged<T>(map: Map<string, T>, rows: (readonly [string, T | undefined])[]): Map<string, T> {
  const next = new Map(map);
  for (const [id, row] of rows) {
    if (row === undefined) next.delete(id);
    else next.set(id, row);
  }
  return next;
}

const conversationOf = (deed: Deed): string | undefined =>
  "conversation_id" in deed ? deed.conversation_id : undefined;

/** What the person has done shows at once, whenever it takes place. */
function overlaid(conversation: Conversation, writes: Write[]): Conversation {
  let row = conversation;
  for (const { deed, at } of writes) {
    if (conversationOf(deed) !== row.id) continue;
    if (deed.kind === "title") row = { ...row, title: deed.title };
    if (deed.kind === "read" && deed.seq >= row.last_seq) row = { ...row, unread_count: 0, marked_unread: false };
    if (deed.kind === "send") {
      const last_message_at = new Date(at).toISOString();
      row = { ...row, last_message_preview: gistOf(deed.content, filesOf(deed)), last_message_at };
    }
    if (deed.kind === "settings") {
      const { pinned, archived, muted_until, marked_unread } = deed.settings;
      const now = new Date().toISOString();
      if (pinned != null) row = { ...row, pinned_at: pinned ? (row.pinned_at ?? now) : null };
      if (archived != null) row = { ...row, archived_at: archived ? (row.archived_at ?? now) : null };
      if (muted_until !== undefined) row = { ...row, muted_until };
      if (marked_unread != null) row = { ...row, marked_unread };
    }
  }
  return row;
}

function laidOver<T extends Omit<Shown, "begins">>(shown: T, { deed, refused }: Write): T {
  if (refused || !("message_id" in deed) || deed.message_id !== shown.id) return shown;
  switch (deed.kind) {
    case "edit":
      return { ...shown, content: deed.content, is_edited: true };
    case "delete":
      return { ...shown, content: "", files: [], is_deleted: true, reactions: [] };
    case "react": {
      const { emoji, added } = deed;
      const known = shown.reactions.find((it) => it.emoji === emoji) ?? { emoji, count: 0, mine: false };
      if (known.mine === added) return shown;
      const changed = { emoji, count: known.count + (added ? 1 : -1), mine: added };
      const others = shown.reactions.filter((it) => it.emoji !== emoji);
      return { ...shown, reactions: changed.count > 0 ? [...others, changed] : others };
    }
  }
  return shown;
}
