import { join } from "node:path";
import { exitCodeOf, Failure, messageOf, UsageError } from "../errors.ts";
import type { AppKeeper, AppSettings } from "./app-keeper.ts";
import { awaitHealth } from "./health.ts";
import { appEnvironment, type HookName, runHook } from "./hooks.ts";
import type { StateFile } from "./launcher-state.ts";

/** What the update server offers. */
export interface Offer {
  version: string;
  /** false: it is the current one. */
  isNew: boolean;
  /** A digest of the VERSION file it stands in. */
  id: string;
}

/** The deploy directory and the update server, as the installing half has them. */
export interface Releases {
  /** The version that `current` names. */
  current(): Promise<string | undefined>;
  /**
   * What the update server has, or undefined when that has not changed since `done`.
   * Throws what speaks against it (Refused, Failure).
   */
  offer(how: { conditional: boolean }): Promise<Offer | undefined>;
  /** Download, verify, unpack to `releases/`; the release's folder. Nothing of the running version changes. */
  prepare(offer: Offer): Promise<string>;
  /** All that the offer asks for is done: it need not be read again until it changes. */
  done(offer: Offer): Promise<void>;
  /** Make `current` name this version, in one step. */
  activate(version: string): Promise<void>;
  /** Installed versions, the newest first. */
  installed(): Promise<string[]>;
  /** Remove older versions, all but `keep` of them and those named. */
  prune(protectedVersions: string[]): Promise<void>;
  /** The settings of an installed version. */
  settings(version: string): Promise<AppSettings>;
}

export interface UpdaterOptions {
  directory: string;
  releases: Releases;
  state: StateFile;
  log: (line: string) => void;
  /** Aborted when launchfit ends: a download under way stops. */
  signal: AbortSignal;
}

/** Milliseconds for which an update that answered its health check may still die and be undone. */
const probation = 10_000;

/**
 * Brings new versions in beside the running app and changes over to them: ended, switched, started, judged;
 * undone when it does not hold up. Works on its own (`check --once`) and with a keeper that runs the app.
 */
export class Updater {
  readonly #options: UpdaterOptions;
  readonly #keeper: AppKeeper | undefined;
  #probationEnds: NodeJS.Timeout | undefined;

  constructor(options: UpdaterOptions, keeper?: AppKeeper) {
    this.#options = options;
    this.#keeper = keeper;
  }

  /** Look for a new version and change over to it. The result in words; a refusal or failure is recorded and thrown. */
  async check(): Promise<{ version: string; result: string; updated: boolean }> {
    const { releases, state, log } = this.#options;
    const at = new Date().toISOString();
    try {
      const before = (await releases.current()) ?? "nothing";
      const offer = await releases.offer({ conditional: true });
      if (!offer?.isNew) return await this.#checked(at, before, "up to date", false);
      const failed = state.value.failed?.[offer.version];
      if (failed?.offer === offer.id) {
        return await this.#checked(
          at,
          before,
          `${offer.version} is not tried again: ${failed.reason}`,
          false,
        );
      }
      log(`update ${before} → ${offer.version}`);
      await this.#update(before, offer);
      return await this.#checked(at, offer.version, `updated ${before} → ${offer.version}`, true);
    } catch (error) {
      const code = exitCodeOf(error) ?? 1;
      await state.save({ lastCheck: { at, result: messageOf(error), ok: false, code } });
      throw error;
    }
  }

  async #checked(at: string, version: string, result: string, updated: boolean) {
    await this.#options.state.save({ lastCheck: { at, result, ok: true } });
    return { version, result, updated };
  }

  async #update(from: string, offer: Offer): Promise<void> {
    const { releases, state, directory } = this.#options;
    const at = new Date().toISOString();
    const to = offer.version;
    try {
      const folder = await releases.prepare(offer);
      const settings = await releases.settings(to);
      await this.#hook("before_symlink", settings, folder, { version: to, folder, previous: from });
      await this.#hook("before_restart", settings, directory, {
        version: to,
        folder,
        previous: from,
      });
      await this.#changeOver(from, to, settings, offer.id);
      await releases.done(offer);
      await state.save({ lastUpdate: { at, from, to, ok: true } });
    } catch (error) {
      const reason = messageOf(error);
      const failed = { ...state.value.failed, [to]: { reason, offer: offer.id } };
      // what the network or the disk did is tried again; what the release did is not
      const again = exitCodeOf(error) !== 1 || !(error instanceof ReleaseFailed);
      await state.save({
        lastUpdate: { at, from, to, ok: false, reason },
        ...(again ? {} : { failed }),
      });
      throw error;
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
    if (!installed.includes(to)) {
      throw new UsageError(`version ${to} is not installed; installed are ${installed.join(", ")}`);
    }
    if (to === from) throw new UsageError(`version ${to} is the current one`);
    log(`rollback ${from} → ${to}`);
    const offer = (await releases.offer({ conditional: false }).catch(() => undefined))?.id ?? "";
    await this.#changeOver(from, to, await releases.settings(to), offer);
    // what was rolled back must not come back with the next check
    const failed = { ...state.value.failed, [from]: { reason: "rolled back by hand", offer } };
    await state.save({ failed, lastUpdate: { at: new Date().toISOString(), from, to, ok: true } });
    return { version: to, result: `rolled back ${from} → ${to}` };
  }

  /** An update that launchfit's own end interrupted: judge it now, and undo it when it does not hold up. */
  async settlePending(): Promise<void> {
    const { releases, state, log } = this.#options;
    const { pending } = state.value;
    if (!pending) return;
    if ((await releases.current()) !== pending.to) return state.save({ pending: undefined });
    log(`the update to ${pending.to} was interrupted: judging it`);
    if (this.#keeper) this.#keeper.guard = () => true;
    const wrong = await this.#judge(pending.to, await releases.settings(pending.to));
    if (this.#options.signal.aborted) return;
    if (wrong === undefined) {
      this.#watchOver(pending.from, pending.to, pending.offer);
      await state.save({ pending: undefined });
    } else await this.#undo(pending.from, pending.to, wrong, pending.offer);
  }

  /** End, switch, start, judge; back when it does not hold up. */
  async #changeOver(from: string, to: string, settings: AppSettings, offer: string): Promise<void> {
    const { releases, state } = this.#options;
    clearTimeout(this.#probationEnds);
    const keeper = this.#keeper;
    // recorded before the switch: whenever launchfit is killed, the next one knows what to judge
    if (keeper) await state.save({ pending: { from, to, offer } });
    await keeper?.stop();
    let wrong: string | undefined;
    // until it is judged, its end is a verdict and not a reason to start it again
    if (keeper) keeper.guard = () => true;
    try {
      await releases.activate(to);
      await keeper?.start({ version: to, settings });
      wrong = await this.#judge(to, settings);
      if (wrong === undefined) {
        const folder = join(this.#options.directory, "current");
        await this.#hook("after_restart", settings, folder, {
          version: to,
          folder,
          previous: from,
        });
        // it may have ended while the hook ran
        if (keeper && !keeper.app) wrong = `it ended with ${keeper.lastEnd}`;
      }
    } catch (error) {
      wrong = messageOf(error);
    }
    if (wrong !== undefined && this.#options.signal.aborted) {
      throw new Failure(`launchfit is ending; its next start judges ${to}`);
    }
    if (wrong !== undefined) {
      await this.#undo(from, to, wrong, offer);
      throw new ReleaseFailed(`${to} did not hold up: ${wrong}; ${from} runs again`);
    }
    if (keeper) {
      this.#watchOver(from, to, offer);
      await state.save({ pending: undefined, stopped: undefined });
    }
    // what an undo may need stays until the new version has proved itself
    await releases.prune(keeper ? [from, to] : [to]);
  }

  async #judge(version: string, settings: AppSettings): Promise<string | undefined> {
    const app = this.#keeper?.app;
    if (!this.#keeper) return undefined;
    if (!app) return `it ended with ${this.#keeper.lastEnd ?? "its start"}`;
    const cwd = join(this.#options.directory, "current");
    const env = appEnvironment({ version, releaseDir: cwd }, settings.env);
    const { signal } = this.#options;
    return awaitHealth(settings.health, { gone: app.exited, cwd, env, signal });
  }

  /** For some seconds after a good answer, the new app's end still undoes the update. */
  #watchOver(from: string, to: string, offer: string): void {
    const keeper = this.#keeper;
    if (!keeper) return;
    keeper.guard = (how) => {
      clearTimeout(this.#probationEnds);
      keeper.guard = undefined;
      const { log, state } = this.#options;
      const reason = `it ended with ${how} soon after its start`;
      this.#undo(from, to, reason, offer)
        .then(() => {
          const lastUpdate = { at: new Date().toISOString(), from, to, ok: false, reason };
          return state.save({ lastUpdate });
        })
        .catch((error: unknown) => log(`cannot undo the update: ${messageOf(error)}`));
      return true;
    };
    this.#probationEnds = setTimeout(() => {
      keeper.guard = undefined;
      const { log } = this.#options;
      this.#options.releases.prune([to]).catch((error: unknown) => log(messageOf(error)));
    }, probation);
    this.#probationEnds.unref();
  }

  async #undo(from: string, to: string, reason: string, offer: string): Promise<void> {
    const { releases, state, log } = this.#options;
    log(`${to} did not hold up: ${reason}; going back to ${from}`);
    if (this.#keeper) this.#keeper.guard = undefined;
    await this.#keeper?.stop();
    await releases.activate(from);
    const failed = { ...state.value.failed, [to]: { reason, offer } };
    await state.save({ failed, pending: undefined });
    await this.#keeper?.start();
  }

  async #hook(
    name: HookName,
    settings: AppSettings,
    cwd: string,
    { version, folder, previous }: { version: string; folder: string; previous: string },
  ): Promise<void> {
    const { log, signal } = this.#options;
    const variables = { version, releaseDir: folder, previous };
    try {
      await runHook(name, {
        command: settings.hooks[name],
        cwd,
        env: appEnvironment(variables, settings.env),
        signal,
        timeout: settings.hookTimeout,
        onLine: (line) => log(`${name}: ${line}`),
      });
    } catch (error) {
      throw new ReleaseFailed(messageOf(error));
    }
  }
}

/** It was the release that failed, not the way to it. */
class ReleaseFailed extends Failure {
  override name = "Failure";
}
