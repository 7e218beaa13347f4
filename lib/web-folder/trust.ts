import { mkdir, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { messageOf, Refused, systemCode, UsageError } from "../core/errors.ts";
import { $, cleanEnvironment } from "../exec/exec.ts";
import { writeAtomic } from "../files/files.ts";
import {
  armor,
  fingerprintOf,
  mergeKeys,
  normalFingerprint,
  type PublicKey,
  readPublicKeys,
} from "../openpgp/keys.ts";
import type { WebFolder } from "./web-folder.ts";

/**
 * Which key must have signed everything. The pin comes from the command line, launchify.yml or the first install,
 * never from what is being installed; the key itself may come from anywhere, if it has the pinned fingerprint.
 */
export interface TrustOptions {
  /** --key: a fingerprint, or a short id that one key in the local ring has. */
  key?: string | undefined;
  /** --key-file */
  keyFile?: string | undefined;
  /** Take the web folder's key at the first install without being asked. */
  insecure?: boolean | undefined;
  /** Ask a person at the first install; undefined when there is nobody to ask. */
  confirm?:
    | ((fingerprint: string, names: string[], folder: string) => Promise<boolean>)
    | undefined;
  note: (line: string) => void;
}

export interface Trust {
  /** Full fingerprints. */
  pins: string[];
  keys: PublicKey[];
  /** Short ids that were given, with what they stand for. */
  written: Record<string, string>;
  /** Nothing was pinned before: the key counts once a release by it is accepted. */
  isFirstUse?: boolean;
}

/**
 * Find the pinned keys.
 * @param keysFolder where `saveKeys` keeps them.
 * @param pinned by launchify.yml, else by what was accepted before.
 * @throws {Refused} when there is no pin, or no key that has it.
 * @throws {UsageError} when the command line contradicts the pin.
 */
export async function findTrust(
  keysFolder: string,
  pinned: readonly string[],
  folders: readonly WebFolder[],
  options: TrustOptions,
): Promise<Trust> {
  const written: Record<string, string> = {};
  const full = async (text: string) => {
    const fingerprint = normalFingerprint(text) ?? (await fingerprintOfShortId(text, options.note));
    if (!normalFingerprint(text)) written[text] = fingerprint;
    return fingerprint;
  };
  const pins: string[] = [];
  for (const text of pinned) pins.push(await full(text));
  const given = options.keyFile === undefined ? [] : await readKeyFile(options.keyFile);
  const wanted = options.key === undefined ? undefined : await full(options.key);
  if (wanted !== undefined && pins.length > 0 && !pins.includes(wanted))
    throw new UsageError(
      `--key ${wanted} is not the key pinned here, ${pins.join(", ")}; to change it, edit updates.gpg.key in launchify.yml`,
    );
  if (wanted !== undefined && pins.length === 0) pins.push(wanted);
  if (given.length > 0) {
    const offered = given.map(fingerprintOf);
    if (pins.length === 0) pins.push(...offered);
    else if (!pins.some((pin) => offered.includes(pin)))
      throw new UsageError(
        `${options.keyFile} holds ${offered.join(", ")}, not the pinned key ${pins.join(", ")}`,
      );
  }
  if (pins.length === 0)
    return { ...(await firstUse(folders, options)), written, isFirstUse: true };

  const saved = await savedKeys(keysFolder);
  const keys: PublicKey[] = [];
  let published: PublicKey[] | undefined;
  for (const pin of pins) {
    const has = (key: PublicKey) => fingerprintOf(key) === pin;
    published ??= await publishedKeys(folders, options.note);
    let found = [...given, ...saved].filter(has);
    // a key that nobody has here yet
    if (found.length === 0) found = [...(await keysInRing(pin)), ...published].filter(has);
    const [first, ...others] = found;
    if (!first) continue;
    // the publisher's copy may tell of a revocation, a new subkey or a later end; only the key's owner can sign those
    let key = first;
    for (const other of [...others, ...published.filter(has)]) key = await mergeKeys(key, other);
    keys.push(key);
  }
  if (keys.length === 0)
    throw new Refused(
      `no key with the fingerprint ${pins.join(" or ")} was found (asked: the gpg ring, KEY.asc in ${folders.map((folder) => folder.name("")).join(", ")}); give it with --key-file`,
    );
  return { pins, keys, written };
}

/** Keep the keys, so that the next time no ring and no KEY.asc is needed, and a revocation once seen is not forgotten. */
export async function saveKeys(folder: string, keys: readonly PublicKey[]): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  for (const key of keys) {
    const path = join(folder, `${fingerprintOf(key)}.asc`);
    const text = armor(key);
    if (text !== (await readFile(path, "utf8").catch(() => "")))
      await writeAtomic(path, text, { mode: 0o600 });
  }
}

async function savedKeys(folder: string): Promise<PublicKey[]> {
  const names = (await readdir(folder).catch(() => [])).filter((name) =>
    /^[0-9A-F]+\.asc$/.test(name),
  );
  const keys: PublicKey[] = [];
  for (const name of names)
    keys.push(...(await readPublicKeys(await readFile(join(folder, name)), join(folder, name))));
  return keys;
}

async function readKeyFile(path: string): Promise<PublicKey[]> {
  try {
    return await readPublicKeys(await readFile(path), path);
  } catch (error) {
    const why =
      systemCode(error) === "ENOENT" ? `${path}: there is no such file` : messageOf(error);
    throw new UsageError(`--key-file: ${why}; export it with gpg --export --armor FINGERPRINT`);
  }
}

async function publishedKeys(
  folders: readonly WebFolder[],
  note: (line: string) => void,
): Promise<PublicKey[]> {
  const all = await Promise.all(
    folders.map(async (folder) => {
      try {
        return await folder.keys();
      } catch (error) {
        note(`${messageOf(error)}; going on without it`);
        return [];
      }
    }),
  );
  return all.flat();
}

/** Trust on first use: somebody must say yes, on the terminal or by --insecure. */
async function firstUse(
  folders: readonly WebFolder[],
  options: TrustOptions,
): Promise<Pick<Trust, "pins" | "keys">> {
  for (const folder of folders) {
    const [key, ...others] = await folder.keys();
    if (!key) continue;
    if (others.length > 0)
      throw new Refused(
        `${folder.name("KEY.asc")} holds several keys; say with --key FINGERPRINT which one is right`,
      );
    const fingerprint = fingerprintOf(key);
    const answer = `give --key ${fingerprint} if that is the publisher's, or --insecure to believe it`;
    if (options.insecure) {
      options.note(
        `pinned the key ${fingerprint} of ${folder.name("KEY.asc")}, unchecked (--insecure)`,
      );
    } else if (!options.confirm) {
      throw new Refused(`no key is pinned, and there is nobody to ask; ${answer}`);
    } else if (!(await options.confirm(fingerprint, key.getUserIDs(), folder.name("")))) {
      throw new Refused(`the key ${fingerprint} was not confirmed; nothing was installed`);
    }
    return { pins: [fingerprint], keys: [key] };
  }
  throw new Refused(
    `no key is pinned, and ${folders.map((folder) => folder.name("KEY.asc")).join(", ")} is not there; give --key-file FILE, or --key FINGERPRINT of a key in the gpg ring`,
  );
}

/** The user's gpg, where there is one. */
function gpg() {
  const env = cleanEnvironment({ GNUPGHOME: process.env["GNUPGHOME"] });
  return $({ env, nothrow: true });
}

/** The key from the user's gpg ring; none when there is no gpg, or no such key. */
async function keysInRing(fingerprint: string): Promise<PublicKey[]> {
  const { stdout } = await gpg()`gpg --batch --no-tty --armor --export ${fingerprint}`;
  try {
    return stdout.trim() === "" ? [] : await readPublicKeys(Buffer.from(stdout), "gpg --export");
  } catch {
    return [];
  }
}

async function fingerprintOfShortId(text: string, note: (line: string) => void): Promise<string> {
  const id = text.replace(/[\s:]/g, "").replace(/^0x/i, "").toUpperCase();
  if (!/^[0-9A-F]{8}(?:[0-9A-F]{8})?$/.test(id))
    throw new UsageError(
      `"${text}" is not a fingerprint; give all 40 hex digits (gpg --fingerprint shows them)`,
    );
  const { stdout } = await gpg()`gpg --batch --no-tty --with-colons --list-keys ${`0x${id}`}`;
  const found: string[] = [];
  let primary = false;
  for (const line of stdout.split("\n")) {
    const fields = line.split(":");
    if (fields[0] === "pub") primary = true;
    else if (fields[0] === "fpr" && primary) {
      found.push(fields[9] ?? "");
      primary = false;
    }
  }
  const [fingerprint] = found;
  if (found.length !== 1 || !fingerprint)
    throw new Refused(
      `the short id ${id} names ${found.length === 0 ? "no key" : `${found.length} keys`} in the gpg ring; give the whole fingerprint`,
    );
  note(
    `short ids can be forged: ${id} is taken for ${fingerprint}; write that one into launchify.yml`,
  );
  return fingerprint;
}
