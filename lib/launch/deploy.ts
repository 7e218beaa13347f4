import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import { Failure, UsageError } from "../core/errors.ts";
import { $ } from "../exec/exec.ts";
import { exists, writeAtomic } from "../files/files.ts";
import { acquireLock } from "../files/lock.ts";
import { isVersion } from "../web-folder/version-file.ts";
import { askControl, controlPath, errorOf } from "./control.ts";
import { lockDirectory, ownDirectory, prepare } from "./deploy-directory.ts";
import { launchOffline } from "./launcher.ts";
import { placeRelease, Releases, switchCurrent } from "./releases.ts";
import type { InstallOptions } from "./session.ts";
import { readState, writeState } from "./state.ts";

/** What `launchfit deploy` did. */
export interface Deployed {
  version: string;
  /** In words. */
  result: string;
  /** The release's folder. */
  folder: string;
}

/**
 * `launchfit deploy DIR FOLDER`: what a build made becomes a release of a deploy directory that follows no web folder,
 * and the launchfit that runs there changes to it, watches it, and undoes it when it does not hold up; where none runs,
 * its next start uses it. Files that have not changed are links to the release before, never to the folder.
 * @param options.version dotted hexadecimal; default: the time.
 * @param options.config a file that becomes the release's launchify.yml, in place of the folder's own
 * @throws {UsageError} when the directory follows a web folder, tells no app, or has that version.
 * @throws {Failure} when a file cannot be copied, or the version was undone: with the reason and the health answer.
 */
export async function deployFolder(
  directory: string,
  folder: string,
  {
    version = timeVersion(new Date()),
    config,
    ...options
  }: InstallOptions & { version?: string | undefined; config?: string | undefined; signal: AbortSignal },
): Promise<Deployed> {
  const deploy = await ownDirectory(directory);
  const releases = new Releases(deploy);
  if (!isVersion(version)) throw new UsageError(`"${version}" is not a version; write dotted hexadecimal as 1.23.4a`);
  if (!(await stat(folder).catch(() => undefined))?.isDirectory())
    throw new UsageError(`${folder} is not a folder; name what the build made`);
  const { updates } = await releases.config();
  if (updates.enabled && updates.server.length > 0)
    throw new UsageError(
      `${deploy.path} follows ${updates.server.join(", ")}; write updates: false into launchify.yml`,
    );
  const name = `${await releases.app()}-${version}`;
  const place = join(deploy.releases, name);
  const what = "launchfit deploy";
  const lock = await acquireLock(deploy.fetchLock, { what, wait: true, signal: options.signal });
  try {
    await prepare(deploy);
    if (await exists(place)) throw new UsageError(`version ${version} is installed already; give another with --as`);
    const state = await readState(deploy);
    await writeState(deploy, { ...state, app: await releases.app() });
    const unpacked = await mkdtemp(join(deploy.temporary, "unpack-"));
    try {
      const before = await releases.current();
      await copyFolder(resolve(folder), unpacked, before === undefined ? undefined : await releases.folderOf(before));
      // a rename: the file there may be a link to the one of the release before
      const own = join(unpacked, "launchify.yml");
      if (config !== undefined) await writeAtomic(own, await readFile(config), { mode: 0o644 });
      await placeRelease(deploy, unpacked, name);
    } finally {
      await rm(unpacked, { recursive: true, force: true });
    }
  } finally {
    lock.release();
  }
  const done = (answer: { [key: string]: unknown }): Deployed => ({
    ...{ version, folder: place },
    result: String(answer["result"]),
  });
  const answer = await askControl(controlPath(deploy.path), { command: "switch", version });
  if (answer && !answer.ok) throw errorOf(answer);
  if (answer) return done(answer);
  const later = "the next start of the app uses it";
  if ((await releases.current()) !== undefined) {
    const offline = await launchOffline(deploy.path, what, options, (each) => each.switch(version));
    return done({ result: `${String(offline["result"])}; ${later}` });
  }
  const first = await lockDirectory(deploy, what);
  await switchCurrent(deploy, name).finally(() => first.release());
  return done({ result: `installed ${version}; ${later}` });
}

/** The time as a version: 20261124.101500. */
function timeVersion(now: Date): string {
  const [day = "", time = ""] = now.toISOString().split("T");
  return `${day.replaceAll("-", "")}.${time.slice(0, 8).replaceAll(":", "")}`;
}

/**
 * A copy of a folder; a file that has the same bytes and rights in `before` is a link to that. Links stay links, `.git`
 * and the log of builds stay behind.
 * @throws {Failure} when a file cannot be copied.
 */
async function copyFolder(from: string, to: string, before: string | undefined): Promise<void> {
  const options = ["-rlpt", "--checksum", "--no-devices", "--no-specials", "--exclude=/.git", "--exclude=/logs.txt*"];
  if (before !== undefined) options.push(`--link-dest=${before}`);
  const { exitCode, stderr } = await $({ nothrow: true })`rsync ${options} -- ${`${from}/`} ${`${to}/`}`;
  if (exitCode === 0) return;
  throw new Failure(`${from} cannot be copied: ${stderr.trim() || "rsync is not installed; install it"}`);
}
