import { join } from "node:path";
import { type Infer, y } from "../config/yaml.ts";
import { StateFile } from "../files/state-file.ts";
import { acceptedKeys } from "../web-folder/rollback-guard.ts";

/** What a deploy directory remembers, in files of `.launchfit/`: state.json and launcher.json. */

/**
 * All that was ever accepted in it. It outlives pruning, crashes and an undo: nothing older is taken later, and no
 * version with other bytes.
 */
const launchState = y.object({
  ...acceptedKeys,
  /** Fingerprints of the pinned keys. */
  pin: y.optional(y.list(y.string())),
  /** The web folders that were asked last: an edit of launchify.yml cannot drop them without a word. */
  server: y.optional(y.list(y.string())),
  /** The address that a signed VERSION named, while launchify.yml says what it said then. */
  moved: y.optional(y.object({ from: y.list(y.string()), to: y.string() })),
  /** VERSION's ETag by web folder, as of the last time when nothing was left to do. */
  etags: y.record(y.string()),
});

export type LaunchState = Infer<typeof launchState>;

/** The folder of a deploy directory that is launchfit's own. */
type Place = { readonly state: string };

const nothing: LaunchState = { floor: {}, versions: {}, etags: {} };

// to forget it would be to drop the rollback guard
const damaged = "fix it, or remove it to forget what was accepted before";
const fileOf = ({ state }: Place) => new StateFile(join(state, "state.json"), launchState, { mode: 0o600, damaged });

/** @throws {Failure} when the file cannot be understood. */
export async function readState(place: Place): Promise<LaunchState> {
  return (await fileOf(place).read()) ?? nothing;
}

/** The same, empty when the file cannot be understood: for what must go on without it. */
export function knownState(place: Place): Promise<LaunchState> {
  return readState(place).catch(() => nothing);
}

export async function writeState(place: Place, state: LaunchState): Promise<void> {
  await fileOf(place).write(state);
}

/** A change from one version to another. */
const versionChange = y.object({
  from: y.string(),
  to: y.string(),
  /** Asked for by hand: `from` is not to come back with the next check. */
  isRollback: y.optional(y.boolean()),
  /** Made where no launchfit runs the app: there is no health to check. */
  isOffline: y.optional(y.boolean()),
});

const failedVersion = y.object({
  reason: y.string(),
  /** Of the archive; undefined where nobody remembers it: any archive of that version counts as this one. */
  sha256: y.optional(y.string()),
  /** ISO 8601. */
  at: y.optional(y.string()),
});

/** A version that is offered; `sha256` of its archive, where that is known. */
const offeredVersion = y.object({ version: y.string(), sha256: y.optional(y.string()) });

const timedReason = y.object({ at: y.string(), reason: y.string() });

/** What launchfit remembers between its runs, in `.launchfit/launcher.json`; `launchfit status` reads it too. */
const launcherState = y.object({
  /** The last look for a new version. */
  lastCheck: y.optional(
    y.object({ at: y.string(), result: y.string(), ok: y.boolean(), code: y.optional(y.number()) }),
  ),
  /** The last update that came to a verdict. */
  lastUpdate: y.optional(
    y.object({ at: y.string(), from: y.string(), to: y.string(), ok: y.boolean(), reason: y.optional(y.string()) }),
  ),
  /** Versions that failed or were rolled back, which are not taken again. */
  failed: y.optional(y.record(failedVersion)),
  /** What the web folder offered when it was asked last. */
  offered: y.optional(offeredVersion),
  /** A change of version without a verdict: the next launchfit checks its health, and completes or undoes it. */
  pending: y.optional(versionChange),
  /** Set while updates are refused: from the look that was, to the next good one. */
  refused: y.optional(y.boolean()),
  /** Set from a version that failed to the next one that holds up. */
  updateFailed: y.optional(y.boolean()),
  /** The app was given up, and has not run for a minute since. */
  crashLoop: y.optional(timedReason),
  /** Why the app is not running although it should. */
  stopped: y.optional(timedReason),
});

export type LauncherState = Infer<typeof launcherState>;
export type VersionChange = Infer<typeof versionChange>;

/** The file of a deploy directory. A damaged one counts as none, since everything in it can be found out again. */
export function launcherFile({ state }: Place): StateFile<LauncherState> {
  return new StateFile(join(state, "launcher.json"), launcherState, { mode: 0o600 });
}

/** Why a version is not taken again that somebody went back from. */
export const byHand = "rolled back by hand";

/** Only the latest are worth remembering: an older one is tried again when it is offered again, and fails again. */
const maxFailed = 50;

/** The failed versions with one more, the oldest left out where they are many. */
export function withFailed(
  failed: LauncherState["failed"],
  version: string,
  entry: Infer<typeof failedVersion>,
): Record<string, typeof entry> {
  const { [version]: _, ...others } = failed ?? {};
  const newest = Object.entries(others).sort(([, a], [, b]) => ((b.at ?? "") < (a.at ?? "") ? -1 : 1));
  return { ...Object.fromEntries(newest.slice(0, maxFailed - 1)), [version]: entry };
}

/** Why an offered version is not taken, where it failed before: it is the same while its archive is. Pure. */
export function failedBefore(
  { failed, pending }: LauncherState,
  { version, sha256 }: Infer<typeof offeredVersion>,
): string | undefined {
  if (pending?.isRollback && pending.from === version) return byHand;
  const known = failed?.[version];
  if (known?.sha256 !== undefined && known.sha256 !== sha256) return undefined;
  return known?.reason;
}
