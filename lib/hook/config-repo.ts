import { isAbsolute } from "node:path";
import { isRoot, type User } from "../exec/as-user.ts";
import { UsageError } from "../core/errors.ts";
import { isSafeRef, isShortName } from "../core/names.ts";
import { readSecretFile, readSecretVariable } from "../config/secrets.ts";
import { currentUser, lookUpUser } from "../exec/users.ts";
import type { Config } from "../config/yaml.ts";
import type { Raw, RawRepo } from "./config-schema.ts";
import type { Wishes } from "./decide.ts";
import { type Stamps, stamp } from "./watch-files.ts";

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

/**
 * One repo of hooks.yml, with its secrets and its user. `path` makes a path absolute; the secrets' files are added to `stamps`.
 * @throws {UsageError} with file:line:column.
 */
export async function readRepo(
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
