// What a conversation is, who belongs to it, and how the person keeps it.

import { useSignal } from "@preact/signals";
import type { RoleRequest, SettingsRequest } from "../../generated/api";
import type { Client } from "../client";
import { isMuted } from "../model";
import type { Conversation } from "../replica";
import { go } from "./app";
import { Avatar, Dialog, PeopleFinder, Switch } from "./parts";
import { nameOf, otherOf, presenceOf, titleOf } from "./words";

/** Muted until somebody wants to hear it again. */
const FOR_EVER = "9999-12-31T00:00:00Z";

const ROLES = ["member", "admin", "owner"];

export function Details(props: { client: Client; conversation: Conversation; onClose: () => void }) {
  const { client, conversation, onClose } = props;
  const { id: conversation_id, role } = conversation;
  const other = otherOf(client, conversation);
  const is_adding = useSignal(false);
  const may_change = conversation.type === "group" && (role === "owner" || role === "admin");

  function rename(event: SubmitEvent): void {
    event.preventDefault();
    const title = String(new FormData(event.currentTarget as HTMLFormElement).get("title")).trim();
    if (title && title !== conversation.title) void client.act({ kind: "title", conversation_id, title });
  }

  function leave(): void {
    void client.act({ kind: "remove_member", conversation_id, user_id: client.me });
    onClose();
    go(undefined);
  }

  const set = (settings: SettingsRequest) => void client.act({ kind: "settings", conversation_id, settings });

  return (
    <Dialog title={titleOf(client, conversation)} onClose={onClose}>
      <div class="stack">
        {may_change && (
          <form class="inline" onSubmit={rename}>
            <label class="field">
              Title
              <input name="title" defaultValue={conversation.title ?? ""} maxLength={128} required />
            </label>
            <button type="submit">Save</button>
          </form>
        )}
        <Switch
          label="Pin to the top"
          on={conversation.pinned_at !== null}
          onChange={(pinned) => set({ pinned })}
        />
        <Switch
          label="Mute"
          on={isMuted(conversation)}
          onChange={(on) => set({ muted_until: on ? FOR_EVER : null })}
        />
        <Switch
          label="Archive"
          on={conversation.archived_at !== null}
          onChange={(archived) => set({ archived })}
        />
        <button
          class="quiet"
          onClick={() => {
            set({ marked_unread: true });
            onClose();
            go(undefined);
          }}
        >
          Mark as unread
        </button>
        {other && other !== client.me && <Block client={client} user_id={other} />}
        {conversation.type === "group" && (
          <section aria-labelledby="members-title">
            <h3 id="members-title">
              {conversation.member_count} {conversation.member_count === 1 ? "member" : "members"}
            </h3>
            <ul class="people" role="list">
              {conversation.members.map((member) => (
                <Member key={member.id} client={client} conversation={conversation} member={member} />
              ))}
            </ul>
            {conversation.members_mode === "lazy" && <p class="hint">Only who runs it is listed.</p>}
            {may_change &&
              (is_adding.value ? (
                <PeopleFinder
                  client={client}
                  without={conversation.member_ids}
                  onChoose={(user) => {
                    void client.act({ kind: "add_members", conversation_id, member_ids: [user.id] });
                    is_adding.value = false;
                  }}
                />
              ) : (
                <button class="quiet" onClick={() => (is_adding.value = true)}>
                  Add people
                </button>
              ))}
            <button class="danger" onClick={leave}>
              Leave group
            </button>
          </section>
        )}
      </div>
    </Dialog>
  );
}

function Member(props: { client: Client; conversation: Conversation; member: { id: string; role: string } }) {
  const { client, conversation, member } = props;
  const { id: conversation_id, role } = conversation;
  const user = client.model.users.value.get(member.id);
  const name = nameOf(user);
  const is_me = member.id === client.me;
  const may_remove = !is_me && (role === "owner" || (role === "admin" && member.role === "member"));
  const set = (role: RoleRequest["role"]) => void client.act({ kind: "role", conversation_id, user_id: member.id, role });
  return (
    <li class="person">
      <Avatar id={member.id} name={name} online={client.model.live.value.people.get(member.id)?.online} />
      <span class="who">
        <span>{is_me ? `${name} (you)` : name}</span>{" "}
        <small>{presenceOf(client, member.id) || `@${user?.username ?? ""}`}</small>
      </span>
      {role === "owner" && !is_me ? (
        <select
          aria-label={`Role of ${name}`}
          value={member.role}
          onChange={(event) => set(event.currentTarget.value as RoleRequest["role"])}
        >
          {ROLES.map((it) => (
            <option key={it} value={it}>
              {it}
            </option>
          ))}
        </select>
      ) : (
        <small class="role">{member.role}</small>
      )}
      {may_remove && (
        <button
          class="quiet"
          aria-label={`Remove ${name}`}
          onClick={() => void client.act({ kind: "remove_member", conversation_id, user_id: member.id })}
        >
          Remove
        </button>
      )}
    </li>
  );
}

function Block({ client, user_id }: { client: Client; user_id: string }) {
  const blocked = client.model.blocks.value.has(user_id);
  return (
    <button
      class={blocked ? "quiet" : "danger"}
      onClick={() => void client.act({ kind: "block", user_id, blocked: !blocked })}
    >
      {blocked ? "Unblock" : "Block"}
    </button>
  );
}
