import { stat } from "node:fs/promises";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { Refused, UsageError } from "../core/errors.ts";
import { checkExpiry } from "../web-folder/rollback-guard.ts";
import { Trust, type TrustOptions } from "../web-folder/trust.ts";
import type { CurrentLine, VersionFile } from "../web-folder/version-file.ts";
import type { WebFolder } from "../web-folder/web-folder.ts";
import { asClient } from "./folder.ts";

/** Without a key the one of KEY.asc is taken, as a client believes at its first install with --insecure. */
export interface VerifyOptions extends Pick<TrustOptions, "key" | "keyFile" | "note"> {
  /** Milliseconds. */
  timeout: number;
  signal?: AbortSignal | undefined;
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
  const { note, timeout, signal } = options;
  const url = /^[a-z][a-z0-9+.-]*:\/\//i.test(where) ? where : await localUrl(where);
  const confirm = async (pin: string) => {
    note(`checked against the folder's own key ${pin}; give --key to check against yours`);
    return true;
  };
  const check = async (folder: WebFolder) => {
    const context = { store: undefined, pinned: [], folders: [folder], app: undefined };
    const trust = await Trust.open(context, { ...options, confirm });
    const version = await folder.version((given) => trust.verifyVersion(folder, given));
    if (!version) throw new Refused(`${folder.name("VERSION")} gave nothing`);
    const { file, signature } = version;
    if (signature) checkExpiry(file.expires?.toISOString(), folder.name("VERSION"));
    const current: Verified["current"] = [];
    for (const line of file.current) {
      const { sha256, size, signed, discard } = await folder.archive(line, trust.signers);
      await discard();
      current.push({ ...line, sha256, size, signed });
    }
    const key = signature?.fingerprint ?? trust.pins.join(", ");
    return { ...file, key, versionSigned: signature !== undefined, current };
  };
  return await asClient(url, check, { timeout, signal, note });
}

async function localUrl(where: string): Promise<string> {
  const about = await stat(where).catch(() => undefined);
  if (!about?.isDirectory())
    throw new UsageError(`${where} is neither a folder nor a URL; name the web folder that release pack wrote`);
  return pathToFileURL(resolve(where)).href;
}
