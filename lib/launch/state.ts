import { truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { Failure, messageOf, systemCode } from "../core/errors.ts";
import { Mutex } from "../core/mutex.ts";
import { readIfThere, writeAtomic } from "../files/files.ts";
import type { Accepted } from "../web-folder/rollback-guard.ts";

/** What a deploy directory remembers, in files of `.launchfit/`. */

export interface StateFileOptions {
  /** A damaged file is an error with this advice; without it, such a file counts as none. */
  damaged?: string;
  /** false: no fsync, for what a power cut makes void anyway. */
  durable?: boolean;
}

/**
 * A file of `.launchfit/` as an object, JSON on the disk: state.json (what was accepted), launcher.json (what launchfit
 * did and plans), app.json (the app that runs). Changes are on the disk when `save` returns.
 */
export class StateFile<T extends object> {
  value: T;
  /** Told of each change before it is written: what is to follow from it is lost by no crash, and may be told twice. */
  onChange: ((before: T, after: T) => Promise<void>) | undefined;
  readonly #path: string;
  readonly #empty: T;
  readonly #options: StateFileOptions;
  readonly #writes = new Mutex();

  constructor(path: string, empty: T, options: StateFileOptions = {}) {
    this.#path = path;
    this.value = this.#empty = empty;
    this.#options = options;
  }

  /**
   * Read what is there.
   * @throws {Failure} when the file is damaged and that must not be passed over.
   */
  async load(): Promise<T> {
    const { damaged } = this.#options;
    try {
      const text = (await readIfThere(this.#path)) ?? "{}";
      this.value = { ...this.#empty, ...(JSON.parse(text) as T) };
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      if (damaged !== undefined) throw new Failure(`${this.#path} is not JSON; ${damaged}`);
      this.value = this.#empty;
    }
    return this.value;
  }

  /** Change some of it for now; the next `save` brings it to the disk. */
  set(change: Partial<T>): void {
    this.value = { ...this.value, ...change };
  }

  /** Change some of it; `undefined` removes a key. The same content is not written again. */
  async save(change: { [Key in keyof T]?: T[Key] | undefined }): Promise<void> {
    const before = this.value;
    const after = { ...before, ...change } as T;
    this.value = after;
    await this.onChange?.(before, after);
    // one write at a time, each of what holds by then: the last one to end is the newest
    await this.#writes.run(async () => {
      const text = `${JSON.stringify(this.value, undefined, 2)}\n`;
      if (text !== (await readIfThere(this.#path).catch(() => undefined))) await this.write(text);
    });
  }

  /** The same, where a full or read-only disk must stop nothing: it is told, and the next save brings it along. */
  async note(change: { [Key in keyof T]?: T[Key] | undefined }, tell: (line: string) => void): Promise<void> {
    try {
      await this.save(change);
    } catch (error) {
      tell(`cannot note that in ${this.#path}: ${messageOf(error)}`);
    }
  }

  private async write(text: string): Promise<void> {
    const { durable = true } = this.#options;
    try {
      await writeAtomic(this.#path, text, { mode: 0o600, durable });
    } catch (error) {
      if (durable || systemCode(error) !== "ENOSPC") throw error;
      // a full disk must not keep the app from running: the old file has room for the new text
      writeFileSync(this.#path, text, { flag: "r+" });
      truncateSync(this.#path, Buffer.byteLength(text));
    }
  }
}

/**
 * What a deploy directory remembers of all that was ever accepted in it. It outlives pruning, crashes and an undo:
 * nothing older is taken later, and no version with other bytes.
 */
export interface LaunchState extends Accepted {
  /** Fingerprints of the pinned keys. */
  pin?: string[];
  /** The web folders that were asked last: an edit of launchify.yml cannot drop them without a word. */
  server?: string[];
  /** The address that a signed VERSION named, while launchify.yml says what it said then. */
  moved?: { from: string[]; to: string };
  /** VERSION's ETag by web folder, as of the last time when nothing was left to do. */
  etags: Record<string, string>;
}

/** The folder of a deploy directory that is launchfit's own. */
type Place = { readonly state: string };

function fileOf({ state }: Place): StateFile<LaunchState> {
  return new StateFile<LaunchState>(
    join(state, "state.json"),
    { floor: {}, versions: {}, etags: {} },
    // to forget it would be to drop the rollback guard
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
  const { app, pin, server, moved, versionSigned, expires, floor, versions, etags } = state;
  const file = fileOf(place);
  file.value = { app, pin, server, moved, versionSigned, expires, floor, versions, etags } as LaunchState;
  await file.save({});
}

/** What launchfit remembers between its runs, in `.launchfit/launcher.json`; `launchfit status` reads it too. */
export interface LauncherState {
  /** The last look for a new version. */
  lastCheck?: { at: string; result: string; ok: boolean; code?: number } | undefined;
  /** The last update that came to a verdict. */
  lastUpdate?: { at: string; from: string; to: string; ok: boolean; reason?: string } | undefined;
  /** Versions that failed or were rolled back, which are not taken again. */
  failed?: Record<string, FailedVersion> | undefined;
  /** What the web folder offered when it was asked last. */
  offered?: OfferedVersion | undefined;
  /** A change of version without a verdict: the next launchfit checks its health, and completes or undoes it. */
  pending?: VersionChange | undefined;
  /** Set while updates are refused: from the look that was, to the next good one. */
  refused?: boolean | undefined;
  /** Set from a version that failed to the next one that holds up. */
  updateFailed?: boolean | undefined;
  /** The app was given up, and has not run for a minute since. */
  crashLoop?: { at: string; reason: string } | undefined;
  /** Why the app is not running although it should. */
  stopped?: { at: string; reason: string } | undefined;
}

/** A change from one version to another. */
export interface VersionChange {
  from: string;
  to: string;
  /** Asked for by hand: `from` is not to come back with the next check. */
  isRollback?: boolean;
  /** Made where no launchfit runs the app: there is no health to check. */
  isOffline?: boolean;
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
  entry: FailedVersion,
): Record<string, FailedVersion> {
  const { [version]: _, ...others } = failed ?? {};
  const newest = Object.entries(others).sort(([, a], [, b]) => ((b.at ?? "") < (a.at ?? "") ? -1 : 1));
  return { ...Object.fromEntries(newest.slice(0, maxFailed - 1)), [version]: entry };
}

/** Why an offered version is not taken, where it failed before: it is the same while its archive is. Pure. */
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
