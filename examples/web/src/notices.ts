// What is shown outside of the page while nobody looks at it: wanted by the person, on this device.

import { signal } from "@preact/signals";

/** What notifications say: nothing at all, who has written, or also what. */
export type Wanted = "off" | "names" | "texts";

/** What one notification says. */
export interface Notice {
  conversation_id: string;
  title: string;
  text: string;
}

export class Notices {
  readonly wanted;
  #key: string;
  #lock: string;

  constructor(me: string, stop: AbortSignal) {
    this.#key = `notifications-${me}`;
    this.#lock = `messenger-${me}-is-seen`;
    const kept = localStorage.getItem(this.#key) as Wanted | null;
    this.wanted = signal<Wanted>(Notices.can_be && Notification.permission === "granted" ? (kept ?? "off") : "off");
    const seen = () => {
      if (document.hidden) return;
      void this.#close();
      void this.#hold(stop);
    };
    document.addEventListener("visibilitychange", seen, { signal: stop });
    seen();
  }

  /** Whether this browser has them. */
  static get can_be(): boolean {
    return "Notification" in window && "serviceWorker" in navigator;
  }

  /** Turns them on or off; the browser asks the person at the first time. Says whether that went. */
  async want(wanted: Wanted): Promise<boolean> {
    if (wanted !== "off" && (await Notification.requestPermission()) !== "granted") return false;
    localStorage.setItem(this.#key, wanted);
    this.wanted.value = wanted;
    return true;
  }

  /** Forgets what was wanted. */
  forget(): void {
    localStorage.removeItem(this.#key);
  }

  /** Shows one, if they are wanted and no tab is looked at. A later one of a conversation takes its place. */
  async show({ conversation_id, title, text }: Notice): Promise<void> {
    // Another tab may have turned them on or off.
    const wanted = Notices.can_be ? localStorage.getItem(this.#key) : null;
    if ((wanted !== "names" && wanted !== "texts") || (await this.#isSeen())) return;
    const worker = await navigator.serviceWorker.ready;
    const body = wanted === "texts" ? text : "New message";
    await worker.showNotification(title, { body, tag: conversation_id, icon: "icon-192.png" });
  }

  /** Whoever looks has seen them. */
  async #close(): Promise<void> {
    const worker = Notices.can_be ? await navigator.serviceWorker.getRegistration() : undefined;
    for (const it of (await worker?.getNotifications()) ?? []) it.close();
  }

  /** Holds what says that a tab is looked at, for as long as it is. */
  async #hold(stop: AbortSignal): Promise<void> {
    const until_hidden = () =>
      new Promise<void>((resolve) => {
        const over = new AbortController();
        const check = () => {
          if (!document.hidden && !stop.aborted) return;
          over.abort();
          resolve();
        };
        document.addEventListener("visibilitychange", check, { signal: over.signal });
        stop.addEventListener("abort", check, { signal: over.signal });
        check();
      });
    await navigator.locks.request(this.#lock, { mode: "shared" }, until_hidden);
  }

  #isSeen(): Promise<boolean> {
    return navigator.locks.request(this.#lock, { ifAvailable: true }, (lock) => lock === null) as Promise<boolean>;
  }
}
