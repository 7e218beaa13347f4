import { Failure, Refused, systemCode } from "../core/errors.ts";
import { FetchFailed, reasonOf } from "../fetch/fetch.ts";

/** How slowly a web folder may answer, and what is said when it does not give what it should. */

/** Bytes that must come in each window of time, else the retrieval is refused as too slow. */
export const minBytes = 64 * 1024;

/** Aborts a download that comes slower than the minimum rate. */
export class MinimumRate {
  readonly #abort = new AbortController();
  readonly #timer: NodeJS.Timeout;
  readonly signal: AbortSignal;
  #done = 0;

  /** @param window milliseconds. */
  constructor(window: number, outer: AbortSignal | undefined) {
    this.signal = outer ? AbortSignal.any([outer, this.#abort.signal]) : this.#abort.signal;
    let before = 0;
    this.#timer = setInterval(() => {
      if (this.#done - before < minBytes) this.#abort.abort();
      before = this.#done;
    }, window);
  }

  progress(done: number): void {
    this.#done = Math.max(done, this.#done);
  }

  stop(): void {
    clearInterval(this.#timer);
  }
}

/** The server says that there is no such file, or a local folder has none. */
export function isMissing(error: unknown, folder: string): boolean {
  if (error instanceof FetchFailed) return [403, 404, 410].includes(error.status ?? 0);
  return folder.startsWith("file:") && ["ENOENT", "ENOTDIR"].includes(systemCode(error) ?? "");
}

/** Too many bytes and wrong ones are an attack as much as an accident; the rest is a failure of the network. */
export function toRefused(error: unknown, name: string): unknown {
  if (!(error instanceof FetchFailed))
    // what the network or the disk said; anything else is a bug
    return systemCode(error) === undefined ? error : new Failure(`${name}: ${reasonOf(error)}`);
  if (error.reason === "too large")
    return new Refused(
      `${name} has more bytes than VERSION or updates.max_size allow (endless data)`,
    );
  if (error.reason === "wrong content")
    return new Refused(`${name}: the content is not the one that VERSION names by its SHA256`);
  return new Failure(`${name}: ${error.message}`);
}
