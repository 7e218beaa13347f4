import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { UsageError } from "../core/errors.ts";
import { isSafeRef, isShortName, safeRefs, shortNames } from "../core/names.ts";
import { alsoJson, type Config, type Infer, readConfig, y } from "../config/yaml.ts";
import { addresses, parseGitUrl, parseRsync, parseS3 } from "./addresses.ts";
import { patternProblem, patterns } from "./headers.ts";

/** `uploads.yml`: the folder that is published, and where to. */
export interface UploadsConfig {
  /** Absolute path of the folder. */
  from: string;
  targets: Target[];
}

/** How ssh logs in: for rsync and git alike. */
export interface SshSettings {
  /** Private key file; default: what ssh itself would take. */
  key?: string | undefined;
  /** Default: ssh's own, ~/.ssh/known_hosts. */
  knownHosts?: string | undefined;
  port?: number | undefined;
}

/** A place to publish to, as its name in `uploads.yml` says; `delete`: remove there what is no longer here. */
export type Target = ReturnType<typeof targetOf>;
export type RsyncTarget = Extract<Target, { kind: "rsync" }>;
export type S3Target = Extract<Target, { kind: "s3" }>;
export type GitTarget = Extract<Target, { kind: "git" }>;

const targetKeys = {
  rsync: ["rsync", "key", "known_hosts", "port", "delete"],
  s3: [...["s3", "region", "endpoint", "path_style", "profile", "acl", "jobs", "cache", "types"], "delete"],
  git: ["git", "branch", "key", "known_hosts", "port"],
} as const;

const text = y.string({ match: /./, what: "text" });
const acls = [...["private", "public-read", "authenticated-read", "bucket-owner-full-control"]] as const;

const targetSchema = alsoJson(
  y.object({
    rsync: y.optional(alsoJson(text, addresses.rsync)),
    s3: y.optional(alsoJson(text, addresses.s3)),
    git: y.optional(alsoJson(text, addresses.git)),
    key: y.optional(text),
    known_hosts: y.optional(text),
    port: y.optional(y.number({ min: 1, max: 65535 })),
    branch: y.optional(alsoJson(text, { pattern: safeRefs.source, minimum: 0 })),
    region: y.optional(text),
    endpoint: y.optional(y.string({ match: /^https?:\/\/[^\s/@]+(?:\/[^@]*)?$/, what: "an http(s) address" })),
    path_style: y.optional(y.boolean()),
    profile: y.optional(text),
    acl: y.optional(y.choice(acls)),
    jobs: y.optional(y.number({ min: 1, max: 256 }), 32),
    cache: y.optional(
      y.record(
        y.either([y.number(), text], 'seconds, or a Cache-Control value such as "no-cache"'),
        patternProblem,
        patterns,
      ),
      {},
    ),
    types: y.optional(
      y.record(
        y.string({ match: /^[\w.+-]+\/[\w.+-]+/, what: "a content type such as text/html" }),
        patternProblem,
        patterns,
      ),
      {},
    ),
    delete: y.optional(y.boolean(), false),
  }),
  {
    // of exactly one kind, with the keys of that kind
    oneOf: Object.entries(targetKeys).map(([kind, keys]) => ({
      required: [kind],
      propertyNames: { enum: keys },
    })),
  },
);

export const uploadsSchema = y.object({
  from: y.optional(text, "upload"),
  to: alsoJson(
    y.record(
      targetSchema,
      (name) => (isShortName(name) ? undefined : `"${name}" is not a valid target name; use letters, digits, . _ -`),
      shortNames,
    ),
    { minProperties: 1 },
  ),
});

type Written = Infer<typeof uploadsSchema>["to"][string];

/**
 * Read and check `uploads.yml`; nothing is looked at but the file.
 * @throws {UsageError} with every mistake, one a line, each with file, line and column.
 */
export async function readUploadsConfig(file: string, dir: string): Promise<UploadsConfig> {
  const config = await readConfig(file, uploadsSchema);
  const problems: string[] = [];
  const targets: Target[] = [];
  for (const [name, written] of Object.entries(config.value.to)) {
    try {
      targets.push(targetOf(name, written, config, dir));
    } catch (error) {
      if (!(error instanceof UsageError)) throw error;
      problems.push(error.message);
    }
  }
  if (problems.length > 0) throw new UsageError(problems.join("\n"));
  if (targets.length === 0)
    throw new UsageError(`${config.where(["to"])}: no target is named; see templates/uploads.yml`);
  return { from: resolve(dir, expand(config.value.from)), targets };
}

function targetOf(name: string, written: Written, config: Config<unknown>, dir: string) {
  const where = (...keys: string[]) => config.where(["to", name, ...keys]);
  const kinds = (["rsync", "s3", "git"] as const).filter((kind) => written[kind] !== undefined);
  const [kind] = kinds;
  if (kind === undefined || kinds.length > 1)
    throw new UsageError(`${where()}: target "${name}" needs exactly one of rsync, s3, git`);
  const allowed: readonly string[] = targetKeys[kind];
  const stray = Object.keys(written).find(
    // a key that stands nowhere of its own was filled in by the schema
    (key) => where(key) !== where() && !allowed.includes(key),
  );
  if (stray !== undefined)
    throw new UsageError(
      `${where(stray)}: "${stray}" means nothing for a ${kind} target; allowed are ${allowed.join(", ")}`,
    );
  const wrong = (key: string, problem: string) => new UsageError(`${where(key)}: ${problem}`);
  const path = (value: string | undefined) => (value === undefined ? undefined : resolve(dir, expand(value)));
  const common = { name, delete: written.delete };
  const ssh: SshSettings = { key: path(written.key), knownHosts: path(written.known_hosts), port: written.port };
  if (kind === "rsync") {
    const address = parseRsync(expand(written.rsync ?? ""));
    if (typeof address === "string") throw wrong("rsync", address);
    return { ...common, kind, address, ssh };
  }
  if (kind === "git") {
    const problem = parseGitUrl(written.git ?? "");
    if (problem !== undefined) throw wrong("git", problem);
    const branch = written.branch ?? "gh-pages";
    if (!isSafeRef(branch)) throw wrong("branch", `"${branch}" is not a valid branch name`);
    return { ...common, kind, url: expand(written.git ?? ""), branch, ssh };
  }
  const address = parseS3(written.s3 ?? "");
  if (typeof address === "string") throw wrong("s3", address);
  const { region, endpoint, profile, acl, jobs } = written;
  return {
    ...{ ...common, kind, address, region, endpoint, profile, acl, jobs },
    pathStyle: written.path_style,
    cache: Object.entries(written.cache).map(
      ([pattern, value]) => [pattern, typeof value === "number" ? `max-age=${value}` : value] as const,
    ),
    types: Object.entries(written.types),
  };
}

/** `~/` at the start is the home folder, as in a shell. */
function expand(path: string): string {
  return path.startsWith("~/") ? join(homedir(), path.slice(2)) : path;
}
