import { join } from "node:path";
import { UsageError } from "../core/errors.ts";
import { exists } from "../files/files.ts";
import { normalFingerprint } from "../openpgp/keys.ts";
import { isAppName } from "../web-folder/version-file.ts";
import { type Config, type Infer, readConfig, y } from "../config/yaml.ts";
import { type Listen, parseListen } from "../http/server.ts";

/**
 * What launchfit is told: launchify.yml or config/app.json (one shape), in the deploy directory and in the release.
 * The deploy directory's wins, key by key; of a release everything counts but its pin (updates.gpg).
 */

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
      name: y.optional(y.string()),
      exec: y.optional(command),
      forever: y.optional(y.boolean()),
      kill: y.optional(command),
      grace: y.optional(y.duration()),
      env: y.optional(variables),
      strip: y.optional(y.either([y.just(0), y.just(1)], "0 or 1")),
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

/**
 * Every key with its default, in the order in which `launchfit config` shows them. Durations in milliseconds,
 * sizes in bytes.
 */
const defaults = {
  app: {
    name: undefined as string | undefined,
    exec: undefined as string | undefined,
    forever: false,
    kill: undefined as string | undefined,
    grace: 10_000,
    env: {} as Record<string, string>,
    /** Folders taken off an archive's names; undefined: one, where it holds a configuration. */
    strip: undefined as 0 | 1 | undefined,
    listen: undefined as string | undefined,
    health: undefined as HealthCheck | undefined,
  },
  updates: {
    server: [] as string[],
    /** false: only when asked. */
    every: 900_000 as number | false,
    /** How many older releases are kept; false: none. */
    keep: 2 as number | false,
    max_size: 4 * 1024 ** 3,
    timeout: 30_000,
    gpg: { key: [] as string[] },
  },
  hooks: {
    before_start: undefined as string | undefined,
    before_symlink: undefined as string | undefined,
    before_restart: undefined as string | undefined,
    after_restart: undefined as string | undefined,
    timeout: 60_000,
  },
};

/** All of the configuration. */
export type LaunchConfig = typeof defaults;

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
    throw new UsageError(`${origins["app.name"]}: "${app.name}" cannot be an app's name`);
  return { config, origins };
}

function readHealth(written: unknown, where: string): HealthCheck | undefined {
  if (written === undefined) return undefined;
  let check = written as Partial<HealthCheck>;
  if (typeof written === "string")
    check = /^https?:\/\//.test(written) ? { url: written } : { command: written };
  const { url, command: asked } = check;
  if ((url === undefined) === (asked === undefined))
    throw new UsageError(`${where}: app.health takes either url or command`);
  const given = Object.entries(check).filter(([, value]) => value !== undefined);
  return { within: 30_000, every: 30_000, timeout: 5_000, ...Object.fromEntries(given) };
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
