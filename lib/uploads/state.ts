import { rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { makeFolder, readIfThere, removeStaleTemporaries, writeAtomic } from "../files/files.ts";
import type { Content } from "./content.ts";
import type { LocalFile, Stamp } from "./folder.ts";

/**
 * What is remembered between two runs, in DIR/.boatyard/uploads: plain JSON, kept out of git by a .gitignore
 * of its own. Losing it costs time, never correctness: then contents are hashed and compared anew. A target has the
 * files of its name; what is not a target's record begins with a dot, which no target's name does.
 */
export interface State {
  folder: string;
  /** The content of a file, if it was hashed before and cannot have changed since. */
  known(file: LocalFile): Content | undefined;
  /** Remember the content of a file that was read; without a stamp: forget it. */
  learn(path: string, content: Content, stamp: Stamp | undefined): void;
  /** Write the hashes down. `files`: those that there are; what is not among them is forgotten. */
  save(files: readonly LocalFile[]): Promise<void>;
}

/** The folder of the state. */
export function stateFolderOf(dir: string): string {
  return join(dir, ".boatyard", "uploads");
}

/** Read the state of a checkout; the lock in its folder is held. */
export async function openState(dir: string): Promise<State> {
  const folder = stateFolderOf(dir);
  await makeFolder(folder);
  await writeFile(join(folder, "../.gitignore"), "*\n", { flag: "wx" }).catch(() => {});
  await removeStaleTemporaries(folder);
  const file = join(folder, ".hashes.json");
  const hashes = mapOf((await readJson(file)) as Record<string, [Stamp, string, string]>);
  return {
    folder,
    known({ path, stamp }) {
      const entry = hashes.get(path);
      return entry?.[0] === stamp ? { sha256: entry[1], etag: entry[2] } : undefined;
    },
    learn(path, { sha256, etag }, stamp) {
      if (stamp !== undefined) hashes.set(path, [stamp, sha256, etag]);
      else hashes.delete(path);
    },
    async save(files) {
      const paths = new Set(files.map(({ path }) => path));
      const kept = [...hashes].filter(([path]) => paths.has(path));
      await writeJson(file, Object.fromEntries(kept));
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
  entries: Map<string, S3Entry>;
  save(): Promise<void>;
}

/** The record of a target; an empty one when there is none, or of another `place` under the same name. */
export async function openRecord(
  { folder }: State,
  name: string,
  place: string,
): Promise<S3Record> {
  const file = join(folder, `${name}.json`);
  const before = (await readJson(file)) as { place?: string; objects?: Record<string, S3Entry> };
  const entries = mapOf(before?.place === place ? before.objects : undefined);
  const save = () => writeJson(file, { place, objects: Object.fromEntries(entries) });
  return { entries, save };
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
  set(path: string, upload: PendingUpload | undefined): Promise<void>;
}

/** The uploads that the last run of a target left. */
export async function openPending({ folder }: State, name: string): Promise<Pending> {
  const file = join(folder, `.${name}.pending.json`);
  // what version 0.2.0 left; today a target called NAME.pending has its record there
  const former = join(folder, `${name}.pending.json`);
  const left = (await readJson(former)) as { place?: unknown } | undefined;
  if (left && typeof left.place !== "string") await rename(former, file);
  const uploads = mapOf((await readJson(file)) as Record<string, PendingUpload>);
  // one write at a time: several large files may start at once
  let last = Promise.resolve();
  return {
    all: () => [...uploads],
    get: (path) => uploads.get(path),
    set(path, upload) {
      if (upload) uploads.set(path, upload);
      else uploads.delete(path);
      last = last.then(() => writeJson(file, Object.fromEntries(uploads)));
      return last;
    },
  };
}

function mapOf<T>(entries: Record<string, T> | undefined): Map<string, T> {
  return new Map(Object.entries(entries ?? {}));
}

/** A JSON file; undefined when there is none, or when it was damaged: then its work is done anew. */
async function readJson(file: string): Promise<unknown> {
  const text = await readIfThere(file);
  try {
    return JSON.parse(text ?? "null") ?? undefined;
  } catch {
    return undefined;
  }
}

/** Replaces the file, unless it says the same already; one of an empty object is removed. */
async function writeJson(file: string, value: object): Promise<void> {
  const text = `${JSON.stringify(value, undefined, 1)}\n`;
  if (text === "{}\n") await rm(file, { force: true });
  else if (text !== (await readIfThere(file))) await writeAtomic(file, text);
}
