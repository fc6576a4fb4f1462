// How the client speaks to the server: typed requests that end in time, and what an answer means.
// Between a client and its server there are also proxies, and hotels that answer everything with
// their own page.

import createClient, { defaultPathSerializer } from "openapi-fetch";
import type { ErrorBody, paths } from "../generated/api";

/** Where the server is: the page says which prefix the routes have. */
const meta = document.querySelector<HTMLMetaElement>('meta[name="api"]');
export const base = new URL(meta?.content ?? "v1", location.href);

/** How long an answer may take. */
const TIME_MAX_MS = 30_000;

/** The routes, as `openapi.json` describes them. */
export const api = createClient<paths>({
  baseUrl: base.origin,
  pathSerializer: (path, params) =>
    defaultPathSerializer(path.replace(/^\/v1/, base.pathname.replace(/\/$/, "")), params),
  fetch: (request) => fetch(request, { signal: AbortSignal.timeout(timeOf(request)) }),
});

/** What came of a request. */
export type Reply<T> =
  /** It took place. */
  | { kind: "done"; data: T }
  /** It did not, and never will. */
  | { kind: "refused"; error: ErrorBody }
  /** The token is no longer valid: get another one, and ask again. */
  | { kind: "unauthenticated"; error: ErrorBody | undefined }
  /** The server failed at it, or something on the way has answered. Ask again, but not for ever. */
  | { kind: "failed"; status: number }
  /** Not now: ask again, but not before that time. */
  | { kind: "later"; wait_ms: number };

/** An answer as openapi-fetch gives it. */
interface Fetched<T> {
  data?: { data: T };
  error?: unknown;
  response: Response;
}

/** Asks, and reads the answer. Never throws: no answer is one, too. */
export async function ask<T>(request: Promise<Fetched<T>>): Promise<Reply<T>> {
  let fetched: Fetched<T>;
  try {
    fetched = await request;
  } catch {
    return { kind: "later", wait_ms: 0 };
  }
  const { data, error, response } = fetched;
  return meaning(response.status, data?.data, error, response.headers.get("retry-after"));
}

/** Answers that say: not now. */
const NOT_NOW = [408, 425, 429, 503];

/** What an answer means. Whatever has not our form is no answer of ours, be it a 200. */
export function meaning<T>(status: number, data: T | undefined, body: unknown, retry_after: string | null): Reply<T> {
  const error = errorOf(body);
  if (status >= 200 && status < 300 && data !== undefined) return { kind: "done", data };
  if (status === 401) return { kind: "unauthenticated", error };
  if (NOT_NOW.includes(status)) return { kind: "later", wait_ms: 1000 * (Number(retry_after) || 0) };
  if (status >= 400 && status < 500 && error) return { kind: "refused", error };
  return { kind: "failed", status };
}

function errorOf(body: unknown): ErrorBody | undefined {
  const error = (body as { error?: ErrorBody } | undefined)?.error;
  return typeof error?.code === "string" ? error : undefined;
}

/** A long poll takes as long as it was asked to, and some more. */
function timeOf(request: Request): number {
  const wait = Number(new URL(request.url).searchParams.get("wait") ?? 0);
  return TIME_MAX_MS + wait * 1000;
}
