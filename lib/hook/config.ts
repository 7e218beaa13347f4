import { homedir } from "node:os";
import { dirname, isAbsolute, join, resolve } from "node:path";
import { UsageError } from "../core/errors.ts";
import { isRepoName, isSafeRef, isShortName } from "../core/names.ts";
import { type Mask, readSecretFile, readSecretVariable } from "../config/secrets.ts";
import { type Config, type Infer, readConfig, type Schema, y } from "../config/yaml.ts";
import type { Limits } from "../exec/cgroup.ts";
import { currentUser, isRoot, lookUpUser, type User } from "../exec/users.ts";
import { exists } from "../files/files.ts";
import { type Listen, parseListen } from "../http/server.ts";
import type { TriggerRules } from "./payload.ts";
import { isSigningToken, signingKey } from "./signature.ts";
import { type Stamps, stamp } from "./watch-files.ts";

/** hooks.yml (design, section 4): what may stand in it, and what is made of it. */

const scriptName: Schema<string | false> = y.either(
  [
    y.just(false),
    y.string({ match: /^(?:[A-Za-z0-9][A-Za-z0-9._-]{0,99}|\/.+)$/, what: "a script's name" }),
  ],
  "a script's name, an absolute path, or false",
);

/** What a run's processes may use together; none of them unless set. */
const limitsSchema = y.object({
  memory: y.optional(y.size()),
  cpu: y.optional(y.string({ match: /^[1-9]\d{0,5}%$/, what: "a percentage of one processor" })),
  // below that the shells around a command alone are too many
  processes: y.optional(y.number({ min: 10 })),
});

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
  limits: y.optional(limitsSchema),
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
  limits: y.optional(limitsSchema),
  status: y.optional(
    y.object({ token_file: y.optional(y.string()), token_env: y.optional(y.string()) }),
  ),
  repos: y.record(repoSchema, (name) =>
    isRepoName(name)
      ? undefined
      : `"${name}" is not a repository name; write owner/name as the forge sends it`,
  ),
});

type Raw = Infer<typeof schema>;
type RawRepo = Raw["repos"][string];

export interface HookConfig {
  readonly file: string;
  readonly listen: Listen;
  readonly state: string;
  readonly concurrency: number;
  /** Milliseconds that running runs have after SIGTERM. */
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

/** What hook-server knows of one repo. */
export interface RepoConfig extends TriggerRules {
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
  /** The `then:` commands. */
  readonly afterwards: readonly string[];
  /** Whether a newer push to its ref ends a run that is under way. */
  readonly cancel: boolean;
  /** What a run may use. */
  readonly limits: Limits;
}

/** The configuration in force, and the mask of its secrets. A reload replaces both. */
export interface Settings {
  config: HookConfig;
  mask: Mask;
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
  const path = pathsFrom(file);
  const problems: string[] = [];
  async function attempt<T>(work: () => T | Promise<T>): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof UsageError)) throw error;
      problems.push(error.message);
      return undefined;
    }
  }
  problems.push(...sameNames(config));
  const token = await attempt(() => readToken(config, path, stamps));
  const listen = await attempt(() => readListen(config, overrides.listen));
  const repos = new Map<string, RepoConfig>();
  for (const [name, repo] of Object.entries(raw.repos)) {
    const read = await attempt(() => readRepo(config, name, repo, path, stamps));
    if (read) repos.set(name, read);
  }
  if (problems.length > 0 || !listen) throw new UsageError(problems.join("\n"));
  // of a signing token the part that is the key must not be shown either
  const secrets = [...repos.values()].flatMap((repo) =>
    repo.secrets.flatMap((each) => (isSigningToken(each) ? [each, each.slice(6)] : [each])),
  );
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
    secrets: [...new Set([...secrets, ...(token ? [token] : [])])],
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
  return stateFolder(undefined, value.state, pathsFrom(found));
}

/** A repo by the name a forge sends; forges do not tell upper from lower case. */
export function findRepo(config: HookConfig, name: string): RepoConfig | undefined {
  const exact = config.repos.get(name);
  if (exact) return exact;
  const lower = name.toLowerCase();
  return [...config.repos.values()].find((repo) => repo.name.toLowerCase() === lower);
}

/** Makes the paths in a file absolute: they start from its folder, or with `~/`. */
function pathsFrom(file: string): (text: string) => string {
  const base = dirname(resolve(file));
  return (text) =>
    text.startsWith("~/")
      ? join(homedir(), text.slice(2))
      : isAbsolute(text)
        ? text
        : join(base, text);
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

/** Forges do not tell upper from lower case: of two such names, whose delivery is it? */
function sameNames(config: Config<Raw>): string[] {
  const seen = new Map<string, string>();
  return Object.keys(config.value.repos).flatMap((name) => {
    const other = seen.get(name.toLowerCase());
    if (other === undefined) seen.set(name.toLowerCase(), name);
    return other === undefined
      ? []
      : [
          `${config.where(["repos", name])}: ${name} and ${other} are one repository to a forge; leave one of them`,
        ];
  });
}

/** Secrets that can be guessed or tried out: less than 16 characters. */
export function shortSecrets(config: HookConfig): string[] {
  const isShort = (secret: string) => secret.length < 16;
  const ofRepos = [...config.repos.values()]
    .filter(({ secrets }) => secrets.some(isShort))
    .map(({ name }) => `a secret of ${name}`);
  return config.token !== undefined && isShort(config.token)
    ? [...ofRepos, "the token of status:"]
    : ofRepos;
}

function readListen(config: Config<Raw>, given: string | undefined): Listen {
  try {
    return parseListen(given ?? config.value.listen);
  } catch (error) {
    if (given !== undefined) throw error;
    throw at(config.where(["listen"]), error);
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

/** One repo of hooks.yml, with its secrets and its user. */
async function readRepo(
  config: Config<Raw>,
  name: string,
  raw: RawRepo,
  path: (text: string) => string,
  stamps: Stamps,
): Promise<RepoConfig> {
  const where = (key: string) => config.where(["repos", name, key]);
  const secrets: string[] = [];
  for (const each of raw.secret_file ?? []) {
    stamp(stamps, path(each));
    secrets.push(await readSecretFile(path(each), where("secret_file")));
  }
  for (const each of raw.secret_env ?? [])
    secrets.push(readSecretVariable(each, where("secret_env")));
  if (secrets.length === 0 && !raw.insecure) {
    throw new UsageError(
      `${config.where(["repos", name])}: ${name} has no secret; add secret_file, or insecure: true if anybody may start its builds`,
    );
  }
  if (secrets.some((secret) => isSigningToken(secret) && !signingKey(secret)))
    throw new UsageError(
      `${config.where(["repos", name])}: the secret of ${name} begins as a signing token does, but is none (whsec_, then 24 to 64 bytes in base64); copy it from GitLab once more`,
    );
  if (secrets.length > 2)
    throw new UsageError(`${where("secret_file")}: at most two secrets, while one is rotated`);
  for (const ref of raw.refs ?? []) {
    if (!isSafeRef(ref.replaceAll("*", "x")))
      throw new UsageError(
        `${where("refs")}: "${ref}" is not a branch or ref; write main, release/* or refs/tags/v*`,
      );
  }
  for (const each of [raw.on.push, raw.on.release]) {
    if (each !== false && !isAbsolute(each) && !isShortName(each))
      throw new UsageError(`${where("on")}: "${each}" is not a script's name`);
  }
  const own = currentUser();
  const user =
    raw.user === undefined
      ? own
      : await lookUpUser(raw.user).catch((error: unknown) => {
          throw at(where("user"), error);
        });
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
    limits: readLimits(raw.limits, config.value.limits, where("limits")),
  };
}

/** The least memory with which a script can start, in bytes. */
const minMemory = 16 * 1024 * 1024;

/** A repo's limits, each the file's own where the repo has none. */
function readLimits(own: RawRepo["limits"], all: RawRepo["limits"], where: string): Limits {
  const memory = own?.memory ?? all?.memory;
  const cpu = own?.cpu ?? all?.cpu;
  if (memory !== undefined && memory < minMemory)
    throw new UsageError(
      `${where}: a run cannot start in less than 16M of memory; write 512M or 2G`,
    );
  return {
    memory,
    cpu: cpu === undefined ? undefined : Number.parseInt(cpu, 10),
    processes: own?.processes ?? all?.processes,
  };
}

/** An error with the place in the file in front. */
function at(where: string, error: unknown): unknown {
  return error instanceof UsageError ? new UsageError(`${where}: ${error.message}`) : error;
}
