import { Failure, messageOf } from "../core/errors.ts";
import type { AppKeeper } from "./app-keeper.ts";
import type { AppSettings } from "./config.ts";
import { awaitHealth } from "./health.ts";
import { appEnvironment, ReleaseFailed, runHook } from "./run-release.ts";
import { byHand, type LauncherStateFile, type VersionChange, withFailed } from "./state.ts";
import type { Mutex } from "../core/mutex.ts";
import { awaitHealthBeside } from "./overlap.ts";
import type { Releases } from "./releases.ts";

/** What changes of the version work with. */
export interface ChangeParts {
  releases: Releases;
  /** Without one (`check --once`) nothing runs, and a switch is all. */
  keeper: AppKeeper | undefined;
  state: LauncherStateFile;
  log: (line: string) => void;
  /** Aborted when launchfit ends. */
  signal: AbortSignal;
  /** Ends, switches and starts of the app, one at a time. */
  changes: Mutex;
}

/** Milliseconds for which a version that was checked may still end and be undone. */
const trialPeriod = 10_000;

/**
 * One change from a version to another, which are both in releases/:
 *
 *     switching      recorded as pending; `current` is switched, the new version started
 *     checked        it is healthy, and the hook after_restart was content; nothing is pending any more
 *     trial period   its end still undoes the change
 *     settled        older releases are pruned
 *
 * From each of them but the last it fails in one way: the version before is current and runs again, and the new one is
 * remembered as failed.
 */
export class Trial {
  readonly #change: VersionChange;
  readonly #parts: ChangeParts;
  readonly #incoming: () => string | undefined;
  #period: NodeJS.Timeout | undefined;

  /** @param incoming the version that the next update brings in: not to be pruned although nothing names it yet. */
  constructor(change: VersionChange, parts: ChangeParts, incoming: () => string | undefined) {
    this.#change = change;
    this.#parts = parts;
    this.#incoming = incoming;
  }

  /**
   * Change to the new version and check it. Called with `changes` held.
   * @throws {ReleaseFailed} when it failed; the version before runs again.
   * @throws {Failure} when launchfit ends meanwhile; its next start goes on.
   */
  async run(): Promise<void> {
    const { state, keeper, signal } = this.#parts;
    const { from, to } = this.#change;
    // recorded before the switch: whenever launchfit is killed, the next one knows what to check
    await state.save({ pending: this.#change });
    const wrong = await this.switch().then(() => undefined, messageOf);
    if (wrong === undefined) return await this.passed();
    if (signal.aborted) throw new Failure(`launchfit is ending; its next start checks the health of ${to}`);
    await this.fail(wrong);
    const again = keeper && !keeper.app ? "is started again" : "runs again";
    throw new ReleaseFailed(`${to} did not hold up: ${wrong}; ${from} ${again}`);
  }

  /** Go on where a launchfit that was killed had switched already. Its app runs on, or is started. */
  async resume(): Promise<void> {
    const { log, signal } = this.#parts;
    log(`the update to ${this.#change.to} was interrupted: checking its health`);
    const wrong = await this.checkResumed().then(() => undefined, messageOf);
    if (wrong === undefined) await this.passed();
    else if (!signal.aborted) await this.fail(wrong);
  }

  /** Another change follows: what comes of this one is its matter now. */
  close(): void {
    clearTimeout(this.#period);
  }

  private async switch(): Promise<void> {
    const { releases, keeper } = this.#parts;
    const { to } = this.#change;
    const settings = await releases.settings(to, { toRun: keeper !== undefined });
    if (keeper) {
      // until its health is known, its end undoes the change and is not a reason to start it again
      keeper.onUnexpectedEnd = () => {};
      if (!(settings.overlap && (await this.overlap(keeper, settings)))) await this.replace(keeper, settings);
    } else {
      await releases.activate(to);
    }
    await this.confirm(settings);
  }

  private async checkResumed(): Promise<void> {
    const { releases, keeper } = this.#parts;
    const settings = await releases.settings(this.#change.to, { toRun: keeper !== undefined });
    if (keeper) {
      keeper.onUnexpectedEnd = () => {};
      await keeper.takeOverOrStart();
      await this.check(settings);
    }
    await this.confirm(settings);
  }

  /** The last word is the release's own, by its hook. */
  private async confirm(settings: AppSettings): Promise<void> {
    const { releases, keeper, log, signal } = this.#parts;
    const { from, to } = this.#change;
    const cwd = releases.deploy.current;
    const hook = { version: to, releaseDir: cwd, previous: from, cwd, log, signal };
    await runHook("after_restart", settings, hook);
    // it may have ended while the hook ran
    if (keeper && !keeper.app) throw new ReleaseFailed(`it ended with ${keeper.lastEnd}`);
  }

  /** The old version ends, the new one is started. */
  private async replace(keeper: AppKeeper, settings: AppSettings): Promise<void> {
    const { to } = this.#change;
    await keeper.stop();
    await this.#parts.releases.activate(to);
    await keeper.start({ version: to, settings });
    await this.check(settings);
  }

  /**
   * The new version is started beside the old one, on the same socket, and when it is healthy the old one ends. False:
   * it cannot be done, and the old one serves as before.
   */
  private async overlap(keeper: AppKeeper, settings: AppSettings): Promise<boolean> {
    const { releases, log, signal } = this.#parts;
    const { from, to } = this.#change;
    const instead = (why: string) => {
      log(`${to} cannot run beside ${from}: ${why}; ${from} is ended first`);
      return false;
    };
    const obstacle = keeper.obstacleTo(settings);
    if (obstacle !== undefined) return instead(obstacle);
    const next = await keeper.startBeside({ version: to, settings });
    const wrong = await awaitHealthBeside(settings.health, next, signal);
    if (wrong) {
      await keeper.endBeside(next, settings);
      if (wrong.canReplace && !signal.aborted) return instead(wrong.reason);
      throw new ReleaseFailed(wrong.reason);
    }
    await releases.activate(to);
    await keeper.handOver(next);
    return true;
  }

  /** @throws {ReleaseFailed} when the app is not healthy in time. */
  private async check({ health, env }: AppSettings): Promise<void> {
    const { keeper, releases, signal } = this.#parts;
    if (!keeper) return;
    const { app, lastEnd } = keeper;
    if (!app) throw new ReleaseFailed(`it ended with ${lastEnd ?? "its start"}`);
    const cwd = releases.deploy.current;
    const variables = { version: this.#change.to, releaseDir: cwd };
    const wrong = await awaitHealth(health, {
      gone: app.ended,
      cwd,
      env: appEnvironment(variables, env),
      signal,
    });
    if (wrong !== undefined) throw new ReleaseFailed(wrong);
  }

  private async passed(): Promise<void> {
    const { releases, keeper, state, log } = this.#parts;
    const { from, to, isRollback } = this.#change;
    if (keeper) this.startPeriod(keeper);
    const lastUpdate = { at: new Date().toISOString(), from, to, ok: true };
    // one that failed before and holds up now is as good as any
    const { [to]: _, ...others } = state.value.failed ?? {};
    const failed = isRollback
      ? withFailed(others, from, { reason: byHand, sha256: await releases.sha256Of(from) })
      : others;
    const done = { lastUpdate, failed, updateFailed: undefined, pending: undefined };
    await state.note({ ...done, ...(keeper ? { stopped: undefined } : {}) }, log);
    // what an undo may need stays until the trial period is over
    await releases.prune(keeper ? [from, to] : [to]).catch(this.#tell);
  }

  private startPeriod(keeper: AppKeeper): void {
    keeper.onUnexpectedEnd = (how) => {
      clearTimeout(this.#period);
      keeper.onUnexpectedEnd = undefined;
      this.failLate(`it ended with ${how} soon after its start`).catch((error: unknown) =>
        this.#parts.log(`cannot undo the update: ${messageOf(error)}`),
      );
    };
    // it may have ended in this very moment
    if (!keeper.app) return keeper.onUnexpectedEnd(keeper.lastEnd ?? "its start");
    this.#period = setTimeout(() => {
      keeper.onUnexpectedEnd = undefined;
      const needed = [this.#change.to, this.#incoming()].filter((version) => version !== undefined);
      this.#parts.releases.prune(needed).catch(this.#tell);
    }, trialPeriod);
    this.#period.unref();
  }

  private failLate(reason: string): Promise<void> {
    const { releases, changes } = this.#parts;
    return changes.run(async () => {
      // a rollback or the next version may have come first
      if ((await releases.current()) === this.#change.to) await this.fail(reason);
    });
  }

  /** The one way to fail. */
  private async fail(reason: string): Promise<void> {
    const { releases, keeper, state, log } = this.#parts;
    const { from, to } = this.#change;
    log(`${to} did not hold up: ${reason}; going back to ${from}`);
    if (keeper) keeper.onUnexpectedEnd = undefined;
    // one that was started beside the old one has gone already, and the old one goes on
    if ((await releases.current()) === to) {
      await keeper?.stop();
      await releases.activate(from);
    }
    const failed = withFailed(state.value.failed, to, {
      reason,
      sha256: await releases.sha256Of(to),
    });
    const told = `${to} did not hold up: ${reason}`;
    const lastUpdate = { at: new Date().toISOString(), from, to, ok: false, reason: told };
    await state.note({ failed, lastUpdate, updateFailed: true, pending: undefined }, log);
    if (keeper && !keeper.app) await keeper.startAgain();
  }

  readonly #tell = (error: unknown) => this.#parts.log(messageOf(error));
}
