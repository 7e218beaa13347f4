import { join } from "node:path";
import { Busy, Failure, Refused, UsageError } from "../core/errors.ts";
import { acquireLock } from "../files/lock.ts";
import { readLaunchConfig } from "./config.ts";
import { askControl, type ControlAnswer, type ControlRequest, controlPath } from "./control.ts";
import { currentRelease, deployDirectory } from "./deploy-directory.ts";
import { type Fetched, ReleasesByChild } from "./fetching-child.ts";
import type { InstallOptions } from "./session.ts";
import { type Launcher, launch } from "./launcher.ts";
import { StateFile } from "./launcher-state.ts";
import { describeStatus, type Status } from "./status.ts";
import { Updater } from "./updater.ts";
import { WebReleases } from "./web-releases.ts";

/** What `launchfit` and its commands do in a deploy directory. */

/** Run the app of a deploy directory in the foreground, until `stopping` is aborted. */
export function launchIn(
  folder: string,
  options: InstallOptions & { show: (line: string) => void; stopping: AbortController },
): Promise<Launcher> {
  const deploy = deployDirectory(folder);
  const { show, stopping } = options;
  const releases = new ReleasesByChild(deploy, { ...options, signal: stopping.signal });
  return launch({
    directory: deploy.path,
    releases,
    every: async () => {
      const { updates } = await releases.config();
      return updates.server.length === 0 ? false : updates.every;
    },
    show,
    stopping,
  });
}

/**
 * Ask the launchfit that runs in a directory.
 * @throws {Failure} when none runs there; or what its answer says, with its exit code.
 */
export async function command(
  folder: string,
  request: ControlRequest,
  onLine?: (value: Record<string, unknown>) => void,
): Promise<ControlAnswer> {
  const { path } = deployDirectory(folder);
  const answer = await askControl(controlPath(path), request, onLine);
  if (!answer) {
    throw new Failure(`no launchfit runs in ${path}; start it: launchfit, or its systemd unit`);
  }
  if (answer.ok) return answer;
  const text = answer.error ?? "launchfit gave no reason";
  if (answer.code === 4) throw new Refused(text);
  if (answer.code === 3) throw new Busy(text);
  if (answer.code === 2) throw new UsageError(text);
  throw new Failure(text);
}

/** Look for a new version and install it where no launchfit runs (cron); the next start of the app uses it. */
export async function checkOnce(
  folder: string,
  options: InstallOptions & { signal: AbortSignal },
): Promise<{ version: string; result: string; updated: boolean }> {
  const deploy = deployDirectory(folder);
  if ((await currentRelease(deploy)) === undefined) {
    throw new UsageError(`${deploy.path} has no current release; install one: launchfit URL`);
  }
  const lock = await acquireLock(deploy.lock, { what: "launchfit check --once" });
  const releases = new WebReleases(deploy, options);
  try {
    const state = new StateFile(join(deploy.state, "launcher.json"));
    await state.load();
    const { note: log, signal } = options;
    const updater = new Updater({ directory: deploy.path, releases, state, log, signal });
    return await updater.check();
  } finally {
    releases.close();
    lock.release();
  }
}

/**
 * See what the web folder has and, unless only a look is asked for, bring it into releases/; nothing is switched.
 * Works beside a launchfit that runs; two of them at once wait for each other.
 */
export async function fetchOnly(
  folder: string,
  {
    look,
    conditional,
    ...options
  }: InstallOptions & { look: boolean; conditional: boolean; signal: AbortSignal },
): Promise<Fetched | undefined> {
  const deploy = deployDirectory(folder);
  const { signal } = options;
  const what = "launchfit fetch";
  const lock = await acquireLock(deploy.fetchLock, { what, wait: true, signal });
  const releases = new WebReleases(deploy, options);
  try {
    const offer = await releases.offer({ conditional });
    if (!offer) return undefined;
    const { version, isNew, id } = offer;
    const fetched = { version, isNew, id };
    return look || !isNew ? fetched : { ...fetched, folder: await releases.prepare(offer) };
  } finally {
    releases.close();
    lock.release();
  }
}

/** How a directory stands: asked of the launchfit that runs there, else read from its files. */
export async function status(folder: string): Promise<Status> {
  const deploy = deployDirectory(folder);
  const answer = await askControl(controlPath(deploy.path), { command: "status" });
  if (answer?.ok) {
    const { ok: _, ...running } = answer;
    return running as unknown as Status;
  }
  const state = new StateFile(join(deploy.state, "launcher.json"));
  const releases = new WebReleases(deploy, { note: () => {} });
  const app = { state: "not running" as const, restarts: 0 };
  return describeStatus({
    directory: deploy.path,
    state: await state.load(),
    app,
    version: await releases.current(),
    installed: await releases.installed(),
  });
}

/** The whole configuration, a line a key: name, value, where it comes from. */
export async function effectiveConfig(
  folder: string,
): Promise<{ name: string; value: unknown; origin: string }[]> {
  const deploy = deployDirectory(folder);
  const name = await currentRelease(deploy);
  const release = name === undefined ? undefined : join(deploy.releases, name);
  const { config, origins } = await readLaunchConfig(deploy.path, release);
  return Object.entries(config).flatMap(([section, keys]) =>
    Object.entries(keys as Record<string, unknown>).map(([key, value]) => ({
      name: `${section}.${key}`,
      value,
      origin: origins[`${section}.${key}`] ?? "default",
    })),
  );
}
