import { join } from "node:path";
import { UsageError } from "../core/errors.ts";
import { exists } from "../files/files.ts";
import { normalFingerprint } from "../openpgp/keys.ts";
import { isAppName } from "../web-folder/version-file.ts";
import { type Config, type Infer, readConfig, y } from "../config/yaml.ts";

/**
 * What launchfit is told: launchify.yml or config/app.json (one shape), in the deploy directory and in the release.
 * The deploy directory's wins, key by key; of a release everything counts but its pin (updates.gpg).
 */

const name = y.string({ match: /^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$/, what: "an app's name" });
const command = y.string({ match: /\S/, what: "a command" });
const variables = y.record(y.string(), (key) =>
  /^[A-Za-z_][A-Za-z0-9_]*$/.test(key)
    ? undefined
    : `"${key}" is no name of an environment variable`,
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

/** `app.health`, whichever way it was written. Durations in milliseconds. */
export interface Health {
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
    health: Health | undefined;
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

export const launchDefaults = {
  app: { forever: false, grace: 10_000, env: {} },
  updates: {
    server: [],
    every: 900_000,
    keep: 2,
    max_size: 4 * 1024 ** 3,
    timeout: 30_000,
    gpg: { key: [] },
  },
  hooks: { timeout: 60_000 },
} as const;

/** A configuration with where each value came from: `launchify.yml:3:9`, or `default`. */
export interface ReadLaunchConfig {
  config: LaunchConfig;
  /** By dotted name: `updates.every` → `launchify.yml:7:10`. */
  origins: Record<string, string>;
}

const fileNames = ["launchify.yml", join("config", "app.json")];

/** The files in a folder that configure launchfit, the stronger first. */
async function filesIn(folder: string): Promise<Config<LaunchFile>[]> {
  const found: Config<LaunchFile>[] = [];
  for (const file of fileNames) {
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
  const values = new Map<string, unknown>();
  for (const [layers, trusted] of [
    [own, true],
    [theirs, false],
  ] as const) {
    for (const layer of layers) {
      for (const [section, keys] of Object.entries(layer.value)) {
        for (const [key, value] of Object.entries(keys ?? {})) {
          const dotted = `${section}.${key}`;
          // whoever can sign a release may not say by whom the next must be signed
          if (value === undefined || values.has(dotted) || (!trusted && dotted === "updates.gpg"))
            continue;
          values.set(dotted, value);
          origins[dotted] = layer.where([section, key]);
        }
      }
    }
  }
  const config: Record<string, Record<string, unknown>> = {};
  for (const [section, keys] of Object.entries(shape)) {
    const defaults: Record<string, unknown> =
      launchDefaults[section as keyof typeof launchDefaults];
    const part: Record<string, unknown> = (config[section] = {});
    for (const key of keys) {
      const dotted = `${section}.${key}`;
      part[key] = values.get(dotted) ?? defaults[key];
      origins[dotted] ??= "default";
    }
  }
  const result = config as unknown as LaunchConfig;
  result.app.health = readHealth(config["app"]?.["health"], origins["app.health"] ?? "");
  const pins = (config["updates"]?.["gpg"] as { key?: string[] } | undefined)?.key ?? [];
  result.updates.gpg = {
    key: pins.map(
      (each) => normalFingerprint(each) ?? each.replace(/[\s:]|0x/gi, "").toUpperCase(),
    ),
  };
  if (result.app.name !== undefined && !isAppName(result.app.name))
    throw new UsageError(`${origins["app.name"]}: "${result.app.name}" is no app's name`);
  return { config: result, origins };
}

const shape = {
  app: ["name", "exec", "forever", "kill", "grace", "env", "listen", "health"],
  updates: ["server", "every", "keep", "max_size", "timeout", "gpg"],
  hooks: ["before_start", "before_symlink", "before_restart", "after_restart", "timeout"],
} as const;

function readHealth(given: unknown, where: string): Health | undefined {
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
