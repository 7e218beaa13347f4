import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { UsageError } from "../core/errors.ts";
import { isSafeRef, isShortName, safeRefs, shortNames } from "../core/names.ts";
import { alsoJson, type Config, type Infer, readConfig, y } from "../config/yaml.ts";
import type { S3Location } from "../s3/s3.ts";
import { type HeaderRules, patternProblem, patterns } from "./headers.ts";

/** `uploads.yml`: the folder that is published, and where to. */
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

/** Where an S3 target publishes to. */
export interface S3Address {
  bucket: string;
  /** Empty, or ending in `/`. */
  prefix: string;
}

/** Where an rsync target publishes to. */
export interface RsyncAddress {
  /** `user@host`, or none for a folder of this machine. */
  login?: string | undefined;
  /** Without user; for messages. */
  host?: string | undefined;
  /** The folder, ending in `/`. */
  path: string;
}

export interface S3Target extends Common, HeaderRules, Omit<S3Location, "bucket"> {
  kind: "s3";
  address: S3Address;
  /** Requests at once. */
  jobs: number;
}

export interface RsyncTarget extends Common {
  kind: "rsync";
  address: RsyncAddress;
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

/** What the functions below take, as editors are told: the same by one pattern each. */
const addresses = {
  rsync: {
    type: "string",
    pattern: String.raw`^(?!rsync://)(?!(?:[^[]|\[[^\]]*\])*::)(?:/|~/|(?:[A-Za-z0-9_][\w.\-]*@)?(?:\[[0-9A-Fa-f:.%\w]+\]|[A-Za-z0-9_][\w.\-]*):(?!-)[\s\S])`,
  },
  s3: {
    type: "string",
    pattern: String.raw`^s3://[A-Za-z0-9][A-Za-z0-9._\-]{1,62}(?:$|/(?!/)(?!(?:.*/)?\.\.?(?:/|$)))`,
  },
  git: {
    minimum: 0,
    pattern: String.raw`^(?=.)(?!-)(?![hH][tT][tT][pP][sS]?://[^/]*@)(?![a-zA-Z][a-zA-Z0-9]*::)(?:(?![a-zA-Z][a-zA-Z0-9+.\-]*://)|(?:[sS][sS][hH]|[hH][tT][tT][pP][sS]?|[fF][iI][lL][eE]|[gG][iI][tT])://)`,
  },
};

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
      (name) =>
        isShortName(name)
          ? undefined
          : `"${name}" is not a valid target name; use letters, digits, . _ -`,
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
      ([pattern, value]) =>
        [pattern, typeof value === "number" ? `max-age=${value}` : value] as const,
    ),
    types: Object.entries(written.types),
  };
}

/** `s3://bucket/prefix` (bucket names: AWS's "Bucket naming rules", capitals allowed as older stores have them). */
export function parseS3(text: string): S3Address | string {
  const match = /^s3:\/\/([A-Za-z0-9][A-Za-z0-9._-]{1,62})(?:\/(.*))?$/s.exec(text);
  if (!match) return `"${text}" is not an S3 address; write s3://BUCKET/PREFIX`;
  const prefix = (match[2] ?? "").replace(/\/+$/, "");
  if (prefix.startsWith("/") || prefix.split("/").some((part) => part === "." || part === ".."))
    return `"${text}" has a prefix that starts with / or holds . or ..; write s3://BUCKET/PREFIX`;
  return { bucket: match[1] ?? "", prefix: prefix === "" ? "" : `${prefix}/` };
}

/** `[user@]host:/folder/`, `[user@][IPv6]:/folder/`, or a folder here (absolute). */
export function parseRsync(text: string): RsyncAddress | string {
  const advice = "write user@host:/folder/";
  if (/^rsync:\/\/|::/.test(text.replace(/\[[^\]]*\]/, "")))
    return `"${text}" names an rsync daemon, which neither encrypts nor proves who it is; ${advice}`;
  const slashed = (path: string) => (path.endsWith("/") ? path : `${path}/`);
  if (text.startsWith("/")) return { path: slashed(text) };
  const match =
    /^(?:([A-Za-z0-9_][\w.-]*)@)?(\[[0-9A-Fa-f:.%\w]+\]|[A-Za-z0-9_][\w.-]*):(.*)$/s.exec(text);
  if (!match) return `"${text}" is not an rsync address; ${advice}`;
  const [, user, host = "", path = ""] = match;
  if (path === "") return `"${text}" names no folder; ${advice}`;
  if (path.startsWith("-")) return `"${text}" has a folder that reads like an option; ${advice}`;
  return {
    login: user === undefined ? host : `${user}@${host}`,
    host: host.replace(/^\[|\]$/g, ""),
    path: slashed(path),
  };
}

/** What is wrong with a git URL, if anything: the transports of lib/git/git.ts, and nothing that reads like an option. */
export function parseGitUrl(text: string): string | undefined {
  const advice = "write git@host:owner/repo.git, ssh://, https:// or file://";
  if (text.startsWith("-") || /[\0\n]/.test(text))
    return `"${text}" reads like an option, not like an address; ${advice}`;
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(text)?.[1]?.toLowerCase();
  if (/^[a-z][a-z0-9]*::/i.test(text)) return `"${text}" runs a program; ${advice}`;
  if (scheme !== undefined && !["ssh", "http", "https", "file", "git"].includes(scheme))
    return `git cannot reach "${scheme}://" addresses here; ${advice}`;
  if (/^https?:\/\/[^/]*@/i.test(text))
    return "the address holds a login, which would show; use ssh with key:, or a git credential helper";
  return undefined;
}

/** `~/` at the start is the home folder, as in a shell. */
function expand(path: string): string {
  return path.startsWith("~/") ? join(homedir(), path.slice(2)) : path;
}
