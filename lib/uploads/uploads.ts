import { join } from "node:path";
import { cleanLine, isHarmless } from "../core/clean.ts";
import { exitCodeOf, messageOf, Refused, UsageError } from "../core/errors.ts";
import { findOnPath } from "../exec/scripts.ts";
import { exists } from "../files/files.ts";
import { acquireLock } from "../files/lock.ts";
import { didYouMean } from "../core/names.ts";
import type { Terminal } from "../core/terminal.ts";
import { formatSize } from "../core/units.ts";
import { checkClaim } from "../exec/claim.ts";
import { readUploadsConfig, type Target } from "./config.ts";
import { scanFolder } from "./folder.ts";
import type { Job, Outcome } from "./job.ts";
import { openState, stateFolderOf } from "./state.ts";

export { readUploadsConfig } from "./config.ts";

export interface UploadsOptions {
  /** The checkout. */
  dir: string;
  /** The config file; default: `uploads.yml` in `dir`. */
  config?: string | undefined;
  /** Only these targets; empty: all. */
  to: readonly string[];
  dryRun: boolean;
  /** Also remove what is no longer in the folder. */
  delete: boolean;
  /** How often a request or transfer is tried again where that may help. */
  retries: number;
  terminal: Terminal;
  signal?: AbortSignal | undefined;
}

/** One target's result; with --json, one object each. */
export interface TargetResult extends Outcome {
  target: string;
  kind: Target["kind"];
  ok: boolean;
  seconds: number;
}

/**
 * Publish the folder to its targets, all side by side; one that fails does not stop the others.
 * @throws {UsageError} for a wrong config or a missing folder, before anything is sent.
 * @throws {Refused} for links that lead out of the folder, and for --delete with an empty folder.
 * @throws {Busy} when another process uploads from here.
 * @throws {Failure} when the builder that runs us has lost the repo.
 */
export async function runUploads(options: UploadsOptions): Promise<TargetResult[]> {
  const { dir, terminal, signal } = options;
  // before the lock, whose file would be made in a folder that is not a checkout at all
  const config = await readUploadsConfig(options.config ?? join(dir, "uploads.yml"), dir);
  const targets = chooseTargets(config.targets, options);
  if (!(await exists(dir))) throw new UsageError(`there is no folder ${dir}; name a checkout`);
  const lock = await acquireLock(join(stateFolderOf(dir), "lock"), { what: "uploads", signal });
  try {
    const state = await openState(dir);
    const files = scanFolder(config.from);
    refuseEmptyFolder(targets, files.length, config.from);
    const { dryRun, retries } = options;
    const mayPublish = async () => (dryRun ? undefined : await checkClaim());
    await mayPublish();
    const progress = terminal.progress({ label: "uploads", total: 0, unit: "bytes" });
    const bytes = { expected: 0, arrived: 0 };
    const results = await Promise.all(
      targets.map((target) =>
        runTarget(target, {
          ...{ dir, root: config.from, files, state, signal },
          ...{ dryRun, retries, checkClaim: mayPublish },
          expect: (more) => progress.setTotal((bytes.expected += more)),
          arrived: (more, path) => progress.update((bytes.arrived += more), shownPath(path)),
          note: (text) => terminal.note(`${target.name}: ${text}`),
        }),
      ),
    );
    progress.end();
    await state.save(files);
    return results;
  } finally {
    lock.release();
  }
}

/**
 * Read uploads.yml, and look for the programs and keys that its targets need; nothing is asked or sent.
 * @throws {UsageError} for a wrong config, and for all that is missing.
 */
export async function checkUploads(options: UploadsOptions): Promise<void> {
  const { dir, terminal } = options;
  const config = await readUploadsConfig(options.config ?? join(dir, "uploads.yml"), dir);
  const targets = chooseTargets(config.targets, options);
  const problems: string[] = [];
  for (const target of targets) {
    const { name } = target;
    for (const program of programsOf(target))
      if ((await findOnPath(program)) === undefined)
        problems.push(`${name}: ${program} is not on PATH; install it, or correct PATH`);
    for (const file of target.kind === "s3" ? [] : [target.ssh.key, target.ssh.knownHosts])
      if (file !== undefined && !(await exists(file)))
        problems.push(`${name}: there is no file ${file}; make it, or correct uploads.yml`);
  }
  if (problems.length > 0) throw new UsageError(problems.join("\n"));
  for (const { name, kind } of targets) terminal.printJson({ target: name, kind });
  const rows = targets.map(({ name, kind }) => [name, kind]);
  for (const line of terminal.table(rows, { header: ["target", "kind"] })) terminal.print(line);
}

function programsOf(target: Target): string[] {
  if (target.kind === "s3") return [];
  if (target.kind === "git") return ["git"];
  return target.address.login === undefined ? ["rsync"] : ["rsync", "ssh"];
}

/** The targets that were asked for, with what the flags say of deletion; git's commit holds the whole folder anyway. */
function chooseTargets(targets: readonly Target[], options: UploadsOptions): Target[] {
  const known = targets.map(({ name }) => name);
  const wrong = options.to.find((name) => !known.includes(name));
  if (wrong !== undefined)
    throw new UsageError(
      `--to: there is no target "${wrong}"${didYouMean(wrong, known)}; there are ${known.join(", ")}`,
    );
  return targets
    .filter(({ name }) => options.to.length === 0 || options.to.includes(name))
    .map((target) => ({
      ...target,
      delete: target.kind !== "git" && (target.delete || options.delete),
    }));
}

/** An empty folder is a build that went wrong far more often than a site that is to vanish. */
function refuseEmptyFolder(targets: readonly Target[], count: number, from: string): void {
  if (count > 0) return;
  const risky = targets.filter((target) => target.delete || target.kind === "git");
  if (risky.length > 0) {
    const names = risky.map(({ name }) => name).join(", ");
    throw new Refused(
      `${from} is empty: this would remove everything from ${names}; build first, or empty them by hand`,
    );
  }
}

async function runTarget(target: Target, job: Job): Promise<TargetResult> {
  const started = performance.now();
  let outcome: Outcome;
  try {
    outcome = await upload(target, job);
  } catch (error) {
    // a bug is shown as one; whatever is expected is this target's result
    const isExpected =
      exitCodeOf(error) !== undefined || (error instanceof Error && "syscall" in error);
    if (!isExpected) throw error;
    outcome = { changes: [], bytes: 0, problems: [messageOf(error)] };
  }
  const seconds = (performance.now() - started) / 1000;
  const { name, kind } = target;
  // another machine's words may steer no terminal
  const problems = outcome.problems.map(cleanLine);
  return { ...outcome, target: name, kind, ok: problems.length === 0, seconds, problems };
}

/** The code of a kind of target is loaded when there is one of it. */
async function upload(target: Target, job: Job): Promise<Outcome> {
  if (target.kind === "s3") return (await import("./s3-target.ts")).uploadToS3(target, job);
  if (target.kind === "git") return (await import("./git-target.ts")).uploadToGit(target, job);
  return (await import("./rsync-target.ts")).uploadByRsync(target, job);
}

const maxProblems = 20;

/** Show the results: what was or would be done, a table, the problems. */
export function showResults(
  results: readonly TargetResult[],
  { dryRun, terminal }: Pick<UploadsOptions, "dryRun" | "terminal">,
): void {
  for (const result of results) terminal.printJson(jsonOf(result, dryRun));
  if (dryRun)
    for (const { target, changes } of results)
      for (const { action, path } of changes)
        terminal.print(`${target}: ${action.padEnd(7)} ${shownPath(path)}`);
  const rows = results.map((result) => {
    const deleted = countsOf(result).delete;
    return [
      ...[result.target, result.kind, result.ok ? "ok" : "FAILED"],
      ...[result.changes.length - deleted, result.unchanged ?? "-", deleted].map(String),
      ...[formatSize(result.bytes), result.seconds.toFixed(1)],
    ];
  });
  const header = [
    ...["target", "kind", "result", dryRun ? "to send" : "sent", "unchanged"],
    ...[dryRun ? "to delete" : "deleted", "bytes", "seconds"],
  ];
  for (const line of terminal.table(rows, { header, right: [3, 4, 5, 6, 7] })) terminal.print(line);
  for (const { target, problems } of results) {
    for (const problem of problems.slice(0, maxProblems)) terminal.warn(`${target}: ${problem}`);
    if (problems.length > maxProblems)
      terminal.warn(`${target}: and ${problems.length - maxProblems} more`);
  }
}

/** A path as it can stand in a line: quoted when it holds what would break one. */
function shownPath(path: string): string {
  return isHarmless(path) ? path : cleanLine(JSON.stringify(path));
}

function jsonOf(result: TargetResult, dryRun: boolean) {
  const { changes, ...rest } = result;
  const seconds = Math.round(rest.seconds * 1000) / 1000;
  const counts = countsOf(result);
  return { ...rest, seconds, dryRun, counts, ...(dryRun ? { changes } : {}) };
}

function countsOf({ changes }: TargetResult) {
  const counts = { new: 0, replace: 0, headers: 0, delete: 0 };
  for (const { action } of changes) counts[action]++;
  return counts;
}
