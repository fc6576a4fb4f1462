// The files that go with messages: sent up before their message, and fetched for whoever looks.

import type { AttachmentItem } from "../generated/api";
import { base, meaning, type Reply } from "./api";
import { isPicture } from "./model";
import { failed, failureOf, type Picked } from "./outbox";
import type { Replica, Upload } from "./replica";
import { asPerson } from "./session";
import { Pause } from "./wait";

/** How many files may go with one message. */
export const FILES_MAX = 10;

/** How long a file may take that is fetched, and the small form of a picture. */
const TIME_MAX_MS = { content: 3_600_000, preview: 30_000 };

/** This tab sends up the files of one message at a time: it is other devices that have left so many. */
const FULL = "too many of your files wait for their messages; try again when those are sent";

/** A line on which nothing moves for so long is dead. */
const IDLE_MS = 60_000;

const address = (path: string) => new URL(`${base.pathname.replace(/\/$/, "")}/attachments${path}`, base);

/** Sends up what waits in the outbox of a replica, beside all else, for as long as this tab leads. */
export class Uploader {
  readonly pause = new Pause();
  /** Whether the server was reached, and is worth being asked. */
  is_reachable = false;
  /** How far each file is, from 0 to 1. */
  readonly progress = new Map<string, number>();
  #replica: Replica;
  /** Is told when `progress` is other. */
  #tell: () => void;
  /** Is told when a message may be ready to be sent. */
  #ready: () => void;
  #current: { upload: Upload; stop: AbortController } | undefined;

  constructor(replica: Replica, tell: () => void, ready: () => void) {
    this.#replica = replica;
    this.#tell = tell;
    this.#ready = ready;
  }

  /** Runs until the session ends, and throws `SignedOut` then. */
  async run(stop: AbortSignal): Promise<void> {
    while (!stop.aborted) {
      const upload = this.is_reachable ? await this.#replica.nextUpload() : undefined;
      if (!upload) {
        await this.pause.untilWoken(stop);
        continue;
      }
      const { write, picked, content } = upload;
      if (!content || !(await isReadable(content))) {
        const message = `${picked.name}: this browser can not read it any more`;
        await this.#replica.refused(write, { code: "file_lost", message });
        this.#ready();
        continue;
      }
      const given_up = new AbortController();
      this.#current = { upload, stop: given_up };
      const reply = await this.#send(picked, content, AbortSignal.any([stop, given_up.signal])).catch(failed);
      this.#current = undefined;
      this.progress.delete(upload.picked.file);
      this.#tell();
      if (given_up.signal.aborted) continue;
      // The upload was cut off, which passes.
      if (reply.kind === "refused" && reply.error.code === "upload_broken") {
        await this.pause.next(stop);
        continue;
      }
      switch (reply.kind) {
        case "done":
          await this.#replica.uploaded(write, picked, reply.data.id);
          this.pause.begin();
          break;
        case "refused": {
          const { code } = reply.error;
          const message = code === "attachments_full" ? FULL : reply.error.message;
          await this.#replica.refused(write, { code, message: `${picked.name}: ${message}` });
          break;
        }
        case "failed":
          if (reply.status === 413) {
            // A proxy's limit: a file is not sent up again and again to meet it.
            const message = `${picked.name}: ${failureOf({ ...write, status: 413 })}`;
            await this.#replica.refused(write, { code: "too_large", message });
          } else if (await this.#replica.failed(write, reply.status)) this.pause.begin();
          else await this.pause.next(stop);
          break;
        default:
          await this.pause.next(stop, reply.kind === "later" ? reply.wait_ms : 0);
          continue;
      }
      this.#ready();
    }
  }

  /** Stops sending up what the person has given up meanwhile. */
  async check(): Promise<void> {
    const current = this.#current;
    const waiting = current && (await this.#replica.outbox());
    if (!waiting?.some((it) => it.id === current?.upload.write.id)) current?.stop.abort();
  }

  async #send(picked: Picked, content: Blob, stop: AbortSignal): Promise<Reply<AttachmentItem>> {
    const url = address(`?name=${encodeURIComponent(picked.name)}`);
    return asPerson<AttachmentItem>(({ authorization }) => {
      // Only this kind of request says how far it is.
      const request = new XMLHttpRequest();
      request.open("POST", url);
      request.responseType = "json";
      request.setRequestHeader("Authorization", authorization);
      request.setRequestHeader("Content-Type", picked.media_type);
      request.setRequestHeader("Idempotency-Key", picked.key);
      const abort = () => request.abort();
      let timer = setTimeout(abort, IDLE_MS);
      const moves = () => {
        clearTimeout(timer);
        timer = setTimeout(abort, IDLE_MS);
      };
      request.upload.onload = moves;
      request.upload.onprogress = ({ loaded, total }) => {
        moves();
        const before = this.progress.get(picked.file) ?? 0;
        const now = total > 0 ? loaded / total : 0;
        if (Math.floor(100 * before) === Math.floor(100 * now)) return;
        this.progress.set(picked.file, now);
        this.#tell();
      };
      stop.addEventListener("abort", abort);
      return new Promise((resolve) => {
        request.onloadend = () => {
          clearTimeout(timer);
          stop.removeEventListener("abort", abort);
          const body = request.response as { data?: AttachmentItem } | null;
          const none = { kind: "later", wait_ms: 0 } as const;
          const retry_after = request.getResponseHeader("retry-after");
          resolve(request.status === 0 ? none : meaning(request.status, body?.data, body, retry_after));
        };
        if (stop.aborted) resolve({ kind: "later", wait_ms: 0 });
        else request.send(content);
      });
    });
  }
}

/**
 * An address for a file, on this page. A browser would run somebody's page under it, as one of ours: so
 * only pictures keep their kind.
 */
export function urlOf(content: Blob): string {
  const kind = isPicture(content.type) ? content.type : "application/octet-stream";
  return URL.createObjectURL(content.slice(0, content.size, kind));
}

/** Whether there still is something behind a file: a browser may lose what it keeps. */
async function isReadable(content: Blob): Promise<boolean> {
  try {
    await content.slice(0, 1).arrayBuffer();
    return true;
  } catch {
    return false;
  }
}

/** Fetches a file, or the small form of a picture. */
export function fetchFile(id: string, form: "content" | "preview", stop?: AbortSignal): Promise<Reply<Blob>> {
  return asPerson(async (headers) => {
    const late = AbortSignal.timeout(TIME_MAX_MS[form]);
    const signal = stop ? AbortSignal.any([stop, late]) : late;
    try {
      // What is kept here is what the replica keeps, and goes with it.
      const response = await fetch(address(`/${id}/${form}`), { headers, signal, cache: "no-store" });
      const { ok, status } = response;
      const data = ok ? await response.blob() : undefined;
      const body: unknown = ok ? undefined : await response.json().catch(() => undefined);
      return meaning(status, data, body, response.headers.get("retry-after"));
    } catch {
      return { kind: "later", wait_ms: 0 };
    }
  });
}
