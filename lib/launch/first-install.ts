import { UsageError } from "../core/errors.ts";
import { acquireLock, type Lock } from "../files/lock.ts";
import { loadOpenpgp } from "../openpgp/keys.ts";
import { folderUrl } from "../web-folder/web-folder.ts";
import { type LaunchConfig, readLaunchConfig } from "./config.ts";
import {
  type DeployDirectory,
  deployDirectory,
  prepare,
  switchCurrent,
} from "./deploy-directory.ts";
import { findUpdate } from "./find-update.ts";
import { fetchRelease, recordDone, unpackRelease } from "./install.ts";
import { type Found, type InstallOptions, openSession, type Session } from "./session.ts";
import { writeLaunchFile } from "./launch-file.ts";

export interface Installed {
  name: string;
  version: string;
  release?: string;
  /** The key that must sign everything from now on. */
  key: string[];
  /** false: it was there already. */
  changed: boolean;
  folder: string;
}

/**
 * `launchfit URL`: install what the web folder has as current into a directory, and write launchify.yml.
 * The same again is a no-op. An app that runs is not restarted: that is the supervisor's work.
 * @param url may be left out where launchify.yml names the server.
 * @throws {Busy} when another launchfit works in the directory.
 */
export async function installInto(
  folder: string,
  url: string | undefined,
  options: InstallOptions,
): Promise<Installed> {
  const deploy = deployDirectory(folder);
  // a wrong configuration is told before anything is touched
  const { config, origins } = await readLaunchConfig(deploy.path);
  const settings = withServer(config, url);
  const what = "launchfit install";
  const locks = await begin(deploy, what);
  try {
    await prepare(deploy);
    const session = await openSession(deploy, settings, options);
    try {
      const found = await findUpdate(session);
      if (found.kind === "new")
        await unpackRelease(session, found, await fetchRelease(session, found));
      await complete(deploy, session, found, origins);
      if (found.kind === "new") await switchCurrent(deploy, found.name);
      await recordDone(session, found);
      return {
        name: found.name,
        version: found.version,
        ...(found.release === undefined ? {} : { release: found.release }),
        key: session.trust.pins,
        changed: found.kind === "new",
        folder: deploy.path,
      };
    } finally {
      session.close();
    }
  } finally {
    locks.release();
  }
}

/** Takes both locks, which other processes do for us, and loads beside it what every install needs. */
async function begin(deploy: DeployDirectory, what: string): Promise<Lock> {
  const giveUp = new AbortController();
  // only the second is waited for, so no two processes wait for each other
  const taken = [
    acquireLock(deploy.lock, { what }),
    acquireLock(deploy.fetchLock, { what, wait: true, signal: giveUp.signal }),
  ];
  const releaseAll = (locks: readonly Lock[]) => {
    for (const lock of locks) lock.release();
  };
  try {
    await Promise.all([...taken, loadOpenpgp()]);
  } catch (error) {
    giveUp.abort();
    const ended = await Promise.allSettled(taken);
    releaseAll(ended.flatMap((each) => (each.status === "fulfilled" ? [each.value] : [])));
    throw error;
  }
  const locks = await Promise.all(taken);
  return { release: () => releaseAll(locks) };
}

function withServer(config: LaunchConfig, url: string | undefined): LaunchConfig {
  if (url === undefined) return config;
  const server = folderUrl(url);
  const known = config.updates.server.map(folderUrl);
  if (known.length > 0 && !known.includes(server))
    throw new UsageError(
      `this directory follows ${known.join(", ")}; to follow ${server}, edit updates.server in launchify.yml`,
    );
  return known.length > 0
    ? config
    : { ...config, updates: { ...config.updates, server: [server] } };
}

async function complete(
  deploy: DeployDirectory,
  session: Session,
  found: Found,
  origins: Record<string, string>,
): Promise<void> {
  const missing = (key: string) => origins[key] === "default";
  await writeLaunchFile(
    deploy,
    {
      name: missing("app.name") ? found.app : undefined,
      server: missing("updates.server") ? session.config.updates.server[0] : undefined,
      pins: missing("updates.gpg") ? session.trust.pins : undefined,
    },
    session.trust.written,
  );
}

/**
 * `launchfit verify`: fetch what the web folder has as current and check everything, without installing it.
 * @throws {Refused} with the reason why it would not be installed.
 */
export async function verifyOffered(
  folder: string,
  options: InstallOptions,
): Promise<{ name: string; current: boolean; key: string[]; expires?: Date }> {
  const deploy = deployDirectory(folder);
  const { config } = await readLaunchConfig(deploy.path);
  const what = "launchfit verify";
  const locks = await begin(deploy, what);
  try {
    await prepare(deploy);
    const session = await openSession(deploy, config, options);
    try {
      const found = await findUpdate(session);
      const [offer] = found.offers;
      if (offer) {
        const archive = await offer.folder.archive(offer.line, session.trust.keys);
        await archive.discard();
      }
      return {
        name: found.name,
        current: found.kind === "current",
        key: session.trust.pins,
        ...(found.expires === undefined ? {} : { expires: found.expires }),
      };
    } finally {
      session.close();
    }
  } finally {
    locks.release();
  }
}
