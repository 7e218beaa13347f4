import { rm } from "node:fs/promises";
import { checkValue, type Schema } from "../config/yaml.ts";
import { Failure, messageOf } from "../core/errors.ts";
import { Mutex } from "../core/mutex.ts";
import { readIfThere, writeAtomic } from "./files.ts";

export interface StateFileOptions {
  /** A damaged file is an error with this advice. Default: it counts as none, as all in it can be found out again. */
  damaged?: string;
  /** The permissions of a new file. Default: 666 less the umask. */
  mode?: number;
  /** false: no fsync, for what a power cut makes void anyway. */
  durable?: boolean;
}

/** What a program remembers between its runs: a JSON file, read whole, checked by a schema, and written whole. */
export class StateFile<T> {
  readonly path: string;
  readonly #schema: Schema<T>;
  readonly #options: StateFileOptions;
  readonly #writes = new Mutex();

  constructor(path: string, schema: Schema<T>, options: StateFileOptions = {}) {
    this.path = path;
    this.#schema = schema;
    this.#options = options;
  }

  /**
   * What it says; undefined when it is not there.
   * @throws {Failure} when it is damaged and that must not be passed over; the system's error when it cannot be read.
   */
  async read(): Promise<T | undefined> {
    const text = await readIfThere(this.path);
    if (text === undefined) return undefined;
    try {
      return checkValue(JSON.parse(text), this.#schema);
    } catch (error) {
      const { damaged } = this.#options;
      if (damaged === undefined) return undefined;
      throw new Failure(`${this.path} is damaged (${messageOf(error)}); ${damaged}`);
    }
  }

  /** Replace it in one step; a file that says the same is left alone. Of several writes the last to begin counts. */
  async write(value: T): Promise<void> {
    const text = `${JSON.stringify(value, undefined, 1)}\n`;
    const { damaged: _, ...options } = this.#options;
    await this.#writes.run(async () => {
      if (text === (await readIfThere(this.path).catch(() => undefined))) return;
      await writeAtomic(this.path, text, options);
    });
  }

  async remove(): Promise<void> {
    await this.#writes.run(() => rm(this.path, { force: true }));
  }
}
