import { join } from "node:path";
import { messageOf } from "../core/errors.ts";
import { parseDuration, parseSize } from "../core/units.ts";
import { exists } from "../files/files.ts";
import { normalFingerprint } from "../openpgp/keys.ts";
import { appNames, isAppName } from "../web-folder/version-file.ts";
import {
  alsoJson,
  type Config,
  type JsonSchema,
  readConfig,
  type Schema,
  y,
} from "../config/yaml.ts";

/**
 * What launchfit is told: launchify.yml or config/app.json (one shape), in the deploy directory and in the release.
 * The deploy directory's wins, key by key; of a release everything counts but what is the directory's own to say.
 */

/** One key of the configuration: how it is written, and what holds where it is not. */
interface Key<T> {
  schema: Schema<T>;
  standard: T;
  /** The default with its unit. */
  written?: string;
  /** The keys below it. */
  parts?: Keys;
  /** Only the deploy directory's word counts: a release may not say by whom the next must be signed. */
  own?: boolean;
}

type Keys = Record<string, Key<unknown>>;
type ValuesOf<Table extends Keys> = { -readonly [Name in keyof Table]: Table[Name]["standard"] };

function key<T>(schema: Schema<T>): Key<T | undefined>;
function key<T>(schema: Schema<T>, standard: T, more?: Partial<Key<T>>): Key<T>;
function key(schema: Schema<unknown>, standard?: unknown, more?: Partial<Key<unknown>>) {
  return { schema, standard, ...more };
}

/** Milliseconds. */
const duration = (written: string) => key(y.duration(), parseDuration(written), { written });

/** The same value in the form in which it is used; what `change` throws is the mistake. */
function changed<A, B>(
  schema: Schema<A>,
  change: (value: A) => B,
  json: JsonSchema = {},
): Schema<B> {
  return {
    what: schema.what,
    json: { ...schema.json, ...json },
    read(tree, context) {
      const value = schema.read(tree, context);
      if (value === undefined) return undefined;
      try {
        return change(value);
      } catch (error) {
        return context.problem(tree, messageOf(error));
      }
    },
  };
}

/** A map with these keys, each of which may be left out. */
function mapOf(keys: Keys): Schema<Record<string, unknown>> {
  const shape = Object.entries(keys).map(([name, { schema }]) => [name, y.optional(schema)]);
  return y.object(Object.fromEntries(shape) as Record<string, Schema<unknown>>);
}

const command = y.string({ match: /\S/, what: "a command" });
const orFalse = <T>(schema: Schema<T>, what: string): Schema<T | false> =>
  y.either([y.just(false), schema], what) as Schema<T | false>;

const appName = changed(
  y.string(),
  (name) => {
    if (isAppName(name)) return name;
    throw new Error(`"${name}" cannot be an app's name`);
  },
  { pattern: appNames.source, minimum: 0 },
);

const variableNames = /^[A-Za-z_][A-Za-z0-9_]*$/;
const variables = y.record(
  y.string(),
  (name) =>
    variableNames.test(name) ? undefined : `"${name}" is not the name of an environment variable`,
  variableNames,
);

const healthKeys = {
  /** Must answer 2xx or 3xx. */
  url: key(y.string({ match: /^https?:\/\//, what: "an http or https URL" })),
  /** Must exit 0. */
  command: key(command),
  /** How long after its start the app may take to answer. */
  within: duration("30s"),
  /** How often it is asked while it runs. */
  every: duration("30s"),
  /** How long one answer may take. */
  timeout: duration("5s"),
  /** After so many bad answers in a row an app with `forever` is started again; false: never. */
  failures: key(
    orFalse(y.number({ min: 1 }), "false, or how many bad answers in a row"),
    3 as number | false,
  ),
};

/** `app.health`: exactly one of url and command. Durations in milliseconds. */
export type HealthCheck = Pick<ValuesOf<typeof healthKeys>, "within" | "every" | "timeout"> & {
  url?: string;
  command?: string;
  failures?: number | false;
};

const oneTest = alsoJson(mapOf(healthKeys), {
  oneOf: [{ required: ["url"] }, { required: ["command"] }],
});
const health = changed(
  y.either(
    [oneTest, command],
    "a URL, a command, or a map with url or command, within, every, timeout, failures",
  ),
  (written): HealthCheck => {
    const inOneWord = (text: string) =>
      /^https?:\/\//.test(text) ? { url: text } : { command: text };
    const check = typeof written === "string" ? inOneWord(written) : written;
    const given = Object.entries(check).filter(([, value]) => value !== undefined);
    const { url: _url, command: _command, ...standard } = valuesOf(healthKeys);
    const all: HealthCheck = { ...standard, ...Object.fromEntries(given) };
    if ((all.url === undefined) === (all.command === undefined))
      throw new Error("app.health takes either url or command");
    return all;
  },
);

const fingerprints = changed(
  y.oneOrMore(
    y.string({ match: /^[0-9A-Fa-fx\s:]{8,130}$/, what: "an OpenPGP fingerprint in hex" }),
  ),
  (all) =>
    all.map((each) => normalFingerprint(each) ?? each.replace(/[\s:]|0x/gi, "").toUpperCase()),
);
const gpgKeys = { key: key(fingerprints, [] as string[]) };
const gpg = changed(mapOf(gpgKeys), ({ key: pins }) => ({ key: (pins as string[]) ?? [] }));

const serverUrl = y.string({ match: /^(?:https?|file):\/\//, what: "an https, http or file URL" });

/** Every key, in the order in which `launchfit config` shows them. */
const sections = {
  app: {
    name: key(appName),
    exec: key(command),
    forever: key(y.boolean(), false as boolean),
    kill: key(command),
    grace: duration("10s"),
    env: key(variables, {} as Record<string, string>),
    /** Folders taken off an archive's names; without it one, where it holds a configuration. */
    strip: key(y.either([y.just(0), y.just(1)], "0 or 1")),
    /** At an update the new version is started before the old one ends. */
    overlap: key(y.boolean(), false as boolean),
    listen: key(y.string({ match: /\S/, what: "a port, or an address as 127.0.0.1:8080" })),
    health: key(health, undefined as HealthCheck | undefined, { parts: healthKeys }),
  },
  updates: {
    /** false, or `updates: false`: no updates here, and that is meant. */
    enabled: key(y.boolean(), true as boolean, { own: true }),
    server: key(y.oneOrMore(serverUrl), [] as string[]),
    /** false: only when asked. */
    every: key(
      orFalse(y.duration(), "false, or a duration such as 15m"),
      parseDuration("15m") as number | false,
      { written: "15m" },
    ),
    /** How many older releases are kept; false: none. */
    keep: key(
      orFalse(y.number(), "false, or how many older releases to keep"),
      2 as number | false,
    ),
    max_size: key(y.size(), parseSize("4G"), { written: "4G" }),
    timeout: duration("30s"),
    gpg: key(gpg, valuesOf(gpgKeys), { parts: gpgKeys, own: true }),
  },
  hooks: {
    before_start: key(command),
    before_symlink: key(command),
    before_restart: key(command),
    after_restart: key(command),
    timeout: duration("1m"),
  },
};

/** All of the configuration. Durations in milliseconds, sizes in bytes. */
export type LaunchConfig = { [Name in keyof typeof sections]: ValuesOf<(typeof sections)[Name]> };

type LaunchFile = Record<string, Record<string, unknown> | undefined>;

const off = changed(y.just(false), () => ({ enabled: false }));

/** One file: any of the sections, with any of their keys. */
export const launchSchema = y.object({
  app: y.optional(mapOf(sections.app)),
  updates: y.optional(y.either([off, mapOf(sections.updates)], "false, or a map")),
  hooks: y.optional(mapOf(sections.hooks)),
}) as Schema<LaunchFile>;

function valuesOf<Table extends Keys>(keys: Table): ValuesOf<Table> {
  const values = Object.entries(keys).map(([name, { standard }]) => [name, standard]);
  return Object.fromEntries(values) as ValuesOf<Table>;
}

/** A configuration, with where each value comes from and how it was written there. */
export interface ReadLaunchConfig {
  config: LaunchConfig;
  /** By dotted name: `updates.every` → `launchify.yml:7:10`, or `default`. */
  origins: Record<string, string>;
  /** By dotted name: `updates.every` → `15m`; `–` where there is no value. */
  written: Record<string, string>;
}

/** The files in a folder that configure launchfit, the stronger first. */
async function filesIn(folder: string): Promise<Config<LaunchFile>[]> {
  const found: Config<LaunchFile>[] = [];
  for (const file of ["launchify.yml", join("config", "app.json")]) {
    const path = join(folder, file);
    if (await exists(path)) found.push(await readConfig(path, launchSchema));
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
  const written: Record<string, string> = {};
  const merged: Record<string, Record<string, unknown>> = {};
  for (const [section, keys] of Object.entries(sections)) {
    const values: Record<string, unknown> = (merged[section] = {});
    for (const [name, about] of Object.entries<Key<unknown>>(keys)) {
      const dotted = `${section}.${name}`;
      const valueIn = ({ value }: Config<LaunchFile>) => value[section]?.[name];
      const files = about.own ? own : [...own, ...theirs];
      const file = files.find((each) => valueIn(each) !== undefined);
      values[name] = file ? valueIn(file) : about.standard;
      origins[dotted] = file?.where([section, name]) ?? "default";
      written[dotted] = asWritten(values[name], about, (path) =>
        file?.source([section, name, ...path]),
      );
    }
  }
  return { config: merged as unknown as LaunchConfig, origins, written };
}

/** A value for people: with the unit with which it was written, whatever it is in the program. */
function asWritten(
  value: unknown,
  { standard, written, parts }: Key<unknown>,
  source: (path: string[]) => string | undefined,
): string {
  if (value === undefined) return "–";
  if (typeof value === "number")
    return source([]) ?? (value === standard ? written : undefined) ?? `${value}`;
  if (!parts) return JSON.stringify(value);
  const entries = Object.entries(value as object).map(([name, each]) => {
    const part = parts[name];
    const shown = part && asWritten(each, part, (path) => source([name, ...path]));
    return `${name}: ${shown ?? JSON.stringify(each)}`;
  });
  return `{ ${entries.join(", ")} }`;
}
