import { chmod, cp, lstat, readdir, readlink, rename, rm, symlink } from "node:fs/promises";
import { join } from "node:path";
import { Failure, Refused, systemCode, UsageError } from "../core/errors.ts";
import { $ } from "../exec/exec.ts";
import { exists, fsyncFolder, temporaryBeside } from "../files/files.ts";
import { type AppSettings, appSettings, type LaunchConfig, readLaunchConfig } from "./config.ts";
import type { DeployDirectory } from "./deploy-directory.ts";
import { knownState } from "./state.ts";

/** The releases of a deploy directory by their versions: their names without the app's. */
export class Releases {
  readonly deploy: DeployDirectory;

  constructor(deploy: DeployDirectory) {
    this.deploy = deploy;
  }

  /** The version that `current` names. */
  async current(): Promise<string | undefined> {
    const name = await currentRelease(this.deploy);
    return name === undefined ? undefined : await this.versionOf(name);
  }

  /** The installed versions, the newest first. */
  async installed(): Promise<string[]> {
    const names = await installedReleases(this.deploy);
    return Promise.all(names.map((name) => this.versionOf(name)));
  }

  /** The folder of a version, installed or not. */
  async folderOf(version: string): Promise<string> {
    return join(this.deploy.releases, await this.nameOf(version));
  }

  /** The configuration with which a version runs; default: the current one. */
  async config(version?: string): Promise<LaunchConfig> {
    const shown = version ?? (await this.current());
    const release = shown === undefined ? undefined : await this.folderOf(shown);
    return (await readLaunchConfig(this.deploy.path, release)).config;
  }

  /** How a version is run. @throws {UsageError} as `appSettings` does. */
  async settings(version: string, options?: { toRun: boolean }): Promise<AppSettings> {
    return await appSettings(await this.config(version), this.deploy.path, options);
  }

  /** Of a version's archive, in hex; undefined where nobody remembers it. */
  async sha256Of(version: string): Promise<string | undefined> {
    return (await knownState(this.deploy)).versions[version]?.sha256;
  }

  /** Make `current` name this version, in one step. */
  async activate(version: string): Promise<void> {
    await switchCurrent(this.deploy, await this.nameOf(version));
  }

  /** Remove older versions but the newest `updates.keep` of them; the current one and those in `needed` stay. */
  async prune(needed: readonly string[]): Promise<void> {
    const keep = (await this.config()).updates.keep || 0;
    const spared = await Promise.all(needed.map((version) => this.nameOf(version)));
    const current = await currentRelease(this.deploy);
    const older = (await installedReleases(this.deploy)).filter((name) => name !== current);
    for (const name of older.slice(keep).filter((each) => !spared.includes(each)))
      await rm(await setAside(this.deploy, name), { recursive: true, force: true });
  }

  /** The app's name. @throws {UsageError} where nothing tells it. */
  async app(): Promise<string> {
    // what is installed has the name that was accepted, whatever mistake stands in launchify.yml now
    const { app } = await knownState(this.deploy);
    if (app !== undefined) return app;
    const { name } = (await readLaunchConfig(this.deploy.path)).config.app;
    if (name === undefined) throw new UsageError(`${this.deploy.path} does not tell the app's name; write app.name`);
    return name;
  }

  private async nameOf(version: string): Promise<string> {
    return `${await this.app()}-${version}`;
  }

  private async versionOf(name: string): Promise<string> {
    const app = await this.app();
    return name.startsWith(`${app}-`) ? name.slice(app.length + 1) : name;
  }
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
 * The releases that stand there, the newest first: by the time of their signature, which a copy of the directory does
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
  found.sort((a, b) => b.time - a.time || b.installed - a.installed);
  return found.map(({ name }) => name);
}

/**
 * Put an unpacked folder in its place, in one step, once it is on the disk: after a power cut a release is whole or
 * not there. One syncfs(2), through sync(1), does the work of an fsync for each of thousands of files.
 * @throws {Failure} when the disk cannot take it.
 */
export async function placeRelease(deploy: DeployDirectory, from: string, name: string): Promise<void> {
  const { exitCode } = await $({ nothrow: true })`sync -f ${from}`;
  // a sync that does not know -f brings everything to every disk
  if (exitCode !== 0) await $`sync`;
  await rename(from, join(deploy.releases, name));
  await fsyncFolder(deploy.releases);
}

/** Make `current` name a release, in one step: a new link beside it, renamed over it. */
export async function switchCurrent(deploy: DeployDirectory, name: string): Promise<void> {
  const target = join("releases", name);
  if (!(await exists(join(deploy.path, target)))) throw new Failure(`${join(deploy.path, target)} is not there`);
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
    if (!(await exists(join(deploy.releases, copyName)))) await placeRelease(deploy, copy, copyName);
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
