import { readFile, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import process from "node:process";
import { text } from "node:stream/consumers";
import { type CommandInput, defineCommand, runScript } from "../lib/cli/command.ts";
import { atEnd } from "../lib/core/at-exit.ts";
import { cleanLine } from "../lib/core/clean.ts";
import { UsageError } from "../lib/core/errors.ts";
import { formatDuration, formatSize } from "../lib/core/units.ts";
import { Fetcher, type FileResult } from "../lib/downloads/fetcher.ts";
import { readLists } from "../lib/downloads/lists.ts";
import { formatEntry, pinLines, shownUrl } from "../lib/downloads/manifest.ts";
import { downloadsIn, Folders, lockName } from "../lib/downloads/paths.ts";
import { isSame, planDownloads, type Step } from "../lib/downloads/plan.ts";
import { Pool } from "../lib/downloads/pool.ts";
import { Progress } from "../lib/downloads/progress.ts";
import { Record } from "../lib/downloads/record.ts";
import { FetchFailed, reasonOf } from "../lib/fetch/fetch.ts";
import { removeStaleTemporaries, writeAtomic } from "../lib/files/files.ts";
import { acquireLock } from "../lib/files/lock.ts";

const command = defineCommand({
  usage: `
downloads: fetch what manifest.txt and cloudinary.txt list into downloads/

Usage
  downloads [DIR] [flags]

Operands
  [DIR]  the folder with manifest.txt; default: the current one

Flags
  -j, --jobs N         files at once (default: 16, up to 50 while they are small)
  --per-host N         files at once from one host (default: no limit)
  --check              hash the files again and ask the servers for newer ones
  --force              fetch everything again
  --prune              move what is no longer listed to downloads/old/
  --keep-going         fetch the good lines of a list with wrong ones; exit 1
  --pin                write #sha256-… behind each URL of the manifest, from downloads/saved.txt; fetch nothing
  --print              print the manifest that both files stand for; fetch nothing
  --manifest FILE      read this in place of both files; - for standard input
  --wait               wait for another run in this folder to end
  --max-size SIZE=10G  refuse a larger file
  --stall TIME=30s     give up on a connection that receives nothing for this long
  --retries N=5        retries after a temporary failure

Environment
  http_proxy, https_proxy, all_proxy  proxies, as curl reads them; no_proxy names exceptions
  NETRC                               the file with logins (default: ~/.netrc)

Examples
  downloads                           fetch what is new in the current folder's manifest
  downloads site --check --prune      ask for newer ones, put away what is no longer listed
  downloads && downloads --pin        what came is what will come
  make-list | downloads --manifest -  fetch what another program lists

Exit codes
  1  a file failed; the others are fetched; with --keep-going also: a line was wrong
  2  a wrong line or flag, nothing was fetched
  4  a path that would leave the folder, nothing was fetched
`,
  async run({ flags, args: [dir = "."], terminal, signal }) {
    const { jobs, "per-host": perHost, "max-size": maxSize, stall, retries } = flags;
    if (jobs === 0) throw new UsageError("--jobs 0: it must be at least 1");
    if (perHost === 0) throw new UsageError("--per-host 0: it must be at least 1");
    const started = Date.now();
    const root = downloadsIn(dir);
    const given = flags.manifest === "-" ? { text: await text(process.stdin) } : { file: flags.manifest };
    // a wrong line is refused, and nothing is made where no list is: not even the lock file
    const lenient = { keepGoing: flags["keep-going"] };
    const listed = await readLists(dir, root, given, lenient);
    if (flags.pin) return await pin(flags.manifest ?? join(dir, "manifest.txt"), root, { terminal, signal });
    if (flags.print) {
      for (const entry of listed?.entries ?? []) {
        const { where, url, path, version, sha256 } = entry;
        terminal.print(formatEntry(entry));
        terminal.printJson({ where, url: shownUrl(url), path, version, sha256 });
      }
      return 0;
    }
    if (!listed && flags.prune)
      throw new UsageError(`${dir}: no manifest.txt, so --prune would empty downloads/; name one with --manifest`);
    if (!listed) {
      terminal.note("nothing to do: there is no manifest.txt and no cloudinary.txt");
      return 0;
    }

    await acquireLock(join(root, lockName), { what: "downloads", wait: flags.wait, signal });
    await removeStaleTemporaries(root);
    const record = await Record.read(root);
    const damage = record.wrong.slice(0, 9).join(", ");
    if (damage) terminal.note(`saved.txt: damaged in line ${damage}; those files are looked at anew`);
    // the run that was waited for has made files
    const wanted = flags.wait ? ((await readLists(dir, root, given, lenient)) ?? listed) : listed;
    const plan = planDownloads(wanted, record, flags);

    const results: FileResult[] = [];
    const tell = (file: FileResult & { seconds?: number }) => {
      results.push(file);
      terminal.printJson(file);
      const isNotable = file.result === "moved" || file.old !== undefined;
      const isNews = file.result === "fetched" || (file.result === "kept" && file.reason !== undefined);
      // whoever watches sees the bar; failures come as a list at the end, where they are seen
      if (isNotable || (isNews && !terminal.isTTY)) terminal.note(lineOf(file));
    };
    for (const { entry } of plan.kept) tell({ path: entry.path, result: "kept" });

    const folders = new Folders(root);
    const fetcher = new Fetcher(folders, record, { maxSize, stall, retries, signal });
    const pool = new Pool<Step>({ jobs, perHost });
    const progress = new Progress(terminal.progress({ label: "downloads", unit: "bytes" }), plan.steps.length);
    const hostOf = ({ entry }: Step) => new URL(entry.url).host;
    const working = pool.run(plan.steps, hostOf, async (step) => {
      if (signal.aborted) return 0;
      const { path } = step.entry;
      progress.start(path);
      const result = await fetcher.obtain(step, {
        onProgress: (done, total) => progress.advance(path, done, total),
        onRetry(error, wait) {
          if (error instanceof FetchFailed && [429, 503].includes(error.status ?? 0)) pool.slower(hostOf(step));
          const when = `again in ${(wait / 1000).toFixed(1)} s`;
          terminal.note(cleanLine(`${path}: ${reasonOf(error)}; ${when}`));
        },
        onMirror: (error, next) => terminal.note(cleanLine(`${path}: ${reasonOf(error)}; trying ${shownUrl(next)}`)),
      });
      const seconds = progress.finish(path);
      if (!signal.aborted) tell({ ...result, seconds });
      return result.result === "fetched" ? (result.size ?? 0) : 0;
    });
    // a signal ends the requests; what they leave is tidied before the script ends
    const tidied = working.finally(() => fetcher.close());
    atEnd(() => tidied);
    await tidied;
    signal.throwIfAborted();

    for (const path of flags.prune ? plan.unlisted : []) {
      const old = await folders.moveToOld(path, record.saved.get(path));
      if (old !== undefined) tell({ path, result: "moved", old });
      record.saved.delete(path);
    }
    await record.write(folders.written);

    progress.end();
    const only = (wanted: FileResult["result"]) => results.filter(({ result }) => result === wanted);
    const [fetched, failed] = [only("fetched"), only("failed")];
    const byLine = ({ where: a = "" }: FileResult, { where: b = "" }: FileResult) =>
      a.localeCompare(b, "en", { numeric: true });
    for (const { where, path, reason } of failed.sort(byLine)) terminal.warn(cleanLine(`${where}: ${path}: ${reason}`));
    for (const { where, reason } of wanted.faults) terminal.warn(cleanLine(`${where}: ${reason}; left out`));
    const summary = {
      fetched: fetched.length,
      bytes: fetched.reduce((sum, { size = 0 }) => sum + size, 0),
      kept: only("kept").length,
      old: results.filter(({ old }) => old !== undefined).length,
      failed: failed.length,
      ...(flags["keep-going"] ? { wrong: wanted.faults.length } : {}),
      seconds: (Date.now() - started) / 1000,
    };
    terminal.printJson({ summary });
    const size = summary.fetched > 0 ? ` (${formatSize(summary.bytes)})` : "";
    if (!terminal.quiet || summary.failed > 0)
      terminal.print(
        `fetched ${summary.fetched}${size}, kept ${summary.kept}, moved to old ${summary.old}, ` +
          `failed ${summary.failed}, in ${formatDuration(summary.seconds * 1000)}`,
      );
    return summary.failed + wanted.faults.length > 0 ? 1 : 0;
  },
});

/** `--pin`: the manifest's lines get the hashes of what was saved. @returns 1 when of one's file nothing is known. */
async function pin(file: string, root: string, { terminal, signal }: Pick<CommandInput, "terminal" | "signal">) {
  if (file === "-") throw new UsageError("--pin writes into the manifest; name a file");
  await acquireLock(join(root, lockName), { what: "downloads --pin", signal });
  const { saved } = await Record.read(root);
  const before = await readFile(file, "utf8");
  const { text, pinned, unknown } = pinLines(before, basename(file), (entry) => {
    const known = saved.get(entry.path);
    return known !== undefined && isSame(entry, known) ? known.sha256 : undefined;
  });
  if (pinned.length > 0) await writeAtomic(file, text, { mode: (await stat(file)).mode & 0o777 });
  for (const { where, path } of unknown) terminal.warn(cleanLine(`${where}: ${path} is not saved yet; run downloads`));
  terminal.printJson({ pinned: pinned.map(({ path }) => path), unknown: unknown.map(({ path }) => path) });
  terminal.print(`pinned ${pinned.length}, not saved yet ${unknown.length}`);
  return unknown.length > 0 ? 1 : 0;
}

function lineOf({ result, path, size, version, old, reason }: FileResult): string {
  const bytes = result === "fetched" && size !== undefined ? formatSize(size) : undefined;
  const facts = [version && `version ${version}`, bytes, reason].filter(Boolean).join(", ");
  const before = old === undefined ? "" : result === "moved" ? ` to ${old}` : ` the one before: ${old}`;
  return cleanLine(`${result} ${path}${facts && ` (${facts})`}${before}`);
}

void runScript(command);
