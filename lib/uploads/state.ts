import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Failure, messageOf } from "../core/errors.ts";
import { exists, readIfThere, removeStaleTemporaries, writeAtomic } from "../files/files.ts";
import { type Content, isProof, type LocalFile, type Stamp } from "./folder.ts";

/**
 * What is remembered between two runs, in DIR/.boatyard/uploads: plain JSON, kept out of git by a .gitignore
 * of its own. Losing it costs time, never correctness: then contents are hashed and compared anew.
 */
export interface State {
  folder: string;
  /** The content of a file, if it was hashed before and cannot have changed since. */
  known(file: LocalFile): Content | undefined;
  /** Remember a content that was read at `when` from a file with this stamp. */
  learn(path: string, stamp: Stamp, content: Content, when: number): void;
  /** Write the hashes down. `paths`: the files that there are; what is not among them is forgotten. */
  save(paths: Iterable<string>): Promise<void>;
}

/** The folder of the state, made when there is none. @throws {Failure} when this user cannot write there. */
export async function makeStateFolder(dir: string): Promise<string> {
  const folder = join(dir, ".boatyard", "uploads");
  try {
    await mkdir(folder, { recursive: true });
    const ignore = join(dir, ".boatyard", ".gitignore");
    if (!(await exists(ignore))) await writeFile(ignore, "*\n", { flag: "wx" }).catch(() => {});
  } catch (error) {
    throw new Failure(
      `cannot keep a record in ${folder}: ${messageOf(error)}; make the folder writable`,
    );
  }
  return folder;
}

/** Read the state; its lock is held. */
export async function openState(folder: string): Promise<State> {
  await removeStaleTemporaries(folder);
  const file = join(folder, "hashes.json");
  const hashes = await readMap<[Stamp, sha256: string, etag: string]>(file);
  let changed = false;
  return {
    folder,
    known({ path, stamp }) {
      const entry = hashes.get(path);
      return entry?.[0] === stamp ? { sha256: entry[1], etag: entry[2] } : undefined;
    },
    learn(path, stamp, { sha256, etag }, when) {
      if (hashes.get(path)?.[0] === stamp) return;
      if (isProof(stamp, when)) hashes.set(path, [stamp, sha256, etag]);
      else hashes.delete(path);
      changed = true;
    },
    async save(paths) {
      const kept = new Set(paths);
      const gone = [...hashes.keys()].filter((path) => !kept.has(path));
      for (const path of gone) hashes.delete(path);
      changed ||= gone.length > 0;
      if (changed) await writeJson(file, Object.fromEntries(hashes));
      changed = false;
    },
  };
}

/** What one S3 target holds at a path, as far as we know. */
export interface S3Entry {
  etag: string;
  sha256: string;
  /** The headers it was sent with, in one line. */
  headers: string;
}

/** What one S3 target held after the last run, by path. */
export interface S3Record {
  get(path: string): S3Entry | undefined;
  set(path: string, entry: S3Entry): void;
  remove(path: string): void;
  /** Writes it down, if anything is new. */
  save(): Promise<void>;
}

/** The record of a target; an empty one when there is none, or of another `place` under the same name. */
export async function openRecord(state: State, name: string, place: string): Promise<S3Record> {
  const file = join(state.folder, `${name}.json`);
  const before = await readJson<{ place: string; objects: Record<string, S3Entry> }>(file);
  const isOurs = before?.place === place;
  const objects = new Map(Object.entries((isOurs && before.objects) || {}));
  let changed = !isOurs;
  return {
    get: (path) => objects.get(path),
    set(path, entry) {
      const { etag, sha256, headers } = objects.get(path) ?? {};
      if (etag === entry.etag && sha256 === entry.sha256 && headers === entry.headers) return;
      objects.set(path, entry);
      changed = true;
    },
    remove(path) {
      changed = objects.delete(path) || changed;
    },
    async save() {
      if (changed) await writeJson(file, { place, objects: Object.fromEntries(objects) });
      changed = false;
    },
  };
}

/** A multipart upload that was created and neither completed nor aborted: the next run does one of the two. */
export interface PendingUpload {
  /** Missing: it was about to be created when the process died. */
  id?: string;
  /** Milliseconds since 1970, when it was about to be created. */
  since: number;
  /** The headers it was created with. */
  headers?: string;
}

/** The target's multipart uploads under way, by path; every change is on disk before it counts. */
export interface Pending {
  all(): [path: string, PendingUpload][];
  get(path: string): PendingUpload | undefined;
  set(path: string, upload: PendingUpload): Promise<void>;
  remove(path: string): Promise<void>;
}

/** The uploads that the last run of a target left. */
export async function openPending(state: State, name: string): Promise<Pending> {
  const file = join(state.folder, `${name}.pending.json`);
  const uploads = await readMap<PendingUpload>(file);
  // one write at a time: several large files may start at once
  let last: Promise<void> = Promise.resolve();
  const save = () => {
    last = last.then(async () => {
      if (uploads.size > 0) await writeJson(file, Object.fromEntries(uploads));
      else await rm(file, { force: true });
    });
    return last;
  };
  return {
    all: () => [...uploads],
    get: (path) => uploads.get(path),
    set(path, upload) {
      uploads.set(path, upload);
      return save();
    },
    remove: (path) => (uploads.delete(path) ? save() : last),
  };
}

async function readMap<T>(file: string): Promise<Map<string, T>> {
  return new Map(Object.entries((await readJson<Record<string, T>>(file)) ?? {}));
}

/** A JSON file; undefined when there is none, or when it was damaged: then its work is done anew. */
async function readJson<T>(file: string): Promise<T | undefined> {
  const text = await readIfThere(file);
  if (text === undefined) return undefined;
  try {
    return JSON.parse(text) as T;
  } catch {
    return undefined;
  }
}

async function writeJson(file: string, value: object): Promise<void> {
  await writeAtomic(file, `${JSON.stringify(value, undefined, 1)}\n`);
}
