import { readdir } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { busKeys } from "../bus/settings.ts";
import { alsoJson, type Infer, readConfigs, y } from "../config/yaml.ts";
import { Refused, UsageError } from "../core/errors.ts";
import { isSafeRef, isShortName, safeRefs, shortNames } from "../core/names.ts";
import { currentUser } from "../exec/users.ts";
import { exists, readIfThere } from "../files/files.ts";
import { parseListen } from "../http/server.ts";
import { parsePublicKey } from "./keys.ts";

/** `slave.yml` (templates/slave.yml): what slave-server and slave-activate share; which repos may be named at all. */

/** Read when no --config is given and it is there. */
export const systemConfig = "/etc/boatyard/slave.yml";
/** Its unit, as `setup slave` writes it. */
const systemUnit = "/etc/systemd/system/slave-server.service";

const base = alsoJson(y.string({ check: checkBase }), {
  ...{ type: "string", pattern: "^(?:(?:https?|ssh|git)://[^/\\s]|file:///)" },
});
const branch = alsoJson(y.string({ check: checkBranch }), { pattern: safeRefs.source, minimum: 0 });
const address = alsoJson(y.string({ check: parseListen }), {
  ...{ pattern: "^(?:(?:unix:)?/.+|(?:(?:\\[[0-9a-fA-F:.]+\\]|[^:\\[\\]]*):)?\\d{1,5})$" },
  ...{ minimum: 0, maximum: 65535, multipleOf: 1 },
});
const slaveName = y.string({ match: /^[A-Za-z0-9_:][A-Za-z0-9._:-]*$/, what: "a host's name" });
const depth = y.either([y.number({ min: 1 }), y.just("full")], 'a number of commits, or "full"');

/** What may be said for all repos, and again for one under `each:`. */
const perRepo = {
  base: y.optional(base),
  branch: y.optional(branch),
  depth: y.optional(depth),
  keep: y.optional(y.number({ min: 1, max: 100 })),
  key_file: y.optional(y.string()),
  token_file: y.optional(y.string()),
  token_user: y.optional(y.string()),
  check: y.optional(y.string()),
  after: y.optional(y.string()),
  submodules: y.optional(y.boolean()),
  lfs: y.optional(y.boolean()),
  signers: y.optional(y.string()),
  allow_back: y.optional(y.boolean()),
};

export const slaveSchema = y.object({
  ...perRepo,
  name: y.optional(y.oneOrMore(slaveName)),
  listen: y.optional(address),
  repos: y.optional(y.string()),
  state: y.optional(y.string()),
  allow: y.optional(y.oneOrMore(y.string())),
  jobs: y.optional(y.number({ min: 1, max: 64 })),
  timeout: y.optional(y.duration()),
  secret_file: y.optional(y.oneOrMore(y.string())),
  secret_env: y.optional(y.oneOrMore(y.string())),
  master_key: y.optional(y.oneOrMore(y.string({ check: parsePublicKey }))),
  identity_file: y.optional(y.string()),
  bus: y.optional(y.object({ ...busKeys, name: y.optional(slaveName) })),
  metrics_token_file: y.optional(y.string()),
  each: y.optional(
    y.record(y.object(perRepo), (name) => (isShortName(name) ? undefined : `"${name}" is not a repo name`), shortNames),
  ),
});

export interface SlaveSettings {
  /** Where the file is that was read, if any. */
  file: string | undefined;
  values: Partial<Infer<typeof slaveSchema>>;
  /** `file:line:col` of a key. */
  where: (...path: string[]) => string;
}

/**
 * Read the config, with the files of slave.d beside it: the one named, else the system's if there is one, else nothing.
 * @throws {UsageError} for a named file that is not there, and for every mistake in it.
 */
export async function readSettings(file?: string): Promise<SlaveSettings> {
  const path = file ?? ((await exists(systemConfig)) ? systemConfig : undefined);
  if (path === undefined) return { file: undefined, values: {}, where: () => "" };
  const { value: values, where } = await readConfigs(path, slaveSchema);
  return { file: resolve(path), values, where: (...keys) => where(keys) };
}

/** What flags may say of a repo. */
type RepoFlags = Partial<
  Record<"repos" | "base" | "branch", string | undefined> & Record<"keep" | "timeout", number | undefined>
>;

/**
 * How one repo is fetched and placed: flags win over the file's part for the repo, that over the file's own, that over
 * the defaults.
 */
export function settingsFor(repo: string, { values, file }: SlaveSettings, flags: RepoFlags) {
  const own = <Key extends keyof typeof perRepo>(key: Key) => values.each?.[repo]?.[key] ?? values[key];
  const path = (text: string | undefined) => (text === undefined ? undefined : fromConfig(text, file));
  const [base, wanted] = [flags.base ?? own("base"), own("depth") ?? 1];
  return {
    repos: reposFolder({ values, file }, flags.repos),
    /** None: only what needs no remote can be done. */
    base: base && checkBase(base),
    branch: flags.branch ?? own("branch"),
    /** Commits of history; 0: all, with all branches and tags. */
    depth: wanted === "full" ? 0 : wanted,
    /** How many older trees are kept. */
    keep: flags.keep ?? own("keep") ?? 2,
    keyFile: path(own("key_file")),
    tokenFile: path(own("token_file")),
    tokenUser: own("token_user") ?? "x-access-token",
    /** Runs in the new tree before it is put in place. */
    check: own("check"),
    after: own("after"),
    /** Fetch submodules, too; else their folders are empty. */
    submodules: own("submodules") ?? false,
    /** Fetch the files that Git LFS keeps, too; else they are pointers. */
    lfs: own("lfs") ?? false,
    /** The file of who may sign commits; undefined: nobody has to. */
    signers: path(own("signers")),
    /** With signers: an order may go back to a commit that has not the served one in its history. */
    allowBack: own("allow_back") ?? false,
    /** Milliseconds for all that git does over the network, and for each command. */
    timeout: flags.timeout ?? values.timeout ?? 600_000,
  };
}
export type RepoSettings = ReturnType<typeof settingsFor>;

/**
 * On a slave that `setup` has made, another user's `~/repos` is not served: root would fill a folder of its own.
 * @throws {UsageError} with the command to type instead.
 */
export async function checkUser({ values, file }: SlaveSettings, flag: string | undefined): Promise<void> {
  if (flag !== undefined || values.repos !== undefined || file !== systemConfig) return;
  const unit = await readIfThere(systemUnit);
  const slave = /^User=(\S+)$/m.exec(unit ?? "")?.[1];
  const own = currentUser().name;
  if (slave !== undefined && slave !== own)
    throw new UsageError(
      `the repos of this slave are those of ${slave}, and this is ${own}; type: ` +
        `runuser -u ${slave} -- slave-activate …, or name another folder with --repos`,
    );
}

/** The folder that holds the repos: flag, file, `~/repos`. */
export function reposFolder({ values, file }: Omit<SlaveSettings, "where">, flag: string | undefined): string {
  if (flag !== undefined) return resolve(expandHome(flag));
  return values.repos === undefined ? join(homedir(), "repos") : fromConfig(values.repos, file);
}

/** The names of the repos that are there. */
export async function reposIn(settings: SlaveSettings, flag: string | undefined) {
  return (await readdir(reposFolder(settings, flag))).filter(isShortName);
}

const schemes = ["https", "http", "ssh", "git", "file"];

/**
 * The base of all remotes, without a slash at its end. Built from parts that are known to be harmless, since
 * deny-lists for git's URLs failed again and again (`ext::`, `-oProxyCommand`, a password in the process list).
 * @throws {UsageError}
 */
export function checkBase(base: string): string {
  const match = /^([a-z]+):\/\/([^/\s]*)(\/[^\s?#]*)?$/.exec(base);
  const [, scheme = "", authority = "", path = ""] = match ?? [];
  const wrong = (why: string) => new UsageError(`base "${base.replace(/(\/\/[^:]*):.*@/, "$1:***@")}" ${why}`);
  if (!match || !schemes.includes(scheme)) {
    throw wrong(`is not a base URL; write one of ${schemes.map((each) => `${each}://`).join(", ")} with a path`);
  }
  if (/[\x00-\x20\x7f\\]/.test(base)) throw wrong("has a character that no URL has");
  if (scheme === "file") {
    if (authority !== "" || path === "") throw wrong("must be file:///absolute/path");
    return base.replace(/\/+$/, "");
  }
  const parts = /^(?:([A-Za-z0-9._~-]+)@)?(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]*))(?::\d{1,5})?$/;
  const [, user = ""] = parts.exec(authority) ?? [];
  if (authority.includes("@") && authority.slice(0, authority.lastIndexOf("@")).includes(":")) {
    throw wrong("must not hold a password; put it into token_file");
  }
  if (!parts.test(authority) || user.startsWith("-")) throw wrong("does not name a host");
  return base.replace(/\/+$/, "");
}

/** A path in a config counts from the config's own folder. */
export function fromConfig(path: string, file: string | undefined): string {
  return resolve(file === undefined ? "." : dirname(file), expandHome(path));
}

function expandHome(path: string): string {
  return path === "~" || path.startsWith("~/") ? join(homedir(), path.slice(1)) : path;
}

/** Whether a repo's name fits one of the patterns (`*` stands for anything); no patterns: all do. */
export function isAllowed(repo: string, patterns: readonly string[]): boolean {
  return patterns.length === 0 || patterns.some((pattern) => fits(repo, pattern));
}

/** No regular expression: a master reads the patterns of its slaves. */
function fits(name: string, pattern: string): boolean {
  const [first = "", ...parts] = pattern.split("*");
  const last = parts.pop();
  if (last === undefined) return name === first;
  if (!name.startsWith(first) || !name.endsWith(last)) return false;
  let at = first.length;
  for (const part of parts) {
    const found = name.indexOf(part, at);
    if (found < 0) return false;
    at = found + part.length;
  }
  return at <= name.length - last.length;
}

/** @throws {UsageError} */
export function checkBranch(name: string): void {
  if (!isSafeRef(name)) throw new UsageError(`"${name}" is not a branch or tag name`);
}

/** @throws {Refused} for a name that could be more than a name. */
export function checkRepo(repo: string): void {
  if (isShortName(repo)) return;
  throw new Refused(
    `${JSON.stringify(repo.slice(0, 200))} is not a repo name; ` +
      `letters, digits, ".", "_" and "-" make one, at most 100, not ending in .git or .lock`,
  );
}
