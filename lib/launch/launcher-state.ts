import { join } from "node:path";
import { StateFile } from "./state-file.ts";

/** What launchfit remembers between its runs, in `.launchfit/launcher.json`; `launchfit status` reads it too. */
export interface LauncherState {
  /** The last look for a new version. */
  lastCheck?: { at: string; result: string; ok: boolean; code?: number };
  /** The last update that was tried. */
  lastUpdate?: { at: string; from: string; to: string; ok: boolean; reason?: string };
  /** Versions that failed or were rolled back, which are not taken again. */
  failed?: Record<string, FailedVersion>;
  /** What the web folder offered when it was asked last. */
  offered?: OfferedVersion;
  /** A change of version that is not over: the next launchfit checks its health, and completes or undoes it. */
  pending?: VersionChange;
  /** Set while updates are refused: from the look that was, to the next good one. */
  refused?: boolean;
  /** Set from a version that failed to the next one that holds up. */
  updateFailed?: boolean;
  /** The app was given up, and has not run for a minute since. */
  crashLoop?: { at: string; reason: string };
  /** Why the app is not running although it should. */
  stopped?: { at: string; reason: string };
}

/** A change from one version to another. */
export interface VersionChange {
  from: string;
  to: string;
  /** Asked for by hand: `from` is not to come back with the next check. */
  isRollback?: boolean;
}

/** A version that is offered; `sha256` of its archive, where that is known. */
export interface OfferedVersion {
  version: string;
  sha256?: string | undefined;
}

export interface FailedVersion {
  reason: string;
  /** Of the archive; undefined where nobody remembers it: any archive of that version counts as this one. */
  sha256?: string | undefined;
  /** ISO 8601. */
  at?: string;
}

/** Why a version is not taken again that somebody went back from. */
export const byHand = "rolled back by hand";

/** Only the latest are worth remembering: an older one is tried again when it is offered again, and fails again. */
const maxFailed = 50;

/** The failed versions with one more, the oldest left out where they are many. */
export function withFailed(
  failed: LauncherState["failed"],
  version: string,
  { reason, sha256 }: FailedVersion,
): Record<string, FailedVersion> {
  const { [version]: _, ...others } = failed ?? {};
  const newestFirst = Object.entries(others).sort(([, a], [, b]) =>
    (b.at ?? "") < (a.at ?? "") ? -1 : 1,
  );
  return {
    ...Object.fromEntries(newestFirst.slice(0, maxFailed - 1)),
    [version]: { reason, sha256, at: new Date().toISOString() },
  };
}

/**
 * Why an offered version is not taken, where it failed before. It is the same while its archive is: that VERSION was
 * signed again, or names another version meanwhile, makes nothing better. Pure.
 */
export function failedBefore(
  { failed, pending }: LauncherState,
  { version, sha256 }: OfferedVersion,
): string | undefined {
  if (pending?.isRollback && pending.from === version) return byHand;
  const known = failed?.[version];
  if (known?.sha256 !== undefined && known.sha256 !== sha256) return undefined;
  return known?.reason;
}

export type LauncherStateFile = StateFile<LauncherState>;

/** The file of a deploy directory. A damaged one counts as none, since everything in it can be found out again. */
export async function openLauncherState(stateFolder: string): Promise<LauncherStateFile> {
  const file = new StateFile<LauncherState>(join(stateFolder, "launcher.json"), {});
  await file.load();
  return file;
}
