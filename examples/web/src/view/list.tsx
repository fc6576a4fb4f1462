// The conversations: a filter, what is unread, and what begins something new.

import { useComputed, useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";
import type { Client } from "../client";
import { isMuted, isUnread } from "../model";
import type { Conversation } from "../replica";
import { Account } from "./account";
import { Found } from "./found";
import { Icon } from "./icons";
import { NewConversation } from "./new_conversation";
import { Avatar } from "./parts";
import { nameOf, otherOf, shortly, titleOf } from "./words";

const STATES = {
  online: "",
  connecting: "Connecting…",
  offline: "No connection. What you write waits.",
};

export function List({ client, open }: { client: Client; open: string | undefined }) {
  const { model } = client;
  const filter = useSignal("");
  const is_archive = useSignal(false);
  const dialog = useSignal<"new" | "account" | undefined>(undefined);
  const rows = useComputed(() => {
    const text = filter.value.trim().toLowerCase();
    const fits = (it: Conversation) =>
      text ? wordsOf(client, it).includes(text) : (it.archived_at !== null) === is_archive.value;
    return model.list.value.filter(fits);
  });
  // Where there is one screen at a time, the focus goes back to where it came from.
  const nav = useRef<HTMLElement>(null);
  const before = useRef(open);
  useLayoutEffect(() => {
    const left = before.current;
    before.current = open;
    if (left && !open) nav.current?.querySelector<HTMLElement>(`a[href="#/c/${left}"]`)?.focus();
  }, [open]);
  const has_archive = model.list.value.some((it) => it.archived_at !== null);
  const me = nameOf(model.users.value.get(client.me));
  const connection = model.live.value.connection;

  return (
    <nav class="list" ref={nav} aria-label="Conversations" data-connection={connection}>
      <header>
        <button class="round" aria-label={`Account of ${me}`} onClick={() => (dialog.value = "account")}>
          <Avatar id={client.me} name={me} online={connection === "online"} />
        </button>
        <h1>Chats</h1>
        <button class="round accent" aria-label="New conversation" onClick={() => (dialog.value = "new")}>
          <Icon name="plus" />
        </button>
      </header>
      <label class="search">
        <span class="hidden">Search conversations</span>
        <Icon name="search" />
        <input
          type="search"
          placeholder="Search"
          value={filter.value}
          onInput={(event) => (filter.value = event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key !== "ArrowDown") return;
            event.preventDefault();
            event.currentTarget.closest("nav")?.querySelector<HTMLElement>(".rows a")?.focus();
          }}
        />
      </label>
      <p class="state" role="status">
        {STATES[connection]}
      </p>
      <ul class="rows" role="list" onKeyDown={move}>
        {rows.value.map((row, index) => (
          <Row key={row.id} client={client} row={row} is_open={row.id === open} is_first={index === 0} />
        ))}
      </ul>
      {rows.value.length === 0 && (
        <p class="hint">{filter.value ? "No conversation was found." : is_archive.value ? "Nothing is put away." : <Welcome />}</p>
      )}
      {filter.value.trim() && <Found key={filter.value.trim()} client={client} query={filter.value.trim()} />}
      {(has_archive || is_archive.value) && !filter.value && (
        <button class="quiet archive" onClick={() => (is_archive.value = !is_archive.value)}>
          {is_archive.value ? "Back to all" : "Archive"}
        </button>
      )}
      {dialog.value === "new" && <NewConversation client={client} onClose={() => (dialog.value = undefined)} />}
      {dialog.value === "account" && <Account client={client} onClose={() => (dialog.value = undefined)} />}
    </nav>
  );
}

const Welcome = () => (
  <>
    Nothing here yet.
    <br />
    Begin with the <b>+</b> above.
  </>
);

function Row(props: { client: Client; row: Conversation; is_open: boolean; is_first: boolean }) {
  const { client, row } = props;
  const { model } = client;
  const other = otherOf(client, row);
  const title = titleOf(client, row);
  const typing = model.live.value.typing.get(row.id);
  const at = new Date(row.last_message_at ?? row.updated_at);
  const unread = isUnread(row);
  const preview = row.last_message_preview === null ? "No messages yet" : row.last_message_preview || "Message deleted";
  return (
    <li>
      <a
        href={`#/c/${row.id}`}
        class={unread ? "row unread" : "row"}
        aria-current={props.is_open ? "page" : undefined}
        tabIndex={props.is_open || props.is_first ? 0 : -1}
      >
        <Avatar id={other ?? row.id} name={title} online={other ? model.live.value.people.get(other)?.online : false} />
        <span class="name">{title}</span>
        <time dateTime={at.toISOString()}>{shortly(at)}</time>
        <span class="preview">
          {typing?.size ? <em>writing…</em> : preview}
        </span>
        <span class="marks">
          {isMuted(row) && <Mark name="bell_off">muted</Mark>}
          {row.pinned_at && <Mark name="pin">pinned</Mark>}
          {unread && (
            <span class="badge">
              {row.unread_count > 99 ? "99+" : row.unread_count || ""}
              <span class="hidden"> unread</span>
            </span>
          )}
        </span>
      </a>
    </li>
  );
}

function Mark({ name, children }: { name: "bell_off" | "pin"; children: ComponentChildren }) {
  return (
    <span class="mark">
      <Icon name={name} />
      <span class="hidden">{children}</span>
    </span>
  );
}

/** What a conversation is found by: its title, and the names of its members. */
function wordsOf(client: Client, conversation: Conversation): string {
  const people = conversation.member_ids.map((id) => client.model.users.value.get(id));
  const names = people.map((user) => `${user?.username} ${user?.display_name}`);
  return `${conversation.title ?? ""} ${names.join(" ")}`.toLowerCase();
}

/** Arrows go through the list. */
function move(event: KeyboardEvent): void {
  const links = [...(event.currentTarget as HTMLElement).querySelectorAll<HTMLElement>("a")];
  const at = links.indexOf(document.activeElement as HTMLElement);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: links.length - 1 }[event.key];
  if (to === undefined || at < 0) return;
  event.preventDefault();
  links[Math.max(0, Math.min(to, links.length - 1))]?.focus();
}
