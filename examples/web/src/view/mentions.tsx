// Members who are named in a text: offered while their name is typed, and found again when it is sent.

import type { Conversation } from "../replica";
import type { UserPublic } from "../../generated/api";
import type { Client } from "../client";
import { Avatar } from "./parts";
import { nameOf } from "./words";

/** How many people are offered at once, and how many a message may name. */
const OFFERED_MAX = 6;
const MENTIONS_MAX = 50;

/** A name with its sign, where no address of e-mail is meant. */
export const MENTION = /(?<![\w@.-])@([\w.-]+)/g;

/** People whose names begin with what is typed, and where that stands. */
export interface Offer {
  from: number;
  to: number;
  people: UserPublic[];
  /** Which of them Enter takes. */
  at: number;
}

/** Who can be named in a conversation. */
export function peopleOf(client: Client, conversation: Conversation): UserPublic[] {
  if (conversation.type !== "group") return [];
  const users = conversation.members.flatMap(({ id }) => client.model.users.value.get(id) ?? []);
  return users.filter((it) => it.id !== client.me && !it.deleted_at);
}

/** Whom to offer for what stands before the caret. */
export function offerFor(text: string, caret: number, people: UserPublic[]): Offer | undefined {
  const typed = /(?<![\w@.-])@([\w.-]*)$/.exec(text.slice(0, caret));
  if (!typed) return undefined;
  const begun = (typed[1] ?? "").toLowerCase();
  const begins = (it: UserPublic) =>
    [it.username, ...it.display_name.split(/\s+/)].some((word) => word.toLowerCase().startsWith(begun));
  const found = people.filter(begins).sort((a, b) => a.username.localeCompare(b.username));
  return found.length ? { from: typed.index, to: caret, people: found.slice(0, OFFERED_MAX), at: 0 } : undefined;
}

/** Whom a `@name` means. A dot after it may be the end of a sentence. */
export function namedBy(name: string, people: UserPublic[]): UserPublic | undefined {
  const is = (wanted: string) => people.find((it) => it.username.toLowerCase() === wanted.toLowerCase());
  return is(name) ?? is(name.replace(/[.-]+$/, ""));
}

/** The members whom a text names. */
export function mentionsIn(text: string, people: UserPublic[]): string[] {
  const ids = [...text.matchAll(MENTION)].flatMap(([, name]) => namedBy(name ?? "", people)?.id ?? []);
  return [...new Set(ids)].slice(0, MENTIONS_MAX);
}

/** The list of those who are offered. The focus stays in the text. */
export function Offered({ offer, onTake }: { offer: Offer | undefined; onTake: (user: UserPublic) => void }) {
  return (
    <>
      {offer && (
        <ul class="offered" role="listbox" id="offered" aria-label="People to mention">
          {offer.people.map((user, index) => (
            <li
              key={user.id}
              id={`offered-${index}`}
              class="person"
              role="option"
              aria-selected={index === offer.at}
              onMouseDown={(event) => {
                event.preventDefault();
                onTake(user);
              }}
            >
              <Avatar id={user.id} name={nameOf(user)} />
              <span class="who">
                <span>{nameOf(user)}</span> <small>@{user.username}</small>
              </span>
            </li>
          ))}
        </ul>
      )}
      <p class="hidden" role="status">
        {offer && `${offer.people.length} to mention. Up and down choose, Enter takes.`}
      </p>
    </>
  );
}
