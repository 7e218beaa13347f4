import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Failure, messageOf } from "../core/errors.ts";
import { exists, readIfThere, removeStaleTemporaries, writeAtomic } from "../files/files.ts";
import { type Content, isProof } from "./content.ts";
import type { LocalFile, Stamp } from "./folder.ts";

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

type Hashes = Record<string, [Stamp, sha256: string, etag: string]>;

/** Open the state beside the checkout; makes the folder. */
export async function openState(dir: string): Promise<State> {
  const folder = join(dir, ".boatyard", "uploads");
  try {
    await mkdir(folder, { recursive: true });
    const ignore = join(dir, ".boatyard", ".gitignore");
    if (!(await exists(ignore))) await writeFile(ignore, "*\n", { flag: "wx" }).catch(() => {});
    await removeStaleTemporaries(folder);
  } catch (error) {
    throw new Failure(
      `cannot keep a record in ${folder}: ${messageOf(error)}; make the folder writable`,
    );
  }
  const file = join(folder, "hashes.json");
  const hashes: Hashes = Object.assign(Object.create(null), await readJson<Hashes>(file));
  let changed = false;
  return {
    folder,
    known({ path, stamp }) {
      const entry = hashes[path];
      return entry?.[0] === stamp ? { sha256: entry[1], etag: entry[2] } : undefined;
    },
    learn(path, stamp, { sha256, etag }, when) {
      if (hashes[path]?.[0] === stamp) return;
      if (isProof(stamp, when)) hashes[path] = [stamp, sha256, etag];
      else delete hashes[path];
      changed = true;
    },
    async save(paths) {
      const kept = new Set(paths);
      for (const path of Object.keys(hashes)) {
        if (kept.has(path)) continue;
        delete hashes[path];
        changed = true;
      }
      if (changed) await writeJson(file, hashes);
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

/** A multipart upload that was begun and not ended: it is resumed by the next run, or ended by it. */
export interface PendingUpload {
  /** Missing: it was about to be begun when the process died. */
  id?: string;
  /** Milliseconds since 1970, when it was about to begin. */
  since: number;
  /** The headers it was begun with. */
  headers?: string;
}

/** The record of a target; an empty one when there is none, or of another `place` under the same name. */
export async function openRecord(state: State, name: string, place: string): Promise<S3Record> {
  const file = join(state.folder, `${name}.json`);
  const before = await readJson<{ place: string; objects: Record<string, S3Entry> }>(file);
  const isOurs = before?.place === place;
  const objects: Record<string, S3Entry> = Object.assign(
    Object.create(null),
    isOurs ? before.objects : {},
  );
  let changed = !isOurs;
  return {
    get: (path) => objects[path],
    set(path, entry) {
      const { etag, sha256, headers } = objects[path] ?? {};
      if (etag === entry.etag && sha256 === entry.sha256 && headers === entry.headers) return;
      objects[path] = entry;
      changed = true;
    },
    remove(path) {
      changed ||= path in objects;
      delete objects[path];
    },
    async save() {
      if (changed) await writeJson(file, { place, objects });
      changed = false;
    },
  };
}

/** The target's multipart uploads under way; every change is on disk before it counts. */
export interface Pending {
  all(): [path: string, PendingUpload][];
  get(path: string): PendingUpload | undefined;
  set(path: string, upload: PendingUpload): Promise<void>;
  remove(path: string): Promise<void>;
}

export async function openPending(state: State, name: string): Promise<Pending> {
  const file = join(state.folder, `${name}.pending.json`);
  const uploads: Record<string, PendingUpload> = Object.assign(
    Object.create(null),
    await readJson<Record<string, PendingUpload>>(file),
  );
  // one write at a time: several large files may begin at once
  let last: Promise<void> = Promise.resolve();
  const save = () => {
    last = last.then(async () => {
      if (Object.keys(uploads).length > 0) await writeJson(file, uploads);
      else await rm(file, { force: true });
    });
    return last;
  };
  return {
    all: () => Object.entries(uploads),
    get: (path) => uploads[path],
    set(path, upload) {
      uploads[path] = upload;
      return save();
    },
    remove(path) {
      if (!uploads[path]) return last;
      delete uploads[path];
      return save();
    },
  };
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
  // one entry a line: readable, mendable, and half the size of full indentation
  const text = Object.entries(value)
    .map(([key, entry]) => `${JSON.stringify(key)}: ${entryText(entry)}`)
    .join(",\n");
  await writeAtomic(file, `{\n${text}\n}\n`);
}

function entryText(entry: unknown): string {
  if (typeof entry !== "object" || entry === null || Array.isArray(entry))
    return JSON.stringify(entry);
  const inner = Object.entries(entry).map(
    ([key, value]) => `  ${JSON.stringify(key)}: ${JSON.stringify(value)}`,
  );
  return `{\n${inner.join(",\n")}\n}`;
}
