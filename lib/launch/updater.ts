import { join } from "node:path";
import { exitCodeOf, Failure, messageOf, UsageError } from "../core/errors.ts";
import type { AppKeeper, AppSettings } from "./app-keeper.ts";
import { awaitHealth } from "./health.ts";
import { appEnvironment, type HookName, runHook } from "./hooks.ts";
import { type StateFile, withFailed } from "./launcher-state.ts";
import type { Offer, Releases } from "./releases.ts";
import { Turns } from "./turns.ts";

export interface UpdaterOptions {
  directory: string;
  releases: Releases;
  state: StateFile;
  log: (line: string) => void;
  /** Aborted when launchfit ends: a download under way stops. */
  signal: AbortSignal;
  /** Ends, switches and starts of the app, one at a time; default: the updater's own. */
  changes?: Turns;
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
  readonly #changes: Turns;
  #probationEnds: NodeJS.Timeout | undefined;
  /** The version that an update is bringing in: not to be pruned although nothing names it yet. */
  #incoming: string | undefined;

  constructor(options: UpdaterOptions, keeper?: AppKeeper) {
    this.#options = options;
    this.#keeper = keeper;
    this.#changes = options.changes ?? new Turns();
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
      const from = await this.#update(before, offer);
      return await this.#checked(at, offer.version, `updated ${from} → ${offer.version}`, true);
    } catch (error) {
      const code = exitCodeOf(error) ?? 1;
      await state.note({ lastCheck: { at, result: messageOf(error), ok: false, code } }, log);
      throw error;
    }
  }

  async #checked(at: string, version: string, result: string, updated: boolean) {
    const { state, log } = this.#options;
    await state.note({ lastCheck: { at, result, ok: true } }, log);
    return { version, result, updated };
  }

  /** The version that it replaced: `before`, unless that was undone while the new one was fetched. */
  async #update(before: string, offer: Offer): Promise<string> {
    const { releases, state, directory, log } = this.#options;
    const at = new Date().toISOString();
    const to = offer.version;
    let from = before;
    this.#incoming = to;
    try {
      const folder = await releases.prepare(offer);
      const settings = await releases.settings(to);
      await this.#hook("before_symlink", settings, folder, { version: to, folder, previous: from });
      await this.#hook("before_restart", settings, directory, {
        version: to,
        folder,
        previous: from,
      });
      from = await this.#changeOver(to, settings, offer.id);
      await releases.done(offer);
      return from;
    } catch (error) {
      const reason = messageOf(error);
      const failed = withFailed(state.value.failed, to, { reason, offer: offer.id });
      // what the network or the disk did is tried again; what the release did is not
      const again = exitCodeOf(error) !== 1 || !(error instanceof ReleaseFailed);
      const lastUpdate = { at, from, to, ok: false, reason };
      await state.note({ lastUpdate, ...(again ? {} : { failed }) }, log);
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
    if (!installed.includes(to)) {
      throw new UsageError(`version ${to} is not installed; installed are ${installed.join(", ")}`);
    }
    if (to === from) throw new UsageError(`version ${to} is the current one`);
    log(`rollback ${from} → ${to}`);
    const offer = (await releases.offer({ conditional: false }).catch(() => undefined))?.id ?? "";
    await this.#changeOver(to, await releases.settings(to), offer);
    // what was rolled back must not come back with the next check
    const failed = withFailed(state.value.failed, from, { reason: "rolled back by hand", offer });
    await state.note({ failed }, log);
    return { version: to, result: `rolled back ${from} → ${to}` };
  }

  /** An update that launchfit's own end interrupted: judge it now, and undo it when it does not hold up. */
  async settlePending(): Promise<void> {
    const { releases, state, log } = this.#options;
    const { pending } = state.value;
    if (!pending) return;
    if ((await releases.current()) !== pending.to) return state.note({ pending: undefined }, log);
    log(`the update to ${pending.to} was interrupted: judging it`);
    if (this.#keeper) this.#keeper.guard = () => true;
    const wrong = await this.#judge(pending.to, await releases.settings(pending.to));
    if (this.#options.signal.aborted) return;
    if (wrong === undefined) {
      this.#watchOver(pending.from, pending.to, pending.offer);
      await state.note({ pending: undefined }, log);
    } else await this.#undo(pending.from, pending.to, wrong, pending.offer);
  }

  /** End, switch, start, judge; back when it does not hold up. The version that was replaced. */
  #changeOver(to: string, settings: AppSettings, offer: string): Promise<string> {
    return this.#changes.take(async () => {
      // asked only now: the version of a moment ago may have been undone meanwhile
      const from = (await this.#options.releases.current()) ?? "nothing";
      if (from !== to) await this.#changeFrom(from, to, settings, offer);
      return from;
    });
  }

  async #changeFrom(from: string, to: string, settings: AppSettings, offer: string): Promise<void> {
    const { releases, state, log } = this.#options;
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
    this.#watchOver(from, to, offer);
    const lastUpdate = { at: new Date().toISOString(), from, to, ok: true };
    const proved = keeper ? { pending: undefined, stopped: undefined } : {};
    await state.note({ lastUpdate, ...proved }, log);
    // what an undo may need stays until the new version has proved itself
    await releases.prune(keeper ? [from, to] : [to]).catch(this.#tell);
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
      const { log, state, releases } = this.#options;
      const reason = `it ended with ${how} soon after its start`;
      this.#changes
        .take(async () => {
          // a rollback or the next version may have come first
          if ((await releases.current()) !== to) return;
          await this.#undo(from, to, reason, offer);
          const lastUpdate = { at: new Date().toISOString(), from, to, ok: false, reason };
          await state.note({ lastUpdate }, log);
        })
        .catch((error: unknown) => log(`cannot undo the update: ${messageOf(error)}`));
      return true;
    };
    this.#probationEnds = setTimeout(() => {
      keeper.guard = undefined;
      const { releases } = this.#options;
      const spare = this.#incoming === undefined ? [to] : [to, this.#incoming];
      releases.prune(spare).catch(this.#tell);
    }, probation);
    this.#probationEnds.unref();
  }

  readonly #tell = (error: unknown) => this.#options.log(messageOf(error));

  async #undo(from: string, to: string, reason: string, offer: string): Promise<void> {
    const { releases, state, log } = this.#options;
    log(`${to} did not hold up: ${reason}; going back to ${from}`);
    if (this.#keeper) this.#keeper.guard = undefined;
    await this.#keeper?.stop();
    await releases.activate(from);
    const failed = withFailed(state.value.failed, to, { reason, offer });
    await state.note({ failed, pending: undefined }, log);
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
