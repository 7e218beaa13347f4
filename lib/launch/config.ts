import { join } from "node:path";
import { UsageError } from "../core/errors.ts";
import { exists } from "../files/files.ts";
import { normalFingerprint } from "../openpgp/keys.ts";
import { isAppName } from "../web-folder/version-file.ts";
import { type Config, type Infer, readConfig, y } from "../config/yaml.ts";
import { type Listen, parseListen } from "../http/listen-address.ts";

/**
 * What launchfit is told: launchify.yml or config/app.json (one shape), in the deploy directory and in the release.
 * The deploy directory's wins, key by key; of a release everything counts but its pin (updates.gpg).
 */

const name = y.string({ match: /^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$/, what: "an app's name" });
const command = y.string({ match: /\S/, what: "a command" });
const variables = y.record(y.string(), (key) =>
  /^[A-Za-z_][A-Za-z0-9_]*$/.test(key)
    ? undefined
    : `"${key}" is not the name of an environment variable`,
);

const healthObject = y.object({
  url: y.optional(y.string({ match: /^https?:\/\//, what: "an http or https URL" })),
  command: y.optional(command),
  within: y.optional(y.duration()),
  every: y.optional(y.duration()),
  timeout: y.optional(y.duration()),
});

const schema = y.object({
  app: y.optional(
    y.object({
      name: y.optional(name),
      exec: y.optional(command),
      forever: y.optional(y.boolean()),
      kill: y.optional(command),
      grace: y.optional(y.duration()),
      env: y.optional(variables),
      listen: y.optional(
        y.string({ match: /\S/, what: "a port, or an address as 127.0.0.1:8080" }),
      ),
      health: y.optional(
        y.either(
          [healthObject, command],
          "a URL, a command, or a map with url or command, within, every, timeout",
        ),
      ),
    }),
  ),
  updates: y.optional(
    y.object({
      server: y.optional(
        y.oneOrMore(
          y.string({ match: /^(?:https?|file):\/\//, what: "an https, http or file URL" }),
        ),
      ),
      every: y.optional(
        y.either([y.just(false), y.duration()], "false, or a duration such as 15m"),
      ),
      keep: y.optional(
        y.either([y.just(false), y.number()], "false, or how many older releases to keep"),
      ),
      max_size: y.optional(y.size()),
      timeout: y.optional(y.duration()),
      gpg: y.optional(
        y.object({
          key: y.optional(
            y.oneOrMore(
              y.string({
                match: /^[0-9A-Fa-fx\s:]{8,130}$/,
                what: "an OpenPGP fingerprint in hex",
              }),
            ),
          ),
        }),
      ),
    }),
  ),
  hooks: y.optional(
    y.object({
      before_start: y.optional(command),
      before_symlink: y.optional(command),
      before_restart: y.optional(command),
      after_restart: y.optional(command),
      timeout: y.optional(y.duration()),
    }),
  ),
});

type LaunchFile = Infer<typeof schema>;

/** `app.health`: a URL that must answer 2xx or 3xx, or a command that must exit 0. Durations in milliseconds. */
export interface HealthCheck {
  url?: string;
  command?: string;
  /** How long after its start the app may take to answer. */
  within: number;
  /** How often it is asked while it runs. */
  every: number;
  /** How long one answer may take. */
  timeout: number;
}

/** Everything with its defaults. Durations in milliseconds, sizes in bytes. */
export interface LaunchConfig {
  app: {
    name: string | undefined;
    exec: string | undefined;
    forever: boolean;
    kill: string | undefined;
    grace: number;
    env: Record<string, string>;
    listen: string | undefined;
    health: HealthCheck | undefined;
  };
  updates: {
    server: string[];
    /** false: only when asked. */
    every: number | false;
    /** How many older releases are kept; false: none. */
    keep: number | false;
    max_size: number;
    timeout: number;
    gpg: { key: string[] };
  };
  hooks: {
    before_start: string | undefined;
    before_symlink: string | undefined;
    before_restart: string | undefined;
    after_restart: string | undefined;
    timeout: number;
  };
}

/** Every key with its default, in the order in which `launchfit config` shows them. */
const defaults: LaunchConfig = {
  app: {
    name: undefined,
    exec: undefined,
    forever: false,
    kill: undefined,
    grace: 10_000,
    env: {},
    listen: undefined,
    health: undefined,
  },
  updates: {
    server: [],
    every: 900_000,
    keep: 2,
    max_size: 4 * 1024 ** 3,
    timeout: 30_000,
    gpg: { key: [] },
  },
  hooks: {
    before_start: undefined,
    before_symlink: undefined,
    before_restart: undefined,
    after_restart: undefined,
    timeout: 60_000,
  },
};

/** A configuration with where each value came from: `launchify.yml:3:9`, or `default`. */
export interface ReadLaunchConfig {
  config: LaunchConfig;
  /** By dotted name: `updates.every` → `launchify.yml:7:10`. */
  origins: Record<string, string>;
}

/** The files in a folder that configure launchfit, the stronger first. */
async function filesIn(folder: string): Promise<Config<LaunchFile>[]> {
  const found: Config<LaunchFile>[] = [];
  for (const file of ["launchify.yml", join("config", "app.json")]) {
    const path = join(folder, file);
    if (await exists(path)) found.push(await readConfig(path, schema));
  }
  return found;
}

/**
 * The configuration of a deploy directory.
 * @param release the folder of the release whose own configuration counts, if any.
 * @throws {UsageError} with file:line:column for every mistake.
 */
export async function readLaunchConfig(
  folder: string,
  release?: string,
): Promise<ReadLaunchConfig> {
  const own = await filesIn(folder);
  const theirs = release === undefined ? [] : await filesIn(release);
  const origins: Record<string, string> = {};
  const merged: Record<string, Record<string, unknown>> = {};
  for (const [section, keys] of Object.entries(defaults)) {
    const values: Record<string, unknown> = (merged[section] = {});
    for (const [key, standard] of Object.entries(keys as Record<string, unknown>)) {
      const dotted = `${section}.${key}`;
      const valueIn = ({ value }: Config<LaunchFile>) =>
        (value as Record<string, Record<string, unknown> | undefined>)[section]?.[key];
      // whoever can sign a release may not say by whom the next must be signed
      const files = dotted === "updates.gpg" ? own : [...own, ...theirs];
      const file = files.find((each) => valueIn(each) !== undefined);
      values[key] = file ? valueIn(file) : standard;
      origins[dotted] = file?.where([section, key]) ?? "default";
    }
  }
  const config = merged as unknown as LaunchConfig;
  const { app, updates } = config;
  app.health = readHealth(app.health, origins["app.health"] ?? "");
  const key = (updates.gpg.key ?? []).map(
    (each) => normalFingerprint(each) ?? each.replace(/[\s:]|0x/gi, "").toUpperCase(),
  );
  updates.gpg = { key };
  if (app.name !== undefined && !isAppName(app.name))
    throw new UsageError(`${origins["app.name"]}: "${app.name}" is not a valid name of an app`);
  return { config, origins };
}

function readHealth(given: unknown, where: string): HealthCheck | undefined {
  if (given === undefined) return undefined;
  const times = { within: 30_000, every: 30_000, timeout: 5_000 };
  if (typeof given === "string")
    return /^https?:\/\//.test(given) ? { url: given, ...times } : { command: given, ...times };
  const { url, command: asked, within, every, timeout } = given as Infer<typeof healthObject>;
  if ((url === undefined) === (asked === undefined))
    throw new UsageError(`${where}: app.health takes either url or command`);
  return {
    ...(url === undefined ? {} : { url }),
    ...(asked === undefined ? {} : { command: asked }),
    within: within ?? times.within,
    every: every ?? times.every,
    timeout: timeout ?? times.timeout,
  };
}

/** The part of the configuration by which the app is run, in the form in which it is used. */
export interface AppSettings {
  exec: string;
  forever: boolean;
  /** How it is ended; TERM and KILL follow. */
  kill: { signal: NodeJS.Signals } | { command: string };
  /** Milliseconds an app has to end before the next harder way. */
  grace: number;
  env: Record<string, string>;
  listen: Listen | undefined;
  /** Without url and command it is enough that the app stays alive. */
  health: HealthCheck;
  hooks: LaunchConfig["hooks"];
}

/** Without `app.health` an app must stay alive for as many milliseconds. */
const mustStayAlive = 10_000;

/**
 * How the app is run.
 * @param directory the deploy directory, for the message.
 * @throws {UsageError} when there is no app.exec, or app.listen is wrong.
 */
export function appSettings({ app, hooks }: LaunchConfig, directory: string): AppSettings {
  const { exec, forever, kill = "TERM", grace, env, listen } = app;
  if (exec === undefined)
    throw new UsageError(
      `${join(directory, "launchify.yml")}: app.exec is missing, in the release's launchify.yml too; write the command that starts the app`,
    );
  const isSignal = /^(?:SIG)?[A-Z]{3,}[0-9]?$/.test(kill);
  const signal = (kill.startsWith("SIG") ? kill : `SIG${kill}`) as NodeJS.Signals;
  return {
    exec,
    forever,
    kill: isSignal ? { signal } : { command: kill },
    grace,
    env,
    listen: listen === undefined ? undefined : parseListen(listen),
    health: app.health ?? { within: mustStayAlive, timeout: mustStayAlive, every: 30_000 },
    hooks,
  };
}
