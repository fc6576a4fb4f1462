// The page of somebody who is logged in: the list and the conversation, beside each other where there
// is room, and one after the other on a phone.

import { effect, signal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import type { Client } from "../client";
import { Conversation } from "./conversation";
import { List } from "./list";

/** The conversation that the address names, and perhaps a message in it. */
interface Route {
  id: string | undefined;
  seq: number | null;
}

const route = signal(read());

window.addEventListener("hashchange", () => {
  route.value = read();
});

function read(): Route {
  const [, id, seq] = /^#\/c\/([\w-]+)(?:\/(\d{1,15}))?$/.exec(location.hash) ?? [];
  return { id, seq: seq ? Number(seq) : null };
}

/** Goes to a conversation, or back to the list. */
export function go(id: string | undefined): void {
  location.hash = id ? `#/c/${id}` : "#/";
}

navigator.serviceWorker?.addEventListener("message", ({ data }: MessageEvent<{ open?: string }>) => {
  if (data.open) go(data.open);
});

export function App({ client }: { client: Client }) {
  const { model } = client;
  const title = useState(() => document.title)[0];
  useEffect(() => effect(() => void model.show(route.value.id, route.value.seq)), [model]);
  useEffect(
    () =>
      effect(() => {
        const count = model.unread.value;
        document.title = count > 0 ? `(${count}) ${title}` : title;
        const badge = count > 0 ? navigator.setAppBadge?.(count) : navigator.clearAppBadge?.();
        badge?.catch(() => {});
      }),
    [model, title],
  );
  const open = route.value.id;
  const shown = open !== undefined && model.open.value?.id === open;
  return (
    <div class={`app ${open ? "has-open" : ""}`}>
      <List client={client} open={open} />
      {shown ? (
        <Conversation key={open} client={client} id={open} />
      ) : (
        <main class="nothing">
          <p>{open ? "" : "Choose a conversation, or begin one."}</p>
        </main>
      )}
      <Notice client={client} />
    </div>
  );
}

/** What did not go, until it is dismissed. */
function Notice({ client }: { client: Client }) {
  const { notice } = client.model;
  return (
    <div class="notice" role="alert">
      {notice.value && (
        <p>
          That did not go: {notice.value}
          <button class="quiet" onClick={() => (notice.value = "")}>
            Dismiss
          </button>
        </p>
      )}
    </div>
  );
}
