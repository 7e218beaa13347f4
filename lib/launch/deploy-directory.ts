import {
  chmod,
  cp,
  lstat,
  mkdir,
  readdir,
  readlink,
  rename,
  rm,
  stat,
  symlink,
} from "node:fs/promises";
import { join, resolve } from "node:path";
import process from "node:process";
import { Failure, ifMissing, Refused, systemCode, UsageError } from "../core/errors.ts";
import { $ } from "../exec/exec.ts";
import { acquireLock, type Lock } from "../files/lock.ts";
import { exists, fsyncFolder, removeStaleTemporaries, temporaryBeside } from "../files/files.ts";
import { knownState } from "./state.ts";

/**
 * A deploy directory:
 *
 *     launchify.yml                what launchfit is told
 *     current -> releases/my-app-1.23.42b
 *     releases/my-app-1.23.42b     whole, or not there
 *     .launchfit/state.json        what was ever accepted (state.ts)
 *     .launchfit/keys/FPR.asc      the pinned key
 *     .launchfit/temporary/        downloads and what is being unpacked
 *     .launchfit/lock              one launchfit, and one install
 *     .launchfit/fetch.lock        one download and one unpacking
 */
export interface DeployDirectory {
  readonly path: string;
  readonly state: string;
  readonly keys: string;
  readonly releases: string;
  readonly temporary: string;
  readonly lock: string;
  readonly fetchLock: string;
  readonly current: string;
}

/** The names in a deploy directory; nothing is made. */
export function deployDirectory(path: string): DeployDirectory {
  const folder = resolve(path);
  const state = join(folder, ".launchfit");
  return {
    path: folder,
    state,
    keys: join(state, "keys"),
    releases: join(folder, "releases"),
    temporary: join(state, "temporary"),
    lock: join(state, "lock"),
    fetchLock: join(state, "fetch.lock"),
    current: join(folder, "current"),
  };
}

/**
 * The deploy directory that a command is for.
 * @throws {UsageError} when there is no such folder.
 */
export async function existingDirectory(path: string): Promise<DeployDirectory> {
  const deploy = deployDirectory(path);
  const about = await stat(deploy.path).catch((error: unknown) => {
    if (!["ENOENT", "ENOTDIR"].includes(systemCode(error) ?? "")) throw error;
  });
  if (about?.isDirectory()) return deploy;
  const what = about ? "is not a folder" : "is not there";
  throw new UsageError(`${deploy.path} ${what}; name the deploy directory with --dir`);
}

/**
 * Take the directory's lock: one launchfit, and one install, at a time.
 * @throws {Busy} when another process has it.
 * @throws {Refused} as `assertOwn` does.
 */
export async function lockDirectory(deploy: DeployDirectory, what: string): Promise<Lock> {
  await assertOwn(deploy);
  return await acquireLock(deploy.lock, { what });
}

/**
 * Whose directory it is decides which programs run there, and by links which files are written: root's would be any.
 * @throws {Refused} for root in a directory to which another user may write.
 */
export async function assertOwn(deploy: DeployDirectory): Promise<void> {
  if (process.getuid?.() !== 0) return;
  const about = await stat(deploy.path).catch(ifMissing);
  const state = await lstat(deploy.state).catch(ifMissing);
  const other = [about, state].find((entry) => entry !== undefined && entry.uid !== 0);
  if (other)
    throw new Refused(
      `${deploy.path} belongs to user ${other.uid}, who could have root run and write anything; run this as that user: sudo -u '#${other.uid}' launchfit …`,
    );
  if (about && about.mode & 0o002)
    throw new Refused(
      `${deploy.path} is writable by every user, who could have root run anything; run: chmod o-w ${deploy.path}`,
    );
}

/** Make the folders that an install needs, and clear away what a killed one left. Call it under the lock. */
export async function prepare(deploy: DeployDirectory): Promise<void> {
  await mkdir(deploy.state, { recursive: true, mode: 0o700 });
  await mkdir(deploy.temporary, { recursive: true, mode: 0o700 });
  await mkdir(deploy.releases, { recursive: true });
  const names = await readdir(deploy.temporary);
  for (const name of names) {
    // broken downloads stay, with the note by which they are continued (lib/fetch/partial.ts)
    const isPartial =
      !/^(?:unpack-|\.)/.test(name) && (name.endsWith(".json") || names.includes(`${name}.json`));
    if (!isPartial) await rm(join(deploy.temporary, name), { recursive: true, force: true });
  }
  for (const folder of [deploy.path, deploy.state, deploy.releases])
    await removeStaleTemporaries(folder);
}

/** Nothing is under way: partial downloads of versions that nobody offers any more go, too. */
export async function clearTemporary(deploy: DeployDirectory): Promise<void> {
  for (const name of await readdir(deploy.temporary))
    await rm(join(deploy.temporary, name), { recursive: true, force: true });
}

/** The release that `current` names, as `my-app-1.23.42b`; undefined when there is none. */
export async function currentRelease(deploy: DeployDirectory): Promise<string | undefined> {
  try {
    const match = /^releases\/([^/]+)\/?$/.exec(await readlink(deploy.current));
    return match?.[1];
  } catch (error) {
    if (systemCode(error) === "ENOENT") return undefined;
    if (systemCode(error) === "EINVAL")
      throw new Refused(`${deploy.current} is not a link; move it away, launchfit makes it`);
    throw error;
  }
}

/**
 * The releases that stand there, the oldest first: by the time of their signature, which a copy of the directory does
 * not change. What nobody remembers goes by the time of its install.
 */
export async function installedReleases(deploy: DeployDirectory): Promise<string[]> {
  const { app, versions } = await knownState(deploy);
  const names = await readdir(deploy.releases).catch(() => []);
  const found: { name: string; time: number; installed: number }[] = [];
  for (const name of names) {
    if (name.startsWith(".")) continue;
    const about = await lstat(join(deploy.releases, name)).catch(() => undefined);
    if (!about?.isDirectory()) continue;
    const signed = app === undefined ? undefined : versions[name.slice(app.length + 1)]?.signed;
    const installed = about.ctimeMs;
    found.push({ name, installed, time: signed === undefined ? installed : Date.parse(signed) });
  }
  found.sort((a, b) => a.time - b.time || a.installed - b.installed);
  return found.map(({ name }) => name);
}

/**
 * Put an unpacked folder in its place, in one step, once it is on the disk: after a power cut a release is whole or
 * not there. One syncfs(2), through sync(1), does the work of an fsync for each of thousands of files.
 * @throws {Failure} when the disk cannot take it.
 */
export async function placeRelease(
  deploy: DeployDirectory,
  from: string,
  name: string,
): Promise<void> {
  const { exitCode } = await $({ nothrow: true })`sync -f ${from}`;
  // a sync that does not know -f brings everything to every disk
  if (exitCode !== 0) await $`sync`;
  await rename(from, join(deploy.releases, name));
  await fsyncFolder(deploy.releases);
}

/** Make `current` name a release, in one step: a new link beside it, renamed over it. */
export async function switchCurrent(deploy: DeployDirectory, name: string): Promise<void> {
  const target = join("releases", name);
  if (!(await exists(join(deploy.path, target))))
    throw new Failure(`${join(deploy.path, target)} is not there`);
  // also refuses a `current` that is not a link
  if ((await currentRelease(deploy)) === name) return;
  const link = temporaryBeside(deploy.current);
  try {
    await symlink(target, link);
    await rename(link, deploy.current);
  } catch (error) {
    await rm(link, { force: true });
    throw error;
  }
  await fsyncFolder(deploy.path);
}

/** Remove older releases but the newest `keep` of them; the current one and those in `needed` stay. */
export async function pruneReleases(
  deploy: DeployDirectory,
  keep: number | false,
  needed: readonly string[] = [],
): Promise<void> {
  const current = await currentRelease(deploy);
  const older = (await installedReleases(deploy)).filter((name) => name !== current);
  const count = keep === false ? 0 : keep;
  const gone = older
    .slice(0, Math.max(0, older.length - count))
    .filter((name) => !needed.includes(name));
  for (const name of gone) await rm(await setAside(deploy, name), { recursive: true, force: true });
}

/**
 * Make room for the right bytes of a release that holds another version's. While it is the current one, `current` goes
 * over to a copy whose name says what it is: it must not lead nowhere for a moment, and an undo needs it.
 */
export async function removeWrongRelease(
  deploy: DeployDirectory,
  name: string,
  record: { sha256: string } | undefined,
): Promise<void> {
  const place = join(deploy.releases, name);
  if (!(await exists(place))) return;
  if ((await currentRelease(deploy)) === name) {
    const copyName = `${name}.${(record?.sha256 ?? "0").slice(0, 8)}`;
    const copy = join(deploy.temporary, `unpack-copy-${name}`);
    await cp(place, copy, { recursive: true, verbatimSymlinks: true });
    if (!(await exists(join(deploy.releases, copyName))))
      await placeRelease(deploy, copy, copyName);
    await switchCurrent(deploy, copyName);
  }
  // left there until the next look: the app still runs in it
  await setAside(deploy, name);
}

/** Take a release out of sight in one step, so that no half-removed one can be rolled back to. @returns where it is. */
async function setAside(deploy: DeployDirectory, name: string): Promise<string> {
  const aside = join(deploy.temporary, `unpack-old-${name}`);
  await rm(aside, { recursive: true, force: true });
  await makeWritable(join(deploy.releases, name));
  await rename(join(deploy.releases, name), aside);
  return aside;
}

/** Folders whose owner took the right to write from them can be neither moved nor emptied, except by root. */
async function makeWritable(folder: string): Promise<void> {
  const { mode } = await lstat(folder);
  if (!(mode & 0o200)) await chmod(folder, (mode & 0o7777) | 0o700);
  for (const entry of await readdir(folder, { withFileTypes: true }))
    if (entry.isDirectory()) await makeWritable(join(folder, entry.name));
}
