import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { ifMissing, messageOf, Refused, UsageError } from "../core/errors.ts";
import { fingerprintOf, normalFingerprint, readPublicKeys } from "../openpgp/keys.ts";
import { nextKeySet, pinnedSet } from "../web-folder/key-set.ts";
import { type KeyLines, parseVersionFile, type VersionFile } from "../web-folder/version-file.ts";
import { signCurrent } from "./current.ts";
import { assertThere, changeVersion, readVersion, writePublicKeys, writeVersion } from "./folder.ts";
import { endOf, type Signer } from "./signer.ts";

/** `release keys`: the keys that VERSION names, and how they change. docs/signatures.md has the rules. */

/** A key as `release keys list` shows it. */
export interface ListedKey {
  role: "KEY" | "ROOT" | "retired" | "in KEY.asc";
  fingerprint: string;
  /** Its user ids; none when KEY.asc does not hold it. */
  names: string[];
  expires?: Date;
}

/** What a change adds or takes away. */
export type KeyChange =
  | { add: Signer; root: boolean }
  | {
      /** A fingerprint. */
      retire: string;
    };

/**
 * The keys of a web folder, those that sign first.
 * @throws {UsageError} when there is no such folder.
 */
export async function listKeys(out: string): Promise<{ serial: number; keys: ListedKey[] }> {
  await assertThere(out);
  const lines = (await readVersion(out))?.keys;
  const path = join(out, "KEY.asc");
  const data = await readFile(path).catch(ifMissing);
  const published = data ? await readPublicKeys(data, path) : [];
  const roles = new Map<string, ListedKey["role"]>();
  for (const fingerprint of lines?.keys ?? []) roles.set(fingerprint, "KEY");
  for (const fingerprint of lines?.roots ?? []) roles.set(fingerprint, "ROOT");
  for (const fingerprint of lines?.revoked ?? []) roles.set(fingerprint, "retired");
  for (const key of published) if (!roles.has(fingerprintOf(key))) roles.set(fingerprintOf(key), "in KEY.asc");
  const keys: ListedKey[] = [];
  for (const [fingerprint, role] of roles) {
    const key = published.find((each) => fingerprintOf(each) === fingerprint);
    const end = key && (await endOf({ publicKey: key }));
    const expires = end ? { expires: end } : {};
    keys.push({ role, fingerprint, names: key?.getUserIDs() ?? [], ...expires });
  }
  return { serial: lines?.serial ?? 0, keys };
}

/**
 * Change the keys by one step: `keys/N` with its signatures, KEY.asc, a VERSION that names the new set. Killed at any
 * instant, the old VERSION stands, and the same command completes it.
 * @param signers those that allow it (a ROOT where there is one), and those that sign VERSION.
 * @throws {UsageError} when a client would refuse it, with the client's reason.
 */
export async function changeKeys(
  out: string,
  change: KeyChange,
  signers: readonly Signer[],
  expires?: number,
): Promise<VersionFile> {
  return await changeVersion(out, signers, expires, async (before) => {
    const all = "add" in change && !signers.some(isSame(change.add)) ? [...signers, change.add] : signers;
    const set = before.keys ?? pinnedSet(signers.map(({ fingerprint }) => fingerprint));
    const keys = planKeys(set, change);
    const file = { ...before, keys };
    checkAsClient(set, file, all);
    const releasing = all.filter(({ fingerprint }) => keys.keys.includes(fingerprint));
    if (releasing.length === 0)
      throw new UsageError(
        `one of the keys that sign releases must sign this VERSION, too: ${keys.keys.join(" or ")}; add it with --key`,
      );
    await refuseOther(out, keys);
    await writePublicKeys(
      out,
      all.map(({ publicKey }) => publicKey),
      { mayAdd: true },
    );
    await signCurrent(out, file, releasing);
    await writeVersion(out, file, all, keys.serial);
    return file;
  });
}

const isSame = (one: Signer) => (other: Signer) => other.fingerprint === one.fingerprint;

/**
 * The key lines after a change. Pure.
 * @param now the set of VERSION; where it names none yet, of the keys that sign, which clients have pinned.
 */
function planKeys(now: KeyLines, change: KeyChange): KeyLines {
  const next = { ...now, serial: now.serial + 1 };
  if ("add" in change) {
    const { fingerprint } = change.add;
    if (now.keys.includes(fingerprint) || now.roots.includes(fingerprint)) {
      if (now.serial > 0) throw new UsageError(`the key ${fingerprint} is there already`);
      throw new UsageError(`--key and the key to add are the same, ${fingerprint}`);
    }
    if (now.revoked.includes(fingerprint))
      throw new UsageError(`the key ${fingerprint} was retired, and never comes back; make another`);
    return change.root
      ? { ...next, roots: [...now.roots, fingerprint] }
      : { ...next, keys: [...now.keys, fingerprint] };
  }
  const gone = normalFingerprint(change.retire);
  if (gone === undefined) throw new UsageError(`"${change.retire}" is not a fingerprint; release keys list shows them`);
  if (!now.keys.includes(gone) && !now.roots.includes(gone))
    throw new UsageError(`${gone} is not one of the keys; release keys list shows them`);
  const left = (list: readonly string[]) => list.filter((key) => key !== gone);
  return { ...next, keys: left(now.keys), roots: left(now.roots), revoked: [...now.revoked, gone] };
}

/** What clients would refuse is not written. */
function checkAsClient(set: KeyLines, file: VersionFile, signers: readonly Signer[]): void {
  const signedBy = new Set(signers.map(({ fingerprint }) => fingerprint));
  try {
    nextKeySet({ date: undefined, ...set }, { file, signedBy }, { app: file.app, name: `keys/${file.keys?.serial}` });
  } catch (error) {
    if (error instanceof Refused) throw new UsageError(`${messageOf(error)}; name the keys that must sign with --key`);
    throw error;
  }
}

/** A step that was written and never named by a VERSION may have been uploaded: no second one may have its number. */
async function refuseOther(out: string, { serial, keys, roots }: KeyLines): Promise<void> {
  const path = join(out, "keys", String(serial));
  const text = await readFile(path, "utf8").catch(ifMissing);
  if (text === undefined) return;
  const there = parseVersionFile(text, path).keys;
  if (there && there.keys.join() === keys.join() && there.roots.join() === roots.join()) return;
  throw new Refused(
    `${path} is there, of a change that was broken off (${there?.keys.join(", ")}); ` +
      "repeat that one, or remove the file if it was never uploaded",
  );
}
