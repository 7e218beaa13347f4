import { homedir } from "node:os";
import { isAbsolute, join, resolve } from "node:path";
import { UsageError } from "../core/errors.ts";
import { isSafeRef, isShortName } from "../core/names.ts";
import { type Config, readConfig, y } from "../config/yaml.ts";
import { patternProblem } from "./patterns.ts";
import { type S3Place, parseGitUrl, parseRsync, parseS3, type RsyncPlace } from "./places.ts";

/** `uploads.yml` (design, section 7): the folder that is published, and where to. */
export interface UploadsConfig {
  /** Absolute path of the folder. */
  from: string;
  targets: Target[];
}

interface Common {
  name: string;
  /** Remove there what is no longer here, also without --delete. */
  delete: boolean;
}

/** How ssh logs in: for rsync and git alike. */
export interface SshSettings {
  /** Private key file; default: what ssh itself would take. */
  key?: string | undefined;
  /** Default: ssh's own, ~/.ssh/known_hosts. */
  knownHosts?: string | undefined;
  port?: number | undefined;
}

export interface S3Target extends Common {
  kind: "s3";
  place: S3Place;
  region?: string | undefined;
  endpoint?: string | undefined;
  pathStyle?: boolean | undefined;
  profile?: string | undefined;
  acl?: string | undefined;
  /** Requests at once. */
  jobs: number;
  /** Pattern → Cache-Control; the first that fits. */
  cache: readonly (readonly [string, string])[];
  /** Pattern → content type; the first that fits. */
  types: readonly (readonly [string, string])[];
}

export interface RsyncTarget extends Common {
  kind: "rsync";
  place: RsyncPlace;
  ssh: SshSettings;
}

export interface GitTarget extends Common {
  kind: "git";
  url: string;
  branch: string;
  ssh: SshSettings;
}

export type Target = S3Target | RsyncTarget | GitTarget;

const targetKeys = {
  rsync: ["rsync", "key", "known_hosts", "port", "delete"],
  s3: [
    ...["s3", "region", "endpoint", "path_style", "profile", "acl", "jobs", "cache", "types"],
    "delete",
  ],
  git: ["git", "branch", "key", "known_hosts", "port"],
} as const;

const text = y.string({ match: /./, what: "text" });
const acls = [
  ...["private", "public-read", "authenticated-read", "bucket-owner-full-control"],
] as const;

const schema = y.object({
  from: y.optional(text, "upload"),
  to: y.record(
    y.object({
      rsync: y.optional(text),
      s3: y.optional(text),
      git: y.optional(text),
      key: y.optional(text),
      known_hosts: y.optional(text),
      port: y.optional(y.number({ min: 1, max: 65535 })),
      branch: y.optional(text),
      region: y.optional(text),
      endpoint: y.optional(
        y.string({ match: /^https?:\/\/[^\s/@]+(?:\/[^@]*)?$/, what: "an http(s) address" }),
      ),
      path_style: y.optional(y.boolean()),
      profile: y.optional(text),
      acl: y.optional(y.choice(acls)),
      jobs: y.optional(y.number({ min: 1, max: 256 }), 32),
      cache: y.optional(
        y.record(
          y.either([y.number(), text], 'seconds, or a Cache-Control value such as "no-cache"'),
          patternProblem,
        ),
        {},
      ),
      types: y.optional(
        y.record(
          y.string({ match: /^[\w.+-]+\/[\w.+-]+/, what: "a content type such as text/html" }),
          patternProblem,
        ),
        {},
      ),
      delete: y.optional(y.boolean(), false),
    }),
    (name) =>
      isShortName(name) ? undefined : `"${name}" is no target name; use letters, digits, . _ -`,
  ),
});

type Written = (typeof schema extends { read(...args: never[]): infer T | undefined }
  ? T
  : never)["to"][string];

/**
 * Read and check `uploads.yml`; nothing is looked at but the file.
 * @throws {UsageError} with every mistake, one a line.
 */
export async function readUploadsConfig(file: string, dir: string): Promise<UploadsConfig> {
  const config = await readConfig(file, schema);
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

function targetOf(name: string, written: Written, config: Config<unknown>, dir: string): Target {
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
  const path = (value: string | undefined) =>
    value === undefined ? undefined : resolve(dir, expand(value));
  const common = { name, delete: written.delete };
  const ssh = {
    key: path(written.key),
    knownHosts: path(written.known_hosts),
    port: written.port,
  };
  if (kind === "rsync") {
    const place = parseRsync(expand(written.rsync ?? ""));
    if (typeof place === "string") throw wrong("rsync", place);
    return { ...common, kind, place, ssh };
  }
  if (kind === "git") {
    const problem = parseGitUrl(written.git ?? "");
    if (problem !== undefined) throw wrong("git", problem);
    const branch = written.branch ?? "gh-pages";
    if (!isSafeRef(branch)) throw wrong("branch", `"${branch}" is no branch name`);
    return { ...common, kind, url: expand(written.git ?? ""), branch, ssh };
  }
  const place = parseS3(written.s3 ?? "");
  if (typeof place === "string") throw wrong("s3", place);
  const { region, endpoint, profile, acl, jobs } = written;
  return {
    ...{ ...common, kind, place, region, endpoint, profile, acl, jobs },
    pathStyle: written.path_style,
    cache: Object.entries(written.cache).map(
      ([pattern, value]) =>
        [pattern, typeof value === "number" ? `max-age=${value}` : value] as const,
    ),
    types: Object.entries(written.types),
  };
}

/** `~/` at the start is the home folder, as in a shell. */
function expand(path: string): string {
  return path.startsWith("~/") && !isAbsolute(path) ? join(homedir(), path.slice(2)) : path;
}
