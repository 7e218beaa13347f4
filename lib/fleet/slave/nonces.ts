import { mkdir, open } from "node:fs/promises";
import { dirname } from "node:path";
import { readIfThere, writeAtomic } from "../../files/files.ts";
import { HttpError } from "../../http/server.ts";
import { allowedSkew } from "../signature.ts";

/** The nonces of requests signed with a shared secret, remembered for as long as their time is valid; also across a restart. */
export class Nonces {
  readonly #file: string;
  /** nonce → seconds since 1970 after which its request is too old anyway. */
  readonly #until = new Map<string, number>();
  #lines = 0;
  #writing: Promise<unknown> = Promise.resolve();

  constructor(file: string) {
    this.#file = file;
  }

  async open(): Promise<void> {
    await mkdir(dirname(this.#file), { recursive: true, mode: 0o700 });
    for (const line of ((await readIfThere(this.#file)) ?? "").split("\n")) {
      const [until = "", nonce] = line.split(" ");
      if (nonce?.length === 32) this.#until.set(nonce, Number(until));
    }
    await this.#compact();
  }

  /**
   * Take a nonce; false when it was taken before. It is on disk when this resolves.
   * @throws {HttpError} 429 when more came than can be remembered, 503 when it cannot be written
   */
  async take(nonce: string, time: number): Promise<boolean> {
    if (this.#until.has(nonce)) return false;
    if (this.#until.size >= maxNonces) this.#forget();
    if (this.#until.size >= maxNonces) {
      throw new HttpError(429, "too many requests", { "retry-after": "60" });
    }
    const until = time + 2 * allowedSkew;
    this.#until.set(nonce, until);
    const write = this.#writing.then(() => this.#append(`${until} ${nonce}\n`));
    this.#writing = write.catch(() => {});
    try {
      await write;
    } catch {
      this.#until.delete(nonce);
      throw new HttpError(503, "the request could not be recorded: is the disk full?");
    }
    return true;
  }

  async #append(line: string): Promise<void> {
    if (this.#lines >= compactAfter) {
      this.#forget();
      if (this.#lines > 2 * this.#until.size) return await this.#compact();
    }
    const file = await open(this.#file, "a", 0o600);
    try {
      await file.appendFile(line);
      await file.datasync();
    } finally {
      await file.close();
    }
    this.#lines += 1;
  }

  #forget(): void {
    const now = Date.now() / 1000;
    for (const [nonce, until] of this.#until) if (until < now) this.#until.delete(nonce);
  }

  async #compact(): Promise<void> {
    this.#forget();
    const lines = [...this.#until].map(([nonce, until]) => `${until} ${nonce}\n`);
    await writeAtomic(this.#file, lines.join(""), { mode: 0o600 });
    this.#lines = lines.length;
  }
}

const maxNonces = 200_000;
/** Fewer lines than this are not worth writing the file anew. */
const compactAfter = 1000;
