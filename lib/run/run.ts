import { rm } from "node:fs/promises";
import process from "node:process";
import { atEnd } from "../core/at-exit.ts";
import { cleanLine, cleanText } from "../core/clean.ts";
import { exitCodeOf, Failure, messageOf } from "../core/errors.ts";
import { isRunId, newRunId } from "../core/id.ts";
import { createMask, type Mask } from "../core/mask.ts";
import type { Progress, Terminal } from "../core/terminal.ts";
import { formatDuration } from "../core/units.ts";
import { join } from "node:path";
import { $, accountVariables, cleanEnvironment, commandFailure, ProcessOutput, type Shell } from "../exec/exec.ts";
import { descendants } from "../exec/process-tree.ts";
import { findScript } from "../exec/scripts.ts";
import { acquireLock, type Lock } from "../files/lock.ts";
import { buildLockOf } from "../git/checkout.ts";
import { formatMark, type Mark, markStage, type Result, type StartMark } from "../log/format.ts";
import { LogWriter } from "../log/writer.ts";
import { failedStage, isBad, type RunSummary, type StageResult } from "./report.ts";
import { reportStage, stageFileVariable } from "./stage-file.ts";

/** A build or a release: its lock, its log with secrets masked, its stages with their time limits, how it ended. */

/** What a stage works with. It ends by returning a few words for the table, or before its work by `skip` or `stop`. */
export interface StageContext {
  /** `$` in the run's folder and environment: what it prints goes to the log, and the stage's time limit holds. */
  readonly $: Shell;
  readonly env: Readonly<Record<string, string>>;
  /** Aborted when the stage's time is up, or the run is ended. */
  readonly signal: AbortSignal;
  /** A line into the log and onto the terminal. */
  say(line: string): void;
  /** There is nothing to do; `absent`: the repo has not what the stage is for, and its row is left out of the table. */
  skip(why: string, how?: "absent"): never;
  /** The run ends here, and is no failure; one that found everything `unchanged` leaves no trace in the log. */
  stop(why: string, how?: "stopped" | "unchanged"): never;
  /**
   * What is going to be done, in words: --dry-run ends the stage here, and so does --check, once it has looked for what
   * the work needs; nothing of the repo is run for that.
   */
  plan(does: string, needs?: () => Promise<unknown>): Promise<void>;
}

export type Stage = (stage: StageContext) => Promise<string | void>;

/** What holds for the stages from now on. */
export interface RunSettings {
  /** Added to the environment. */
  env?: Readonly<Record<string, string>>;
  /** What no log may show. */
  secrets?: readonly string[];
  /** Milliseconds: for the whole run, and by stage. */
  timeout?: { run?: number | undefined; stages: Readonly<Record<string, number>> };
}

/** Where a run works. */
export interface RunPlace {
  /** The folder whose logs.txt it writes, and in which its stages run unless `work` is given. */
  dir: string;
  work?: string;
}

/** The run's id: the one that hook-server gave, else a fresh one. */
export function runId(): string {
  const { HOOK_RUN: given = "" } = process.env;
  return isRunId(given) ? given : newRunId();
}

/**
 * The environment of a run's stages: the clean one, what tells of the event (HOOK_*, RELEASE_*), and what
 * cron, systemd and `env -i` leave out.
 */
export function stageEnvironment(): Record<string, string> {
  const env = cleanEnvironment(accountVariables());
  for (const [name, value] of Object.entries(process.env)) {
    if (value !== undefined && /^(?:HOOK|RELEASE)_[A-Z0-9_]+$/.test(name)) env[name] = value;
  }
  if (!env.LANG && !env.LC_ALL) env.LANG = "C.UTF-8";
  // as on a CI: tools ask nothing, redraw nothing, and change no lock file; the log keeps their colours
  const { NO_COLOR } = process.env;
  return { ...env, CI: "true", TERM: "dumb", ...(NO_COLOR ? { NO_COLOR } : { FORCE_COLOR: "1" }) };
}

/**
 * Open a run: take its lock. Builds and releases of a folder have one, as they write one log.
 * @param title what is done, for whoever meets the lock.
 * @throws {Busy} when another run of the folder is under way.
 */
export async function openRun(
  title: (run: string) => string,
  place: RunPlace,
  { wait, terminal, signal }: { wait: boolean; terminal: Terminal; signal: AbortSignal },
): Promise<Run> {
  const started = performance.now();
  const id = runId();
  const lock = await acquireLock(await buildLockOf(place.dir), { what: title(id), wait, signal });
  return new Run(id, place, { lock, terminal, signal, started });
}

/** Ends a stage before its work. */
class EarlyEnd extends Error {
  readonly how: "skipped" | "absent" | "stopped" | "unchanged" | "planned";
  constructor(how: EarlyEnd["how"], words: string) {
    super(words);
    this.how = how;
  }
}

function endEarly(how: EarlyEnd["how"], words: string): never {
  throw new EarlyEnd(how, words);
}

/** What a stage would do here and now, or why there is nothing to do. @throws what its plan throws. */
export async function previewStage(
  stage: Stage,
  { dir, env, signal }: { dir: string; env: Readonly<Record<string, string>>; signal: AbortSignal },
  { check = false } = {},
): Promise<{ does: string } | { skip: string }> {
  const does = await stage({
    $: $({ cwd: dir, env, signal }),
    env,
    signal,
    say: () => {},
    skip: (why, how) => endEarly(how ?? "skipped", why),
    stop: (why, how = "stopped") => endEarly(how, why),
    async plan(words, needs) {
      if (check) await needs?.();
      endEarly("planned", words);
    },
  }).catch((error: unknown) => {
    if (error instanceof EarlyEnd) return error;
    throw error;
  });
  if (!(does instanceof EarlyEnd)) throw new Error("a stage did its work without a plan");
  return does.how === "skipped" || does.how === "absent" ? { skip: does.message } : { does: does.message };
}

/** What a check says of a stage: it looks for what the stage needs, as the folder stands. */
export interface StageCheck {
  name: string;
  result: "ok" | "skipped" | "failed";
  note: string;
}

export async function checkStage(
  name: string,
  stage: Stage,
  place: Parameters<typeof previewStage>[1],
): Promise<StageCheck> {
  try {
    const plan = await previewStage(stage, place, { check: true });
    return "skip" in plan ? { name, result: "skipped", note: plan.skip } : { name, result: "ok", note: plan.does };
  } catch (error) {
    if (exitCodeOf(error) === undefined) throw error;
    return { name, result: "failed", note: messageOf(error) };
  }
}

export class Run {
  readonly id: string;
  readonly results: StageResult[] = [];
  /** Why the stages that are left have nothing to do. */
  stopped: string | undefined;
  readonly #place: RunPlace;
  readonly #parts: { lock: Lock; terminal: Terminal; signal: AbortSignal; started: number };
  #env = stageEnvironment();
  #timeout: RunSettings["timeout"];
  #secrets: readonly string[] = [];
  #mask: Mask = createMask([]);
  #log: LogWriter | undefined;
  /** Lines until the log is opened: a run that finds nothing to do can leave no trace. */
  #held: [stage: string, text: string][] | undefined = [];
  #isUnchanged = false;
  #isEnded = false;
  #forget = () => {};
  #error: unknown;

  constructor(
    id: string,
    place: RunPlace,
    parts: { lock: Lock; terminal: Terminal; signal: AbortSignal; started: number },
  ) {
    this.id = id;
    this.#place = place;
    this.#parts = parts;
  }

  /**
   * Write the run's first line; a signal that ends the script writes the last one.
   * @param start the event is the one of HOOK_EVENT where that is set.
   * @param hold nothing is written before a stage has found something to do.
   */
  async begin(start: Omit<StartMark, "kind" | "repo">, { hold = false } = {}): Promise<void> {
    const { HOOK_EVENT: event = start.event, HOOK_REPO: repo } = process.env;
    this.mark({ kind: "start", ...start, event, repo });
    this.#forget = atEnd(() => this.close("cancelled", 1, "ended by a signal"));
    if (!hold) this.openLog();
  }

  /** What holds for the stages from now on. */
  use({ env = {}, secrets = [], timeout }: RunSettings): void {
    // Node and others warn where both are set
    if (env.NO_COLOR) delete this.#env.FORCE_COLOR;
    Object.assign(this.#env, env);
    this.#secrets = [...this.#secrets, ...secrets];
    this.#mask = createMask(this.#secrets);
    this.#timeout = timeout ?? this.#timeout;
  }

  /** Whether no further stage is to be run. */
  get isOver(): boolean {
    return this.#isUnchanged || this.#error !== undefined || this.results.some(isBad);
  }

  /**
   * Run one stage to its end, whatever that is: nothing is thrown. After one that failed nothing is run any more.
   * @param position its number among all stages, as `2/6`; shown on a terminal.
   */
  async stage(name: string, stage: Stage, position = ""): Promise<void> {
    if (this.isOver) return;
    if (this.stopped !== undefined) {
      this.results.push({ name, result: "skipped", seconds: 0, note: this.stopped });
      return;
    }
    reportStage(name);
    const watched = this.#parts.terminal.progress({ label: `${position} ${name}`.trimStart(), unit: "time" });
    const result = await this.work(name, stage, watched);
    watched.end();
    reportStage(name, { ...result, note: this.mask(result.note) });
    this.results.push(result);
    if (this.#isUnchanged) return;
    this.openLog();
    const { seconds, note } = result;
    this.mark({ kind: "stage", name, result: result.result, seconds, why: result.result === "ok" ? undefined : note });
  }

  /** The run cannot go on, for a reason that lies in no stage. */
  fail(error: unknown): void {
    this.#error = error;
    this.line("build.yml", messageOf(error));
  }

  /** A line of a stage: into the log and onto the terminal. */
  line(stage: string, text: string): void {
    for (const line of text.split("\n")) this.write(stage, this.mask(lastRedraw(line)));
  }

  /**
   * Write the end into the log, and give the lock back.
   * @param about the commit that was built; what is to be said of a run that went well.
   * @throws what the run failed by, when that is no error of a kind that people can do something about.
   */
  async end({ sha, note }: { sha?: string | undefined; note?: string | undefined } = {}): Promise<RunSummary> {
    const failure = this.results.find(isBad);
    const { started, lock } = this.#parts;
    let [result, code]: [RunSummary["result"], number] = [failure?.result ?? "ok", exitCodeAfter(failure)];
    if (this.#isUnchanged) {
      result = "unchanged";
      this.#isEnded = true;
      this.#forget();
    } else if (this.#error !== undefined) {
      [result, code] = ["failed", exitCodeOf(this.#error) ?? 1];
      await this.close("failed", code, messageOf(this.#error).split("\n")[0]);
    } else await this.close(failure?.result ?? "ok", code, failure ? `${failure.name}: ${failure.note}` : note, sha);
    lock.release();
    if (this.#error !== undefined && exitCodeOf(this.#error) === undefined) throw this.#error;
    const seconds = (performance.now() - started) / 1000;
    return { run: this.id, result, code, seconds, stages: this.results, note: result === "ok" ? note : undefined };
  }

  private async work(name: string, stage: Stage, watched: Progress): Promise<StageResult> {
    const { signal, started: runStarted } = this.#parts;
    const started = performance.now();
    const stages = this.#timeout?.stages ?? {};
    const timeout = (Object.hasOwn(stages, name) ? stages[name] : undefined) ?? Number.POSITIVE_INFINITY;
    const limit = Math.min(timeout, runStarted + (this.#timeout?.run ?? Number.POSITIVE_INFINITY) - started);
    const abort = new AbortController();
    const timer = Number.isFinite(limit)
      ? setTimeout(
          () => {
            for (const each of descendants()) this.line(name, `still running: ${cleanLine(each).slice(0, 200)}`);
            abort.abort(new Error("time limit"));
          },
          Math.min(Math.max(0, limit), 2 ** 31 - 1),
        )
      : undefined;
    const onEnd = () => abort.abort(signal.reason);
    signal.addEventListener("abort", onEnd);
    if (signal.aborted) onEnd();
    let [lastLine, signs] = [started, 0];
    const say = (line: string) => {
      [lastLine, signs] = [performance.now(), 0];
      if (line.startsWith("$ ")) watched.update(0, cleanLine(this.mask(line)));
      this.line(name, line);
    };
    const silence = setInterval(() => {
      const quiet = performance.now() - lastLine;
      if (quiet < silentFor(signs)) return;
      this.line(name, `still running, no output for ${formatDuration(silentFor(signs))}`);
      signs += 1;
    }, 1000);
    const ended = (result: Result, note: string, error?: unknown): StageResult => {
      return { name, result, seconds: (performance.now() - started) / 1000, note, error };
    };
    const env = { ...this.#env };
    try {
      const { dir, work: cwd = dir } = this.#place;
      const note = await stage({
        $: $({ cwd, env, signal: abort.signal, onLine: say }),
        ...{ env, signal: abort.signal, say },
        skip: (why, how) => endEarly(how ?? "skipped", why),
        stop: (why, how = "stopped") => endEarly(how, why),
        plan: async () => {},
      });
      abort.signal.throwIfAborted();
      return ended("ok", note ?? "");
    } catch (error) {
      if (error instanceof EarlyEnd && !abort.signal.aborted) {
        if (error.how === "absent") return { ...ended("skipped", error.message), isAbsent: true };
        if (error.how === "skipped") return ended("skipped", error.message);
        this.#isUnchanged = error.how === "unchanged";
        this.stopped = error.message;
        return ended("ok", error.message);
      }
      if (signal.aborted) return ended("cancelled", "ended from outside", error);
      if (abort.signal.aborted) {
        const [what, length] = timeout <= limit ? ["its", timeout] : ["the run's", this.#timeout?.run ?? limit];
        const words = `took longer than ${what} time limit of ${formatDuration(length)} and was ended`;
        say(`${words} with all it had started`);
        return ended("timeout", `${words} with all it had started`, error);
      }
      const note = describe(error);
      say(note);
      return ended("failed", this.mask(note.split("\n")[0] ?? ""), error);
    } finally {
      clearTimeout(timer);
      clearInterval(silence);
      signal.removeEventListener("abort", onEnd);
    }
  }

  /** Write the run's last line and close the log; only the first call counts. */
  private async close(result: Result, code: number, why?: string, sha?: string): Promise<void> {
    // a signal and the work itself may come to an end at once
    if (this.#isEnded) return;
    this.#isEnded = true;
    this.#forget();
    this.openLog();
    const seconds = (performance.now() - this.#parts.started) / 1000;
    this.mark({ kind: "end", result, code, seconds, sha, why: why && this.mask(why) });
    await this.#log?.close();
  }

  /** Write the lines that were held back; from here on lines go out at once. */
  private openLog(): void {
    if (!this.#held) return;
    const { terminal } = this.#parts;
    const file = join(this.#place.dir, "logs.txt");
    this.#log = new LogWriter(file, { run: this.id, onTrouble: (error) => terminal.warn(messageOf(error)) });
    const lines = this.#held;
    this.#held = undefined;
    for (const [stage, text] of lines) this.write(stage, text);
  }

  private mark(mark: Mark): void {
    this.write(markStage, this.#mask(formatMark(mark)));
  }

  /** Secrets of the configuration show as ***, and so does a login in an address. */
  private mask(text: string): string {
    return maskCredentials(this.#mask(text));
  }

  private write(stage: string, text: string): void {
    if (this.#held) return void this.#held.push([stage, text]);
    this.#log?.line(stage, text);
    if (stage === markStage) return;
    const { isTTY, paintNote } = this.#parts.terminal;
    // The log has it as it is; elsewhere it may be coloured, where that is wanted, and act in no other way. What reads
    // it is hook-server, for its page, or a release; cron mails it.
    const colours = paintNote.level > 0 || process.env[stageFileVariable] !== undefined;
    this.#parts.terminal.note(`${isTTY ? paintNote.dim(`${stage} |`) : `${stage} |`} ${cleanText(text, colours)}`);
  }
}

/**
 * Build a worktree by `build`, without its uploads: its lines go into this run's log under the names of its own stages.
 * @throws {Failure} naming the stage that failed.
 */
export async function buildIn(tree: string, run: Run, s: StageContext): Promise<void> {
  let json = "";
  const onLine = (line: string, from: string) => {
    if (from === "stdout") return void (json += line);
    const [, stage = "build", text = line] = /^([\w.-]+) \| ?(.*)$/s.exec(line) ?? [];
    run.line(stage, text);
  };
  const env = { ...s.env, HOOK_APART: "", HOOK_FROM: "" };
  const { ok } = await s.$({
    nothrow: true,
    onLine,
    env,
  })`${await findScript("build")} ${tree} --skip pull,uploads --json`;
  await rm(join(tree, "logs.txt"), { force: true });
  s.signal.throwIfAborted();
  const failed = failedStage(json);
  if (!ok) throw new Failure(`the build failed${failed ? ` in ${failed.stage}` : ""}`);
}

/** Milliseconds without a line after which a stage is said to be still running: 30 s, 1, 2, 5, 10, 15 … minutes. */
function silentFor(signs: number): number {
  return [30_000, 60_000, 120_000][signs] ?? (signs - 2) * 300_000;
}

/** A run's exit code after a stage: a refusal keeps its own; everything else that a stage ends with is 1. */
function exitCodeAfter(failure: StageResult | undefined): 0 | 1 | 4 {
  if (!failure) return 0;
  return exitCodeOf(failure.error) === 4 ? 4 : 1;
}

/** Why a stage failed. What a command printed is in the log already, and the stage's name says which it was. */
function describe(error: unknown): string {
  if (!(error instanceof ProcessOutput) || !commandFailure(error)?.printed) return messageOf(error);
  const { exitCode, signal } = error;
  return signal ? `ended by ${signal}` : `exit code ${exitCode}`;
}

/** A login in an address: git and npm print remotes as they are configured. For the web a name alone may be a token. */
export function maskCredentials(text: string): string {
  return text.replace(/(\bhttps?:\/\/)[^\s/@]+@|(\b[a-z][a-z0-9+.-]*:\/\/)[^\s/@:]*:[^\s/@]+@/gi, "$1$2***@");
}

/** A progress line redraws itself with carriage returns: its last state is what counts. */
function lastRedraw(line: string): string {
  if (!line.includes("\r")) return line;
  const parts = line.split("\r").filter((part) => part !== "");
  return parts.at(-1) ?? "";
}
