import { constants } from "node:os";
import { messageOf } from "../core/errors.ts";
import { parseDuration, parseSize } from "../core/units.ts";
import { parseListen } from "../http/server.ts";
import { limitsSchema } from "../config/limits.ts";
import type { Limits } from "../exec/scope.ts";
import { notifySchema, type readTargets } from "../notify/notify.ts";
import { appNames, isAppName } from "../web-folder/version-file.ts";
import { alsoJson, type JsonSchema, type Schema, y } from "../config/yaml.ts";

/**
 * The keys of what launchfit is told: launchify.yml or config/app.json (one shape), here and in the release.
 * The deploy directory's wins, key by key; of a release everything counts but what is the directory's own to say.
 */

/** One key of the configuration: how it is written, and what holds where it is not. */
export interface Key<T> {
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
function changed<A, B>(schema: Schema<A>, change: (value: A) => B, json: JsonSchema = {}): Schema<B> {
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
/** The signal that a text names, as TERM and SIGTERM do; undefined when it is a command. */
export function signalOf(text: string): NodeJS.Signals | undefined {
  if (!/^(?:SIG)?[A-Z]{3,}[0-9]?$/.test(text)) return undefined;
  const name = text.startsWith("SIG") ? text : `SIG${text}`;
  if (Object.hasOwn(constants.signals, name)) return name as NodeJS.Signals;
  throw new Error(`"${text}" is not a signal; write TERM or INT, or a command`);
}

const signalOrCommand = changed(command, (text) => {
  signalOf(text);
  return text;
});

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
/** The value of a variable, or the file that holds it. */
export type Variable = string | { secret_file: string };
const filePath = y.string({ match: /\S/, what: "the path of a file" });
const variables = y.record(
  y.either([y.object({ secret_file: filePath }), y.string()], "text, or a map with secret_file") as Schema<Variable>,
  (name) => (variableNames.test(name) ? undefined : `"${name}" is not the name of an environment variable`),
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
  failures: key(orFalse(y.number({ min: 1 }), "false, or how many bad answers in a row"), 3 as number | false),
};

/** `app.health`: exactly one of url and command. Durations in milliseconds. */
export type HealthCheck = Pick<ValuesOf<typeof healthKeys>, "within" | "every" | "timeout"> & {
  url?: string;
  command?: string;
  failures?: number | false;
};

const oneTest = alsoJson(mapOf(healthKeys), { oneOf: [{ required: ["url"] }, { required: ["command"] }] });
const health = changed(
  y.either([oneTest, command], "a URL, a command, or a map with url or command, within, every, timeout, failures"),
  (written): HealthCheck => {
    const inOneWord = (text: string) => (/^https?:\/\//.test(text) ? { url: text } : { command: text });
    const check = typeof written === "string" ? inOneWord(written) : written;
    const given = Object.entries(check).filter(([, value]) => value !== undefined);
    const { url: _url, command: _command, ...standard } = valuesOf(healthKeys);
    const all: HealthCheck = { ...standard, ...Object.fromEntries(given) };
    if (all.url !== undefined && !URL.canParse(all.url))
      throw new Error(`"${all.url}" is not a URL; write http://127.0.0.1:8080/`);
    if ((all.url === undefined) === (all.command === undefined))
      throw new Error("app.health takes either url or command");
    return all;
  },
);

const fingerprints = changed(
  y.oneOrMore(y.string({ match: /^[0-9A-Fa-fx\s:]{8,130}$/, what: "an OpenPGP fingerprint in hex" })),
  (all) => all.map((each) => each.replace(/[\s:]|0x/gi, "").toUpperCase()),
);
const gpgKeys = { key: key(fingerprints, [] as string[]) };
const gpg = changed(mapOf(gpgKeys), ({ key: pins }) => ({ key: (pins as string[]) ?? [] }));

/** What launchfit can hand over. */
function addressOf(text: string): string {
  parseListen(text);
  return text;
}

const addressJson = {
  ...{ type: ["string", "integer"], minimum: 0, maximum: 65535 },
  pattern: String.raw`^(?:(?:(?:\[[0-9a-fA-F:.]+\]|[^:[\]]*):)?\d{1,5}|(?:unix:)?/.+)$`,
};

const serverUrl = y.string({ match: /^(?:https?|file):\/\//, what: "an https, http or file URL" });

/** Every key, in the order in which `launchfit config` shows them. */
export const sections = {
  app: {
    name: key(appName),
    exec: key(command),
    forever: key(y.boolean(), false as boolean),
    kill: key(signalOrCommand),
    grace: duration("10s"),
    env: key(variables, {} as Record<string, Variable>),
    /** Files with lines NAME=VALUE; what stands in env counts more. */
    env_file: key(y.oneOrMore(filePath), [] as string[]),
    /** Folders taken off an archive's names; without it one, where it holds a configuration. */
    strip: key(y.either([y.just(0), y.just(1)], "0 or 1")),
    /** At an update the new version is started before the old one ends. */
    overlap: key(y.boolean(), false as boolean),
    listen: key(
      alsoJson(
        changed(y.string({ what: "a port, 127.0.0.1:8080, or unix:/run/my-app.socket" }), addressOf),
        addressJson,
      ),
    ),
    /** Of a socket in the file system: its rights, and the group that may connect. */
    listen_mode: key(
      alsoJson(y.string({ match: /^0?[0-7]{3}$/, what: "a mode as 660" }), { type: ["string", "integer"] }),
      "660",
    ),
    listen_group: key(y.string({ match: /^[a-z_][a-z0-9_-]*$/, what: "a group" })),
    health: key(health, undefined as HealthCheck | undefined, { parts: healthKeys }),
    /** What the app's unit may take: `setup app` writes it there. */
    limits: key(limitsSchema, undefined as Limits | undefined, { own: true }),
  },
  updates: {
    /** false, or `updates: false`: no updates here, and that is meant. */
    enabled: key(y.boolean(), true as boolean, { own: true }),
    server: key(y.oneOrMore(serverUrl), [] as string[]),
    /** false: only when asked. */
    every: key(orFalse(y.duration(), "false, or a duration such as 15m"), parseDuration("15m") as number | false, {
      written: "15m",
    }),
    /** How long a new version that is healthy is watched before it counts as good. */
    watch: duration("10s"),
    /** How many older releases are kept; false: none. */
    keep: key(orFalse(y.number(), "false, or how many older releases to keep"), 2 as number | false),
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

/** What one file says: the sections, and whom to tell. */
export type LaunchFile = { [section: string]: Record<string, unknown> | undefined } & {
  notify?: Parameters<typeof readTargets>[0];
};

const off = changed(y.just(false), () => ({ enabled: false }));

/** One file: any of the sections, with any of their keys. */
export const launchSchema = y.object({
  app: y.optional(mapOf(sections.app)),
  updates: y.optional(y.either([off, mapOf(sections.updates)], "false, or a map")),
  hooks: y.optional(mapOf(sections.hooks)),
  notify: y.optional(notifySchema),
}) as unknown as Schema<LaunchFile>;

function valuesOf<Table extends Keys>(keys: Table): ValuesOf<Table> {
  const values = Object.entries(keys).map(([name, { standard }]) => [name, standard]);
  return Object.fromEntries(values) as ValuesOf<Table>;
}
