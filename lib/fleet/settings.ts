import { readdir } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { checkBusUrl } from "../bus/address.ts";
import { busKeys } from "../bus/settings.ts";
import { type Config, type Infer, readConfigs, y } from "../config/yaml.ts";
import { Refused, UsageError } from "../core/errors.ts";
import { isSafeRef, isShortName, shortNames } from "../core/names.ts";
import { currentUser } from "../exec/users.ts";
import { exists, readIfThere } from "../files/files.ts";
import { parseListen } from "../http/server.ts";
import { parsePublicKey } from "./keys.ts";
import { checkBase, type RemoteSettings } from "./remote.ts";

/** `slave.yml` (templates/slave.yml): what slave-server and slave-activate share; which repos may be named at all. */

/** Read when no --config is given and it is there. */
export const systemConfig = "/etc/boatyard/slave.yml";
/** Its unit, as `setup slave` writes it. */
const systemUnit = "/etc/systemd/system/slave-server.service";

const branch = y.string({ match: /^[^\s-]\S*$/, what: "a branch or tag" });
const slaveName = y.string({ match: /^[A-Za-z0-9_:][A-Za-z0-9._:-]*$/, what: "a host's name" });
const groupName = y.string({ match: /^[A-Za-z][\w.-]*$/, what: "a group of the master's list" });
const depth = y.either([y.number({ min: 1 }), y.just("full")], 'a number of commits, or "full"');

/** What may be said for all repos, and again for one under `each:`. */
const perRepo = {
  base: y.optional(y.string()),
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
  listen: y.optional(y.string()),
  repos: y.optional(y.string()),
  state: y.optional(y.string()),
  allow: y.optional(y.oneOrMore(y.string())),
  jobs: y.optional(y.number({ min: 1, max: 64 })),
  timeout: y.optional(y.duration()),
  secret_file: y.optional(y.oneOrMore(y.string())),
  secret_env: y.optional(y.oneOrMore(y.string())),
  master_key: y.optional(y.oneOrMore(y.string())),
  identity_file: y.optional(y.string()),
  bus: y.optional(
    y.object({
      ...busKeys,
      name: y.optional(slaveName),
      groups: y.optional(y.oneOrMore(groupName)),
    }),
  ),
  metrics_token_file: y.optional(y.string()),
  each: y.optional(
    y.record(y.object(perRepo), (name) => (isShortName(name) ? undefined : `"${name}" is not a repo name`), shortNames),
  ),
});

export type SlaveFile = Infer<typeof slaveSchema>;

/** How one repo is fetched and placed. */
export interface RepoSettings extends RemoteSettings {
  repos: string;
  branch: string | undefined;
  /** Commits of history; 0: all. */
  depth: number;
  /** How many older trees are kept. */
  keep: number;
  /** Runs in the new tree before it is put in place. */
  check: string | undefined;
  after: string | undefined;
  submodules: boolean;
  lfs: boolean;
  /** The file of who may sign commits; undefined: nobody has to. */
  signers: string | undefined;
  /** With signers: also a commit that has not the served one in its history. */
  allowBack: boolean;
}

export interface SlaveSettings {
  /** Where the file is that was read, if any. */
  file: string | undefined;
  values: Partial<SlaveFile>;
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
  const config: Config<SlaveFile> = await readConfigs(path, slaveSchema);
  const where = (...keys: string[]) => config.where(keys);
  const values = config.value;
  for (const url of values.bus?.url ?? []) named(where("bus", "url"), () => checkBusUrl(url));
  for (const key of values.master_key ?? []) named(where("master_key"), () => parsePublicKey(key));
  if (values.listen !== undefined) named(where("listen"), () => parseListen(values.listen ?? ""));
  for (const [name, part] of [["", values] as const, ...Object.entries(values.each ?? {})]) {
    const place = (key: string) => (name === "" ? where(key) : where("each", name, key));
    if (part.base !== undefined) named(place("base"), () => checkBase(part.base ?? ""));
    if (part.branch !== undefined && !isSafeRef(part.branch)) {
      throw new UsageError(`${place("branch")}: "${part.branch}" is not a branch or tag name`);
    }
  }
  return { file: resolve(path), values, where };
}

/** Put the place of a value in front of the error that it causes. */
function named(where: string, check: () => unknown): void {
  try {
    check();
  } catch (error) {
    if (error instanceof UsageError) throw new UsageError(`${where}: ${error.message}`);
    throw error;
  }
}

/** Flags win over the file's part for the repo, that over the file's own, that over the defaults. */
export interface RepoFlags {
  repos?: string | undefined;
  base?: string | undefined;
  branch?: string | undefined;
  keep?: number | undefined;
  timeout?: number | undefined;
}

export function settingsFor(repo: string, { values, file }: SlaveSettings, flags: RepoFlags): RepoSettings {
  const each = values.each?.[repo];
  const base = flags.base ?? each?.base ?? values.base;
  const wanted = each?.depth ?? values.depth ?? 1;
  const path = (text: string | undefined) => (text === undefined ? undefined : fromConfig(text, file));
  return {
    repos: reposFolder({ values, file }, flags.repos),
    base: base && checkBase(base),
    branch: flags.branch ?? each?.branch ?? values.branch,
    depth: wanted === "full" ? 0 : wanted,
    keep: flags.keep ?? each?.keep ?? values.keep ?? 2,
    keyFile: path(each?.key_file ?? values.key_file),
    tokenFile: path(each?.token_file ?? values.token_file),
    tokenUser: each?.token_user ?? values.token_user ?? "x-access-token",
    check: each?.check ?? values.check,
    after: each?.after ?? values.after,
    submodules: each?.submodules ?? values.submodules ?? false,
    lfs: each?.lfs ?? values.lfs ?? false,
    signers: path(each?.signers ?? values.signers),
    allowBack: each?.allow_back ?? values.allow_back ?? false,
    timeout: flags.timeout ?? values.timeout ?? 600_000,
  };
}

/** The branch or tag that slave.yml names for a repo, if it does. */
export function branchOf(repo: string, { values }: SlaveSettings): string | undefined {
  return values.each?.[repo]?.branch ?? values.branch;
}

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
export function reposFolder(
  { values, file }: Pick<SlaveSettings, "values" | "file">,
  flag: string | undefined,
): string {
  if (flag !== undefined) return resolve(expandHome(flag));
  return values.repos === undefined ? join(homedir(), "repos") : fromConfig(values.repos, file);
}

/** The names of the repos that are there. */
export async function reposIn(settings: SlaveSettings, flag: string | undefined) {
  return (await readdir(reposFolder(settings, flag))).filter(isShortName);
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

/** @throws {Refused} for a name that could be more than a name. */
export function checkRepo(repo: string): void {
  if (isShortName(repo)) return;
  throw new Refused(
    `${JSON.stringify(repo.slice(0, 200))} is not a repo name; ` +
      `letters, digits, ".", "_" and "-" make one, at most 100, not ending in .git or .lock`,
  );
}
