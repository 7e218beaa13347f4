import { dirname, join, resolve } from "node:path";
import { parseEnv } from "node:util";
import { readSecretFile } from "../config/secrets.ts";
import { type Config, readConfig } from "../config/yaml.ts";
import { UsageError } from "../core/errors.ts";
import { exists } from "../files/files.ts";
import { type Listen, parseListen } from "../http/server.ts";
import { readTargets, type Target } from "../notify/notify.ts";
import {
  type HealthCheck,
  type Key,
  type LaunchConfig,
  type LaunchFile,
  launchSchema,
  sections,
  signalOf,
} from "./config-keys.ts";

/** Reading what launchfit is told (config-keys.ts), in the deploy directory and in a release. */
export { type HealthCheck, type LaunchConfig, launchSchema } from "./config-keys.ts";

/** A configuration, with where each value comes from and how it was written there. */
export interface ReadLaunchConfig {
  config: LaunchConfig;
  /** By dotted name: `updates.every` → `launchify.yml:7:10`, or `default`. */
  origins: Record<string, string>;
  /** By dotted name: `updates.every` → `15m`; `–` where there is no value. */
  written: Record<string, string>;
}

/** The files in a folder that configure launchfit, the stronger first. */
export const configFiles = ["launchify.yml", join("config", "app.json")];

async function filesIn(folder: string): Promise<Config<LaunchFile>[]> {
  const found: Config<LaunchFile>[] = [];
  for (const file of configFiles) {
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
export async function readLaunchConfig(folder: string, release?: string): Promise<ReadLaunchConfig> {
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
      written[dotted] = asWritten(values[name], about, (path) => file?.source([section, name, ...path]));
    }
  }
  return { config: merged as unknown as LaunchConfig, origins, written };
}

/** What `launchfit config` shows of `notify:`: the kinds of its targets, and no addresses. */
export async function describeNotify(folder: string): Promise<{ kinds: string[]; origin: string }> {
  const config = (await filesIn(folder)).find(({ value }) => value.notify !== undefined);
  const isKind = ([key, value]: [string, unknown]) => value !== undefined && !["when", "group"].includes(key);
  const kinds = (config?.value.notify ?? []).flatMap((target) =>
    Object.entries(target)
      .filter(isKind)
      .map(([kind]) => kind),
  );
  return { kinds, origin: config?.where(["notify"]) ?? "default" };
}

/**
 * Whom to tell, by `notify:` of the deploy directory: a release does not choose who gets messages. Paths start from the
 * file's folder.
 * @throws {UsageError} with file:line:column for every mistake, and for a secret that cannot be read.
 */
export async function readNotifyTargets(folder: string): Promise<Target[]> {
  const config = (await filesIn(folder)).find(({ value }) => value.notify !== undefined);
  if (!config) return [];
  return await readTargets(config.value.notify ?? [], {
    where: (path) => config.where(["notify", ...path]),
    path: (text) => resolve(dirname(config.file), text),
  });
}

/** A value for people: with the unit with which it was written, whatever it is in the program. */
function asWritten(
  value: unknown,
  { standard, written, parts }: Key<unknown>,
  source: (path: string[]) => string | undefined,
): string {
  if (value === undefined) return "–";
  if (typeof value === "number") return source([]) ?? (value === standard ? written : undefined) ?? `${value}`;
  if (!parts) return JSON.stringify(value);
  const entries = Object.entries(value as object).map(([name, each]) => {
    const part = parts[name];
    const shown = part && asWritten(each, part, (path) => source([name, ...path]));
    return `${name}: ${shown ?? JSON.stringify(each)}`;
  });
  return `{ ${entries.join(", ")} }`;
}

/** The part of the configuration by which a release is run, in the form in which it is used. */
export interface AppSettings extends Omit<LaunchConfig["app"], "exec" | "kill" | "listen" | "env" | "env_file"> {
  /** With what the files of env_file and secret_file hold. */
  env: Record<string, string>;
  /** Empty where nothing is to run. */
  exec: string;
  /** How it is ended; TERM and KILL follow. */
  kill: { signal: NodeJS.Signals } | { command: string };
  listen: Listen | undefined;
  /** Without url and command it is enough that the app stays alive. */
  health: HealthCheck;
  hooks: LaunchConfig["hooks"];
}

/** Without `app.health` an app must stay alive for as many milliseconds. */
const mustStayAlive = 10_000;
const noHealth: HealthCheck = { within: mustStayAlive, timeout: mustStayAlive, every: 30_000 };

/**
 * How a release is run. Reads the files of app.env_file and of secrets in app.env.
 * @param directory the deploy directory, for the message.
 * @param toRun false: only its hooks are; app.exec may be missing.
 * @throws {UsageError} when there is no app.exec, a file cannot be read, app.listen is wrong, app.overlap cannot work.
 */
export async function appSettings(
  { app, hooks }: LaunchConfig,
  directory: string,
  { toRun = true } = {},
): Promise<AppSettings> {
  const { exec = "", kill = "TERM", health = noHealth } = app;
  const file = join(directory, "launchify.yml");
  if (exec === "" && toRun)
    throw new UsageError(
      `${file}: app.exec is missing, in the release's launchify.yml too; write the command that starts the app`,
    );
  const signal = signalOf(kill);
  const listen = app.listen === undefined ? undefined : parseListen(app.listen);
  if (app.overlap && toRun && !answersAt(health.url, listen))
    throw new UsageError(
      `${file}: app.overlap needs app.listen, and in app.health a URL with the port of app.listen, by which the ` +
        "new version is asked",
    );
  const env = await readEnvironment(app, directory, file);
  return { ...app, env, exec, kill: signal ? { signal } : { command: kill }, listen, health, hooks };
}

/** The app's variables; paths start from the deploy directory. */
async function readEnvironment(
  { env, env_file }: Pick<LaunchConfig["app"], "env" | "env_file">,
  directory: string,
  file: string,
): Promise<Record<string, string>> {
  const values: Record<string, string> = {};
  for (const path of env_file)
    Object.assign(values, parseEnv(await readSecretFile(resolve(directory, path), `${file}: app.env_file`)));
  for (const [name, value] of Object.entries(env))
    values[name] =
      typeof value === "string"
        ? value
        : await readSecretFile(resolve(directory, value.secret_file), `${file}: app.env.${name}`);
  return values;
}

/** Whether a URL has the port that is handed to the app. */
function answersAt(url: string | undefined, listen: Listen | undefined): boolean {
  if (url === undefined || listen === undefined || !("port" in listen)) return false;
  const { port, protocol } = new URL(url);
  return Number(port || (protocol === "https:" ? 443 : 80)) === listen.port;
}
