import process from "node:process";
import type { Mask } from "../config/secrets.ts";

/** The server's own lines, on stderr: `TIME text`. Lines of one turn of the event loop are written together. */
export class ServerLog {
  #waiting: string[] = [];
  readonly #mask: () => Mask;
  readonly #quiet: boolean;

  constructor({ mask, quiet = false }: { mask: () => Mask; quiet?: boolean }) {
    this.#mask = mask;
    this.#quiet = quiet;
  }

  /** A line that `--quiet` leaves out; a function is not even called then. */
  info(text: string | (() => string)): void {
    if (!this.#quiet) this.warn(typeof text === "string" ? text : text());
  }

  warn(text: string): void {
    if (this.#waiting.length === 0) setImmediate(() => this.flush());
    this.#waiting.push(`${new Date().toISOString()} ${text.replaceAll("\n", " | ")}\n`);
  }

  flush(): void {
    const text = this.#waiting.join("");
    this.#waiting = [];
    if (text !== "") process.stderr.write(this.#mask()(text));
  }
}

/** A word from outside for a log line: no control characters, no blanks, not long. */
export function shown(text: string | undefined): string {
  if (text === undefined || text === "") return "-";
  return text.replace(/[^\x21-\x7e]/g, "?").slice(0, 120);
}
