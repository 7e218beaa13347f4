import { join } from "node:path";
import { Failure } from "../core/errors.ts";
import { describeNotify, readLaunchConfig } from "./config.ts";
import { askControl, askStatus, type ControlAnswer, type ControlRequest, controlPath, errorOf } from "./control.ts";
import { launchOffline } from "./launcher.ts";
import { writtenLines } from "./app-log.ts";
import { deployDirectory, existingDirectory, ownDirectory } from "./deploy-directory.ts";
import { findUpdate } from "./find-update.ts";
import { addRelease, recordDone } from "./install.ts";
import { currentRelease, Releases } from "./releases.ts";
import { type InstallOptions, openSession } from "./session.ts";
import { otherOwner, readStatus, runAsOwner, type Status } from "./status.ts";

/** What `launchfit` and its commands do in a deploy directory. */

export { type Installed, installInto } from "./install.ts";
export { type Deployed, deployFolder } from "./deploy.ts";
export { launchIn } from "./launcher.ts";
export { notifyTest } from "./messages.ts";
export type { InstallOptions } from "./session.ts";
export { listApps, listLines, statusCode, worstCode } from "./all.ts";
export { statusLines } from "./status.ts";

/**
 * Ask the launchfit that runs in a directory.
 * @param onLine gets what comes before the answer.
 * @throws {Failure} when none runs there; or what its answer says, with its exit code.
 */
export async function ask(
  folder: string,
  request: ControlRequest,
  onLine?: (value: Record<string, unknown>) => void,
): Promise<ControlAnswer> {
  const answer = await askIfRunning(folder, request, onLine);
  if (answer) return answer;
  const { path } = deployDirectory(folder);
  const once = request.command === "check" ? "; without it: launchfit check --once" : "";
  throw new Failure(`no launchfit runs in ${path}; start it: launchfit, or its systemd unit${once}`);
}

/** The same; undefined when none runs there. */
async function askIfRunning(
  folder: string,
  request: ControlRequest,
  onLine?: (value: Record<string, unknown>) => void,
): Promise<ControlAnswer | undefined> {
  const { path } = await existingDirectory(folder);
  const answer = await askControl(controlPath(path), request, onLine);
  if (!answer || answer.ok) return answer;
  throw errorOf(answer);
}

/**
 * Look for a new version and install it where no launchfit runs (cron); the next start of the app uses it.
 * @throws {Busy} when a launchfit runs there.
 * @throws {Refused} with the reason why it is not installed.
 */
export async function checkOnce(folder: string, options: OfflineOptions): Promise<Record<string, unknown>> {
  return await launchOffline(folder, "launchfit check --once", options, (each) => each.ask({ type: "check" }));
}

/** Go to a version that is installed: by the launchfit that runs there, else for the next start of the app. */
export async function rollback(
  folder: string,
  version: string | undefined,
  options: OfflineOptions,
): Promise<{ version: string; result: string }> {
  const wanted = version === undefined ? {} : { version };
  const answer = await askIfRunning(folder, { command: "rollback", ...wanted });
  if (answer) return { version: String(answer["version"]), result: String(answer["result"]) };
  const done = await launchOffline(folder, "launchfit rollback", options, (each) =>
    each.ask({ type: "rollback", version }),
  );
  return { version: String(done["version"]), result: `${done["result"]}; the next start of the app uses it` };
}

/**
 * The last lines of the app and of launchfit, whether it runs or not; with `follow` those that come, too.
 * @returns false when nothing can be followed, since no launchfit runs there.
 */
export async function showLog(
  folder: string,
  { lines, follow }: { lines: number; follow: boolean },
  onLine: (value: Record<string, unknown>) => void,
): Promise<boolean> {
  if (await askIfRunning(folder, { command: "log", follow, lines }, onLine)) return true;
  const { state } = deployDirectory(folder);
  for (const line of await writtenLines(state, lines)) onLine({ line });
  return !follow;
}

type OfflineOptions = InstallOptions & { signal: AbortSignal };

/** What the web folder has. */
export interface Fetched {
  version: string;
  /** false: it is the current one. */
  isNew: boolean;
  /** Of the archive, in hex, where it is known. */
  sha256?: string | undefined;
  /** The release's folder, when it was fetched. */
  folder?: string;
}

/**
 * See what the web folder has and, unless only a look is asked for, bring it into releases/; nothing is switched.
 * Works beside a launchfit that runs; two of them at once wait for each other.
 * @param options.conditional answer undefined when VERSION is the one of the last time.
 * @throws {Refused} with the reason why it may not be taken.
 */
export async function fetchOnly(
  folder: string,
  { look, conditional, ...options }: InstallOptions & { look: boolean; conditional: boolean },
): Promise<Fetched | undefined> {
  const deploy = await ownDirectory(folder);
  const releases = new Releases(deploy);
  const session = await openSession(deploy, await releases.config(), "launchfit fetch", options);
  try {
    const update = await findUpdate(session, { conditional });
    const { kind, version, sha256 } = update;
    if (kind === "unchanged") return undefined;
    if (kind === "current") await recordDone(session, update);
    const fetched = { version, isNew: kind === "new", sha256 };
    if (look || !fetched.isNew) return fetched;
    await addRelease(session, update);
    return { ...fetched, folder: join(deploy.releases, update.name) };
  } finally {
    session.close();
  }
}

/**
 * `launchfit verify`: fetch what the web folder has as current and check everything, without installing it. Works
 * beside a launchfit that runs.
 * @throws {Refused} with the reason why it would not be installed.
 */
export async function verifyOffered(
  folder: string,
  options: InstallOptions,
): Promise<{ name: string; current: boolean; key: string[]; expires?: Date }> {
  const deploy = await ownDirectory(folder);
  const what = "launchfit verify";
  const { config } = await readLaunchConfig(deploy.path);
  const session = await openSession(deploy, config, what, options);
  try {
    const { name, kind, expires, offers } = await findUpdate(session);
    const [offer] = offers;
    const archive = await offer?.folder.archive(offer.line, session.trust.signers);
    await archive?.discard();
    return {
      name,
      current: kind === "current",
      key: archive ? [archive.key] : [...session.trust.pins],
      ...(expires === undefined ? {} : { expires }),
    };
  } finally {
    session.close();
  }
}

/**
 * The status of a directory: asked of the launchfit that runs there, else read from its files.
 * @throws {Failure} when that launchfit does not answer.
 */
export async function status(folder: string): Promise<Status> {
  const { path } = await existingDirectory(folder);
  const answer = await askStatus(controlPath(path));
  if (!answer?.ok) return readStatus(folder);
  const { ok: _, ...running } = answer;
  return running as unknown as Status;
}

/** A key of the configuration, and where its value comes from. */
export interface ConfigRow {
  name: string;
  value: unknown;
  written: string;
  origin: string;
}

/**
 * The whole configuration, a row a key.
 * @throws {Failure} when another user's files cannot be read.
 */
export async function effectiveConfig(folder: string): Promise<ConfigRow[]> {
  const deploy = await existingDirectory(folder);
  const owner = await otherOwner(deploy.path);
  if (owner) return (await runAsOwner(owner, ["config", "--dir", deploy.path])) as ConfigRow[];
  const name = await currentRelease(deploy);
  const release = name === undefined ? undefined : join(deploy.releases, name);
  const { config, origins, written } = await readLaunchConfig(deploy.path, release);
  const { kinds, origin } = await describeNotify(deploy.path);
  const notify = { name: "notify", value: kinds, written: `[${kinds.join(", ")}]`, origin };
  const sections = Object.entries(config).flatMap(([section, keys]) =>
    Object.entries(keys as Record<string, unknown>).map(([key, value]) => {
      const name = `${section}.${key}`;
      return { name, value, written: written[name] ?? "", origin: origins[name] ?? "default" };
    }),
  );
  return [...sections, notify];
}
