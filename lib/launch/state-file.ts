import { truncateSync, writeFileSync } from "node:fs";
import { Failure, messageOf, systemCode } from "../core/errors.ts";
import { readIfThere, writeAtomic } from "../files/files.ts";
import { Mutex } from "./mutex.ts";

export interface StateFileOptions {
  /** A damaged file is an error with this advice; without it, such a file counts as none. */
  damaged?: string;
  /** false: no fsync, for what a power cut makes void anyway. */
  durable?: boolean;
}

/**
 * A file of `.launchfit/` as an object, JSON on the disk: state.json (what was accepted), launcher.json (what launchfit
 * did and plans), app.json (the app that runs). Changes are on the disk when `save` returns.
 */
export class StateFile<T extends object> {
  value: T;
  /** Told of each change before it is written: what is to follow from it is lost by no crash, and may be told twice. */
  onChange: ((before: T, after: T) => Promise<void>) | undefined;
  readonly #path: string;
  readonly #empty: T;
  readonly #options: StateFileOptions;
  readonly #writes = new Mutex();

  constructor(path: string, empty: T, options: StateFileOptions = {}) {
    this.#path = path;
    this.value = this.#empty = empty;
    this.#options = options;
  }

  /**
   * Read what is there.
   * @throws {Failure} when the file is damaged and that must not be passed over.
   */
  async load(): Promise<T> {
    const { damaged } = this.#options;
    try {
      const text = (await readIfThere(this.#path)) ?? "{}";
      this.value = { ...this.#empty, ...(JSON.parse(text) as T) };
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      if (damaged !== undefined) throw new Failure(`${this.#path} is not JSON; ${damaged}`);
      this.value = this.#empty;
    }
    return this.value;
  }

  /** Change some of it for now; the next `save` brings it to the disk. */
  set(change: Partial<T>): void {
    this.value = { ...this.value, ...change };
  }

  /** Change some of it; `undefined` removes a key. The same content is not written again. */
  async save(change: { [Key in keyof T]?: T[Key] | undefined }): Promise<void> {
    const before = this.value;
    const after = { ...before, ...change } as T;
    this.value = after;
    await this.onChange?.(before, after);
    // one write at a time, each of what holds by then: the last one to end is the newest
    await this.#writes.run(async () => {
      const text = `${JSON.stringify(this.value, undefined, 2)}\n`;
      if (text !== (await readIfThere(this.#path).catch(() => undefined))) await this.write(text);
    });
  }

  /** The same, where a full or read-only disk must stop nothing: it is told, and the next save brings it along. */
  async note(
    change: { [Key in keyof T]?: T[Key] | undefined },
    tell: (line: string) => void,
  ): Promise<void> {
    try {
      await this.save(change);
    } catch (error) {
      tell(`cannot note that in ${this.#path}: ${messageOf(error)}`);
    }
  }

  private async write(text: string): Promise<void> {
    const { durable = true } = this.#options;
    try {
      await writeAtomic(this.#path, text, { mode: 0o600, durable });
    } catch (error) {
      if (durable || systemCode(error) !== "ENOSPC") throw error;
      // a full disk must not keep the app from running: the old file has room for the new text
      writeFileSync(this.#path, text, { flag: "r+" });
      truncateSync(this.#path, Buffer.byteLength(text));
    }
  }
}
