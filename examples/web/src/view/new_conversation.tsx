// Begins a conversation: with one person at a click, or with several as a group.

import { useSignal } from "@preact/signals";
import { useState } from "preact/hooks";
import { v7 } from "uuid";
import type { UserPublic } from "../../generated/api";
import type { Reply } from "../api";
import type { Client } from "../client";
import { go } from "./app";
import { reasonOf } from "./log_in";
import { Dialog, PeopleFinder } from "./parts";
import { nameOf } from "./words";

export function NewConversation({ client, onClose }: { client: Client; onClose: () => void }) {
  const is_group = useSignal(false);
  const is_busy = useSignal(false);
  const chosen = useSignal<Map<string, UserPublic>>(new Map());
  const error = useSignal("");
  // The same at every attempt, so that there is one group.
  const [key] = useState(() => v7());

  async function open(begin: Promise<Reply<{ id: string }>>): Promise<void> {
    is_busy.value = true;
    const reply = await begin;
    is_busy.value = false;
    if (reply.kind !== "done") {
      error.value = reasonOf(reply);
      return;
    }
    onClose();
    go(reply.data.id);
  }

  function choose(user: UserPublic): void {
    if (!is_group.value) {
      void open(client.openDirect(user.id));
      return;
    }
    const next = new Map(chosen.value);
    if (!next.delete(user.id)) next.set(user.id, user);
    chosen.value = next;
  }

  function create(event: SubmitEvent): void {
    event.preventDefault();
    const title = String(new FormData(event.currentTarget as HTMLFormElement).get("title")).trim();
    if (title) void open(client.createGroup(key, title, [...chosen.value.keys()]));
  }

  const names = [...chosen.value.values()].map(nameOf);
  return (
    <Dialog title={is_group.value ? "New group" : "New conversation"} onClose={onClose}>
      <form class="stack" onSubmit={create}>
        {is_group.value ? (
          <label class="field">
            Title
            <input name="title" maxLength={128} required autocomplete="off" />
          </label>
        ) : (
          <button class="quiet" type="button" onClick={() => (is_group.value = true)}>
            Make a group instead
          </button>
        )}
        <PeopleFinder
          client={client}
          onChoose={choose}
          {...(is_group.value && { chosen: new Set(chosen.value.keys()) })}
        />
        {is_group.value && <p class="hint">{names.length ? `With ${names.join(", ")}` : "Choose who belongs to it."}</p>}
        <p class="error" role="alert">
          {error.value}
        </p>
        {is_group.value && (
          <button class="primary" type="submit" disabled={is_busy.value || names.length === 0}>
            Create group
          </button>
        )}
      </form>
    </Dialog>
  );
}
