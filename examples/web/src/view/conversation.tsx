// An open conversation: its head, its messages, and what is written.

import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { Client } from "../client";
import { gistOf, type Shown } from "../model";
import { go } from "./app";
import { Composer, type Task } from "./composer";
import { Details } from "./details";
import { Icon } from "./icons";
import { Avatar, Dialog } from "./parts";
import { Timeline } from "./timeline";
import { nameOf, otherOf, presenceOf, titleOf } from "./words";

export function Conversation({ client, id }: { client: Client; id: string }) {
  const { model } = client;
  const task = useSignal<Task | undefined>(undefined);
  const is_detailed = useSignal(false);
  const doomed = useSignal<Shown | undefined>(undefined);
  const conversation = model.list.value.find((it) => it.id === id);
  const was_here = useRef(false);
  useEffect(() => {
    // Whoever is removed while they look is led away.
    if (was_here.current && !conversation) go(undefined);
    was_here.current = conversation !== undefined;
  }, [conversation]);
  if (!conversation) {
    return (
      <main class="nothing">
        <p>This conversation is not here.</p>
        <a href="#/">Back to all</a>
      </main>
    );
  }
  const other = otherOf(client, conversation);
  const title = titleOf(client, conversation);
  return (
    <main class="conversation" tabIndex={-1} aria-label={`Conversation: ${title}`}>
      <header>
        <a class="round back" href="#/" aria-label="Back to all conversations">
          <Icon name="back" />
        </a>
        <Avatar id={other ?? id} name={title} online={other ? model.live.value.people.get(other)?.online : false} />
        <div class="head">
          <h2>{title}</h2>
          <p>
            <Subtitle client={client} id={id} />
          </p>
        </div>
        <button class="round" aria-label="Details" onClick={() => (is_detailed.value = true)}>
          <Icon name="more" />
        </button>
      </header>
      <Timeline
        client={client}
        conversation={conversation}
        onTask={(next) => (task.value = next)}
        onDelete={(message) => (doomed.value = message)}
      />
      <Composer client={client} conversation={conversation} task={task} />
      {is_detailed.value && (
        <Details client={client} conversation={conversation} onClose={() => (is_detailed.value = false)} />
      )}
      {doomed.value && (
        <DeleteDialog client={client} conversation_id={id} message={doomed.value} onClose={() => (doomed.value = undefined)} />
      )}
    </main>
  );
}

/** Who writes, or who is there. */
function Subtitle({ client, id }: { client: Client; id: string }) {
  const { model } = client;
  const tick = useSignal(0);
  const typing = model.live.value.typing.get(id);
  const now = Date.now();
  const until = [...(typing ?? [])].filter(([user, until]) => until > now && user !== client.me);
  useEffect(() => {
    // Who does not say that they are still writing has stopped.
    if (until.length === 0) return;
    const next = Math.min(...until.map(([, until]) => until));
    const timer = setTimeout(() => tick.value++, next - Date.now() + 10);
    return () => clearTimeout(timer);
  });
  void tick.value;
  const conversation = model.conversations.value.get(id);
  if (!conversation) return null;
  if (until.length > 0) {
    const names = until.map(([user]) => nameOf(model.users.value.get(user)));
    return <span class="typing">{conversation.type === "direct" ? "writing…" : `${names.join(", ")} writing…`}</span>;
  }
  const other = otherOf(client, conversation);
  if (other) return <>{presenceOf(client, other)}</>;
  const there = conversation.member_ids.filter((it) => model.live.value.people.get(it)?.online).length;
  return (
    <>
      {conversation.member_count} members{there > 0 && `, ${there} online`}
    </>
  );
}

function DeleteDialog(props: { client: Client; conversation_id: string; message: Shown; onClose: () => void }) {
  const { client, conversation_id, message, onClose } = props;
  return (
    <Dialog title="Delete this message?" onClose={onClose}>
      <div class="stack">
        <blockquote>{gistOf(message.content, message.files)}</blockquote>
        <p class="hint">It is deleted for everybody.</p>
        <button
          class="danger"
          onClick={() => {
            if (message.id) void client.act({ kind: "delete", conversation_id, message_id: message.id });
            onClose();
          }}
        >
          Delete
        </button>
      </div>
    </Dialog>
  );
}
