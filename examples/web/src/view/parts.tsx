// Small parts that several screens use.

import { useComputed, useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import type { UserPublic } from "../../generated/api";
import type { Client } from "../client";
import { Icon } from "./icons";
import { nameOf } from "./words";
import { reasonOf } from "./log_in";

const HUES = 8;

/** A circle with the first letters of a name, and whether that person is there. */
export function Avatar({ id, name, online }: { id: string; name: string; online?: boolean | undefined }) {
  const hue = [...id].reduce((sum, letter) => sum + letter.charCodeAt(0), 0) % HUES;
  const letters = name.split(/\s+/, 2).map((word) => [...word][0] ?? "");
  return (
    <span class={`avatar hue-${hue}`} aria-hidden="true">
      {letters.join("").toUpperCase()}
      {online && <span class="there" />}
    </span>
  );
}

/** A window over the page. It is closed with Escape, by its button, or by what is done in it. */
export function Dialog(props: { title: string; is_wide?: boolean; onClose: () => void; children: ComponentChildren }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useLayoutEffect(() => {
    const before = document.activeElement;
    dialog.current?.showModal();
    return () => (before as HTMLElement | null)?.focus();
  }, []);
  return (
    <dialog ref={dialog} class={props.is_wide ? "wide" : ""} aria-labelledby="dialog-title" onClose={props.onClose}>
      <header>
        <h2 id="dialog-title">{props.title}</h2>
        <button class="round" aria-label="Close" onClick={() => dialog.current?.close()}>
          <Icon name="close" />
        </button>
      </header>
      {props.children}
    </dialog>
  );
}

/** Something that is on or off. */
export function Switch(props: { label: string; on: boolean; onChange: (on: boolean) => void }) {
  const { label, on, onChange } = props;
  return (
    <label class="switch">
      {label}
      <input type="checkbox" role="switch" checked={on} onChange={() => onChange(!on)} />
    </label>
  );
}

/** Finds people: those who are known here at once, others if the server can be reached. */
export function PeopleFinder(props: {
  client: Client;
  without?: string[];
  /** What stands on the right of somebody. */
  chosen?: Set<string>;
  onChoose: (user: UserPublic) => void;
}) {
  const { client, without = [], chosen } = props;
  const text = useSignal("");
  const found = useSignal<UserPublic[]>([]);
  const reason = useSignal("");
  const latest = useRef(0);

  async function find(query: string): Promise<void> {
    text.value = query;
    reason.value = "";
    const round = ++latest.current;
    if (query.trim() === "") {
      found.value = [];
      return;
    }
    const reply = await client.findPeople(query.trim());
    if (round !== latest.current) return;
    found.value = reply.kind === "done" ? reply.data.users : [];
    if (reply.kind !== "done") reason.value = reasonOf(reply);
  }

  const people = useComputed(() => {
    const query = text.value.trim().toLowerCase();
    const fits = (user: UserPublic) =>
      `${user.username} ${user.display_name}`.toLowerCase().includes(query) && !user.deleted_at;
    const known = [...client.model.users.value.values()].filter(fits);
    const all = new Map([...found.value, ...known].map((user) => [user.id, user]));
    return [...all.values()]
      .filter(({ id }) => id !== client.me && !without.includes(id))
      .sort((a, b) => a.display_name.localeCompare(b.display_name));
  });
  return (
    <div class="finder">
      <label class="search">
        <span class="hidden">Find people</span>
        <Icon name="search" />
        <input
          type="search"
          placeholder="Name or username"
          autocomplete="off"
          autofocus
          onInput={(event) => void find(event.currentTarget.value)}
        />
      </label>
      <ul class="people" role="list">
        {people.value.map((user) => (
          <li key={user.id}>
            <button
              type="button"
              class="person"
              aria-pressed={chosen ? chosen.has(user.id) : undefined}
              onClick={() => props.onChoose(user)}
            >
              <Avatar id={user.id} name={nameOf(user)} />
              <span class="who">
                <span>{nameOf(user)}</span> <small>@{user.username}</small>
              </span>
              {chosen?.has(user.id) && <Icon name="check" />}
            </button>
          </li>
        ))}
      </ul>
      <p class="hint" role="status">
        {reason.value || (text.value.trim() && people.value.length === 0 ? "Nobody was found." : "")}
      </p>
    </div>
  );
}
