// The tabs of one person in one browser: all show the same replica, one of them leads and talks to
// the server. When it is closed, another one does.

import type { Touched } from "./replica";

/** What a tab says to all, itself included. */
export type Word =
  /** Something of the replica is other now. */
  | { kind: "changed"; touched: Touched }
  /** To whoever leads: a deed waits. */
  | { kind: "deed" }
  /** To whoever leads: sync anew, an answer was of another life of the database. */
  | { kind: "sync_anew" }
  /** To whoever leads: tell me how things are. */
  | { kind: "hello" }
  /** To whoever leads: the person is writing, or has stopped. */
  | { kind: "i_type"; conversation_id: string; state: "start" | "stop" }
  /** From whoever leads: what is kept nowhere. */
  | { kind: "live"; live: Live }
  /** A deed was refused. */
  | { kind: "refused"; text: string }
  /** Somebody has logged in or out. */
  | { kind: "session" };

/** What is true only now, and kept nowhere. */
export interface Live {
  connection: "connecting" | "online" | "offline";
  /** Who is there, and when those who are not were last seen. */
  people: Map<string, { online: boolean; last_seen_at: string | null }>;
  /** Who is writing: by conversation, until when by person. */
  typing: Map<string, Map<string, number>>;
  /** How far the files are that are sent up, from 0 to 1. */
  uploads: Map<string, number>;
}

/** The channel between the tabs. */
export class Tabs {
  #channel: BroadcastChannel;
  #name: string;
  #hear: (word: Word) => void;

  constructor(name: string, hear: (word: Word) => void) {
    this.#name = name;
    this.#hear = hear;
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = (event: MessageEvent<Word>) => hear(event.data);
  }

  /** Says something to all tabs, and to this one. */
  say(word: Word): void {
    this.sayToOthers(word);
    this.#hear(word);
  }

  /** Says something to the other tabs. */
  sayToOthers(word: Word): void {
    this.#channel.postMessage(word);
  }

  /** Waits until this tab leads, and then works until it is stopped. */
  async lead(stop: AbortSignal, work: () => Promise<void>): Promise<void> {
    try {
      await navigator.locks.request(`${this.#name}-leads`, { signal: stop }, work);
    } catch (error) {
      if (!stop.aborted) throw error;
    }
  }

  close(): void {
    this.#channel.close();
  }
}
