import { existsSync } from "node:fs";
import { basename, dirname } from "node:path";
import { Busy } from "../core/errors.ts";
import { listParts } from "../log/parts.ts";
import { type RotateOptions, type RotateReport, rotateLog } from "../log/rotate.ts";

// what runs commands is loaded where it is needed: it is a part of the start that one notices
const locks = () => import("../files/lock.ts");

/** The lock of a log: the build's for the logs.txt of a folder that is built, else one beside the log. */
async function lockOf(file: string): Promise<string> {
  const { buildLockOf } = await import("../git/checkout.ts");
  const build = await buildLockOf(dirname(file));
  return basename(file) === "logs.txt" && existsSync(build) ? build : `${file}.lock`;
}

/** Whether somebody writes to a log, or rotates it. */
export async function isHeld(file: string): Promise<boolean> {
  return await (await locks()).isLocked(await lockOf(file));
}

/**
 * Rotate a log, unless somebody has its lock.
 * @returns what was done, or who writes to it: then nothing was.
 */
export async function rotateUnlessHeld(file: string, options: RotateOptions): Promise<RotateReport & { held?: Busy }> {
  const isNothing = !existsSync(file) && listParts(file).length === 0;
  if (options.dryRun || isNothing) return await rotateLog(file, options);
  try {
    const { acquireLock } = await locks();
    const lock = await acquireLock(await lockOf(file), { what: `logs rotate ${file}` });
    return await rotateLog(file, options).finally(() => lock.release());
  } catch (error) {
    if (!(error instanceof Busy)) throw error;
    return { compressed: [], pruned: [], problems: [], held: error };
  }
}
