// How people and times are said.

import type { UserPublic } from "../../generated/api";
import type { Client } from "../client";
import type { Conversation } from "../replica";

const TIME = new Intl.DateTimeFormat(undefined, { hour: "numeric", minute: "2-digit" });
const WEEKDAY = new Intl.DateTimeFormat(undefined, { weekday: "short" });
const DATE = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const LONG = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const AGO = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });

const DAY_MS = 86_400_000;

const daysAgo = (at: Date): number => {
  const midnight = (date: Date) => new Date(date.getFullYear(), date.getMonth(), date.getDate()).getTime();
  return Math.round((midnight(new Date()) - midnight(at)) / DAY_MS);
};

export const timeOf = (at: Date): string => TIME.format(at);

/** A moment, as short as a list wants it. */
export function shortly(at: Date): string {
  const days = daysAgo(at);
  if (days <= 0) return TIME.format(at);
  return days < 7 ? WEEKDAY.format(at) : DATE.format(at);
}

/** A day, as a heading. */
export function dayOf(at: Date): string {
  const days = daysAgo(at);
  if (days > 1) return LONG.format(at);
  const day = AGO.format(-days, "day");
  return day.charAt(0).toUpperCase() + day.slice(1);
}

export const nameOf = (user: UserPublic | undefined): string =>
  !user ? "Somebody" : user.deleted_at ? "Deleted account" : user.display_name;

/** How large a file is. */
export function sizeOf(bytes: number): string {
  const step = Math.min(3, Math.floor(Math.log10(Math.max(bytes, 1)) / 3));
  const unit = ["byte", "kilobyte", "megabyte", "gigabyte"][step];
  const unitDisplay = step === 0 ? "long" : "short";
  const format = new Intl.NumberFormat(undefined, { style: "unit", unit, unitDisplay, maximumFractionDigits: 1 });
  return format.format(bytes / 1000 ** step);
}

/** The other person of a direct conversation. */
export function otherOf(client: Client, conversation: Conversation): string | undefined {
  if (conversation.type !== "direct") return undefined;
  return conversation.member_ids.find((id) => id !== client.me) ?? client.me;
}

export function titleOf(client: Client, conversation: Conversation): string {
  const other = otherOf(client, conversation);
  if (other) return nameOf(client.model.users.value.get(other));
  return conversation.title || "Group";
}

/** Whether somebody is there, in words; nothing where it is not told. */
export function presenceOf(client: Client, user_id: string): string {
  const presence = client.model.live.value.people.get(user_id);
  if (presence?.online) return "online";
  return presence?.last_seen_at ? `last seen ${ago(new Date(presence.last_seen_at))}` : "";
}

export function ago(at: Date): string {
  const minutes = Math.round((Date.now() - at.getTime()) / 60_000);
  if (minutes < 1) return "just now";
  if (minutes < 60) return AGO.format(-minutes, "minute");
  if (minutes < 24 * 60) return AGO.format(-Math.round(minutes / 60), "hour");
  return AGO.format(-daysAgo(at), "day");
}
