/** Where targets publish to, as uploads.yml writes it. Pure. */

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

/** What the functions below take, as editors are told: the same by one pattern each. */
export const addresses = {
  rsync: {
    type: "string",
    pattern:
      String.raw`^(?!rsync://)(?!(?:[^[]|\[[^\]]*\])*::)(?:/|~/|(?:[A-Za-z0-9_][\w.\-]*@)?` +
      String.raw`(?:\[[0-9A-Fa-f:.%\w]+\]|[A-Za-z0-9_][\w.\-]*):(?!-)[\s\S])`,
  },
  s3: {
    type: "string",
    pattern: String.raw`^s3://[A-Za-z0-9][A-Za-z0-9._\-]{1,62}(?:$|/(?!/)(?!(?:.*/)?\.\.?(?:/|$)))`,
  },
  git: {
    type: "string",
    pattern:
      String.raw`^(?=/|~/|[^/]*:)(?!-)(?![hH][tT][tT][pP][sS]?://[^/]*@)(?![a-zA-Z][a-zA-Z0-9]*::)` +
      String.raw`(?:(?![a-zA-Z][a-zA-Z0-9+.\-]*://)|` +
      String.raw`(?:[sS][sS][hH]|[hH][tT][tT][pP][sS]?|[fF][iI][lL][eE]|[gG][iI][tT])://)`,
  },
};

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
  const match = /^(?:([A-Za-z0-9_][\w.-]*)@)?(\[[0-9A-Fa-f:.%\w]+\]|[A-Za-z0-9_][\w.-]*):(.*)$/s.exec(text);
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

/** What is wrong with a git URL: the transports of lib/git/git.ts are taken, and nothing that reads like an option. */
export function parseGitUrl(text: string): string | undefined {
  const advice = "write git@host:owner/repo.git, ssh://, https:// or file://";
  if (text.startsWith("-") || /[\0\n]/.test(text))
    return `"${text}" reads like an option, not like an address; ${advice}`;
  const scheme = /^([a-z][a-z0-9+.-]*):\/\//i.exec(text)?.[1]?.toLowerCase();
  if (/^[a-z][a-z0-9]*::/i.test(text)) return `"${text}" runs a program; ${advice}`;
  if (scheme !== undefined && !["ssh", "http", "https", "file", "git"].includes(scheme))
    return `git cannot reach "${scheme}://" addresses here; ${advice}`;
  if (!/^(?:\/|~\/|[^/]*:)/.test(text)) return `"${text}" is not an address; ${advice}`;
  if (/^https?:\/\/[^/]*@/i.test(text))
    return "the address holds a login, which would show; use ssh with key:, or a git credential helper";
  return undefined;
}
