import { createHash } from "node:crypto";
import { join } from "node:path";
import { Failure, UsageError } from "../core/errors.ts";
import { parseListen } from "../http/listen-address.ts";
import type { AppSettings } from "./app-keeper.ts";
import { type LaunchConfig, readLaunchConfig } from "./config.ts";
import {
  currentRelease,
  type DeployDirectory,
  installedReleases,
  prepare,
  pruneReleases,
  switchCurrent,
} from "./deploy-directory.ts";
import { findUpdate } from "./find-update.ts";
import { fetchRelease, recordDone, unpackRelease } from "./install.ts";
import { type Found, type InstallOptions, openSession, type Session } from "./session.ts";
import { readState } from "./state.ts";
import type { Offer, Releases } from "./releases.ts";

/** Milliseconds an app without a health check must stay alive. */
const aliveFor = 10_000;

interface WebOffer extends Offer {
  session: Session;
  found: Found;
}

/** A deploy directory and its web folder, as the updater sees them: versions without the app's name. */
export class WebReleases implements Releases {
  readonly #deploy: DeployDirectory;
  readonly #options: InstallOptions;
  #offer: WebOffer | undefined;

  constructor(deploy: DeployDirectory, options: InstallOptions) {
    this.#deploy = deploy;
    this.#options = options;
  }

  async current(): Promise<string | undefined> {
    const name = await currentRelease(this.#deploy);
    return name === undefined ? undefined : await this.#versionOf(name);
  }

  async installed(): Promise<string[]> {
    const names = (await installedReleases(this.#deploy)).reverse();
    return Promise.all(names.map((name) => this.#versionOf(name)));
  }

  async config(version?: string): Promise<LaunchConfig> {
    const name = version ?? (await this.current());
    const release = name === undefined ? undefined : await this.#folderOf(name);
    return (await readLaunchConfig(this.#deploy.path, release)).config;
  }

  async settings(version: string): Promise<AppSettings> {
    const { app, hooks } = await this.config(version);
    if (app.exec === undefined) {
      throw new UsageError(
        `${join(this.#deploy.path, "launchify.yml")}: app.exec is missing, in the release's launchify.yml too; write the command that starts the app`,
      );
    }
    const { timeout: hookTimeout, ...hookCommands } = hooks;
    const { kill, health } = app;
    const isSignal = kill !== undefined && /^(?:SIG)?[A-Z]{3,}[0-9]?$/.test(kill);
    return {
      exec: app.exec,
      forever: app.forever,
      kill: isSignal
        ? { signal: (kill.startsWith("SIG") ? kill : `SIG${kill}`) as NodeJS.Signals }
        : { command: kill },
      grace: app.grace,
      env: app.env,
      listen: app.listen === undefined ? undefined : parseListen(app.listen),
      health: health ?? { within: aliveFor, timeout: aliveFor, every: 30_000 },
      hooks: hookCommands,
      hookTimeout,
    };
  }

  async offer({ conditional }: { conditional: boolean }): Promise<Offer | undefined> {
    this.close();
    await prepare(this.#deploy);
    const session = await openSession(this.#deploy, await this.config(), this.#options);
    try {
      const found = await findUpdate(session, { conditional });
      if (found.kind === "unchanged") {
        session.close();
        return undefined;
      }
      const id = createHash("sha256").update(offerText(found)).digest("hex");
      const offer = { version: found.version, isNew: found.kind === "new", id };
      if (offer.isNew) this.#offer = { ...offer, session, found };
      else {
        await recordDone(session, found);
        session.close();
      }
      return offer;
    } catch (error) {
      session.close();
      throw error;
    }
  }

  async prepare({ version }: Offer): Promise<string> {
    const offer = this.#offer;
    if (offer?.version !== version) throw new Failure(`${version} is no longer offered`);
    const { session, found } = offer;
    await unpackRelease(session, found, await fetchRelease(session, found));
    return this.#folderOf(version);
  }

  async done({ version }: Offer): Promise<void> {
    const offer = this.#offer;
    if (offer?.version === version) await recordDone(offer.session, offer.found);
    this.close();
  }

  async activate(version: string): Promise<void> {
    await switchCurrent(this.#deploy, await this.#nameOf(version));
  }

  async prune(spare: string[]): Promise<void> {
    const { keep } = (await this.config()).updates;
    const names = await Promise.all(spare.map((each) => this.#nameOf(each)));
    await pruneReleases(this.#deploy, keep, names);
  }

  /** Let go of the connection to the web folder. */
  close(): void {
    this.#offer?.session.close();
    this.#offer = undefined;
  }

  async #app(): Promise<string> {
    const { config } = await readLaunchConfig(this.#deploy.path);
    const name = config.app.name ?? (await readState(this.#deploy)).app;
    if (name === undefined) {
      throw new UsageError(`${this.#deploy.path} does not tell the app's name; write app.name`);
    }
    return name;
  }

  async #nameOf(version: string): Promise<string> {
    return `${await this.#app()}-${version}`;
  }

  async #folderOf(version: string): Promise<string> {
    return join(this.#deploy.releases, await this.#nameOf(version));
  }

  async #versionOf(name: string): Promise<string> {
    const app = await this.#app();
    return name.startsWith(`${app}-`) ? name.slice(app.length + 1) : name;
  }
}

/** What makes one offer another: a version that failed is tried again when any of it changes. */
function offerText({ name, offers }: Found): string {
  return JSON.stringify([name, offers.map(({ file, line }) => [file.date, line])]);
}
