import { isAbsolute } from "node:path";
import { UsageError } from "../../core/errors.ts";
import { isSafeRef, isShortName } from "../../core/names.ts";
import { readSecretVariable } from "../../config/secrets.ts";
import { alsoJson, type Infer, type Schema, y } from "../../config/yaml.ts";
import { limitsSchema } from "../../config/limits.ts";
import type { Limits } from "../../exec/scope.ts";
import { currentUser, isRoot, lookUpUser, type User } from "../../exec/users.ts";
import { readSigners } from "../../git/signers.ts";
import { runsOnSchema } from "./builders.ts";
import { placed, type ConfigSource } from "./config-source.ts";
import type { TriggerRules } from "../payload/payload.ts";
import { isSigningToken, signingKey } from "../payload/signature.ts";

/** A repo's settings in hooks.yml (`repos:`): what may stand there, and what is made of it. */

const scriptName: Schema<string | false> = y.either(
  [y.just(false), y.string({ match: /^(?:[A-Za-z0-9][A-Za-z0-9._-]{0,99}|\/.+)$/, what: "a script's name" })],
  "a script's name, an absolute path, or false",
);

const repoKeys = y.object({
  user: y.optional(y.string()),
  dir: y.string(),
  secret_file: y.optional(y.oneOrMore(y.string())),
  secret_env: y.optional(y.oneOrMore(y.string())),
  insecure: y.optional(y.boolean(), false),
  refs: y.optional(y.oneOrMore(y.string())),
  timeout: y.optional(y.duration(), 30 * 60_000),
  poll: y.optional(y.either([y.just(false), y.duration()], "a duration or false"), 15 * 60_000),
  // oxlint-disable-next-line unicorn/no-thenable -- the design's word, and never a function
  then: y.optional(y.oneOrMore(y.string())),
  on_success: y.optional(y.oneOrMore(y.string())),
  on_failure: y.optional(y.oneOrMore(y.string())),
  on_change: y.optional(y.oneOrMore(y.string())),
  forge: y.optional(y.string()),
  on: y.optional(
    y.object({
      push: y.optional(scriptName, "build"),
      release: y.optional(scriptName, "release"),
    }),
    { push: "build", release: "release" },
  ),
  cancel: y.optional(y.boolean(), false),
  public: y.optional(y.boolean(), false),
  limits: y.optional(limitsSchema),
  signers: y.optional(y.string()),
  allow_back: y.optional(y.boolean(), false),
  runs_on: y.optional(runsOnSchema),
});

export const repoSchema = alsoJson(repoKeys, {
  anyOf: [
    { required: ["secret_file"] },
    { required: ["secret_env"] },
    { required: ["insecure"], properties: { insecure: { const: true } } },
  ],
});

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
  /** The commands of `on_success:`, or `then:`. */
  readonly afterwards: readonly string[];
  readonly onFailure: readonly string[];
  readonly onChange: readonly string[];
  /** Which of the forges it is at, where a payload does not say. */
  readonly forge: string | undefined;
  /** Whether a newer push to its ref ends a run that is under way. */
  readonly cancel: boolean;
  /** Whether anybody may see its runs and logs on the page. */
  readonly public: boolean;
  /** The file of those whose signed commits alone are built. */
  readonly signers: string | undefined;
  /** With signers: a commit may be built that has not the present one in its history. */
  readonly allowBack: boolean;
  /** What a run may use. */
  readonly limits: Limits;
  /** The names or labels of the builders that may run it; undefined: all. */
  readonly runsOn: readonly string[] | undefined;
}

/** What the file says for all repos. */
export interface RepoDefaults {
  readonly limits?: Limits | undefined;
  readonly on_success?: readonly string[] | undefined;
  readonly on_failure?: readonly string[] | undefined;
  readonly on_change?: readonly string[] | undefined;
  /** Its forges, by host. */
  readonly forge?: object | undefined;
  readonly builders?: object | undefined;
}

/**
 * One repo of hooks.yml, with its secrets and its user.
 * @param all those of the whole file, for what the repo does not say itself.
 * @throws {UsageError} with file:line:column.
 */
export async function readRepo(
  source: ConfigSource,
  name: string,
  raw: Infer<typeof repoSchema>,
  all: RepoDefaults,
): Promise<RepoConfig> {
  const where = (key: string) => source.where(["repos", name, key]);
  const secrets: string[] = [];
  for (const each of raw.secret_file ?? []) secrets.push(await source.secretFile(each, where("secret_file")));
  for (const each of raw.secret_env ?? []) secrets.push(readSecretVariable(each, where("secret_env")));
  if (secrets.length === 0 && !raw.insecure) {
    throw new UsageError(
      `${source.where(["repos", name])}: ${name} has no secret; add secret_file, or insecure: ` +
        "true if anybody may start its builds",
    );
  }
  if (secrets.some((secret) => isSigningToken(secret) && !signingKey(secret)))
    throw new UsageError(
      `${source.where(["repos", name])}: the secret of ${name} begins as a signing token does, but is none ` +
        "(whsec_, then 24 to 64 bytes in base64); copy it from GitLab once more",
    );
  if (secrets.length > 2) throw new UsageError(`${where("secret_file")}: at most two secrets, while one is rotated`);
  for (const ref of raw.refs ?? []) {
    if (!isSafeRef(ref.replaceAll("*", "x")))
      throw new UsageError(`${where("refs")}: "${ref}" is not a branch or ref; write main, release/* or refs/tags/v*`);
  }
  for (const each of [raw.on.push, raw.on.release]) {
    if (each !== false && !isAbsolute(each) && !isShortName(each))
      throw new UsageError(`${where("on")}: "${each}" is not a script's name`);
  }
  if (raw.then !== undefined && raw.on_success !== undefined)
    throw new UsageError(`${where("then")}: then is the former name of on_success; keep on_success alone`);
  if (raw.forge !== undefined && !Object.hasOwn(all.forge ?? {}, raw.forge))
    throw new UsageError(`${where("forge")}: "${raw.forge}" is not under forge: at the top of the file`);
  if (raw.runs_on !== undefined && all.builders === undefined)
    throw new UsageError(
      `${where("runs_on")}: there is one builder only; leave runs_on out, or add builders: at the top of the file`,
    );
  const dir = source.path(raw.dir);
  const readableSigners = async () => {
    const file = source.path(raw.signers ?? "");
    if (`${file}/`.startsWith(`${dir}/`))
      throw new UsageError(`${where("signers")}: ${file} lies in the checkout, whose pushers could add themselves`);
    for (const [key, ours] of [
      ["push", "build"],
      ["release", "release"],
    ] as const)
      if (raw.on[key] !== ours && raw.on[key] !== false)
        throw new UsageError(
          `${where("signers")}: ${raw.on[key]} checks no signature; on.${key} must be ${ours} or false`,
        );
    await readSigners(file, where("signers"));
    return file;
  };
  const own = currentUser();
  const user =
    raw.user === undefined
      ? own
      : await lookUpUser(raw.user).catch((error: unknown) => {
          throw placed(where("user"), error);
        });
  if (user.uid !== own.uid && !isRoot()) {
    throw new UsageError(
      `${where("user")}: only root can build as ${user.name}; start hook-server as root or as ${user.name}`,
    );
  }
  return {
    name,
    dir,
    user,
    userGiven: raw.user !== undefined,
    secrets,
    refs: raw.refs,
    timeout: raw.timeout,
    poll: raw.poll,
    afterwards: raw.on_success ?? raw.then ?? all.on_success ?? [],
    onFailure: raw.on_failure ?? all.on_failure ?? [],
    onChange: raw.on_change ?? all.on_change ?? [],
    forge: raw.forge,
    on: raw.on,
    cancel: raw.cancel,
    public: raw.public,
    runsOn: raw.runs_on,
    signers: raw.signers === undefined ? undefined : await readableSigners(),
    allowBack: raw.allow_back,
    limits: readLimits(raw.limits, all.limits, where("limits")),
  };
}

/** The least memory with which a script can start, in bytes, and the fewest processes: it has shells around it. */
const least = { memory: 16 * 1024 * 1024, processes: 10 };

/** A repo's limits, each the file's own where the repo has none. */
function readLimits(own: Limits = {}, all: Limits = {}, where: string): Limits {
  const memory = own.memory ?? all.memory;
  const processes = own.processes ?? all.processes;
  if (memory !== undefined && memory < least.memory)
    throw new UsageError(`${where}: a run cannot start in less than 16M of memory; write 512M or 2G`);
  if (processes !== undefined && processes < least.processes)
    throw new UsageError(`${where}: a run cannot start with less than 10 processes; write 100`);
  return { memory, cpu: own.cpu ?? all.cpu, processes };
}
