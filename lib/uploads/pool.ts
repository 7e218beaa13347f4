import { setTimeout as sleep } from "node:timers/promises";

/** Many small jobs, some at a time; how often and how long to try. */

/**
 * Run `work` on every item, `jobs` at once. When one throws, no other begins; once those under way are over,
 * its error is thrown.
 */
export async function forEachOf<T>(
  items: readonly T[],
  jobs: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const queue = items.values();
  const errors: unknown[] = [];
  const worker = async () => {
    for (const item of queue) {
      if (errors.length > 0) return;
      try {
        await work(item);
      } catch (error) {
        errors.push(error);
      }
    }
  };
  await Promise.all(Array.from({ length: Math.min(jobs, items.length) }, worker));
  if (errors.length > 0) throw errors[0];
}

/** A store of bytes that many jobs share, so that memory stays within bounds whatever the sizes are. */
export function createBudget(bytes: number) {
  let free = bytes;
  const waiting: { wanted: number; go: () => void }[] = [];
  return async <T>(size: number, work: () => Promise<T>): Promise<T> => {
    const wanted = Math.min(size, bytes);
    if (free < wanted || waiting.length > 0)
      await new Promise<void>((go) => waiting.push({ wanted, go }));
    else free -= wanted;
    try {
      return await work();
    } finally {
      free += wanted;
      for (let next = waiting[0]; next && next.wanted <= free; next = waiting[0]) {
        free -= next.wanted;
        waiting.shift();
        next.go();
      }
    }
  };
}

export interface RetryRules {
  /** Whether another try may help. */
  isPassing: (error: unknown) => boolean;
  /** Milliseconds that the other side asked for. */
  retryAfter?: (error: unknown) => number | undefined;
  signal?: AbortSignal | undefined;
  /** How many more tries after the first; 6 take about 10 s in all. */
  retries: number;
}

/** Try until it is well, with growing pauses of random length in between (full jitter). */
export async function withRetries<T>(rules: RetryRules, work: () => Promise<T>): Promise<T> {
  const { isPassing, retryAfter, signal, retries } = rules;
  for (let attempt = 1; ; attempt++) {
    signal?.throwIfAborted();
    try {
      return await orAborted(work(), signal);
    } catch (error) {
      if (attempt > retries || signal?.aborted || !isPassing(error)) throw error;
      const pause = Math.min(8000, 250 * 2 ** (attempt - 1));
      const length = retryAfter?.(error) ?? pause * (0.25 + 0.75 * Math.random());
      await sleep(length, undefined, signal ? { signal } : {});
    }
  }
}

/** Not every runtime ends a request under way when its signal says so: who waits for it is let go at once. */
async function orAborted<T>(work: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return await work;
  let onAbort: (() => void) | undefined;
  const aborted = new Promise<never>((_, reject) => {
    onAbort = () => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
  });
  try {
    return await Promise.race([work, aborted]);
  } finally {
    if (onAbort) signal.removeEventListener("abort", onAbort);
  }
}
