import { exitCodeOf, Failure, messageOf, UsageError } from "../core/errors.ts";
import { findUpdate, type Update } from "./find-update.ts";
import { ReleaseFailed, runHook } from "./run-release.ts";
import { addRelease, recordDone } from "./install.ts";
import { failedBefore, type VersionChange, withFailed } from "./state.ts";
import { type InstallOptions, openSession, type Session } from "./session.ts";
import { type ChangeParts, Trial } from "./trial.ts";

export interface CheckResult {
  version: string;
  /** In words. */
  result: string;
  updated: boolean;
}

/**
 * Brings new versions in beside the running app: fetched and verified into releases/, its first hooks run; a failure so
 * far leaves the app as it is. Then a Trial changes to it. Without a keeper (`check --once`) nothing runs.
 */
export class Updater {
  readonly #parts: ChangeParts;
  readonly #install: InstallOptions;
  #trial: Trial | undefined;
  /** The version that is being brought in. */
  #incoming: string | undefined;

  /** @param install how releases are taken from the web folder. */
  constructor(parts: ChangeParts, install: InstallOptions) {
    this.#parts = parts;
    this.#install = install;
  }

  /** Look for a new version and change to it. A refusal or failure is recorded and thrown. */
  async check(): Promise<CheckResult> {
    const { state, log } = this.#parts;
    const at = new Date().toISOString();
    try {
      const checked = await this.update();
      const lastCheck = { at, result: checked.result, ok: true };
      await state.note({ lastCheck, refused: undefined }, log);
      return checked;
    } catch (error) {
      const code = exitCodeOf(error) ?? 1;
      const lastCheck = { at, result: messageOf(error), ok: false, code };
      await state.note({ lastCheck, ...(code === 4 ? { refused: true } : {}) }, log);
      throw error;
    }
  }

  private async update(): Promise<CheckResult> {
    const { releases, state, log } = this.#parts;
    const before = (await releases.current()) ?? "nothing";
    const config = await releases.config();
    const session = await openSession(releases.deploy, config, "launchfit check", this.#install);
    try {
      const update = await this.look(session, before);
      const { version } = update;
      if (update.kind === "current") await recordDone(session, update);
      if (update.kind !== "new") return { version: before, result: "up to date", updated: false };
      const reason = failedBefore(state.value, update);
      if (reason !== undefined) {
        const result = `${version} is not tried again: ${reason}`;
        return { version: before, result, updated: false };
      }
      log(`update ${before} → ${version}`);
      const from = await this.bringIn(session, update, before);
      return { version, result: `updated ${from} → ${version}`, updated: true };
    } finally {
      session.close();
    }
  }

  /** What is offered now. That VERSION is as it was tells enough only while the version it names is current. */
  private async look(session: Session, current: string): Promise<Update> {
    const { state } = this.#parts;
    const { offered } = state.value;
    const update = await findUpdate(session, { conditional: offered?.version === current });
    const { kind, version, sha256 } = update;
    // whatever comes of it is saved soon
    if (kind !== "unchanged") state.set({ offered: { version, sha256 } });
    return update;
  }

  /** Fetch a new version and change to it. The version that it replaced: `before`, unless that was undone meanwhile. */
  private async bringIn(session: Session, update: Update, before: string): Promise<string> {
    this.#incoming = update.version;
    try {
      await this.prepare(session, update, before);
      return await this.changeTo(update.version);
    } finally {
      this.#incoming = undefined;
    }
  }

  /** What is done beside the running app: after a failure it runs on. */
  private async prepare(session: Session, update: Update, before: string): Promise<void> {
    const { releases, keeper, state, log, signal } = this.#parts;
    const at = new Date().toISOString();
    const { version: to } = update;
    try {
      await addRelease(session, update);
      // others need not wait for the hooks and the app
      session.close();
      // nothing is touched for a version that could not be started
      const settings = await releases.settings(to, { toRun: keeper !== undefined });
      const folder = await releases.folderOf(to);
      const hook = { version: to, releaseDir: folder, previous: before, log, signal };
      await runHook("before_symlink", settings, { ...hook, cwd: folder });
      await runHook("before_restart", settings, { ...hook, cwd: releases.deploy.path });
    } catch (error) {
      const reason = messageOf(error);
      const lastUpdate = { at, from: before, to, ok: false, reason };
      // what the network or the disk did is tried again; what the release did is not
      const failed =
        error instanceof ReleaseFailed ? { failed: await this.withFailed(to, reason), updateFailed: true } : {};
      await state.note({ lastUpdate, ...failed }, log);
      throw error;
    }
  }

  /** Go to a version that is installed: the one before, or the one named. No server is needed for that. */
  async rollback(version?: string): Promise<{ version: string; result: string }> {
    const { releases, state, log } = this.#parts;
    const from = await releases.current();
    const installed = await releases.installed();
    const older = installed.slice(installed.indexOf(from ?? "") + 1);
    const { failed = {} } = state.value;
    const to = version ?? older.find((each) => !failed[each]);
    const known = older.flatMap((each) => (failed[each] ? `${each}: ${failed[each].reason}` : []));
    if (!from || !to)
      throw new Failure(
        known.length === 0
          ? "there is no older version to go back to"
          : `no older version is known to be good (${known.join("; ")}); name one: launchfit rollback VERSION`,
      );
    if (!installed.includes(to))
      throw new UsageError(`version ${to} is not installed; installed are ${installed.join(", ")}`);
    if (to === from) throw new UsageError(`version ${to} is the current one`);
    log(`rollback ${from} → ${to}`);
    await this.changeTo(to, { isRollback: true });
    return { version: to, result: `rolled back ${from} → ${to}` };
  }

  private async withFailed(version: string, reason: string) {
    const { releases, state } = this.#parts;
    const sha256 = await releases.sha256Of(version);
    return withFailed(state.value.failed, version, { reason, sha256 });
  }

  /**
   * Go on after the launchfit before: take over its app, or start it. A change of version that its end interrupted is
   * completed, or undone; without a keeper only one that had none either, since the health of another must be checked.
   */
  async resume(): Promise<void> {
    const { releases, keeper, state, log, changes } = this.#parts;
    await changes.run(async () => {
      const { pending } = state.value;
      const isSwitched = pending?.to === (await releases.current());
      if (pending && !isSwitched) await state.note({ pending: undefined }, log);
      if (!pending || !isSwitched) return await keeper?.takeOverOrStart();
      if (!keeper && !pending.isOffline) return;
      this.#trial = this.newTrial(pending);
      await this.#trial.resume();
    });
  }

  /** Change to a version that is in releases/. The version that it replaced. */
  private changeTo(to: string, { isRollback = false } = {}): Promise<string> {
    const { releases, keeper, changes } = this.#parts;
    return changes.run(async () => {
      // asked only now: the version of a moment ago may have been undone meanwhile
      const from = (await releases.current()) ?? "nothing";
      if (from === to) return from;
      this.#trial?.close();
      const kind = { ...(isRollback && { isRollback }), ...(!keeper && { isOffline: true }) };
      this.#trial = this.newTrial({ from, to, ...kind });
      await this.#trial.run();
      return from;
    });
  }

  private newTrial(change: VersionChange): Trial {
    return new Trial(change, this.#parts, () => this.#incoming);
  }
}
