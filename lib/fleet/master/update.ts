import { mkdir, readFile, rm } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import process from "node:process";
import { Busy, messageOf, systemCode, UsageError } from "../../core/errors.ts";
import { isSha } from "../../core/names.ts";
import { writeAtomic } from "../../files/files.ts";
import { type Lock, acquireLock } from "../../files/lock.ts";
import { readSecretFile } from "../../config/secrets.ts";
import type { Terminal } from "../../cli/terminal.ts";
import { checkRepo } from "../settings.ts";
import { fanOut, type Outcome } from "./fan-out.ts";
import { amountOf, chooseTargets, parseList, planBatches, type Target } from "./list.ts";
import { createSender, type Send } from "./send.ts";
import { showStatus } from "./status.ts";

/** server-update from its flags to its exit code. */

export interface UpdateFlags {
  list: string;
  group: string | undefined;
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
  "secret-file": string | undefined;
  ca: string | undefined;
  failed: string | undefined;
  "dry-run": boolean;
  status: boolean;
}

interface Plan {
  targets: Target[];
  batches: number[];
  maxFailures: number | undefined;
  wait: boolean;
}

/**
 * Tell the fleet, or with `--status` ask it.
 * @returns 0, or 1 when a slave failed or differs
 */
export async function serverUpdate(
  repo: string,
  flags: UpdateFlags,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<number> {
  checkRepo(repo);
  const plan = await readPlan(flags, terminal);
  if (flags["dry-run"]) return showPlan(plan, flags.jobs, terminal);
  const secretFile = flags["secret-file"];
  const send = createSender({
    secret: secretFile === undefined ? undefined : await readSecretFile(secretFile),
    ca: flags.ca === undefined ? undefined : await readText(flags.ca, "--ca"),
    connectTimeout: flags["connect-timeout"],
    timeout: flags.timeout,
    retries: flags.retries,
    signal,
  });
  return flags.status
    ? await showStatus(plan.targets, send, { ...flags, repo, signal }, terminal)
    : await runUpdate(repo, plan, send, flags, terminal, signal);
}

/** @throws {UsageError} for a bad flag, and for every bad line of the list */
async function readPlan(flags: UpdateFlags, terminal: Terminal): Promise<Plan> {
  for (const [name, min] of [
    ["jobs", 1],
    ["retries", 0],
  ] as const)
    if (!Number.isInteger(flags[name]) || flags[name] < min)
      throw new UsageError(`--${name} must be a whole number of at least ${min}`);
  if (flags.sha !== undefined && !isSha(flags.sha))
    throw new UsageError(`--sha: "${flags.sha}" is not a full commit id (40 or 64 hex digits)`);
  const list = parseList(await readText(flags.list, "--list"), flags.list);
  for (const line of list.duplicates) terminal.warn(line);
  const targets = chooseTargets(list.targets, flags.group);
  if (targets.length === 0) throw new UsageError(`${flags.list} names no slaves; add one a line`);
  const inSteps = flags.batch.length > 0;
  const max = flags["max-failures"] ?? (inSteps ? "0" : undefined);
  return {
    targets,
    batches: planBatches(flags.batch, targets.length),
    maxFailures: max === undefined ? undefined : amountOf(max, targets.length, "--max-failures"),
    wait: flags.wait || inSteps,
  };
}

/** A file that a flag names; `-` is standard input. */
async function readText(file: string, flag: string): Promise<string> {
  try {
    return await readFile(file === "-" ? "/dev/stdin" : file, "utf8");
  } catch (error) {
    const why = systemCode(error) === "ENOENT" ? "there is no such file" : messageOf(error);
    throw new UsageError(`${flag} ${file}: ${why}; name another`);
  }
}

/** `--dry-run`: which slaves would be asked, and in which step. */
function showPlan({ targets, batches }: Plan, jobs: number, terminal: Terminal): number {
  let start = 0;
  for (const [step, end] of batches.entries()) {
    if (batches.length > 1) terminal.print(`step ${step + 1}: ${end - start} of ${targets.length}`);
    for (const { name, url } of targets.slice(start, end)) {
      terminal.print(url.href);
      terminal.printJson({ target: name, url: url.href, step: step + 1 });
    }
    start = end;
  }
  terminal.note(
    `${slaves(targets.length)} would be asked, at most ${jobs} at once; nothing was sent`,
  );
  return 0;
}

async function runUpdate(
  repo: string,
  plan: Plan,
  send: Send,
  flags: UpdateFlags,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<number> {
  const started = performance.now();
  // two runs that pin commits at once could leave the fleet half on one and half on the other
  const lock = plan.wait || flags.sha !== undefined ? await lockRun(repo, terminal) : undefined;
  const progress = terminal.progress({ label: `update ${repo}`, total: plan.targets.length });
  let failed = 0;
  try {
    const outcomes = await fanOut(plan.targets, send, {
      ...{ ...plan, repo, signal, sha: flags.sha, jobs: flags.jobs },
      waitLimit: flags["wait-limit"],
      pause: flags.pause,
      onOutcome(outcome) {
        if (!outcome.ok) failed += 1;
        terminal.printJson(outcomeLine(outcome));
        progress.add(1, failed > 0 ? `${failed} failed` : undefined);
      },
      onStep: (asked) =>
        terminal.note(
          `${asked} of ${plan.targets.length} asked, ${failed} failed; going on in ${flags.pause / 1000} s`,
        ),
    });
    progress.end();
    for (const outcome of outcomes) if (outcome.skipped) terminal.printJson(outcomeLine(outcome));
    if (!terminal.json) {
      const header = ["SLAVE", "ANSWER", "COMMIT", "SECONDS"];
      for (const line of terminal.table(outcomes.map(rowOf), { header, right: [3] }))
        terminal.print(line);
      terminal.print(totalsLine(outcomes, (performance.now() - started) / 1000));
    }
    const file = resolve(flags.failed ?? join(stateFolder(), `${repo}.failed.txt`));
    const list = failedList(repo, outcomes, new Date());
    await writeFailed(file, list, terminal);
    return list === undefined ? 0 : 1;
  } finally {
    progress.end();
    lock?.release();
  }
}

async function lockRun(repo: string, terminal: Terminal): Promise<Lock> {
  const path = join(stateFolder(), `${repo}.lock`);
  const what = `server-update ${repo}`;
  try {
    return await acquireLock(path, { what, wait: 100 });
  } catch (error) {
    if (!(error instanceof Busy)) throw error;
    terminal.note(`waiting: ${messageOf(error)}`);
    return await acquireLock(path, { what, wait: true });
  }
}

/** Where lists of failed slaves go: systemd's state folder for the unit, else the user's. */
function stateFolder(): string {
  const { STATE_DIRECTORY, XDG_STATE_HOME } = process.env;
  if (STATE_DIRECTORY) return STATE_DIRECTORY.split(":")[0] ?? STATE_DIRECTORY;
  return join(XDG_STATE_HOME || join(homedir(), ".local", "state"), "server-update");
}

async function writeFailed(
  file: string,
  text: string | undefined,
  terminal: Terminal,
): Promise<void> {
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

/** One slave as `--json` shows it. */
function outcomeLine({ target, ok, before, sha, seconds, error, skipped }: Outcome) {
  const rounded = Math.round(seconds * 1000) / 1000;
  const line = { target: target.name, ok, before, sha, seconds: rounded, error };
  return skipped ? { ...line, skipped } : line;
}

/** Slave, answer, commit, seconds. */
function rowOf({ target, ok, answer, sha, seconds }: Outcome): string[] {
  const shown = ok ? answer : `FAILED: ${answer}`;
  return [target.name, shown, sha?.slice(0, 12) ?? "", seconds.toFixed(1)];
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

function slaves(count: number): string {
  return count === 1 ? "1 slave" : `${count} slaves`;
}

/** A list that `--list` takes: every slave that did not succeed, with the reason as a comment above; undefined when all did. */
function failedList(repo: string, outcomes: readonly Outcome[], at: Date): string | undefined {
  const lines = [`# server-update ${repo}: not up to date at ${at.toISOString()}`];
  let group = "";
  for (const { target, ok, error = "failed" } of outcomes) {
    if (ok) continue;
    if (target.group !== group) lines.push(`[${target.group}]`);
    group = target.group;
    lines.push(`# ${error.replace(/\s+/g, " ")}`, target.name);
  }
  return lines.length === 1 ? undefined : `${lines.join("\n")}\n`;
}
