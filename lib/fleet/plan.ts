import { readFile } from "node:fs/promises";
import { messageOf, systemCode, UsageError } from "../core/errors.ts";
import { isSha } from "../core/names.ts";
import type { Terminal } from "../cli/terminal.ts";
import { amountOf, chooseTargets, parseList, planBatches, type Target } from "./list.ts";

/** What server-update is going to do, from its flags and the list; nothing is sent yet. */

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

export interface Plan {
  targets: Target[];
  batches: number[];
  maxFailures: number | undefined;
  wait: boolean;
}

/** @throws {UsageError} for a bad flag, and for every bad line of the list */
export async function readPlan(flags: UpdateFlags, terminal: Terminal): Promise<Plan> {
  for (const name of ["jobs", "retries"] as const) {
    const least = name === "jobs" ? 1 : 0;
    if (!Number.isInteger(flags[name]) || flags[name] < least) {
      throw new UsageError(`--${name} must be a whole number of at least ${least}`);
    }
  }
  if (flags.sha !== undefined && !isSha(flags.sha)) {
    throw new UsageError(`--sha: "${flags.sha}" is no full commit id (40 or 64 hex digits)`);
  }
  const list = parseList(await readText(flags.list, "--list"), flags.list);
  for (const line of list.duplicates) terminal.warn(line);
  const targets = chooseTargets(list.targets, flags.group);
  if (targets.length === 0) throw new UsageError(`${flags.list} names no slaves; add one a line`);
  const inSteps = flags.batch.length > 0;
  const most = flags["max-failures"];
  const maxFailures =
    most === undefined
      ? inSteps
        ? 0
        : undefined
      : amountOf(most, targets.length, "--max-failures");
  return {
    targets,
    batches: planBatches(flags.batch, targets.length),
    maxFailures,
    wait: flags.wait || inSteps,
  };
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

/** `--dry-run`: who would be asked, and in which step. */
export function showPlan(
  targets: readonly Target[],
  batches: readonly number[],
  flags: UpdateFlags,
  terminal: Terminal,
): number {
  let start = 0;
  for (const [step, end] of batches.entries()) {
    if (batches.length > 1) terminal.print(`step ${step + 1}: ${end - start} of ${targets.length}`);
    for (const target of targets.slice(start, end)) {
      terminal.print(target.url.href);
      terminal.printJson({ target: target.name, url: target.url.href, step: step + 1 });
    }
    start = end;
  }
  terminal.note(
    `${targets.length} slaves would be asked, at most ${flags.jobs} at once; nothing was sent`,
  );
  return 0;
}
