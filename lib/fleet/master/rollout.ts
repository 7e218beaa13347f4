import { readFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import type { Terminal } from "../../cli/terminal.ts";
import { Busy, messageOf, systemCode, UsageError } from "../../core/errors.ts";
import { isRunId, newRunId } from "../../core/id.ts";
import { acquireLock, type Lock } from "../../files/lock.ts";
import { signOrder } from "../order.ts";
import type { Keys } from "../signature.ts";
import { fanOut, type FanOutOptions, type Outcome } from "./fan-out.ts";
import { parseList, type Target } from "./list.ts";
import type { Pin } from "./pin.ts";
import { outcomeLine, printOutcomes, slaves } from "./report.ts";
import type { Sender } from "./send.ts";
import { stateFolder, type Wants } from "./want.ts";

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
  failed: string | undefined;
  "dry-run": boolean;
  status: boolean;
  verify: boolean;
  converge: boolean;
}

/** What all requests of one call share. */
export interface Master {
  flags: UpdateFlags;
  keys: Keys;
  sender: Sender;
  terminal: Terminal;
  signal: AbortSignal;
}

/** @throws {UsageError} when it is not there, and for every bad line */
export async function readList(file: string, terminal: Terminal): Promise<Target[]> {
  const list = parseList(await readText(file, "--list"), file);
  for (const line of list.duplicates) terminal.warn(line);
  return list.targets;
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
  { flags, sender, terminal, signal }: Master,
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
    const outcomes = await fanOut(targets, sender, {
      ...{ ...options, repo, signal, jobs: flags.jobs },
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
