import process from "node:process";
import { Failure } from "../core/errors.ts";
import { searchPath } from "./environment.ts";

/** A Unix account, as passwd(5) has it. */
export interface User {
  name: string;
  uid: number;
  gid: number;
  home: string;
  shell: string;
}

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

/** HOME, USER, LOGNAME, SHELL, PATH and LANG as a login of that user would have them. */
export function userEnvironment(user: User): Record<string, string> {
  return {
    HOME: user.home,
    USER: user.name,
    LOGNAME: user.name,
    SHELL: user.shell,
    PATH: searchPath(),
    LANG: process.env.LANG ?? "C.UTF-8",
    SHLVL: "1",
  };
}
