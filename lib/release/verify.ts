import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { Refused, UsageError } from "../core/errors.ts";
import { checkExpiry } from "../web-folder/floors.ts";
import { Trust } from "../web-folder/trust.ts";
import type { CurrentLine, VersionFile } from "../web-folder/version-file.ts";
import { openFolder } from "./folder.ts";

export interface VerifyOptions {
  /** A fingerprint; default: the one of KEY.asc, as a client believes at its first install with --insecure. */
  key?: string | undefined;
  keyFile?: string | undefined;
  /** Milliseconds. */
  timeout: number;
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
  const { key, keyFile, timeout, signal, note } = options;
  const folder = openFolder(url, temporary, { timeout, signal, note });
  try {
    const confirm = async (pin: string) => {
      note(`checked against the folder's own key ${pin}; give --key to check against yours`);
      return true;
    };
    const context = { store: undefined, pinned: [], folders: [folder], app: undefined };
    const trust = await Trust.open(context, { key, keyFile, note, confirm });
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
    const by = signature?.fingerprint ?? trust.pins.join(", ");
    return { ...file, key: by, versionSigned: signature !== undefined, current };
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
