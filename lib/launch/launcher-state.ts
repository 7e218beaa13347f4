import { join } from "node:path";
import { StateFile } from "./state-file.ts";

/** What launchfit remembers between its runs, in `.launchfit/launcher.json`; `launchfit status` reads it too. */
export interface LauncherState {
  /** The last look for a new version. */
  lastCheck?: { at: string; result: string; ok: boolean; code?: number };
  /** The last update that was tried. */
  lastUpdate?: { at: string; from: string; to: string; ok: boolean; reason?: string };
  /**
   * Versions that failed, each with the digest of the VERSION file that offered it: they are not
   * tried again until that file changes.
   */
  failed?: Record<string, FailedVersion>;
  /** What the web folder offered when it was asked last. */
  offered?: { version: string; id: string };
  /** A change of version whose health is not known yet: checked at the next start, and undone if it is bad. */
  pending?: VersionChange;
  /** Why the app is not running although it should. */
  stopped?: { at: string; reason: string };
}

/** A change from one version to another. */
export interface VersionChange {
  from: string;
  to: string;
  /** The digest of the VERSION file that offers it, as in `failed`. */
  offer: string;
}

export interface FailedVersion {
  reason: string;
  offer: string;
  /** ISO 8601. */
  at?: string;
}

/** Only the latest are worth remembering: an older one is tried again when it is offered again, and fails again. */
const maxFailed = 50;

/** The failed versions with one more, the oldest left out where they are many. */
export function withFailed(
  failed: LauncherState["failed"],
  version: string,
  { reason, offer }: { reason: string; offer: string },
): Record<string, FailedVersion> {
  const { [version]: _, ...others } = failed ?? {};
  const newestFirst = Object.entries(others).sort(([, a], [, b]) =>
    (b.at ?? "") < (a.at ?? "") ? -1 : 1,
  );
  return {
    ...Object.fromEntries(newestFirst.slice(0, maxFailed - 1)),
    [version]: { reason, offer, at: new Date().toISOString() },
  };
}

export type LauncherStateFile = StateFile<LauncherState>;

/** The file of a deploy directory. A damaged one counts as none, since everything in it can be found out again. */
export async function openLauncherState(stateFolder: string): Promise<LauncherStateFile> {
  const file = new StateFile<LauncherState>(join(stateFolder, "launcher.json"), {});
  await file.load();
  return file;
}
