import { UsageError } from "../core/errors.ts";
import { $, quoteWord } from "../exec/exec.ts";
import { ownFolder } from "../exec/scripts.ts";

/** The server, as seen from the laptop: by ssh, as root or by sudo. */

/** What a login and a host may be: neither an option of ssh nor anything that a shell reads. */
const logins = /^(?:[A-Za-z_][\w.-]*@)?[A-Za-z0-9](?:[\w.:-]*[\w])?$/;

/** @throws {UsageError} for what is not [USER@]HOST. */
export function checkLogin(text: string): string {
  if (logins.test(text)) return text;
  throw new UsageError(`"${text}" is not a server; write root@example.com (a port stands in ~/.ssh/config)`);
}

/** The app that the git remote `boatyard` of a folder names, and how its server is reached. */
export interface Remote {
  name: string;
  host: string;
  /** [USER@]HOST of who may be root there. */
  login: string;
}

/** The address of an app's repository. */
export const remoteUrl = (name: string, host: string) => `${name}@${host}:${name}.git`;

/** @returns undefined where there is no remote of that name. @throws {UsageError} when up did not write it. */
export async function readRemote(dir: string): Promise<Remote | undefined> {
  const git = $({ cwd: dir, nothrow: true });
  const { ok, stdout } = await git`git config --get remote.boatyard.url`;
  if (!ok) return undefined;
  const url = stdout.trim();
  const [, name = "", host = ""] = /^([a-z][a-z0-9-]*)@([^:]+):\1\.git$/.exec(url) ?? [];
  if (name === "")
    throw new UsageError(`the git remote boatyard is ${url}, which boatyard up did not write; rename it`);
  const login = (await git`git config --get remote.boatyard.login`).stdout.trim();
  return { name, host, login: checkLogin(login === "" ? `root@${host}` : login) };
}

/** A text for ssh: read by /bin/sh there, whatever the login's own shell is. */
export const byShell = (text: string) => `exec /bin/sh -c ${quoteWord(text)}`;

/** A text for ssh that runs a command as root: its words are quoted for the shell there. */
export function asRoot(words: readonly string[]): string {
  const line = words.map(quoteWord).join(" ");
  return byShell(`if [ "$(id -u)" = 0 ]; then exec ${line}; else exec sudo -n ${line}; fi`);
}

/** The words that run `app` of the server's own Boatyard. */
export function appThere(...words: string[]): string[] {
  return [
    "env",
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "node",
    `${ownFolder}/app.mjs`,
    ...words,
  ];
}
