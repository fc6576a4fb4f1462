// Messages that are found by their text.

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import type { Message } from "../../generated/api";
import type { Client } from "../client";
import { nameOf, shortly, titleOf } from "./words";

/** How long nothing is typed before it is searched. */
const PAUSE_MS = 250;

/** What is shown before a match, in characters. */
const BEFORE = 24;

interface Page {
  messages: Message[];
  next_before: number | undefined;
  /** What to say in place of messages, or after them. */
  note: string;
}

/** What is found by one text; another one is another `key`. */
export function Found({ client, query }: { client: Client; query: string }) {
  const { model } = client;
  const page = useSignal<Page | undefined>(undefined);
  const is_online = model.live.value.connection === "online";

  async function ask(before: Page | undefined): Promise<void> {
    const reply = await client.findMessages(query, before?.next_before);
    // Asked twice meanwhile is answered once.
    if (page.peek() !== before) return;
    const known = before?.messages ?? [];
    if (reply.kind !== "done") {
      const note = reply.kind === "refused" ? reply.error.message : "The server can not be asked now.";
      page.value = { messages: known, next_before: undefined, note };
      return;
    }
    const { messages, next_before, complete } = reply.data;
    const all = [...known, ...messages];
    const nothing = all.length || next_before ? "" : "No message was found.";
    const note = complete ? nothing : "Not everything could be looked through yet.";
    page.value = { messages: all, next_before, note };
  }

  useEffect(() => {
    if (!is_online) return;
    const timer = setTimeout(() => void ask(undefined), PAUSE_MS);
    return () => clearTimeout(timer);
  }, [is_online]);

  const { messages, next_before, note } = page.value ?? { messages: [], next_before: undefined, note: "" };
  return (
    <section class="found" aria-label="Messages">
      <h2>Messages</h2>
      <ul role="list">
        {messages.map((message) => (
          <Hit key={message.id} client={client} message={message} query={query} />
        ))}
      </ul>
      <p class="hint" role="status">
        {is_online ? note : "Messages are found once there is a connection."}
      </p>
      {next_before !== undefined && (
        <button class="quiet" onClick={() => void ask(page.peek())}>
          More
        </button>
      )}
    </section>
  );
}

function Hit({ client, message, query }: { client: Client; message: Message; query: string }) {
  const { model } = client;
  const conversation = model.conversations.value.get(message.conversation_id);
  const at = new Date(message.created_at);
  const sender = message.sender_id === client.me ? "You" : nameOf(model.users.value.get(message.sender_id));
  return (
    <li>
      <a class="row hit" href={`#/c/${message.conversation_id}/${message.seq}`}>
        <span class="name">{conversation ? titleOf(client, conversation) : "A conversation"}</span>
        <time dateTime={at.toISOString()}>{shortly(at)}</time>
        <span class="preview">
          {sender}: <Around text={message.content} query={query} />
        </span>
      </a>
    </li>
  );
}

/** A text around the first word that was looked for, which is marked where it stands as it was typed. */
function Around({ text, query }: { text: string; query: string }) {
  const lower = text.toLowerCase();
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  const places = words.map((word) => ({ at: lower.indexOf(word), length: word.length }));
  const [first] = places.filter((it) => it.at >= 0).sort((a, b) => a.at - b.at);
  // Folded, a text may have another length: then there is no place to mark.
  if (!first || lower.length !== text.length) return <>{text}</>;
  const from = Math.max(0, first.at - BEFORE);
  return (
    <>
      {from > 0 && "…"}
      {text.slice(from, first.at)}
      <mark>{text.slice(first.at, first.at + first.length)}</mark>
      {text.slice(first.at + first.length)}
    </>
  );
}
