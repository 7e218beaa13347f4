import { homedir } from "node:os";
import { dirname, isAbsolute, join, resolve } from "node:path";
import type { User } from "../as-user.ts";
import { isRoot } from "../as-user.ts";
import { UsageError } from "../errors.ts";
import { exists } from "../files.ts";
import { type Listen, parseListen } from "../listen-address.ts";
import { isRepoName, isSafeRef, isShortName } from "../names.ts";
import { readSecretFile, readSecretVariable } from "../secrets.ts";
import { currentUser, lookUpUser } from "../users.ts";
import { type Config, type Infer, readConfig, type Schema, y } from "../yaml.ts";
import type { Wishes } from "./decide.ts";

const scriptName: Schema<string | false> = y.either(
  [
    y.just(false),
    y.string({ match: /^(?:[A-Za-z0-9][A-Za-z0-9._-]{0,99}|\/.+)$/, what: "a script's name" }),
  ],
  "a script's name, an absolute path, or false",
);

const repoSchema = y.object({
  user: y.optional(y.string()),
  dir: y.string(),
  secret_file: y.optional(y.oneOrMore(y.string())),
  secret_env: y.optional(y.oneOrMore(y.string())),
  insecure: y.optional(y.boolean(), false),
  refs: y.optional(y.oneOrMore(y.string())),
  timeout: y.optional(y.duration(), 30 * 60_000),
  poll: y.optional(y.either([y.just(false), y.duration()], "a duration or false"), 15 * 60_000),
  // oxlint-disable-next-line unicorn/no-thenable -- the design's word, and never a function
  then: y.optional(y.oneOrMore(y.string()), []),
  on: y.optional(
    y.object({
      push: y.optional(scriptName, "build"),
      release: y.optional(scriptName, "release"),
    }),
    { push: "build", release: "release" },
  ),
  cancel: y.optional(y.boolean(), false),
});

const schema = y.object({
  listen: y.optional(y.string(), "127.0.0.1:3420"),
  state: y.optional(y.string()),
  concurrency: y.optional(y.number({ min: 1, max: 1000 }), 2),
  drain: y.optional(y.duration(), 5 * 60_000),
  keep: y.optional(y.number({ min: 1 }), 50),
  keep_for: y.optional(y.duration(), 30 * 86_400_000),
  max_log: y.optional(y.size(), 100 * 1024 * 1024),
  max_waiting: y.optional(y.number({ min: 1 }), 1000),
  status: y.optional(
    y.object({ token_file: y.optional(y.string()), token_env: y.optional(y.string()) }),
  ),
  repos: y.record(repoSchema, (name) =>
    isRepoName(name)
      ? undefined
      : `"${name}" is no repository name; write owner/name as the forge sends it`,
  ),
});

/** What hook-server knows of one repo. */
export interface RepoConfig extends Wishes {
  readonly name: string;
  readonly dir: string;
  readonly user: User;
  /** Whether a user was named: a root server warns when not. */
  readonly userGiven: boolean;
  /** Empty only with `insecure: true`. */
  readonly secrets: readonly string[];
  /** Milliseconds. */
  readonly timeout: number;
  /** Milliseconds between looks for missed pushes, or false. */
  readonly poll: number | false;
  /** Commands after a good push run. */
  readonly afterwards: readonly string[];
  /** Whether a newer push to its ref ends a run that is under way. */
  readonly cancel: boolean;
}

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
  /** The files whose change asks for a reload. */
  readonly files: readonly string[];
}

export interface ConfigOverrides {
  listen?: string | undefined;
  state?: string | undefined;
}

type Raw = Infer<typeof schema>;
type RawRepo = Raw["repos"][string];

/**
 * Read hooks.yml with its secrets and users. Relative paths in it start from its folder.
 * @throws {UsageError} with file:line:column, one line a mistake.
 */
export async function loadConfig(
  file: string,
  overrides: ConfigOverrides = {},
): Promise<HookConfig> {
  const config = await readConfig(file, schema);
  const raw = config.value;
  const base = dirname(resolve(file));
  const files = [resolve(file)];
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
  const token = await attempt(() => readToken(config, path, files));
  const listen = await attempt(async () => readListen(config, overrides.listen));
  const repos = new Map<string, RepoConfig>();
  for (const [name, repo] of Object.entries(raw.repos)) {
    const read = await attempt(() => readRepo(config, name, repo, path, files));
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
    files,
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
  files: string[],
): Promise<string | undefined> {
  const status = config.value.status;
  if (!status) return undefined;
  if (status.token_file !== undefined) {
    files.push(path(status.token_file));
    return await readSecretFile(path(status.token_file), config.where(["status", "token_file"]));
  }
  if (status.token_env !== undefined)
    return readSecretVariable(status.token_env, config.where(["status", "token_env"]));
  throw new UsageError(
    `${config.where(["status"])}: "token_file" or "token_env" is missing; name where the token is`,
  );
}

async function readRepo(
  config: Config<Raw>,
  name: string,
  raw: RawRepo,
  path: (text: string) => string,
  files: string[],
): Promise<RepoConfig> {
  const where = (key: string) => config.where(["repos", name, key]);
  const secrets: string[] = [];
  for (const each of raw.secret_file ?? []) {
    files.push(path(each));
    secrets.push(await readSecretFile(path(each), where("secret_file")));
  }
  for (const each of raw.secret_env ?? [])
    secrets.push(readSecretVariable(each, where("secret_env")));
  if (secrets.length === 0 && !raw.insecure) {
    throw new UsageError(
      `${config.where(["repos", name])}: ${name} has no secret; add secret_file, or insecure: true if anybody may start its builds`,
    );
  }
  if (secrets.length > 2)
    throw new UsageError(`${where("secret_file")}: at most two secrets, while one is rotated`);
  for (const ref of raw.refs ?? []) {
    if (!isSafeRef(ref.replaceAll("*", "x")))
      throw new UsageError(
        `${where("refs")}: "${ref}" is no branch or ref; write main, release/* or refs/tags/v*`,
      );
  }
  for (const each of [raw.on.push, raw.on.release]) {
    if (each !== false && !isAbsolute(each) && !isShortName(each))
      throw new UsageError(`${where("on")}: "${each}" is no script's name`);
  }
  const own = currentUser();
  const user = raw.user === undefined ? own : await found(lookUpUser(raw.user), where("user"));
  if (user.uid !== own.uid && !isRoot()) {
    throw new UsageError(
      `${where("user")}: only root can build as ${user.name}; start hook-server as root or as ${user.name}`,
    );
  }
  return {
    name,
    dir: path(raw.dir),
    user,
    userGiven: raw.user !== undefined,
    secrets,
    refs: raw.refs,
    timeout: raw.timeout,
    poll: raw.poll,
    afterwards: raw.then,
    on: raw.on,
    cancel: raw.cancel,
  };
}

async function found<T>(looking: Promise<T>, where: string): Promise<T> {
  try {
    return await looking;
  } catch (error) {
    if (error instanceof UsageError) throw new UsageError(`${where}: ${error.message}`);
    throw error;
  }
}
