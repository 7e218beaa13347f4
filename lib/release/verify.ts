import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { Refused, UsageError } from "../core/errors.ts";
import { fingerprintOf, normalFingerprint, readPublicKeys } from "../openpgp/keys.ts";
import { checkExpiry } from "../web-folder/floors.ts";
import { publishedPin, Trust } from "../web-folder/trust.ts";
import type { CurrentLine, VersionFile } from "../web-folder/version-file.ts";
import type { WebFolder } from "../web-folder/web-folder.ts";
import { openFolder } from "./folder.ts";

export interface VerifyOptions {
  /** A fingerprint; default: the one of KEY.asc, as a client believes at its first install with --insecure. */
  key?: string | undefined;
  keyFile?: string | undefined;
  timeout?: number | undefined;
  signal?: AbortSignal | undefined;
  note: (line: string) => void;
}

/** What VERSION says, and what was found. */
export interface Verified extends VersionFile {
  /** The key's fingerprint. */
  key: string;
  /** false: a folder without VERSION.sig. */
  versionSigned: boolean;
  current: (CurrentLine & { signed: string })[];
}

/**
 * What a client would say of a web folder: every current archive is fetched and checked.
 * @param where a URL, or a folder on this machine.
 * @throws {Refused} with a client's reason.
 */
export async function verifyFolder(where: string, options: VerifyOptions): Promise<Verified> {
  const url = /^[a-z][a-z0-9+.-]*:\/\//i.test(where) ? where : await localUrl(where);
  const temporary = await mkdtemp(join(tmpdir(), "release-verify-"));
  const { timeout = 30_000, signal, note } = options;
  const folder = openFolder(url, temporary, { timeout, signal, note });
  try {
    const pin = await findPin(folder, options);
    const context = { store: undefined, pinned: [pin], folders: [folder], app: undefined };
    const trust = await Trust.open(context, { keyFile: options.keyFile, note });
    const version = await folder.version((given) => trust.verifyVersion(folder, given));
    if (!version) throw new Refused(`${folder.name("VERSION")} gave nothing`);
    const { file, signature } = version;
    if (signature) checkExpiry(file.expires?.toISOString(), folder.name("VERSION"));
    const current: Verified["current"] = [];
    for (const line of file.current) {
      const { sha256, size, signature, discard } = await folder.archive(line, trust.signers);
      await discard();
      current.push({ ...line, sha256, size, signed: signature.created.toISOString() });
    }
    const key = signature?.fingerprint ?? pin;
    return { ...file, key, versionSigned: signature !== undefined, current };
  } finally {
    folder.close();
    await rm(temporary, { recursive: true, force: true });
  }
}

async function localUrl(where: string): Promise<string> {
  const about = await stat(where).catch(() => undefined);
  if (!about?.isDirectory())
    throw new UsageError(
      `${where} is neither a folder nor a URL; name the web folder that release pack wrote`,
    );
  return pathToFileURL(resolve(where)).href;
}

/** The fingerprint that was given; else the first of a file, or the one of KEY.asc that a first install would pin. */
async function findPin(
  folder: WebFolder,
  { key: text, keyFile, note }: VerifyOptions,
): Promise<string> {
  const wanted = text === undefined ? undefined : normalFingerprint(text);
  if (text !== undefined && wanted === undefined)
    throw new UsageError(`--key "${text}" is not a fingerprint; give all its hex digits`);
  if (wanted !== undefined) return wanted;
  if (keyFile !== undefined) {
    const [key] = await readPublicKeys(await readFile(keyFile), keyFile);
    if (key) return fingerprintOf(key);
  }
  const { keys } = await folder.keys();
  const name = folder.name("KEY.asc");
  if (keys.length === 0) throw new Refused(`${name} is not there; give --key-file`);
  const pin = await publishedPin(folder, keys);
  if (pin === undefined) throw new Refused(`${name} holds several keys; give --key`);
  note(`checked against the folder's own key ${pin}; give --key to check against yours`);
  return pin;
}
