import { join } from "node:path";
import type { Accepted } from "../web-folder/floors.ts";
import { StateFile } from "./state-file.ts";

/**
 * What a deploy directory remembers of all that was ever accepted in it. It outlives pruning, crashes and an undo:
 * nothing older is taken later, and no version with other bytes.
 */
export interface LaunchState extends Accepted {
  /** Fingerprints of the pinned keys. */
  pin?: string[];
  /** The web folders that were asked last: an edit of launchify.yml cannot drop them without a word. */
  server?: string[];
  /** VERSION's ETag by web folder, as of the last time when nothing was left to do. */
  etags: Record<string, string>;
}

/** The folder of a deploy directory that is launchfit's own. */
type Place = { readonly state: string };

function fileOf({ state }: Place): StateFile<LaunchState> {
  return new StateFile<LaunchState>(
    join(state, "state.json"),
    { floor: {}, versions: {}, etags: {} },
    // to forget the floors would be to drop the guard
    { damaged: "fix it, or remove it to forget what was accepted before" },
  );
}

/** @throws {Failure} when the file cannot be understood. */
export function readState(place: Place): Promise<LaunchState> {
  return fileOf(place).load();
}

/** The same, empty when the file cannot be understood: for what must go on without it. */
export function knownState(place: Place): Promise<LaunchState> {
  return readState(place).catch(() => fileOf(place).value);
}

/** Written in one order of keys, so that the same state is the same file, and is then left alone. */
export async function writeState(place: Place, state: LaunchState): Promise<void> {
  const { app, pin, server, versionSigned, expires, floor, versions, etags } = state;
  const file = fileOf(place);
  file.value = { app, pin, server, versionSigned, expires, floor, versions, etags } as LaunchState;
  await file.save({});
}
