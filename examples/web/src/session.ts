// Who is logged in, and the tokens that requests need: kept in IndexedDB, which no page of another
// origin can read; scripts that are not ours the Content-Security-Policy keeps out. The access token
// is kept beside the stronger one, since each refresh that a reload would cost might be cut off by
// the next reload, and so end the session.

import { type DBSchema, type IDBPDatabase, openDB } from "idb";
import type { AuthResult } from "../generated/api";
import { api, ask, type Reply } from "./api";
import { settled } from "./wait";

/** A session of this browser. */
export interface Session {
  user_id: string;
  username: string;
  access_token: string;
  refresh_token: string;
}

interface Schema extends DBSchema {
  session: { key: "current" | "last_name"; value: Session | string };
}

/** The session has ended: the person is to log in again. */
export class SignedOut extends Error {}

let opened: Promise<IDBPDatabase<Schema>> | undefined;

function database(): Promise<IDBPDatabase<Schema>> {
  opened ??= openDB<Schema>("messenger", 1, { upgrade: (db) => void db.createObjectStore("session") });
  return opened;
}

/** The session that there is. */
export async function current(): Promise<Session | undefined> {
  return (await (await database()).get("session", "current")) as Session | undefined;
}

/** Who was logged in last, to be offered when they come back. */
export async function lastName(): Promise<string> {
  return ((await (await database()).get("session", "last_name")) as string | undefined) ?? "";
}

export async function logIn(username: string, password: string): Promise<Reply<AuthResult>> {
  return enter(await ask(api.POST("/v1/auth/login", { body: { username, password } })));
}

export async function register(
  username: string,
  password: string,
  display_name: string,
): Promise<Reply<AuthResult>> {
  const body = display_name ? { username, password, display_name } : { username, password };
  return enter(await ask(api.POST("/v1/auth/register", { body })));
}

async function enter(reply: Reply<AuthResult>): Promise<Reply<AuthResult>> {
  if (reply.kind === "done") await keep(reply.data);
  return reply;
}

async function keep({ tokens, user }: AuthResult): Promise<Session> {
  const session = {
    user_id: user.id,
    username: user.username,
    access_token: tokens.access_token,
    refresh_token: tokens.refresh_token,
  };
  const change = (await database()).transaction("session", "readwrite", { durability: "strict" });
  await Promise.all([
    change.store.put(session, "current"),
    change.store.put(user.username, "last_name"),
    change.done,
  ]);
  return session;
}

/** How long a log-out waits for the server. */
const LOG_OUT_MS = 3_000;

/**
 * Ends the session here, after a renewal that is under way: it would bring the session back. Gives
 * what ends it on the server, if that can be reached.
 */
export async function logOut(): Promise<() => Promise<void>> {
  const session = await exclusively(async () => {
    const session = await current();
    await forget();
    return session;
  });
  return async () => {
    if (!session) return;
    const body = { refresh_token: session.refresh_token };
    await settled(ask(api.POST("/v1/auth/logout", { body })), LOG_OUT_MS);
  };
}

async function forget(): Promise<void> {
  await (await database()).delete("session", "current");
}

/** Whose page this is. Another tab may log in somebody else, before this one is told. */
let person: string | undefined;

/** Says whose page this is. */
export function be(user_id: string): void {
  person = user_id;
}

/** The session of the person, as it is now. Throws `SignedOut` if there is none any more. */
export async function required(): Promise<Session> {
  const session = await current();
  if (!session || session.user_id !== person) throw new SignedOut();
  return session;
}

/**
 * Asks as the person. A token that has expired is renewed, and what it was for is asked again.
 *
 * Throws `SignedOut` if there is no session any more.
 */
export async function asPerson<T>(
  request: (headers: { authorization: string }) => Promise<Reply<T>>,
): Promise<Reply<T>> {
  let session = await required();
  for (let attempt = 0; attempt < 2; attempt++) {
    const reply = await request({ authorization: `Bearer ${session.access_token}` });
    if (reply.kind !== "unauthenticated") return reply;
    const renewed: Reply<Session> = await renew(session.access_token);
    if (renewed.kind !== "done") return renewed;
    session = renewed.data;
  }
  return { kind: "later", wait_ms: 0 };
}

/**
 * Gets other tokens in place of one that was refused. A refresh token is good for one time, and the
 * session ends if it is used again: so one tab at a time, and the others take what it got.
 */
function renew(refused: string): Promise<Reply<Session>> {
  return exclusively(async () => {
    const session = await required();
    if (session.access_token !== refused) return { kind: "done", data: session };
    const body = { refresh_token: session.refresh_token };
    const reply = await ask(api.POST("/v1/auth/refresh", { body }));
    if (reply.kind === "done") return { kind: "done", data: await keep(reply.data) };
    const is_over = reply.kind === "unauthenticated" && reply.error !== undefined;
    if (!is_over && reply.kind !== "refused") {
      return { kind: "later", wait_ms: reply.kind === "later" ? reply.wait_ms : 0 };
    }
    await forget();
    throw new SignedOut();
  });
}

async function exclusively<T>(work: () => Promise<T>): Promise<T> {
  return (await navigator.locks.request("messenger-session", work)) as T;
}
