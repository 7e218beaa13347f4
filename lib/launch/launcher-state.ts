import { writeAtomic, readIfThere } from "../files.ts";

/** What launchfit remembers between its runs, in `.launchfit/launcher.json`; `launchfit status` reads it too. */
export interface LauncherState {
  /** The last look for a new version. */
  lastCheck?: { at: string; result: string; ok: boolean; code?: number };
  /** The last update that was tried. */
  lastUpdate?: { at: string; from: string; to: string; ok: boolean; reason?: string };
  /**
   * Versions that did not hold up, each with the digest of the VERSION file that offered it: they are not
   * tried again until that file changes.
   */
  failed?: Record<string, { reason: string; offer: string }>;
  /** An update that was switched to and has not proved itself yet: undone at the next start if it fails then. */
  pending?: { from: string; to: string; offer: string };
  /** Why the app is not running although it should. */
  stopped?: { at: string; reason: string };
}

/** The state file as an object whose changes are on disk when `save` returns. */
export class StateFile {
  value: LauncherState = {};
  readonly #path: string;

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
  async save(
    change: { [Key in keyof LauncherState]?: LauncherState[Key] | undefined },
  ): Promise<void> {
    this.value = { ...this.value, ...change } as LauncherState;
    await writeAtomic(this.#path, `${JSON.stringify(this.value, undefined, 2)}\n`, { mode: 0o600 });
  }
}
