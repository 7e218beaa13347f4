import { mkdir, readFile, rm } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import process from "node:process";
import type { Terminal } from "../../cli/terminal.ts";
import { Busy, messageOf, systemCode, UsageError } from "../../core/errors.ts";
import { isRunId, newRunId } from "../../core/id.ts";
import { exists, writeAtomic } from "../../files/files.ts";
import { acquireLock, type Lock } from "../../files/lock.ts";
import { signOrder } from "../order.ts";
import type { Keys } from "../signature.ts";
import { fanOut, type FanOutOptions } from "./fan-out.ts";
import { lineOf, parseList, type Target } from "./list.ts";
import type { Sender } from "./send.ts";
import type { Target as MessageTarget } from "../../notify/notify.ts";
import type { Outcome, Transport } from "./transport.ts";
import { entriesOf, type Pin, stateFolder, type Wants } from "./want.ts";

/** What every rollout over the fleet is made of: flags, lists, the lock, the orders, the fan-out and its report. */

export interface UpdateFlags {
  list: string;
  group: string | undefined;
  base: string | undefined;
  branch: string | undefined;
  jobs: number;
  timeout: number;
  "connect-timeout": number;
  retries: number;
  wait: boolean;
  "wait-limit": number;
  batch: string[];
  pause: number;
  "max-failures": string | undefined;
  sha: string | undefined;
  "key-file": string | undefined;
  "secret-file": string | undefined;
  ca: string | undefined;
  via: string | undefined;
  failed: string | undefined;
  "dry-run": boolean;
  status: boolean;
  verify: boolean;
  converge: boolean;
  notify: string;
  "notify-test": boolean;
}

/** What all requests of one call share. */
export interface Master {
  flags: UpdateFlags;
  keys: Keys;
  sender: Sender;
  /** How a slave is reached. */
  transportFor: (target: Target) => Transport;
  terminal: Terminal;
  signal: AbortSignal;
  /** Who is told of slaves that failed or differ. */
  targets: readonly MessageTarget[];
}

/** @throws {UsageError} when it is not there, and for every bad line */
export async function readList(file: string, terminal: Terminal): Promise<Target[]> {
  const list = parseList(await readText(file, "--list"), file);
  for (const line of list.duplicates) terminal.warn(line);
  return list.targets;
}

/**
 * The lists that wants are about, as they are now, without those that are gone.
 * @throws {UsageError} for a list with a bad line
 */
export async function listsOf(wants: Wants, terminal: Terminal): Promise<Map<string, Target[]>> {
  const lists = new Map<string, Target[]>();
  for (const { list } of entriesOf(wants))
    if (!lists.has(list) && (await exists(list))) lists.set(list, await readList(list, terminal));
  return lists;
}

/** A file that a flag names; `-` is standard input. */
export async function readText(file: string, flag: string): Promise<string> {
  try {
    return await readFile(file === "-" ? "/dev/stdin" : file, "utf8");
  } catch (error) {
    const why = systemCode(error) === "ENOENT" ? "there is no such file" : messageOf(error);
    throw new UsageError(`${flag} ${file}: ${why}; name another`);
  }
}

/** One run at a time for a repo: two could leave the fleet half on one commit and half on the other. */
export async function lockRun(repo: string, terminal: Terminal, wait = true): Promise<Lock> {
  const path = join(stateFolder(), `${repo}.lock`);
  const what = `server-update ${repo}`;
  try {
    return await acquireLock(path, { what, wait: 100 });
  } catch (error) {
    if (!(error instanceof Busy) || !wait) throw error;
    terminal.note(`waiting: ${messageOf(error)}`);
    return await acquireLock(path, { what, wait: true });
  }
}

/** The run of hook-server that we are part of, or one of our own. */
export function runId(): string {
  const { HOOK_RUN = "" } = process.env;
  return isRunId(HOOK_RUN) ? HOOK_RUN : newRunId();
}

/** Writes the orders of one run: each newer than all before it, also when the clock was set back. */
export class OrderBook {
  /** The time of the newest. */
  last: number;
  readonly orderFor: ((target: Target) => string) | undefined;

  constructor(repo: string, pin: Pin, run: string, before: Wants | undefined, { key }: Keys) {
    this.last = Math.max(Date.now(), (before?.at ?? 0) + 1);
    this.orderFor =
      key &&
      (({ slave }) => {
        this.last = Math.max(Date.now(), this.last);
        return signOrder({ repo, ...pin, target: slave, at: this.last, run }, key);
      });
  }
}

/** Fan out, with progress, and show what became of it. */
export async function runFanOut(
  repo: string,
  targets: readonly Target[],
  { flags, sender, transportFor, terminal, signal }: Master,
  options: Pick<
    FanOutOptions,
    "sha" | "branch" | "orderFor" | "wait" | "batches" | "maxFailures"
  > & {
    onlyOthers?: boolean;
  },
): Promise<Outcome[]> {
  const started = performance.now();
  const progress = terminal.progress({ label: `update ${repo}`, total: targets.length });
  let failed = 0;
  try {
    const outcomes = await fanOut(targets, {
      ...{ ...options, transportFor, repo, signal, jobs: flags.jobs },
      waitLimit: flags["wait-limit"],
      pause: flags.pause,
      onOutcome(outcome) {
        if (!outcome.ok) failed += 1;
        terminal.printJson(outcomeLine(outcome));
        progress.add(1, failed > 0 ? `${failed} failed` : undefined);
      },
      onStep: (asked) =>
        terminal.note(
          `${asked} of ${targets.length} asked, ${failed} failed; going on in ${flags.pause / 1000} s`,
        ),
    });
    progress.end();
    for (const outcome of outcomes) if (outcome.skipped) terminal.printJson(outcomeLine(outcome));
    printOutcomes(outcomes, (performance.now() - started) / 1000, terminal);
    if (sender.unbound.size > 0)
      terminal.warn(
        `${slaves(sender.unbound.size)} took only the signature of Boatyard 0.1, which is good at every slave that has the secret; update them: ${[
          ...sender.unbound,
        ]
          .map(({ name }) => name)
          .slice(0, 10)
          .join(", ")}`,
      );
    return outcomes;
  } finally {
    progress.end();
  }
}

/** What a run tells: a table, its totals, and the list of those that failed. */

/** One slave as `--json` shows it. */
export function outcomeLine({ target, ok, before, sha, seconds, error, skipped }: Outcome) {
  const rounded = Math.round(seconds * 1000) / 1000;
  const line = { target: target.name, ok, before, sha, seconds: rounded, error };
  return skipped ? { ...line, skipped } : line;
}

/** Slave, answer, commit, seconds. */
function rowOf({ target, ok, answer, sha, seconds }: Outcome): string[] {
  const shown = ok ? answer : `FAILED: ${answer}`;
  return [target.name, shown, sha?.slice(0, 12) ?? "", seconds.toFixed(1)];
}

export function printOutcomes(
  outcomes: readonly Outcome[],
  seconds: number,
  terminal: Terminal,
): void {
  if (terminal.json) return;
  const header = ["SLAVE", "ANSWER", "COMMIT", "SECONDS"];
  for (const line of terminal.table(outcomes.map(rowOf), { header, right: [3] }))
    terminal.print(line);
  terminal.print(totalsLine(outcomes, seconds));
}

/** `5 slaves: 4 ok, 1 failed; at 1a2b3c…; 2.1 s`. */
function totalsLine(outcomes: readonly Outcome[], seconds: number): string {
  const ok = outcomes.filter((outcome) => outcome.ok);
  const skipped = outcomes.filter((outcome) => outcome.skipped).length;
  const words = [`${ok.length} ok`, `${outcomes.length - ok.length - skipped} failed`];
  if (skipped > 0) words.push(`${skipped} not asked`);
  const shas = [...new Set(ok.map(({ sha }) => sha))].filter((sha) => sha !== undefined);
  const at = shas.length > 1 ? `${shas.length} different commits` : shas[0];
  const parts = [words.join(", "), ...(at === undefined ? [] : [`at ${at}`])];
  return `${slaves(outcomes.length)}: ${parts.join("; ")}; ${seconds.toFixed(1)} s`;
}

export function slaves(count: number): string {
  return count === 1 ? "1 slave" : `${count} slaves`;
}

/** Write the list of those that failed, for `--list`; without any, remove it. */
export async function writeFailed(
  repo: string,
  outcomes: readonly Outcome[],
  flag: string | undefined,
  terminal: Terminal,
): Promise<void> {
  const file = resolve(flag ?? join(stateFolder(), `${repo}.failed.txt`));
  const text = failedList(repo, outcomes, new Date());
  try {
    if (text === undefined) return await rm(file, { force: true });
    await mkdir(dirname(file), { recursive: true });
    await writeAtomic(file, text);
    terminal.note(`the failed ones are in ${file}; for these alone: --list ${file}`);
  } catch (error) {
    terminal.warn(
      `the list of failed slaves could not be written: ${messageOf(error)}; see --failed`,
    );
  }
}

/** A list that `--list` takes: every slave that did not succeed, with the reason as a comment above; undefined when all did. */
function failedList(repo: string, outcomes: readonly Outcome[], at: Date): string | undefined {
  const lines = [`# server-update ${repo}: not up to date at ${at.toISOString()}`];
  let group = "";
  for (const { target, ok, error = "failed" } of outcomes) {
    if (ok) continue;
    if (target.group !== group) lines.push(`[${target.group}]`);
    group = target.group;
    lines.push(`# ${error.replace(/\s+/g, " ")}`, lineOf(target));
  }
  return lines.length === 1 ? undefined : `${lines.join("\n")}\n`;
}
