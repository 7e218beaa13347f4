import { lstat, mkdir, readdir, rm, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import process from "node:process";
import { ifMissing, Refused, systemCode, UsageError } from "../core/errors.ts";
import { acquireLock, type Lock } from "../files/lock.ts";
import { removeStaleTemporaries } from "../files/files.ts";

/**
 * A deploy directory:
 *
 *     launchify.yml                what launchfit is told
 *     current -> releases/my-app-1.23.42b
 *     releases/my-app-1.23.42b     whole, or not there
 *     .launchfit/state.json        what was ever accepted (state.ts)
 *     .launchfit/keys/FPR.asc      the pinned key
 *     .launchfit/archive/          the archive that was taken last, by which the next one is fetched
 *     .launchfit/temporary/        downloads and what is being unpacked
 *     .launchfit/lock              one launchfit, and one install
 *     .launchfit/fetch.lock        one download and one unpacking
 */
export interface DeployDirectory {
  readonly path: string;
  readonly state: string;
  readonly keys: string;
  readonly releases: string;
  readonly archive: string;
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
    archive: join(state, "archive"),
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
 * The same for a command that runs or writes something there, before anything in it is read.
 * @throws {Refused} as `assertOwn` does.
 */
export async function ownDirectory(path: string): Promise<DeployDirectory> {
  const deploy = await existingDirectory(path);
  await assertOwn(deploy);
  return deploy;
}

/**
 * Take the directory's lock: one launchfit, and one install, at a time.
 * @throws {Busy} when another process has it.
 */
export async function lockDirectory(deploy: DeployDirectory, what: string): Promise<Lock> {
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
      `${deploy.path} belongs to user ${other.uid}, who could have root run and write anything; ` +
        `run this as that user: sudo -u '#${other.uid}' launchfit …`,
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
    const isPartial = !/^(?:unpack-|\.)/.test(name) && (name.endsWith(".json") || names.includes(`${name}.json`));
    if (!isPartial) await rm(join(deploy.temporary, name), { recursive: true, force: true });
  }
  for (const folder of [deploy.path, deploy.state, deploy.releases]) await removeStaleTemporaries(folder);
}

/** Nothing is under way: partial downloads of versions that nobody offers any more go, too. */
export async function clearTemporary(deploy: DeployDirectory): Promise<void> {
  for (const name of await readdir(deploy.temporary))
    await rm(join(deploy.temporary, name), { recursive: true, force: true });
}
