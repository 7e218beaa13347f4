import { join } from "node:path";
import { UsageError } from "../core/errors.ts";
import { type AppSettings, appSettings } from "./app-settings.ts";
import { type LaunchConfig, readLaunchConfig } from "./config.ts";
import {
  currentRelease,
  type DeployDirectory,
  installedReleases,
  pruneReleases,
  switchCurrent,
} from "./deploy-directory.ts";
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
    const names = (await installedReleases(this.deploy)).reverse();
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

  /** How a version is run. */
  async settings(version: string): Promise<AppSettings> {
    return appSettings(await this.config(version), this.deploy.path);
  }

  /** Of a version's archive, in hex; undefined where nobody remembers it. */
  async sha256Of(version: string): Promise<string | undefined> {
    return (await knownState(this.deploy)).versions[version]?.sha256;
  }

  /** Make `current` name this version, in one step. */
  async activate(version: string): Promise<void> {
    await switchCurrent(this.deploy, await this.nameOf(version));
  }

  /** Remove older versions, all but `updates.keep` of them and those named. */
  async prune(needed: string[]): Promise<void> {
    const { keep } = (await this.config()).updates;
    const names = await Promise.all(needed.map((each) => this.nameOf(each)));
    await pruneReleases(this.deploy, keep, names);
  }

  /** The app's name. @throws {UsageError} where nothing tells it. */
  async app(): Promise<string> {
    // what is installed has the name that was accepted, whatever mistake stands in launchify.yml now
    const { app } = await knownState(this.deploy);
    if (app !== undefined) return app;
    const { name } = (await readLaunchConfig(this.deploy.path)).config.app;
    if (name === undefined)
      throw new UsageError(`${this.deploy.path} does not tell the app's name; write app.name`);
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
