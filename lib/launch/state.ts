import { join } from "node:path";
import { Failure } from "../core/errors.ts";
import { readIfThere, writeAtomic } from "../files/files.ts";
import type { Accepted } from "../web-folder/floors.ts";
import type { DeployDirectory } from "./deploy-directory.ts";

/**
 * What a deploy directory remembers of all that was ever accepted in it. It outlives pruning, crashes and an undo:
 * nothing older is taken later, and no version with other bytes.
 */
export interface LaunchState extends Accepted {
  /** Fingerprints of the pinned keys. */
  pin?: string[];
  /** VERSION's ETag by web folder, as of the last time when nothing was left to do. */
  etags: Record<string, string>;
}

function fileOf(deploy: DeployDirectory): string {
  return join(deploy.state, "state.json");
}

/** @throws {Failure} when the file cannot be understood: to forget the floors would be to drop the guard. */
export async function readState(deploy: DeployDirectory): Promise<LaunchState> {
  const text = await readIfThere(fileOf(deploy));
  if (text === undefined) return { floor: {}, versions: {}, etags: {} };
  try {
    const { floor, versions, etags, ...rest } = JSON.parse(text) as LaunchState;
    return { ...rest, floor: floor ?? {}, versions: versions ?? {}, etags: etags ?? {} };
  } catch {
    throw new Failure(
      `${fileOf(deploy)} is not JSON; fix it, or remove it to forget what was accepted before`,
    );
  }
}

/** Written in one order of keys, so that the same state is the same file, and is then left alone. */
export async function writeState(deploy: DeployDirectory, state: LaunchState): Promise<void> {
  const { app, pin, versionSigned, expires, floor, versions, etags } = state;
  const ordered = { app, pin, versionSigned, expires, floor, versions, etags };
  const text = `${JSON.stringify(ordered, null, 2)}\n`;
  if (text !== (await readIfThere(fileOf(deploy))))
    await writeAtomic(fileOf(deploy), text, { mode: 0o600 });
}
