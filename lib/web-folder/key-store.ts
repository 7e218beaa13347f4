import { mkdir, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { type Infer, y } from "../config/yaml.ts";
import { readIfThere, writeAtomic } from "../files/files.ts";
import { StateFile } from "../files/state-file.ts";
import { armor, fingerprintOf, type PublicKey, readPublicKeys } from "../openpgp/keys.ts";
import { keySet } from "./key-set.ts";

const keptSet = y.object({
  /** The pinned keys that it began with: where others are pinned by hand, it counts no more. */
  pins: y.list(y.string()),
  set: keySet,
  /** KEY.asc's ETag by web folder, as of the last time it was read. */
  etags: y.record(y.string()),
});

export type KeptSet = Infer<typeof keptSet>;

/**
 * What a client remembers of keys, in a folder of its own:
 *
 *     FINGERPRINT.asc   each key that was ever trusted, with what was learnt of it: a revocation is not forgotten
 *     set.json          the set of keys that is trusted now
 *
 * To remove the folder is to begin anew with the pinned key.
 */
export class KeyStore {
  readonly #folder: string;
  /** @throws {Failure} when it is read and cannot be understood. */
  readonly set: StateFile<KeptSet>;

  constructor(folder: string) {
    this.#folder = folder;
    // to forget the set would bring revoked keys back
    const damaged = `restore it, or remove ${folder} to begin anew with the pinned key`;
    this.set = new StateFile(join(folder, "set.json"), keptSet, { mode: 0o600, damaged });
  }

  /** The keys that are kept. */
  async keys(): Promise<PublicKey[]> {
    const names = (await readdir(this.#folder).catch(() => [])).filter((name) => /^[0-9A-F]+\.asc$/.test(name));
    const files = names.map((name) => join(this.#folder, name));
    return (await Promise.all(files.map(async (file) => readPublicKeys(await readFile(file), file)))).flat();
  }

  /** Keep keys as they are known now, then the set, which must not name any that are not there. */
  async keep(keys: Iterable<PublicKey>, set: KeptSet): Promise<void> {
    await mkdir(this.#folder, { recursive: true, mode: 0o700 });
    for (const key of keys) {
      const file = join(this.#folder, `${fingerprintOf(key)}.asc`);
      const text = await armor(key);
      if (text !== (await readIfThere(file))) await writeAtomic(file, text, { mode: 0o600 });
    }
    await this.set.write(set);
  }
}
