import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { Refused, UsageError } from "../core/errors.ts";
import {
  fingerprintOf,
  normalFingerprint,
  type PublicKey,
  readPublicKeys,
} from "../openpgp/keys.ts";
import { WebFolder } from "../web-folder/web-folder.ts";

export interface VerifyOptions {
  /** A fingerprint; default: the one of KEY.asc, as a client believes at its first install with --insecure. */
  key?: string | undefined;
  keyFile?: string | undefined;
  timeout?: number | undefined;
  signal?: AbortSignal | undefined;
  note: (line: string) => void;
}

export interface Verified {
  key: string;
  app?: string;
  release?: string;
  date?: string;
  expires?: string;
  /** false: a folder without VERSION.sig. */
  versionSigned: boolean;
  current: {
    version: string;
    file: string;
    platform?: string;
    size: number;
    sha256: string;
    signed: string;
  }[];
}

/**
 * What a client would say of a web folder: every current archive is fetched and checked.
 * @param where a URL, or a folder on this machine.
 * @throws {Refused} with a client's reason.
 */
export async function verifyFolder(where: string, options: VerifyOptions): Promise<Verified> {
  const url = /^[a-z][a-z0-9+.-]*:\/\//i.test(where) ? where : await localUrl(where);
  const temporary = await mkdtemp(join(tmpdir(), "release-verify-"));
  const folder = new WebFolder(url, {
    temporary,
    timeout: options.timeout ?? 30_000,
    maxSize: Number.MAX_SAFE_INTEGER,
    signal: options.signal,
    note: options.note,
  });
  try {
    const key = await findKey(folder, options);
    const version = await folder.version([key]);
    if (!version) throw new Refused(`${folder.name("VERSION")} gave nothing`);
    const { file, verdict } = version;
    if (verdict && file.expires && file.expires.getTime() < Date.now())
      throw new Refused(
        `${folder.name("VERSION")} expired at ${file.expires.toISOString()}; run release refresh`,
      );
    const current: Verified["current"] = [];
    for (const line of file.current) {
      const archive = await folder.archive(line, [key]);
      await archive.discard();
      const { sha256, size } = archive;
      const signed = archive.verdict.created.toISOString();
      current.push({ ...line, sha256, size, signed });
    }
    const { app, release, date, expires } = file;
    return {
      key: fingerprintOf(key),
      ...(app === undefined ? {} : { app }),
      ...(release === undefined ? {} : { release }),
      ...(date === undefined ? {} : { date: date.toISOString() }),
      ...(expires === undefined ? {} : { expires: expires.toISOString() }),
      versionSigned: verdict !== undefined,
      current,
    };
  } finally {
    folder.close();
    await rm(temporary, { recursive: true, force: true });
  }
}

async function localUrl(where: string): Promise<string> {
  const about = await stat(where).catch(() => undefined);
  if (!about?.isDirectory()) throw new UsageError(`${where} is no folder and no URL`);
  return pathToFileURL(resolve(where)).href;
}

async function findKey(folder: WebFolder, options: VerifyOptions): Promise<PublicKey> {
  const wanted = options.key === undefined ? undefined : normalFingerprint(options.key);
  if (options.key !== undefined && wanted === undefined)
    throw new UsageError(`--key "${options.key}" is no fingerprint; give all its hex digits`);
  const keys =
    options.keyFile === undefined
      ? await folder.keys()
      : await readPublicKeys(await readFile(options.keyFile), options.keyFile);
  const found = wanted === undefined ? keys : keys.filter((key) => fingerprintOf(key) === wanted);
  const [key] = found;
  if (!key)
    throw new Refused(
      wanted === undefined
        ? `${folder.name("KEY.asc")} is not there; give --key-file`
        : `${options.keyFile ?? folder.name("KEY.asc")} does not hold the key ${wanted}`,
    );
  if (wanted === undefined && options.keyFile === undefined)
    options.note(
      `checked against the folder's own key ${fingerprintOf(key)}; give --key to hold it against yours`,
    );
  return key;
}
