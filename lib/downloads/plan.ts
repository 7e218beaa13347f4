import { type Entry, shownUrl } from "./manifest.ts";
import type { Record, Saved } from "./record.ts";

/** What has to be done for each entry of the manifest. Pure. */

/**
 * keep: nothing, not even a look; check: the file's bytes and the server are asked;
 * adopt: a file without a record, to be recognised rather than fetched blindly; fetch: get it.
 */
export type Action = "keep" | "check" | "adopt" | "fetch";

/** What is wanted and what is there. */
export interface Manifest {
  entries: Entry[];
  /** The sizes of the files that are there already, by path. */
  sizes: Map<string, number>;
}

/** An entry of the manifest and what is to be done for it. */
export interface Step {
  entry: Entry;
  action: Action;
  /** Whether a file is at the entry's path. */
  isThere: boolean;
}

export interface Plan {
  steps: Step[];
  /** Recorded paths that the manifest no longer lists. */
  unlisted: string[];
}

interface PlanOptions {
  check: boolean;
  force: boolean;
}

/** @param lost paths whose file is not the one that was saved. */
export function makePlan(
  { entries, sizes }: Manifest,
  { saved, lost }: Pick<Record, "saved"> & { lost: ReadonlySet<string> },
  options: PlanOptions,
): Plan {
  const steps = entries.map((entry): Step => {
    const { path } = entry;
    const size = sizes.get(path);
    const action = lost.has(path) ? "fetch" : actionFor(entry, saved.get(path), size, options);
    return { entry, action, isThere: size !== undefined };
  });
  const listed = new Set(entries.map(({ path }) => path));
  const recorded = new Set([...saved.keys(), ...lost]);
  return { steps, unlisted: [...recorded].filter((path) => !listed.has(path)) };
}

/**
 * @param saved what the record says of the entry's path.
 * @param size the size of the file that is there; undefined when there is none.
 */
function actionFor(
  entry: Entry,
  saved: Saved | undefined,
  size: number | undefined,
  { check, force }: PlanOptions,
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
