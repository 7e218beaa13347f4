import { readFile } from "node:fs/promises";
import { userInfo } from "node:os";
import process from "node:process";
import { Failure, UsageError } from "../core/errors.ts";
import { $, type CommandOptions, searchPath, trustedCertificates } from "./exec.ts";

/** A Unix account, as passwd(5) has it. */
export interface User {
  name: string;
  uid: number;
  gid: number;
  home: string;
  shell: string;
}

/** The comment (GECOS field) of an account that was made for something: by it a later run knows its own. */
export const commentFor = (purpose: string): string => `Boatyard ${purpose}`;

/** What an account was made for, by its comment: `OWNER/NAME`, `app NAME`, `slave`; undefined: it is a person's. */
export const purposeOf = (comment: string): string | undefined => /^Boatyard (.+)$/.exec(comment)?.[1];

/** Whether this process may run commands as another user. */
export function isRoot(): boolean {
  return process.getuid?.() === 0;
}

/**
 * The argv that runs `argv` as `user`: its own groups, no capability, no way to new privileges (setpriv(1)).
 * The environment is the caller's business; `userEnvironment` has what a login would set.
 * @throws {Failure} when an ordinary user asks for another one.
 */
export function asUser(argv: readonly string[], user: User): string[] {
  if (process.getuid?.() === user.uid) return [...argv];
  if (!isRoot()) throw new Failure(`only root can run a command as ${user.name}`);
  return [
    "setpriv",
    `--reuid=${user.uid}`,
    `--regid=${user.gid}`,
    "--init-groups",
    "--no-new-privs",
    "--bounding-set=-all",
    "--inh-caps=-all",
    "--",
    ...argv,
  ];
}

/**
 * HOME, USER, LOGNAME, SHELL, PATH and LANG as a login of that user has them, and which certificates we trust; for
 * our own account also where Deno keeps the packages of our scripts.
 */
export function userEnvironment(user: User): Record<string, string> {
  const packages = process.env.DENO_DIR;
  return {
    ...trustedCertificates(),
    ...(packages && process.getuid?.() === user.uid ? { DENO_DIR: packages } : {}),
    HOME: user.home,
    USER: user.name,
    LOGNAME: user.name,
    SHELL: user.shell,
    PATH: searchPath(),
    LANG: process.env.LANG ?? "C.UTF-8",
    SHLVL: "1",
  };
}

/** What puts a command that runs as another user into a scope; empty: it stays in our cgroup. */
let enterScope: readonly string[] = [];

/**
 * From now on commands that run `as` another user are put elsewhere by these words. systemd takes what a process of a
 * service's cgroup says for the service's word (NotifyAccess=all), and ours is no place for others.
 */
export function keepOthersIn(words: readonly string[]): void {
  enterScope = words;
}

/** The words put before a command that runs as that user, in a scope; none for our own account. */
export function wordsFor(user: User): string[] {
  const other = asUser([], user);
  return other.length > 0 ? [...enterScope, ...other] : [];
}

/**
 * Options by which `$` runs a command as that user, in `/`, with what a login has: ``$(as(user))`npm ci` ``.
 * @throws {Failure} when an ordinary user asks for another one.
 */
export function as(user: User, options: CommandOptions = {}): CommandOptions {
  return { env: userEnvironment(user), cwd: "/", words: wordsFor(user), ...options };
}

/**
 * The account of that name, from /etc/passwd or another source that NSS knows (getent).
 * @throws {UsageError} when there is none.
 */
export async function lookUpUser(name: string): Promise<User> {
  if (!/^[A-Za-z_][A-Za-z0-9_.-]{0,63}\$?$/.test(name)) throw new UsageError(`"${name}" is not a name of a Unix user`);
  const local = (await readFile("/etc/passwd", "utf8").catch(() => ""))
    .split("\n")
    .find((line) => line.startsWith(`${name}:`));
  const line = local ?? (await $({ nothrow: true })`getent passwd -- ${name}`).stdout.trim();
  const [found, , uid, gid, , home, shell] = line.split(":");
  if (found !== name) throw new UsageError(`there is no Unix user "${name}"; make it, or name another`);
  // either may be left out (passwd(5))
  return { name, uid: Number(uid), gid: Number(gid), home: home || "/", shell: shell || "/bin/sh" };
}

/** The account this process runs as. */
export function currentUser(): User {
  const { username, uid, gid, homedir, shell } = userInfo();
  return { name: username, uid, gid, home: homedir, shell: shell ?? "/bin/sh" };
}
