// Pauses that grow, and end early when there is a reason to.

const MIN_MS = 250;
const MAX_MS = 30_000;

/** The pauses between attempts at something. */
export class Pause {
  #ms = MIN_MS;
  #wake: () => void = () => {};
  #is_woken = false;

  /** Begins anew with short pauses. */
  begin(): void {
    this.#ms = MIN_MS;
  }

  /** Ends the pause that is under way, or the next one at once. */
  wake(): void {
    this.#is_woken = true;
    this.#wake();
  }

  /** Waits a growing time, and at least so long; nobody wakes before that. */
  async next(stop: AbortSignal, at_least_ms = 0): Promise<void> {
    const ms = this.#ms * (0.75 + Math.random() / 2);
    this.#ms = Math.min(this.#ms * 2, MAX_MS);
    if (at_least_ms > 0) await this.#wait(stop, at_least_ms, () => {});
    if (at_least_ms < ms) await this.#wait(stop, ms - at_least_ms, (end) => this.#listen(end));
  }

  /** Waits until somebody wakes, but no longer than that. */
  atMost(stop: AbortSignal, ms: number): Promise<void> {
    return this.#wait(stop, ms, (end) => this.#listen(end));
  }

  /** Waits until somebody wakes. */
  untilWoken(stop: AbortSignal): Promise<void> {
    return this.#wait(stop, undefined, (end) => this.#listen(end));
  }

  #listen(end: () => void): void {
    this.#wake = end;
    if (this.#is_woken) end();
  }

  async #wait(stop: AbortSignal, ms: number | undefined, listen: (end: () => void) => void): Promise<void> {
    if (stop.aborted) return;
    const { promise, resolve } = deferred();
    const timer = ms === undefined ? undefined : setTimeout(resolve, ms);
    stop.addEventListener("abort", resolve, { once: true });
    listen(() => {
      this.#is_woken = false;
      resolve();
    });
    await promise;
    clearTimeout(timer);
    stop.removeEventListener("abort", resolve);
    this.#wake = () => {};
  }
}

/** Waits for something, but no longer than that, whatever becomes of it. */
export async function settled(work: Promise<unknown>, at_most_ms: number): Promise<void> {
  const { promise, resolve } = deferred();
  const timer = setTimeout(resolve, at_most_ms);
  await Promise.race([work.catch(() => {}), promise]);
  clearTimeout(timer);
}

function deferred(): { promise: Promise<void>; resolve: () => void } {
  let resolve = () => {};
  const promise = new Promise<void>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}
