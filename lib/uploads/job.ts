import { setTimeout as sleep } from "node:timers/promises";
import { Failure } from "../core/errors.ts";
import { Mutex } from "../core/mutex.ts";
import { changedWhileRead } from "./content.ts";
import { changedSince, type LocalFile, scanFolder } from "./folder.ts";
import type { State } from "./state.ts";

/** What every target is given to work on; how it goes through it, and how often it tries. */
export interface Job {
  /** The folder that is published, absolute. */
  root: string;
  files: readonly LocalFile[];
  state: State;
  dryRun: boolean;
  /** How often a request or transfer is tried again where that may help. */
  retries: number;
  signal: AbortSignal;
  /** For the progress bar: so many bytes will be sent. */
  expect(bytes: number): void;
  /** So many of the expected bytes were sent. */
  arrived(bytes: number, path: string): void;
  /** A word for the user, with the target's name in front. */
  note(text: string): void;
}

/** Whether another machine's words say that there is no room for what we send (ENOSPC, EDQUOT). */
export function isDiskFull(text: string): boolean {
  return /No space left on device|Disk quota exceeded/i.test(text);
}

/** What is worth another try: the line dropped, somebody else was faster, a file changed meanwhile. */
export class TryAgain extends Failure {
  override name = "TryAgain";
}

export interface RetryRules {
  /** Whether another try may help; default: for a TryAgain. */
  isTransient?: (error: unknown) => boolean;
  /** Milliseconds that the other side asked for. */
  retryAfter?: (error: unknown) => number | undefined;
  signal: AbortSignal;
  /** How many more tries after the first; 6 take about 10 s in all. */
  retries: number;
}

/** Try until it succeeds, with growing pauses of random length in between (full jitter). */
export async function withRetries<T>(rules: RetryRules, work: () => Promise<T>): Promise<T> {
  const { isTransient = (error) => error instanceof TryAgain, retryAfter, signal, retries } = rules;
  for (let attempt = 1; ; attempt++) {
    signal.throwIfAborted();
    try {
      return await work();
    } catch (error) {
      if (attempt > retries || signal.aborted || !isTransient(error)) throw error;
      const pause = Math.min(8000, 250 * 2 ** (attempt - 1));
      const length = retryAfter?.(error) ?? pause * (0.25 + 0.75 * Math.random());
      await sleep(length, undefined, { signal });
    }
  }
}

/**
 * Work that reads the folder's files, done again when one has changed meanwhile, which may have been read half old and
 * half new. @returns what came of it, and the files as they were then.
 * @throws {Failure} when the folder has become empty: a build is about to make it anew
 */
export async function readAllAtRest<T>(
  { root, dryRun, ...job }: Job,
  work: (files: readonly LocalFile[]) => Promise<T>,
): Promise<{ files: readonly LocalFile[]; result: T }> {
  let { files } = job;
  return await withRetries(job, async () => {
    const result = await work(files);
    const changed = dryRun ? undefined : changedSince(files);
    if (!changed) return { files, result };
    files = scanFolder(root);
    if (files.length === 0) throw new Failure(`${root} has become empty; run this again when its build is done`);
    throw new TryAgain(changedWhileRead(changed).message);
  });
}

/** Work that holds `size` bytes in memory waits in line until there is room for them among `limit` bytes. */
export function memoryLimit(limit: number) {
  const line = new Mutex();
  let free = limit;
  let wake = () => {};
  return async <T>(size: number, work: () => Promise<T>): Promise<T> => {
    const wanted = Math.min(size, limit);
    await line.run(async () => {
      while (wanted > free) await new Promise<void>((resolve) => (wake = resolve));
      free -= wanted;
    });
    try {
      return await work();
    } finally {
      free += wanted;
      wake();
    }
  };
}
