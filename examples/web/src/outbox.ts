// What the person does: each deed waits in the outbox, with an id that is made once, until the server
// has answered it and a sync has brought back what it did. They are sent one after the other.

import type { ErrorBody, RoleRequest, SendRequest, SettingsRequest } from "../generated/api";
import { api, ask, type Reply } from "./api";
import type { Replica } from "./replica";
import { asPerson, SignedOut } from "./session";
import { Pause } from "./wait";

/** Something that the person does. */
export type Deed =
  | {
      kind: "send";
      conversation_id: string;
      content: string;
      reply_to: string | null;
      files?: Picked[];
      mentions?: string[];
    }
  | { kind: "edit"; conversation_id: string; message_id: string; content: string }
  | { kind: "delete"; conversation_id: string; message_id: string }
  | { kind: "react"; conversation_id: string; message_id: string; emoji: string; added: boolean }
  | { kind: "read"; conversation_id: string; seq: number }
  | { kind: "settings"; conversation_id: string; settings: SettingsRequest }
  | { kind: "title"; conversation_id: string; title: string }
  | { kind: "add_members"; conversation_id: string; member_ids: string[] }
  | { kind: "remove_member"; conversation_id: string; user_id: string }
  | { kind: "role"; conversation_id: string; user_id: string; role: RoleRequest["role"] }
  | { kind: "block"; user_id: string; blocked: boolean }
  | { kind: "profile"; display_name: string };

/** A file that goes with a message, once it was sent up. */
export interface Picked {
  /** Where its content is kept until then. */
  file: string;
  /** The same at every attempt to send it up. */
  key: string;
  name: string;
  media_type: string;
  size: number;
  /** What the server calls it, once it has it. */
  id: string | null;
}

/** The files of a deed. */
export const filesOf = (deed: Deed): Picked[] => (deed.kind === "send" ? (deed.files ?? []) : []);

/** A deed that waits. */
export interface Write {
  /** Its place in the outbox. */
  id: number;
  /** The same at every attempt, so that it takes place once. */
  key: string;
  deed: Deed;
  /** When it was done, in milliseconds. */
  at: number;
  /** Whether it was about to be sent: then it may have taken place. An earlier client did not say. */
  is_tried?: boolean;
  /** How often it failed, at the server or on the way. */
  failures: number;
  /** What was answered then; 0 if this browser failed. */
  status: number | null;
  /** Of its answer, once there is one. */
  version: number | null;
  /** Why it never will take place, as it is. */
  refused: ErrorBody | null;
}

/** What a deed is about: of two about the same, the later one must not come first. */
export function subjectOf({ deed }: Write): string {
  if ("message_id" in deed) return deed.message_id;
  const is_of_members = ["add_members", "remove_member", "role"].includes(deed.kind);
  const of = "conversation_id" in deed ? deed.conversation_id : "user_id" in deed ? deed.user_id : "";
  return `${is_of_members ? "members" : deed.kind} ${of}`;
}

/** Why a write is parked. */
export function failureOf({ status }: Write): string {
  if (status === 0) return "this browser failed at it";
  if (status === 413) return "it is too large for what lies between here and the server";
  return status !== null && status < 500 ? "something between here and the server stops it" : "the server failed at it";
}

/** Fields of an answer that say of what moment it is. */
interface Versions {
  version?: number;
  own_version?: number;
  members_version?: number;
  membership_version?: number;
}

/** Sends a deed, with its id. */
function perform({ key, deed }: Write): Promise<Reply<Versions>> {
  return asPerson<Versions>((headers) => {
    const header = { ...headers, "Idempotency-Key": key };
    switch (deed.kind) {
      case "send": {
        const { conversation_id, content, reply_to, mentions } = deed;
        const attachment_ids = filesOf(deed).flatMap(({ id }) => id ?? []);
        const body: SendRequest = {
          client_message_id: key,
          content,
          ...(reply_to && { reply_to }),
          ...(mentions?.length && { mentions }),
          ...(attachment_ids.length && { attachment_ids }),
        };
        const params = { path: { conversation_id } };
        return ask(api.POST("/v1/conversations/{conversation_id}/messages", { headers, params, body }));
      }
      case "edit": {
        const { content, ...path } = { content: deed.content, ...message(deed) };
        const params = { path, header };
        const route = "/v1/conversations/{conversation_id}/messages/{message_id}";
        return ask(api.PATCH(route, { headers, params, body: { content } }));
      }
      case "delete": {
        const params = { path: message(deed), header };
        return ask(api.DELETE("/v1/conversations/{conversation_id}/messages/{message_id}", { headers, params }));
      }
      case "react": {
        const params = { path: { ...message(deed), emoji: deed.emoji }, header };
        const route = "/v1/conversations/{conversation_id}/messages/{message_id}/reactions/{emoji}";
        return ask(deed.added ? api.PUT(route, { headers, params }) : api.DELETE(route, { headers, params }));
      }
      case "read": {
        const params = { path: { conversation_id: deed.conversation_id } };
        const body = { seq: deed.seq };
        return ask(api.PUT("/v1/conversations/{conversation_id}/read", { headers, params, body }));
      }
      case "settings": {
        const params = { path: { conversation_id: deed.conversation_id }, header };
        const body = deed.settings;
        return ask(api.PATCH("/v1/conversations/{conversation_id}/settings", { headers, params, body }));
      }
      case "title": {
        const params = { path: { conversation_id: deed.conversation_id }, header };
        const body = { title: deed.title };
        return ask(api.PATCH("/v1/conversations/{conversation_id}", { headers, params, body }));
      }
      case "add_members": {
        const params = { path: { conversation_id: deed.conversation_id }, header };
        const body = { member_ids: deed.member_ids };
        return ask(api.POST("/v1/conversations/{conversation_id}/members", { headers, params, body }));
      }
      case "remove_member": {
        const { conversation_id, user_id } = deed;
        const params = { path: { conversation_id, user_id }, header };
        return ask(api.DELETE("/v1/conversations/{conversation_id}/members/{user_id}", { headers, params }));
      }
      case "role": {
        const { conversation_id, user_id, role } = deed;
        const params = { path: { conversation_id, user_id }, header };
        const route = "/v1/conversations/{conversation_id}/members/{user_id}";
        return ask(api.PATCH(route, { headers, params, body: { role } }));
      }
      case "block": {
        const params = { path: { user_id: deed.user_id }, header };
        const route = "/v1/users/me/blocks/{user_id}";
        return ask(deed.blocked ? api.PUT(route, { headers, params }) : api.DELETE(route, { headers, params }));
      }
      case "profile": {
        const body = { display_name: deed.display_name };
        return ask(api.PATCH("/v1/users/me", { headers, params: { header }, body }));
      }
    }
  });
}

/** A deed at which this browser failed: that is no reason for others to wait for ever. */
export function failed(error: unknown): { kind: "failed"; status: number } {
  if (error instanceof SignedOut) throw error;
  console.warn(error);
  return { kind: "failed", status: 0 };
}

const message = ({ conversation_id, message_id }: { conversation_id: string; message_id: string }) => ({
  conversation_id,
  message_id,
});

/** Sends what waits in the outbox of a replica, for as long as this tab leads. */
export class Sender {
  readonly pause = new Pause();
  /** Whether the server was reached, and is worth being asked. */
  is_reachable = false;
  #replica: Replica;
  #tell: (deed: Deed, reason: string) => void;
  #next: () => void;

  /** `tell` is told what did not go, and why; `next`, when something no longer waits. */
  constructor(replica: Replica, tell: (deed: Deed, reason: string) => void, next: () => void) {
    this.#replica = replica;
    this.#tell = tell;
    this.#next = next;
  }

  /** Runs until the session ends, and throws `SignedOut` then. */
  async run(stop: AbortSignal): Promise<void> {
    while (!stop.aborted) {
      const write = this.is_reachable ? await this.#replica.nextWrite() : undefined;
      if (!write) {
        await this.pause.untilWoken(stop);
        continue;
      }
      if (!(await this.#replica.tried(write))) continue;
      const reply = await perform(write).catch(failed);
      switch (reply.kind) {
        case "done": {
          const { version, own_version, members_version, membership_version } = reply.data;
          const versions = [version, own_version, members_version, membership_version];
          await this.#replica.confirmed(write, Math.max(...versions.map((it) => it ?? 0)));
          this.pause.begin();
          break;
        }
        case "refused":
          await this.#replica.refused(write, reply.error);
          this.pause.begin();
          this.#tell(write.deed, reply.error.message);
          break;
        case "failed":
          if (await this.#replica.failed(write, reply.status)) {
            this.#tell(write.deed, `${failureOf({ ...write, status: reply.status })}. It is tried again later`);
            this.pause.begin();
          } else await this.pause.next(stop);
          break;
        default:
          await this.pause.next(stop, reply.kind === "later" ? reply.wait_ms : 0);
          continue;
      }
      this.#next();
    }
  }
}
