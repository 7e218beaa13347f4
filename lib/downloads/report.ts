import { clearInterval, setInterval } from "node:timers";
import { cleanLine } from "../core/clean.ts";
import type { Progress, Terminal } from "../core/terminal.ts";
import { formatDuration, formatSize } from "../core/units.ts";

/** What became of one file. */
export interface FileResult {
  path: string;
  /** fetched: new bytes came; kept: what was there is right; moved: no longer listed; failed. */
  result: "fetched" | "kept" | "moved" | "failed";
  /** Bytes of the file. */
  size?: number;
  version?: string | undefined;
  /** Where the one before is now, under `downloads/`. */
  old?: string | undefined;
  /** Why it failed, or what was found. */
  reason?: string | undefined;
  /** `manifest.txt:12`. */
  where?: string;
  seconds?: number;
}

/** A file that is under way, for the bar. */
interface Running {
  path: string;
  started: number;
  done: number;
  total: number | undefined;
}

/** Milliseconds between two drawings of a bar that nothing moves: its clock runs on, and the slow files are named. */
const redrawEvery = 500;

/** What a user sees of a run: a line a file or a bar while it runs, a summary at its end. */
export class Report {
  readonly #results: FileResult[] = [];
  readonly #terminal: Terminal;
  readonly #started = Date.now();
  readonly #running = new Set<Running>();
  #bar: Progress | undefined;
  #clock: NodeJS.Timeout | undefined;
  #files = 0;
  #filesDone = 0;
  #bytes = 0;
  /** Bytes of finished and running files; the others are taken to be as large as these on average. */
  #knownBytes = 0;
  #knownFiles = 0;

  constructor(terminal: Terminal) {
    this.#terminal = terminal;
  }

  /** Show from here on that `files` are fetched. */
  begin(files: number): void {
    this.#files = files;
    if (files === 0 || this.#terminal.quiet) return;
    this.#bar = this.#terminal.progress({ label: "downloads", unit: "bytes" });
    this.#clock = setInterval(() => this.draw(), redrawEvery);
    this.#clock.unref();
  }

  /** One file is started. */
  start(path: string): Running {
    const running = { path, started: Date.now(), done: 0, total: undefined };
    this.#running.add(running);
    return running;
  }

  /** More of a file is there. A try that starts over goes back. */
  advance(running: Running, done: number, total: number | undefined): void {
    if (running.total === undefined && total !== undefined) {
      this.#knownBytes += total;
      this.#knownFiles += 1;
    }
    running.total ??= total;
    this.#bytes += done - running.done;
    running.done = done;
    this.draw();
  }

  finish(running: Running, result: FileResult): void {
    this.#running.delete(running);
    this.#filesDone += 1;
    if (running.total === undefined) {
      this.#knownBytes += running.done;
      this.#knownFiles += 1;
    }
    result.seconds = (Date.now() - running.started) / 1000;
    this.add(result);
    this.draw();
  }

  /** A file is done with; what is worth a line gets one. */
  add(result: FileResult): void {
    this.#results.push(result);
    this.#terminal.printJson(result);
    // failures come as a list at the end, where they are seen
    if (result.result === "failed" || (result.result === "kept" && !result.reason)) return;
    if (this.#terminal.quiet) return;
    const notable = result.result === "moved" || result.old !== undefined;
    if (notable || !this.#terminal.isTTY) this.note(lineOf(result));
  }

  /** saved.txt could not be understood as a whole. */
  damaged(lines: readonly number[]): void {
    const shown = lines.slice(0, 9).join(", ");
    this.note(`saved.txt: damaged in line ${shown}; those files are looked at anew`);
  }

  /** Something that the user may want to know. A path from a stranger's manifest may steer no terminal. */
  note(line: string): void {
    this.#terminal.note(cleanLine(line));
  }

  private draw(): void {
    const bar = this.#bar;
    if (!bar) return;
    const average = this.#knownFiles > 0 ? this.#knownBytes / this.#knownFiles : 0;
    bar.setTotal(Math.round(this.#knownBytes + average * (this.#files - this.#knownFiles)));
    bar.update(this.#bytes, `${this.#filesDone}/${this.#files} files${slowest(this.#running)}`);
  }

  /**
   * Replace the bar by the list of what failed and the summary.
   * @returns whether nothing failed.
   */
  end(): boolean {
    clearInterval(this.#clock);
    this.#bar?.end();
    this.#bar = undefined;
    const only = (wanted: FileResult["result"]) =>
      this.#results.filter(({ result }) => result === wanted);
    const [fetched, failed] = [only("fetched"), only("failed")];
    const summary = {
      fetched: fetched.length,
      bytes: fetched.reduce((sum, { size }) => sum + (size ?? 0), 0),
      kept: only("kept").length,
      old: this.#results.filter(({ old }) => old !== undefined).length,
      failed: failed.length,
      seconds: (Date.now() - this.#started) / 1000,
    };
    const terminal = this.#terminal;
    for (const { where, path, reason } of failed.sort(byLine))
      terminal.warn(cleanLine(`${where}: ${path}: ${reason}`));
    terminal.printJson({ summary });
    const good = summary.failed === 0;
    if (terminal.quiet && good) return good;
    const size = summary.fetched > 0 ? ` (${formatSize(summary.bytes)})` : "";
    terminal.print(
      `fetched ${summary.fetched}${size}, kept ${summary.kept}, moved to old ${summary.old}, ` +
        `failed ${summary.failed}, in ${formatDuration(summary.seconds * 1000)}`,
    );
    return good;
  }
}

/** As the lines stand in their files. */
function byLine({ where: a = "" }: FileResult, { where: b = "" }: FileResult): number {
  return a.localeCompare(b, "en", { numeric: true });
}

function lineOf({ result, path, size, version, old, reason }: FileResult): string {
  const words = [`${result} ${path}`];
  const facts = [
    version === undefined ? undefined : `version ${version}`,
    result === "fetched" && size !== undefined ? formatSize(size) : undefined,
    reason,
  ].filter((fact) => fact !== undefined);
  if (facts.length > 0) words.push(`(${facts.join(", ")})`);
  if (old !== undefined) words.push(result === "moved" ? `to ${old}` : `the one before: ${old}`);
  return words.join(" ");
}

/** The two files that have been under way the longest, named once they take noticeably long. */
function slowest(running: ReadonlySet<Running>): string {
  const now = Date.now();
  // a set keeps the order of insertion: the first ones were started first
  const names: string[] = [];
  for (const { path, started, done, total } of running) {
    if (names.length === 2 || now - started < 2000) break;
    const share = total === undefined || total === 0 ? "" : ` ${Math.floor((done / total) * 100)}%`;
    names.push(path.split("/").pop() + share);
  }
  return names.length > 0 ? `, slow: ${cleanLine(names.join(", "))}` : "";
}
