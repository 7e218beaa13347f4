import type { Wanted } from "./lists.ts";
import { type Entry, shownUrl } from "./manifest.ts";
import type { Record, Saved } from "./record.ts";

/** An entry of the manifest and what is to be done for it. */
export interface Step {
  entry: Entry;
  /**
   * keep: nothing, not even a look; check: the file's bytes and the server are asked;
   * adopt: a file without a record, to be recognised rather than fetched blindly; fetch: get it.
   */
  action: "keep" | "check" | "adopt" | "fetch";
  /** Whether a file is at the entry's path. */
  isThere: boolean;
  /** What the record says of the file before. */
  before: Saved | undefined;
}

/**
 * What has to be done for each entry of the manifest. Pure.
 * @param check hash what is there again, and ask the servers for newer files.
 * @param force fetch everything again.
 * @returns unlisted: recorded paths that the manifest no longer lists.
 */
export function planDownloads(
  { entries, sizes }: Wanted,
  { saved, lost }: Pick<Record, "saved" | "lost">,
  { check, force }: { check: boolean; force: boolean },
): { kept: Step[]; steps: Step[]; unlisted: string[] } {
  const actionFor = (entry: Entry): Step["action"] => {
    const [before, size] = [saved.get(entry.path), sizes.get(entry.path)];
    if (force || size === undefined || lost.has(entry.path)) return "fetch";
    if (before === undefined || before.size !== size) return "adopt";
    if (!isSame(entry, before)) return "fetch";
    return check ? "check" : "keep";
  };
  const steps = entries.map((entry): Step => {
    const { path } = entry;
    return { entry, action: actionFor(entry), isThere: sizes.has(path), before: saved.get(path) };
  });
  const listed = new Set(entries.map(({ path }) => path));
  return {
    kept: steps.filter(({ action }) => action === "keep"),
    steps: steps.filter(({ action }) => action !== "keep"),
    unlisted: [...new Set([...saved.keys(), ...lost])].filter((path) => !listed.has(path)),
  };
}

/** Whether the record is about what the line asks for: the same URL, version and pin. */
export function isSame(entry: Entry, saved: Saved): boolean {
  return (
    entry.version === saved.version &&
    (entry.sha256 === undefined || entry.sha256 === saved.sha256) &&
    shownUrl(entry.url) === saved.url
  );
}
