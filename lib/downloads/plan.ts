import { type Entry, shownUrl } from "./manifest.ts";
import type { Wanted } from "./read.ts";
import type { Saved } from "./record.ts";
import { doubtful, type Record } from "./store.ts";

/** What has to be done for each line of the manifest. Pure. */

/**
 * keep: nothing, not even a look; check: the file's bytes and the server are asked;
 * adopt: a file without a record, to be recognised rather than fetched blindly; fetch: get it.
 */
export type Action = "keep" | "check" | "adopt" | "fetch";

/** What the user asked for. */
export interface DownloadsOptions {
  dir: string;
  /** A manifest in place of manifest.txt and cloudinary.txt; `-`: standard input. */
  manifest?: string | undefined;
  /** Files at once; undefined: as many as suits their size. */
  jobs?: number | undefined;
  perHost?: number | undefined;
  check: boolean;
  force: boolean;
  prune: boolean;
  /** Bytes of one file. */
  maxSize: number;
  /** Milliseconds. */
  stall: number;
  retries: number;
  /** Wait for another run in the same folder to end. */
  wait: boolean;
  signal: AbortSignal;
}

/** A line of the manifest and what is to be done for it. */
export interface Step {
  entry: Entry;
  action: Action;
  /** Whether a file stands at the entry's path. */
  isThere: boolean;
}

export interface Plan {
  record: Record;
  steps: Step[];
  /** Recorded paths that the manifest no longer lists. */
  unlisted: string[];
}

/**
 * @param saved what the record says of the entry's path.
 * @param size the size of the file that stands there; undefined when there is none.
 */
export function actionFor(
  entry: Entry,
  saved: Saved | undefined,
  size: number | undefined,
  { check, force }: Pick<DownloadsOptions, "check" | "force">,
): Action {
  if (force || size === undefined) return "fetch";
  if (saved === undefined || saved.size !== size) return "adopt";
  if (!isSame(entry, saved)) return "fetch";
  return check ? "check" : "keep";
}

/** Whether the record is about what the line asks for: the same URL, version and pin. */
function isSame(entry: Entry, saved: Saved): boolean {
  return (
    entry.version === saved.version &&
    (entry.sha256 === undefined || entry.sha256 === saved.sha256) &&
    shownUrl(entry.url) === saved.url
  );
}

/** What there is to do, from the record and the sizes of the files that are there. */
export function makePlan(
  { entries, sizes }: Wanted,
  record: Record,
  options: DownloadsOptions,
): Plan {
  const steps = entries.map((entry) => {
    const { path } = entry;
    const size = sizes.get(path);
    const action = actionFor(entry, record.saved.get(path), size, options);
    return { entry, action, isThere: size !== undefined };
  });
  const listed = new Set(entries.map(({ path }) => path));
  const unlisted = [...record.saved.keys(), ...record.journal.keys()].filter(
    (path) => !listed.has(path),
  );
  return { record, steps, unlisted: [...new Set(unlisted)] };
}

/** Whether there is nothing to do at all, and nothing to mend. */
export function isIdle({ record, steps, unlisted }: Plan, { prune }: DownloadsOptions): boolean {
  return (
    steps.every(({ action }) => action === "keep") &&
    record.wrong.length === 0 &&
    record.journal.size === 0 &&
    doubtful(record).length === 0 &&
    !(prune && unlisted.length > 0)
  );
}
