import { exitCodeOf, Failure, messageOf, UsageError } from "../core/errors.ts";
import type { AppKeeper } from "./app-keeper.ts";
import type { AppSettings } from "./config.ts";
import { findUpdate, type Update } from "./find-update.ts";
import { awaitHealth } from "./health.ts";
import { appEnvironment, ReleaseFailed, runHook } from "./hooks.ts";
import { addRelease, recordDone } from "./install.ts";
import { type StateFile, type VersionChange, withFailed } from "./launcher-state.ts";
import { Mutex } from "./mutex.ts";
import type { Releases } from "./releases.ts";
import { type InstallOptions, openSession, type Session } from "./session.ts";

export interface UpdaterOptions {
  releases: Releases;
  /** How releases are taken from the web folder. */
  install: InstallOptions;
  state: StateFile;
  log: (line: string) => void;
  /** Aborted when launchfit ends: a download under way stops. */
  signal: AbortSignal;
  /** Ends, switches and starts of the app, one at a time; default: the updater's own. */
  changes?: Mutex;
}

export interface CheckResult {
  version: string;
  /** In words. */
  result: string;
  updated: boolean;
}

/** Milliseconds for which an update that answered its health check may still end and be undone. */
const trialPeriod = 10_000;

/**
 * Brings new versions in beside the running app, and changes from one version to another:
 *
 *     fetched    the release is verified and in releases/, its hooks ran; a failure leaves the app as it is
 *     pending    recorded in the state file; the app is ended, `current` switched, the new app started, its health awaited
 *     on trial   it is healthy; for `trialPeriod` its end still undoes the change
 *     accepted   older releases are pruned
 *     undone     (from pending or on trial) the version before runs again; the new one is not tried again until VERSION changes
 *
 * Without a keeper (`check --once`) nothing runs, and a change is accepted at once.
 */
export class Updater {
  readonly #options: UpdaterOptions;
  readonly #keeper: AppKeeper | undefined;
  readonly #changes: Mutex;
  #trialEnd: NodeJS.Timeout | undefined;
  /** The version that an update is bringing in: not to be pruned although nothing names it yet. */
  #incoming: string | undefined;

  constructor(options: UpdaterOptions, keeper?: AppKeeper) {
    this.#options = options;
    this.#keeper = keeper;
    this.#changes = options.changes ?? new Mutex();
  }

  /** Look for a new version and change to it. A refusal or failure is recorded and thrown. */
  async check(): Promise<CheckResult> {
    const { state, log } = this.#options;
    const at = now();
    try {
      const checked = await this.#update();
      await state.note({ lastCheck: { at, result: checked.result, ok: true } }, log);
      return checked;
    } catch (error) {
      const code = exitCodeOf(error) ?? 1;
      await state.note({ lastCheck: { at, result: messageOf(error), ok: false, code } }, log);
      throw error;
    }
  }

  async #update(): Promise<CheckResult> {
    const { releases, state, log } = this.#options;
    const before = (await releases.current()) ?? "nothing";
    const session = await this.#openSession();
    try {
      const update = await findUpdate(session, { conditional: true });
      const { version, id } = update;
      if (update.kind === "current") await recordDone(session, update);
      if (update.kind !== "new") return { version: before, result: "up to date", updated: false };
      const failed = state.value.failed?.[version];
      if (failed?.offer === id) {
        const result = `${version} is not tried again: ${failed.reason}`;
        return { version: before, result, updated: false };
      }
      log(`update ${before} → ${version}`);
      const from = await this.#bringIn(session, update, before);
      return { version, result: `updated ${from} → ${version}`, updated: true };
    } finally {
      session.close();
    }
  }

  /** Fetch a new version and change to it. The version that it replaced: `before`, unless that was undone meanwhile. */
  async #bringIn(session: Session, update: Update, before: string): Promise<string> {
    const { releases, state, log, signal } = this.#options;
    const at = now();
    const { version: to, id } = update;
    this.#incoming = to;
    try {
      await addRelease(session, update);
      // others need not wait for the hooks and the app
      session.close();
      const settings = await releases.settings(to);
      const folder = await releases.folderOf(to);
      const hook = { version: to, releaseDir: folder, previous: before, log, signal };
      await runHook("before_symlink", settings, { ...hook, cwd: folder });
      await runHook("before_restart", settings, { ...hook, cwd: releases.deploy.path });
      return await this.#changeTo(to, settings, id);
    } catch (error) {
      const reason = messageOf(error);
      const lastUpdate = { at, from: before, to, ok: false, reason };
      // what the network or the disk did is tried again; what the release did is not
      const failed =
        error instanceof ReleaseFailed
          ? { failed: withFailed(state.value.failed, to, { reason, offer: id }) }
          : {};
      await state.note({ lastUpdate, ...failed }, log);
      throw error;
    } finally {
      this.#incoming = undefined;
    }
  }

  /** Go to a version that is installed: the one before, or the one named. */
  async rollback(version?: string): Promise<{ version: string; result: string }> {
    const { releases, state, log } = this.#options;
    const from = await releases.current();
    const installed = await releases.installed();
    const older = installed.slice(installed.indexOf(from ?? "") + 1);
    const to = version ?? older.find((each) => !state.value.failed?.[each]);
    if (!from || !to) throw new Failure("there is no older version to go back to");
    if (!installed.includes(to))
      throw new UsageError(`version ${to} is not installed; installed are ${installed.join(", ")}`);
    if (to === from) throw new UsageError(`version ${to} is the current one`);
    log(`rollback ${from} → ${to}`);
    const offer = await this.#offered();
    await this.#changeTo(to, await releases.settings(to), offer);
    // what was rolled back must not come back with the next check
    const failed = withFailed(state.value.failed, from, { reason: "rolled back by hand", offer });
    await state.note({ failed }, log);
    return { version: to, result: `rolled back ${from} → ${to}` };
  }

  /** What is offered now, as the state file has it; empty when that cannot be found out. */
  async #offered(): Promise<string> {
    try {
      const session = await this.#openSession();
      try {
        return (await findUpdate(session)).id;
      } finally {
        session.close();
      }
    } catch {
      return "";
    }
  }

  /** A change that the end of launchfit interrupted: check the new version's health now, and undo it if that is bad. */
  async resumePending(): Promise<void> {
    const { releases, state, log } = this.#options;
    const { pending } = state.value;
    if (!pending) return;
    if ((await releases.current()) !== pending.to) return state.note({ pending: undefined }, log);
    log(`the update to ${pending.to} was interrupted: checking its health`);
    if (this.#keeper) this.#keeper.onUnexpectedEnd = () => {};
    const wrong = await this.#checkHealth(pending.to, await releases.settings(pending.to));
    if (this.#options.signal.aborted) return;
    if (wrong !== undefined) return this.#undo(pending, wrong);
    this.#startTrial(pending);
    await state.note({ pending: undefined }, log);
  }

  /** Change to a version that is in releases/. The version that it replaced. */
  #changeTo(to: string, settings: AppSettings, offer: string): Promise<string> {
    return this.#changes.run(async () => {
      // asked only now: the version of a moment ago may have been undone meanwhile
      const from = (await this.#options.releases.current()) ?? "nothing";
      if (from !== to) await this.#change({ from, to, offer }, settings);
      return from;
    });
  }

  async #change(change: VersionChange, settings: AppSettings): Promise<void> {
    const { releases, state, log, signal } = this.#options;
    const { from, to } = change;
    const keeper = this.#keeper;
    clearTimeout(this.#trialEnd);
    // recorded before the switch: whenever launchfit is killed, the next one knows what to check
    if (keeper) await state.save({ pending: change });
    await keeper?.stop();
    // until its health is known, its end undoes the change and is not a reason to start it again
    if (keeper) keeper.onUnexpectedEnd = () => {};
    const wrong = await this.#switchAndStart(change, settings).catch(messageOf);
    if (wrong !== undefined) {
      if (signal.aborted)
        throw new Failure(`launchfit is ending; its next start checks the health of ${to}`);
      await this.#undo(change, wrong);
      throw new ReleaseFailed(`${to} did not hold up: ${wrong}; ${from} runs again`);
    }
    this.#startTrial(change);
    const lastUpdate = { at: now(), from, to, ok: true };
    await state.note(
      { lastUpdate, ...(keeper && { pending: undefined, stopped: undefined }) },
      log,
    );
    // what an undo may need stays until the trial is over
    await releases.prune(keeper ? [from, to] : [to]).catch(this.#tell);
  }

  /** What is wrong with the new version, if anything; or it is thrown. */
  async #switchAndStart(
    { from, to }: VersionChange,
    settings: AppSettings,
  ): Promise<string | undefined> {
    const { releases, log, signal } = this.#options;
    const keeper = this.#keeper;
    await releases.activate(to);
    await keeper?.start({ version: to, settings });
    const wrong = await this.#checkHealth(to, settings);
    if (wrong !== undefined) return wrong;
    const cwd = releases.deploy.current;
    const hook = { version: to, releaseDir: cwd, previous: from, cwd, log, signal };
    await runHook("after_restart", settings, hook);
    // it may have ended while the hook ran
    return keeper && !keeper.app ? `it ended with ${keeper.lastEnd}` : undefined;
  }

  /** Undefined when the app is healthy, else what is wrong. */
  async #checkHealth(version: string, settings: AppSettings): Promise<string | undefined> {
    const { signal, releases } = this.#options;
    if (!this.#keeper) return undefined;
    const { app, lastEnd } = this.#keeper;
    if (!app) return `it ended with ${lastEnd ?? "its start"}`;
    const cwd = releases.deploy.current;
    const env = appEnvironment({ version, releaseDir: cwd }, settings.env);
    return awaitHealth(settings.health, { gone: app.ended, cwd, env, signal });
  }

  #startTrial(change: VersionChange): void {
    const keeper = this.#keeper;
    if (!keeper) return;
    const { releases, log } = this.#options;
    keeper.onUnexpectedEnd = (how) => {
      clearTimeout(this.#trialEnd);
      keeper.onUnexpectedEnd = undefined;
      this.#failTrial(change, `it ended with ${how} soon after its start`).catch((error: unknown) =>
        log(`cannot undo the update: ${messageOf(error)}`),
      );
    };
    this.#trialEnd = setTimeout(() => {
      keeper.onUnexpectedEnd = undefined;
      const needed = this.#incoming === undefined ? [change.to] : [change.to, this.#incoming];
      releases.prune(needed).catch(this.#tell);
    }, trialPeriod);
    this.#trialEnd.unref();
  }

  #failTrial(change: VersionChange, reason: string): Promise<void> {
    const { releases, state, log } = this.#options;
    const { from, to } = change;
    return this.#changes.run(async () => {
      // a rollback or the next version may have come first
      if ((await releases.current()) !== to) return;
      await this.#undo(change, reason);
      await state.note({ lastUpdate: { at: now(), from, to, ok: false, reason } }, log);
    });
  }

  async #undo({ from, to, offer }: VersionChange, reason: string): Promise<void> {
    const { releases, state, log } = this.#options;
    log(`${to} did not hold up: ${reason}; going back to ${from}`);
    if (this.#keeper) this.#keeper.onUnexpectedEnd = undefined;
    await this.#keeper?.stop();
    await releases.activate(from);
    const failed = withFailed(state.value.failed, to, { reason, offer });
    await state.note({ failed, pending: undefined }, log);
    await this.#keeper?.start();
  }

  async #openSession(): Promise<Session> {
    const { releases, install } = this.#options;
    return openSession(releases.deploy, await releases.config(), "launchfit check", install);
  }

  readonly #tell = (error: unknown) => this.#options.log(messageOf(error));
}

function now(): string {
  return new Date().toISOString();
}
