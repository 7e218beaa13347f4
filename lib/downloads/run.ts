import { lstatSync, realpathSync } from "node:fs";
import { join, resolve } from "node:path";
import { UsageError } from "../core/errors.ts";
import type { Terminal } from "../cli/terminal.ts";
import { formatEntry, shownUrl } from "./manifest.ts";
import { type DownloadsOptions, isIdle, makePlan } from "./plan.ts";
import { readWanted } from "./read.ts";
import { Report } from "./report.ts";
import { settledFiles } from "./settled.ts";
import { readStore } from "./store.ts";

/**
 * Fetch what is wanted and not here (design, section 6).
 * @returns whether all is well.
 * @throws {UsageError | Refused} for wrong lines, before anything is fetched.
 * @throws {Busy} when another run holds the folder.
 */
export async function downloads(options: DownloadsOptions, terminal: Terminal): Promise<boolean> {
  const root = rootOf(options.dir);
  const { check, force, prune, manifest } = options;
  if (!check && !force && !prune && manifest === undefined && !terminal.json) {
    const files = settledFiles(options.dir, root);
    if (files !== undefined) {
      new Report(terminal).settled(files);
      return true;
    }
  }
  const wanted = await readWanted(options.dir, options.manifest, root);
  if (!wanted) {
    if (options.prune)
      throw new UsageError(
        `${options.dir}: no manifest.txt, so --prune would empty downloads/; name one with --manifest`,
      );
    terminal.note("nothing to do: there is no manifest.txt and no cloudinary.txt");
    return true;
  }
  const plan = makePlan(wanted, readStore(root), options);
  const report = new Report(terminal);
  if (isIdle(plan, options)) {
    // saved.txt is replaced in one step and nothing is written: that needs no lock
    for (const { entry } of plan.steps) report.add({ path: entry.path, result: "kept" });
    report.end();
    return true;
  }
  const { work } = await import("./work.ts");
  return await work(root, wanted.entries, options, report);
}

/** The folder that files land in. It need not be there yet; it may be a link to another disk. */
function rootOf(dir: string): string {
  const folder = resolve(dir);
  const info = lstatSync(folder, { throwIfNoEntry: false });
  if (info === undefined)
    throw new UsageError(`${dir}: there is no such folder; name the one with manifest.txt`);
  const root = join(realpathSync(folder), "downloads");
  return lstatSync(root, { throwIfNoEntry: false }) === undefined ? root : realpathSync(root);
}

/** `--print`: the manifest that both files stand for. Nothing is fetched. */
export async function printWanted(
  { dir, manifest }: Pick<DownloadsOptions, "dir" | "manifest">,
  terminal: Terminal,
): Promise<void> {
  for (const entry of (await readWanted(dir, manifest, rootOf(dir)))?.entries ?? []) {
    terminal.print(formatEntry(entry));
    const { where, url, path, version, sha256 } = entry;
    terminal.printJson({ where, url: shownUrl(url), path, version, sha256 });
  }
}
