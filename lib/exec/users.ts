import { readFile } from "node:fs/promises";
import { userInfo } from "node:os";
import { UsageError } from "../core/errors.ts";
import { asUser, isRoot, type User, userEnvironment } from "./as-user.ts";
import { $, type CommandOptions, quoteWord } from "./exec.ts";

export { asUser, isRoot, type User, userEnvironment };

/**
 * Options by which `$` runs a command as that user, in `/`, with what a login has: ``$(as(user))`npm ci` ``.
 * @throws {Failure} when an ordinary user asks for another one.
 */
export function as(user: User, options: CommandOptions = {}): CommandOptions {
  const prefix = asUser([], user).map(quoteWord).join(" ");
  return { env: userEnvironment(user), cwd: "/", ...(prefix ? { prefix } : {}), ...options };
}

/**
 * The account of that name, from /etc/passwd or another source that NSS knows (getent).
 * @throws {UsageError} when there is none.
 */
export async function lookUpUser(name: string): Promise<User> {
  if (!/^[A-Za-z_][A-Za-z0-9_.-]{0,63}\$?$/.test(name))
    throw new UsageError(`"${name}" is not a name of a Unix user`);
  const local = (await readFile("/etc/passwd", "utf8").catch(() => ""))
    .split("\n")
    .find((line) => line.startsWith(`${name}:`));
  const line = local ?? (await $({ nothrow: true })`getent passwd -- ${name}`).stdout.trim();
  const [found, , uid, gid, , home = "/", shell = "/bin/sh"] = line.split(":");
  if (found !== name)
    throw new UsageError(`there is no Unix user "${name}"; make it, or name another`);
  return { name, uid: Number(uid), gid: Number(gid), home, shell };
}

/** The account this process runs as. */
export function currentUser(): User {
  const { username, uid, gid, homedir, shell } = userInfo();
  return { name: username, uid, gid, home: homedir, shell: shell ?? "/bin/sh" };
}
