import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type Infer, y } from "../config/yaml.ts";
import { makeFolder, removeStaleTemporaries } from "../files/files.ts";
import { StateFile } from "../files/state-file.ts";
import type { Content } from "./content.ts";
import type { LocalFile, Stamp } from "./folder.ts";

/**
 * What is remembered between two runs, in DIR/.boatyard/uploads, kept out of git by a .gitignore of its own. Losing it
 * costs time, never correctness: then contents are hashed and compared anew. A target has the files of its name; what
 * is not a target's record begins with a dot, which no target's name does.
 */
export type State = Awaited<ReturnType<typeof openState>>;

/** The folder of the state. */
export function stateFolderOf(dir: string): string {
  return join(dir, ".boatyard", "uploads");
}

const content = { sha256: y.string(), etag: y.string() };
const hashesSchema = y.record(y.object({ ...content, stamp: y.string() }));
/** What a target holds at a path, as far as we know; `headers`: those it was sent with, in one line. */
const entrySchema = y.object({ ...content, headers: y.string() });
const recordSchema = y.object({ place: y.string(), objects: y.record(entrySchema) });
/**
 * A multipart upload that was created and neither completed nor aborted: the next run does one of the two. Without an
 * id it was about to be created, in the millisecond `since`, when the process died.
 */
const uploadSchema = y.object({
  id: y.optional(y.string()),
  since: y.number(),
  headers: y.optional(y.string()),
});

/** Read the state of a checkout; the lock in its folder is held. */
export async function openState(dir: string) {
  const folder = stateFolderOf(dir);
  await makeFolder(folder);
  await writeFile(join(folder, "../.gitignore"), "*\n", { flag: "wx" }).catch(() => {});
  await removeStaleTemporaries(folder);
  const file = new StateFile(join(folder, ".hashes.json"), hashesSchema);
  const hashes = mapOf(await file.read());
  return {
    folder,
    /** The content of a file, if it was hashed before and cannot have changed since. */
    known({ path, stamp }: LocalFile): Content | undefined {
      const found = hashes.get(path);
      return found?.stamp === stamp ? { sha256: found.sha256, etag: found.etag } : undefined;
    },
    /** Remember the content of a file that was read; without a stamp: forget it. */
    learn(path: string, { sha256, etag }: Content, stamp: Stamp | undefined): void {
      if (stamp !== undefined) hashes.set(path, { sha256, etag, stamp });
      else hashes.delete(path);
    },
    /** Write the hashes down. `files`: those that there are; what is not among them is forgotten. */
    async save(files: readonly LocalFile[]): Promise<void> {
      const paths = new Set(files.map(({ path }) => path));
      await file.write(Object.fromEntries([...hashes].filter(([path]) => paths.has(path))));
    },
  };
}

export type S3Entry = Infer<typeof entrySchema>;

/** What a target held after the last run, by path; nothing when there is none, or of another `place` of its name. */
export async function openRecord({ folder }: State, name: string, place: string) {
  const file = new StateFile(join(folder, `${name}.json`), recordSchema);
  const before = await file.read();
  const entries = mapOf(before?.place === place ? before.objects : undefined);
  return { entries, save: () => file.write({ place, objects: Object.fromEntries(entries) }) };
}

type PendingUpload = Infer<typeof uploadSchema>;

/** The multipart uploads of a target that are under way, or that its last run left, by path. */
export async function openPending({ folder }: State, name: string) {
  const file = new StateFile(join(folder, `.${name}.pending.json`), y.record(uploadSchema));
  const uploads = mapOf(await file.read());
  return {
    uploads: uploads as ReadonlyMap<string, PendingUpload>,
    /** It is on disk when this resolves. */
    async set(path: string, upload: PendingUpload | undefined): Promise<void> {
      if (upload) uploads.set(path, upload);
      else uploads.delete(path);
      await file.write(Object.fromEntries(uploads));
    },
  };
}

function mapOf<T>(entries: Record<string, T> | undefined): Map<string, T> {
  return new Map(Object.entries(entries ?? {}));
}
