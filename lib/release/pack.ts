import { rename, rm } from "node:fs/promises";
import { join, resolve } from "node:path";
import process from "node:process";
import { atEnd } from "../core/at-exit.ts";
import { Refused, UsageError } from "../core/errors.ts";
import {
  exists,
  fsyncFolder,
  readIfThere,
  removeStaleTemporaries,
  temporaryBeside,
  writeAtomic,
} from "../files/files.ts";
import { askToken } from "../run/lease.ts";
import { indexHash } from "../web-folder/archive-index.ts";
import {
  archiveName,
  type CurrentLine,
  isAppName,
  isVersion,
  platforms,
  type VersionFile,
} from "../web-folder/version-file.ts";
import { type FileListOptions, listFiles, type PackEntry } from "./file-list.ts";
import { signCurrent } from "./current.ts";
import {
  checkSigners,
  defaultExpires,
  defaultOut,
  makeFolder,
  nextDate,
  readVersion,
  withLock,
  writePublicKeys,
  writeVersion,
} from "./folder.ts";
import { archivesIn, digestOf, signArchive, writeArchive } from "./archives.ts";
import type { Signer } from "./signer.ts";

export interface PackOptions {
  app: string;
  version: string;
  platform?: string | undefined;
  /** The folder that is packed; default: `files` of the current one, else `build`. */
  from?: string | undefined;
  files?: readonly string[] | undefined;
  out?: string | undefined;
  /** What people call the release. */
  name?: string | undefined;
  /** Milliseconds. */
  expires?: number | undefined;
  /** How many older archives of this app and platform stay; default: all. */
  keep?: number | undefined;
  onProgress?: ((done: number, total: number) => void) | undefined;
  signal?: AbortSignal | undefined;
}

export interface Packed {
  file: string;
  sha256: string;
  size: number;
  /** SHA-256 of its index. */
  index: string;
  /** false: the same archive was there. */
  changed: boolean;
  out: string;
  removed: string[];
}

/**
 * Pack a folder into the web folder: the archive, its signature, KEY.asc, VERSION.sig and last VERSION.
 * @throws {Refused} when the version is there with other bytes.
 * @throws {Failure} when the builder that runs us has lost the repo.
 */
export async function pack(options: PackOptions, signers: readonly Signer[]): Promise<Packed> {
  const { app, version: packed, platform, out = defaultOut, keep } = options;
  checkNames(options);
  const { folder, files } = await findSource(options);
  const privateKeys = signers.map(({ file }) => file);
  const listed = await listFiles(folder, { files, skip: [resolve(out)], privateKeys });
  await makeFolder(out);
  return await withLock(out, async () => {
    await removeStaleTemporaries(out);
    const before = await readVersion(out, signers);
    checkFolder(before, { app, out }, signers);
    await askToken();
    const entries = withLaunchFile(listed, app);
    const file = archiveName(app, packed, platform);
    const { changed, ...made } = await addArchive(join(out, file), entries, options);
    await signArchive(out, file, signers, { keepOthers: before?.keys !== undefined });
    await writePublicKeys(
      out,
      signers.map(({ publicKey }) => publicKey),
    );
    const version = nextVersion(before, { file, ...made }, options);
    // other platforms' archives, which a key that is new has not signed
    if (version.keys) await signCurrent(out, version, signers);
    await writeVersion(out, version, signers);
    const removed = keep === undefined ? [] : await prune(out, options, keep);
    return { file, ...made, changed, out, removed };
  });
}

/**
 * What of `pack` can be known before anything is built: names, keys, and whose web folder it is.
 * @throws as `pack` does.
 */
export async function checkPack(
  options: Pick<PackOptions, "app" | "version" | "platform" | "name" | "out">,
  signers: readonly Signer[],
): Promise<void> {
  checkNames(options);
  const { app, out = defaultOut } = options;
  checkFolder(await readVersion(out, signers), { app, out }, signers);
}

function checkFolder(
  before: VersionFile | undefined,
  { app, out }: { app: string; out: string },
  signers: readonly Signer[],
): void {
  if (before?.app !== undefined && before.app !== app)
    throw new UsageError(`${join(out, "VERSION")} is for the app ${before.app}, not ${app}; choose another --out`);
  checkSigners(before, signers);
}

function checkNames({
  app,
  version,
  platform,
  name,
}: Pick<PackOptions, "app" | "version" | "platform" | "name">): void {
  if (!isAppName(app)) throw new UsageError(`--app "${app}": a name is letters, digits and . _ + -`);
  if (!isVersion(version)) throw new UsageError(`--version "${version}": a version is dotted hexadecimal, as 1.23.42b`);
  // by any other name the archive would be taken for that of another app
  if (platform !== undefined && !platforms.some((each) => each === platform))
    throw new UsageError(`--platform "${platform}": one of ${platforms.join(", ")}`);
  if (platforms.some((each) => app.endsWith(`-${each}`)))
    throw new UsageError(`--app "${app}" ends like a platform; give that with --platform`);
  if (name !== undefined && /[\r\n]/.test(name)) throw new UsageError("--name is one line");
}

/** What is packed where no folder is named: what package.json's `files` names, as npm lists it, else `build`. */
async function findSource({ from, files }: PackOptions): Promise<{ folder: string } & FileListOptions> {
  if (from !== undefined) return { folder: resolve(from) };
  if (files) return { folder: process.cwd(), files };
  if (await exists("build")) return { folder: resolve("build") };
  throw new UsageError(
    "there is nothing to pack: no build folder, no files in package.json; name a folder with --from",
  );
}

/** What `files` in package.json names; undefined where it names nothing. @throws {UsageError} for no JSON. */
export async function namedFiles(): Promise<string[] | undefined> {
  try {
    const { files } = JSON.parse((await readIfThere("package.json")) ?? "{}") as { files?: unknown };
    return Array.isArray(files) && files.length > 0 ? files.map(String) : undefined;
  } catch {
    throw new UsageError("package.json is not JSON; fix it, or name the folder with --from");
  }
}

/** With a launchify.yml that names the app, so that a client sees when the archive is passed off as another app's. */
function withLaunchFile(entries: readonly PackEntry[], app: string): readonly PackEntry[] {
  if (entries.some(({ path }) => path === "launchify.yml" || path === "config/app.json")) return entries;
  const content = Buffer.from(`app:\n  name: ${JSON.stringify(app)}\n`);
  const size = content.length;
  const file = { path: "launchify.yml", type: "File", mode: 0o644, size } as const;
  // a folder stands before what is in it, names by code units within one folder
  const order = ({ path }: PackEntry) => path.replaceAll("/", "\0");
  return [...entries, { ...file, content: [content] }].sort((a, b) => (order(a) < order(b) ? -1 : 1));
}

/** Write the archive beside its place, and move it there unless it stands there already. */
async function addArchive(
  path: string,
  entries: readonly PackEntry[],
  { onProgress, signal }: PackOptions,
): Promise<Omit<Packed, "file" | "out" | "removed">> {
  const total = entries.reduce((sum, { size }) => sum + size, 0);
  let done = 0;
  const temporary = temporaryBeside(path);
  const forget = atEnd(() => rm(temporary, { force: true }));
  try {
    const index = await writeArchive(temporary, entries, {
      mtime: archiveTime(),
      onPiece: (bytes) => onProgress?.((done += bytes), total),
      signal,
    });
    const made = await digestOf(temporary);
    const isThere = await exists(path);
    if (isThere && (await digestOf(path)).sha256 !== made.sha256)
      throw new Refused(`${path} is there with other bytes; a version never changes: choose another --version`);
    await writeAtomic(`${path}.index`, index, { mode: 0o644 });
    if (!isThere) await rename(temporary, path);
    await fsyncFolder(join(path, ".."));
    return { ...made, index: indexHash(index), changed: !isThere };
  } finally {
    forget();
    await rm(temporary, { force: true });
  }
}

/** One time for all entries: SOURCE_DATE_EPOCH (reproducible-builds.org), else a fixed one. */
function archiveTime(): Date {
  const epoch = process.env["SOURCE_DATE_EPOCH"];
  if (epoch === undefined || epoch === "") return new Date("2000-01-01T00:00:00Z");
  if (!/^\d{1,10}$/.test(epoch)) throw new UsageError(`SOURCE_DATE_EPOCH "${epoch}" is not a number of seconds`);
  return new Date(Number(epoch) * 1000);
}

function nextVersion(
  before: VersionFile | undefined,
  made: Pick<CurrentLine, "file" | "sha256" | "size" | "index">,
  { app, version, platform, name, expires = defaultExpires }: PackOptions,
): VersionFile {
  const line = { version, ...(platform === undefined ? {} : { platform }), ...made };
  const others = (before?.current ?? []).filter((each) => each.platform !== platform);
  const same = before?.current.some((each) => each.version === version);
  const release = name ?? (same ? before?.release : undefined);
  const date = nextDate(before?.date);
  return {
    current: [...others, line].sort((a, b) => ((a.platform ?? "") < (b.platform ?? "") ? -1 : 1)),
    app,
    ...(release === undefined ? {} : { release }),
    ...(before?.server === undefined ? {} : { server: before.server }),
    ...(before?.keys ? { keys: before.keys } : {}),
    date,
    expires: new Date(date.getTime() + expires),
  };
}

/** Remove the oldest archives of this app and platform, but never one that VERSION names. */
async function prune(out: string, { app, platform }: PackOptions, keep: number): Promise<string[]> {
  const named = new Set((await readVersion(out))?.current.map(({ file }) => file));
  const older = (await archivesIn(out)).filter(
    (each) => each.app === app && each.platform === platform && !named.has(each.file),
  );
  const gone = older.slice(keep).map(({ file }) => file);
  for (const file of gone) {
    await rm(join(out, file), { force: true });
    for (const kind of ["sig", "index"]) await rm(join(out, `${file}.${kind}`), { force: true });
  }
  return gone;
}
