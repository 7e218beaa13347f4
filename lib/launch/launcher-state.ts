import { messageOf } from "../core/errors.ts";
import { readIfThere, writeAtomic } from "../files/files.ts";
import { Mutex } from "./mutex.ts";

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

export type StateChange = { [Key in keyof LauncherState]?: LauncherState[Key] | undefined };

/** The state file as an object whose changes are on disk when `save` returns. */
export class StateFile {
  value: LauncherState = {};
  readonly #path: string;
  readonly #writes = new Mutex();

  constructor(path: string) {
    this.#path = path;
  }

  /** Read what is there; a damaged file counts as none, since everything in it can be found out again. */
  async load(): Promise<LauncherState> {
    try {
      this.value = JSON.parse((await readIfThere(this.#path)) ?? "{}") as LauncherState;
    } catch {
      this.value = {};
    }
    return this.value;
  }

  /** Change some of it; `undefined` removes a key. */
  async save(change: StateChange): Promise<void> {
    this.value = { ...this.value, ...change } as LauncherState;
    // one write at a time, each of what holds by then: the last one to end is the newest
    await this.#writes.run(() =>
      writeAtomic(this.#path, `${JSON.stringify(this.value, undefined, 2)}\n`, { mode: 0o600 }),
    );
  }

  /** The same, where a full or read-only disk must stop nothing: it is told, and the next save brings it along. */
  async note(change: StateChange, tell: (line: string) => void): Promise<void> {
    try {
      await this.save(change);
    } catch (error) {
      tell(`cannot note that in ${this.#path}: ${messageOf(error)}`);
    }
  }
}
