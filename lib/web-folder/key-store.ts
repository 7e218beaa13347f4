import { mkdir, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { Failure } from "../core/errors.ts";
import { readIfThere, writeAtomic } from "../files/files.ts";
import { armor, fingerprintOf, type PublicKey, readPublicKeys } from "../openpgp/keys.ts";
import type { KeySet } from "./key-set.ts";

/**
 * What a client remembers of keys, in a folder of its own:
 *
 *     FINGERPRINT.asc   each key that was ever trusted, with what was learnt of it: a revocation is not forgotten
 *     set.json          the set of keys that is trusted now
 *
 * To remove the folder is to begin anew with the pinned key.
 */
export class KeyStore {
  readonly #folder: string | undefined;

  /** @param folder undefined: nothing is remembered. */
  constructor(folder: string | undefined) {
    this.#folder = folder;
  }

  /** The keys that are kept. */
  async keys(): Promise<PublicKey[]> {
    const folder = this.#folder;
    if (folder === undefined) return [];
    const names = (await readdir(folder).catch(() => [])).filter((name) =>
      /^[0-9A-F]+\.asc$/.test(name),
    );
    const keys: PublicKey[] = [];
    for (const name of names)
      keys.push(...(await readPublicKeys(await readFile(join(folder, name)), join(folder, name))));
    return keys;
  }

  /** Keep keys as they are known now. */
  async keepKeys(keys: readonly PublicKey[]): Promise<void> {
    for (const key of keys) await this.write(`${fingerprintOf(key)}.asc`, await armor(key));
  }

  /**
   * What is remembered of the set.
   * @throws {Failure} when it cannot be understood: to forget it would bring revoked keys back.
   */
  async set(): Promise<KeptSet | undefined> {
    if (this.#folder === undefined) return undefined;
    const path = join(this.#folder, "set.json");
    const text = await readIfThere(path);
    if (text === undefined) return undefined;
    try {
      const { pins, set, etags } = JSON.parse(text) as KeptSet;
      if ([pins, set.keys, set.roots, set.revoked].every(Array.isArray))
        return { pins, set, etags: etags ?? {} };
    } catch {
      // told below
    }
    throw new Failure(
      `${path} cannot be understood; restore it, or remove ${this.#folder} to begin anew with the pinned key`,
    );
  }

  async keepSet(kept: KeptSet): Promise<void> {
    await this.write("set.json", `${JSON.stringify(kept, null, 2)}\n`);
  }

  private async write(name: string, text: string): Promise<void> {
    if (this.#folder === undefined) return;
    const path = join(this.#folder, name);
    if (text === (await readIfThere(path))) return;
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    await writeAtomic(path, text, { mode: 0o600 });
  }
}

export interface KeptSet {
  /** The pinned keys that it began with: where others are pinned by hand, it counts no more. */
  pins: readonly string[];
  set: KeySet;
  /** KEY.asc's ETag by web folder, as of the last time it was read. */
  etags: Record<string, string>;
}
