import { homedir } from "node:os";
import { dirname, isAbsolute, join, resolve } from "node:path";
import { isRoot } from "../exec/as-user.ts";
import { UsageError } from "../core/errors.ts";
import { exists } from "../files/files.ts";
import { type Listen, parseListen } from "../http/listen-address.ts";
import { readSecretFile, readSecretVariable } from "../config/secrets.ts";
import { type Config, readConfig } from "../config/yaml.ts";
import { type RepoConfig, readRepo } from "./config-repo.ts";
import { type Raw, schema } from "./config-schema.ts";
import { type Stamps, stamp } from "./watch-files.ts";

export interface HookConfig {
  readonly file: string;
  readonly listen: Listen;
  readonly state: string;
  readonly concurrency: number;
  readonly drain: number;
  /** Ended runs that are kept of each repo, and for how many milliseconds. */
  readonly keep: number;
  readonly keepFor: number;
  /** Bytes after which a run's log ends the run. */
  readonly maxLog: number;
  /** Runs of one repo that may wait; more deliveries are answered 429. */
  readonly maxWaiting: number;
  readonly token: string | undefined;
  readonly repos: ReadonlyMap<string, RepoConfig>;
  /** All secrets, for masking. */
  readonly secrets: readonly string[];
}

export interface ConfigOverrides {
  listen?: string | undefined;
  state?: string | undefined;
}

/**
 * Read hooks.yml with its secrets and users. Relative paths in it start from its folder.
 * @param stamps is told of the files whose change asks for another reading, also when this one fails.
 * @throws {UsageError} with file:line:column, one line a mistake.
 */
export async function loadConfig(
  file: string,
  overrides: ConfigOverrides = {},
  stamps: Stamps = new Map(),
): Promise<HookConfig> {
  stamp(stamps, resolve(file));
  const config = await readConfig(file, schema);
  const raw = config.value;
  const base = dirname(resolve(file));
  const path = (text: string) => {
    const full = text.startsWith("~/") ? join(homedir(), text.slice(2)) : text;
    return isAbsolute(full) ? full : join(base, full);
  };
  const problems: string[] = [];
  async function attempt<T>(work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof UsageError)) throw error;
      problems.push(error.message);
      return undefined;
    }
  }
  const token = await attempt(() => readToken(config, path, stamps));
  const listen = await attempt(async () => readListen(config, overrides.listen));
  const repos = new Map<string, RepoConfig>();
  for (const [name, repo] of Object.entries(raw.repos)) {
    const read = await attempt(() => readRepo(config, name, repo, path, stamps));
    if (read) repos.set(name, read);
  }
  if (problems.length > 0 || !listen) throw new UsageError(problems.join("\n"));
  return {
    file,
    listen,
    state: stateFolder(overrides.state, raw.state, path),
    concurrency: raw.concurrency,
    drain: raw.drain,
    keep: raw.keep,
    keepFor: raw.keep_for,
    maxLog: raw.max_log,
    maxWaiting: raw.max_waiting,
    token,
    repos,
    secrets: [
      ...new Set([
        ...[...repos.values()].flatMap((repo) => repo.secrets),
        ...(token ? [token] : []),
      ]),
    ],
  };
}

/** The file that was named, else hooks.yml in this folder, else the one in /etc. */
export async function findConfig(given: string | undefined): Promise<string> {
  if (given !== undefined) return given;
  const central = "/etc/boatyard/hooks.yml";
  return !(await exists("hooks.yml")) && (await exists(central)) ? central : "hooks.yml";
}

/** Where the state is, without reading secrets and users: what `hook-server list` needs to know. */
export async function findState(
  file: string | undefined,
  given: string | undefined,
): Promise<string> {
  if (given !== undefined) return resolve(given);
  const found = await findConfig(file);
  const { value } = await readConfig(found, schema);
  const base = dirname(resolve(found));
  return stateFolder(undefined, value.state, (text) =>
    isAbsolute(text) ? text : join(base, text),
  );
}

function stateFolder(
  given: string | undefined,
  inFile: string | undefined,
  path: (text: string) => string,
): string {
  if (given !== undefined) return resolve(given);
  if (inFile !== undefined) return path(inFile);
  return isRoot() ? "/var/lib/boatyard" : join(homedir(), ".local/state/boatyard");
}

function readListen(config: Config<Raw>, given: string | undefined): Listen {
  try {
    return parseListen(given ?? config.value.listen);
  } catch (error) {
    if (given !== undefined || !(error instanceof UsageError)) throw error;
    throw new UsageError(`${config.where(["listen"])}: ${error.message}`);
  }
}

async function readToken(
  config: Config<Raw>,
  path: (text: string) => string,
  stamps: Stamps,
): Promise<string | undefined> {
  const status = config.value.status;
  if (!status) return undefined;
  if (status.token_file !== undefined) {
    stamp(stamps, path(status.token_file));
    return await readSecretFile(path(status.token_file), config.where(["status", "token_file"]));
  }
  if (status.token_env !== undefined)
    return readSecretVariable(status.token_env, config.where(["status", "token_env"]));
  throw new UsageError(
    `${config.where(["status"])}: "token_file" or "token_env" is missing; name where the token is`,
  );
}
