// The messages of a conversation. Text is only ever text here, never HTML.

import { useSignal } from "@preact/signals";
import type { ComponentChild } from "preact";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import type { Client } from "../client";
import { gistOf, isUnread, type Shown } from "../model";
import { attachmentsOf, type Conversation } from "../replica";
import type { Task } from "./composer";
import { Files } from "./files";
import { Checks, Icon } from "./icons";
import { MENTION, namedBy } from "./mentions";
import { Avatar } from "./parts";
import { dayOf, nameOf, timeOf } from "./words";

const EMOJIS = ["👍", "❤️", "😂", "😮", "😢"];

/** How near to the end counts as the end, and how near to the beginning asks for more, in pixels. */
const NEAR_PX = 80;

interface Props {
  client: Client;
  conversation: Conversation;
  onTask: (task: Task) => void;
  onDelete: (message: Shown) => void;
}

export function Timeline(props: Props) {
  const { client, conversation } = props;
  const { model } = client;
  const box = useRef<HTMLDivElement>(null);
  const wanted_seq = model.open.value?.wanted_seq ?? null;
  const is_at_end = useSignal(wanted_seq === null);
  const found = useRef<number | null>(null);
  const before = useRef({ first: "", height: 0, top: 0 });
  const items = model.timeline.value;
  const first = items[0]?.key ?? "";
  const unread = model.list.value.find((it) => it.id === conversation.id);
  const count = items.length;

  // What is shown stays where it is when older messages come above it, and at the end when newer
  // ones come below.
  useLayoutEffect(() => {
    const it = box.current;
    if (!it) return;
    if (is_at_end.peek()) it.scrollTop = it.scrollHeight;
    else if (before.current.first !== first) {
      it.scrollTop = before.current.top + it.scrollHeight - before.current.height;
    }
    // The message that was looked for comes into sight once.
    const wanted = found.current === wanted_seq ? null : it.querySelector<HTMLElement>("[data-wanted] article");
    if (wanted) {
      found.current = wanted_seq;
      is_at_end.value = false;
      wanted.focus({ preventScroll: true });
      wanted.scrollIntoView({ block: "center" });
    }
    before.current = { first, height: it.scrollHeight, top: it.scrollTop };
  });
  useEffect(() => {
    const it = box.current;
    if (!it) return;
    // A keyboard comes, a text grows, a picture says how large it is: the end stays in sight.
    const sizes = new ResizeObserver(() => {
      if (is_at_end.peek()) it.scrollTop = it.scrollHeight;
    });
    sizes.observe(it);
    for (const child of it.children) sizes.observe(child);
    return () => sizes.disconnect();
  }, [is_at_end]);
  // Fewer messages than the box has room for: there is nothing to scroll.
  useEffect(() => {
    const it = box.current;
    if (it && it.scrollHeight <= it.clientHeight) void model.showEarlier();
  }, [model, count]);

  // What is looked at is read.
  const is_unread = unread !== undefined && isUnread(unread);
  const { last_seq } = conversation;
  const asked = useRef(0);
  useEffect(() => {
    const read = () => {
      if (!is_unread || document.hidden || !document.hasFocus() || !is_at_end.value) return;
      // Once: what the server has refused it refuses again.
      if (asked.current >= last_seq) return;
      asked.current = last_seq;
      void client.act({ kind: "read", conversation_id: conversation.id, seq: last_seq });
    };
    read();
    window.addEventListener("focus", read);
    document.addEventListener("visibilitychange", read);
    return () => {
      window.removeEventListener("focus", read);
      document.removeEventListener("visibilitychange", read);
    };
  }, [client, conversation.id, is_unread, last_seq, is_at_end.value]);

  function scroll(): void {
    const it = box.current;
    if (!it) return;
    const is_near_end = it.scrollHeight - it.scrollTop - it.clientHeight < NEAR_PX;
    if (is_near_end && model.has_later.peek()) void model.showLater();
    is_at_end.value = is_near_end && !model.has_later.peek();
    before.current.top = it.scrollTop;
    before.current.height = it.scrollHeight;
    if (it.scrollTop < NEAR_PX) void model.showEarlier();
  }

  const messages = items.filter((it) => it.kind === "message");
  const last = messages.at(-1)?.key;
  return (
    <section class={`timeline ${conversation.type}`} aria-label="Messages">
      <div class="scroll" ref={box} onScroll={scroll}>
        {model.has_earlier.value && (
          <button class="quiet earlier" onClick={() => void model.showEarlier()}>
            Earlier messages
          </button>
        )}
        <ol role="list" onKeyDown={move}>
          {items.map((item) => {
            switch (item.kind) {
              case "day":
                return (
                  <li key={item.key} class="day">
                    <time dateTime={item.at.toISOString()}>{dayOf(item.at)}</time>
                  </li>
                );
              case "new":
                return (
                  <li key={item.key} class="new">
                    New messages
                  </li>
                );
              case "hole":
                return (
                  <li key={item.key} class="hole">
                    {model.live.value.connection === "online" ? "Loading…" : "More is here once there is a connection."}
                  </li>
                );
              case "message":
                return (
                  <Row
                    key={item.key}
                    {...props}
                    message={item.message}
                    is_last={item.key === last}
                    is_wanted={item.is_wanted}
                  />
                );
            }
          })}
        </ol>
      </div>
      {!is_at_end.value && (
        <button
          class="round accent to-end"
          aria-label="To the newest message"
          onClick={() => {
            if (!model.has_later.peek()) box.current?.scrollTo({ top: box.current.scrollHeight });
            else {
              is_at_end.value = true;
              void model.show(conversation.id);
            }
          }}
        >
          <Icon name="back" />
        </button>
      )}
      <Announcer client={client} id={conversation.id} message={messages.at(-1)} />
    </section>
  );
}

/** Says what comes, to those who do not see it. */
function Announcer({ client, id, message }: { client: Client; id: string; message: { message: Shown } | undefined }) {
  const known = useRef<string | undefined>(message?.message.key);
  const said = useSignal("");
  const shown = message?.message;
  useEffect(() => {
    if (!shown || shown.key === known.current) return;
    known.current = shown.key;
    if (shown.sender_id === client.me) return;
    said.value = `${nameOf(client.model.users.peek().get(shown.sender_id))}: ${gistOf(shown.content, shown.files)}`;
  }, [client, id, shown, said]);
  return (
    <p class="hidden" aria-live="polite">
      {said.value}
    </p>
  );
}

function Row(props: Props & { message: Shown; is_last: boolean; is_wanted: boolean }) {
  const { client, conversation, message, onTask, onDelete } = props;
  const { model } = client;
  const is_mine = message.sender_id === client.me;
  const name = is_mine ? "You" : nameOf(model.users.value.get(message.sender_id));
  const is_group = conversation.type === "group";
  const text = message.is_deleted ? "Message deleted" : message.content;
  const gist = gistOf(text, message.files);
  const may_delete = is_mine || (is_group && conversation.role !== "member");
  const react = (emoji: string, added: boolean) => {
    const { id: message_id } = message;
    if (message_id) void client.act({ kind: "react", conversation_id: conversation.id, message_id, emoji, added });
  };
  const css = ["message", is_mine ? "mine" : "theirs", message.begins && "begins", message.progress === "failed" && "failed", message.is_deleted && "gone"];
  return (
    <li class={css.filter(Boolean).join(" ")} data-progress={message.progress ?? undefined} data-wanted={props.is_wanted || undefined}>
      {is_group && !is_mine && message.begins && <Avatar id={message.sender_id} name={name} />}
      <article
        tabIndex={props.is_last ? 0 : -1}
        data-key={message.key}
        aria-label={`${name}: ${gist}, ${timeOf(message.at)}${message.progress ? `, ${message.progress}` : ""}`}
      >
        <div class="bubble">
          {is_group && !is_mine && message.begins && <p class="sender">{name}</p>}
          {message.answers && !message.is_deleted && (
            <button class="quote" onClick={() => reveal(message.answers?.message)}>
              {message.answers.message ? (
                <>
                  <b>{nameOf(model.users.value.get(message.answers.message.sender_id))}</b>
                  <span>
                    {gistOf(message.answers.message.content, attachmentsOf(message.answers.message)) || "Message deleted"}
                  </span>
                </>
              ) : (
                <span>An earlier message</span>
              )}
            </button>
          )}
          {message.files.length > 0 && <Files client={client} conversation_id={conversation.id} message={message} />}
          {text && <Text key={text} client={client} message={message} text={text} />}
          <p class="meta">
            {message.is_edited && !message.is_deleted && <span>edited</span>}
            <time dateTime={message.at.toISOString()}>{timeOf(message.at)}</time>
            {message.progress && !message.is_deleted && <ProgressMark progress={message.progress} />}
          </p>
        </div>
        {message.reactions.length > 0 && (
          <div class="reactions">
            {message.reactions.map(({ emoji, count, mine }) => (
              <button
                key={emoji}
                aria-pressed={mine}
                aria-label={`${emoji}, ${count}`}
                onClick={() => react(emoji, !mine)}
              >
                {emoji} {count > 1 && count}
              </button>
            ))}
          </div>
        )}
        {message.progress === "failed" && (
          <p class="failure">
            Not sent{message.error ? `: ${message.error}` : ""}.
            <button onClick={() => message.write_id && void client.actAgain(message.write_id)}>Try again</button>
            <button onClick={() => message.write_id && void client.discard(message.write_id)}>Discard</button>
          </p>
        )}
        {message.progress === "waiting" && message.may_discard && (
          <div class="actions" role="group" aria-label="What can be done with it">
            <button aria-label="Discard" onClick={() => message.write_id && void client.discard(message.write_id)}>
              <Icon name="trash" />
            </button>
          </div>
        )}
        {message.id && !message.is_deleted && (
          <div class="actions" role="group" aria-label="What can be done with it" onClick={leave}>
            {EMOJIS.map((emoji) => {
              const mine = message.reactions.some((it) => it.emoji === emoji && it.mine);
              return (
                <button key={emoji} aria-label={`React with ${emoji}`} aria-pressed={mine} onClick={() => react(emoji, !mine)}>
                  {emoji}
                </button>
              );
            })}
            <button aria-label="Reply" onClick={() => onTask({ kind: "reply", message })}>
              <Icon name="reply" />
            </button>
            {is_mine && (
              <button aria-label="Edit" onClick={() => onTask({ kind: "edit", message })}>
                <Icon name="edit" />
              </button>
            )}
            {may_delete && (
              <button aria-label="Delete" onClick={() => onDelete(message)}>
                <Icon name="trash" />
              </button>
            )}
          </div>
        )}
      </article>
    </li>
  );
}

const PROGRESS = {
  waiting: "waiting to be sent",
  failed: "not sent",
  sent: "sent",
  delivered: "delivered",
  read: "read",
};

function ProgressMark({ progress }: { progress: keyof typeof PROGRESS }) {
  return (
    <span class={`progress ${progress}`} title={PROGRESS[progress]}>
      {progress === "waiting" ? (
        <Icon name="clock" />
      ) : progress === "failed" ? (
        <Icon name="warn" />
      ) : (
        <Checks count={progress === "sent" ? 1 : 2} />
      )}
      <span class="hidden">{PROGRESS[progress]}</span>
    </span>
  );
}

/** Where a text names an address of the web, and where such an address ends; or somebody. */
const LINK = /\bhttps?:\/\/[^\s<>"]+[^\s<>"'.,;:!?)\]}]/g;
const PART = new RegExp(`${LINK.source}|${MENTION.source}`, "g");

/**
 * A text with its addresses as links, the people whom it names marked, and nothing else. Other words
 * are another element: nothing of the old ones can stay.
 */
function Text({ client, message, text }: { client: Client; message: Shown; text: string }) {
  const people = message.mentions.flatMap((id) => client.model.users.value.get(id) ?? []);
  const parts: ComponentChild[] = [];
  let from = 0;
  for (const { 0: found, 1: name, index } of text.matchAll(PART)) {
    const user = name === undefined ? undefined : namedBy(name, people);
    if (name !== undefined && !user) continue;
    const whole = user ? found.slice(0, user.username.length + 1) : found;
    parts.push(text.slice(from, index), user ? <Mention key={index} is_me={user.id === client.me} text={whole} /> : <Link key={index} address={whole} />);
    from = index + whole.length;
  }
  return <p class="text">{[...parts, text.slice(from)]}</p>;
}

const Link = ({ address }: { address: string }) => (
  <a href={address} target="_blank" rel="noopener noreferrer">
    {address}
  </a>
);

const Mention = ({ text, is_me }: { text: string; is_me: boolean }) => <b class={is_me ? "mention of-me" : "mention"}>{text}</b>;

/** Brings a message that is answered into sight, if it is among those that are shown. */
function reveal(message: { id: string; client_message_id: string } | null | undefined): void {
  if (!message) return;
  const articles = [...document.querySelectorAll<HTMLElement>(".timeline article")];
  const found = articles.find((it) => [message.id, message.client_message_id].includes(it.dataset.key ?? ""));
  found?.focus();
  found?.scrollIntoView({ block: "center" });
}

/** What a mouse has done is done: the buttons go with the pointer, and no focus holds them. */
function leave(event: MouseEvent): void {
  if (event.detail > 0 && matchMedia("(hover: hover)").matches) (document.activeElement as HTMLElement).blur();
}

/** Arrows go through the messages, Escape back to what is written. */
function move(event: KeyboardEvent): void {
  // A picture that is open has its own keys.
  if ((event.target as Element).closest("dialog")) return;
  const articles = [...(event.currentTarget as HTMLElement).querySelectorAll<HTMLElement>("article")];
  const here = (event.target as HTMLElement).closest("article");
  const at = here ? articles.indexOf(here) : -1;
  if (at < 0) return;
  if (event.key === "Escape") {
    event.preventDefault();
    document.querySelector<HTMLElement>(".composer textarea")?.focus();
    return;
  }
  if (event.key === "Enter" && event.target === here) {
    event.preventDefault();
    here?.querySelector<HTMLElement>(".actions button")?.focus();
    return;
  }
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: articles.length - 1 }[event.key];
  if (to === undefined) return;
  event.preventDefault();
  if (to >= articles.length) document.querySelector<HTMLElement>(".composer textarea")?.focus();
  else articles[Math.max(0, to)]?.focus();
}
