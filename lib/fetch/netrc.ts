import { homedir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { readFile, stat } from "node:fs/promises";
import { systemCode, UsageError } from "../core/errors.ts";

/** Logins of a netrc file. Format: https://www.gnu.org/software/inetutils/manual/html_node/The-_002enetrc-file.html */
export interface Login {
  user: string;
  password: string;
}

/** The login for a host: its own `machine`, else `default`. Pure. */
export function loginFor(netrc: string, host: string): Login | undefined {
  let fallback: Login | undefined;
  for (const { machine, user, password } of machines(netrc)) {
    if (machine === host.toLowerCase()) return { user, password };
    if (machine === undefined) fallback ??= { user, password };
  }
  return fallback;
}

interface Machine extends Login {
  /** Undefined for `default`. */
  machine: string | undefined;
}

function machines(netrc: string): Machine[] {
  const found: Machine[] = [];
  // a macro runs to the next blank line and is none of our business
  const text = netrc.replace(/^\s*macdef\s[^]*?(?:\n\s*\n|$(?![^]))/gm, "\n");
  const words = [...text.matchAll(/(?:^|(?<=\s))#[^\n]*|"((?:[^"\\]|\\.)*)"|(\S+)/g)]
    .filter((match) => match[1] !== undefined || match[2] !== undefined)
    .map((match) => match[2] ?? (match[1] ?? "").replace(/\\(.)/g, "$1"));
  let current: Machine | undefined;
  for (let index = 0; index < words.length; index++) {
    const word = words[index];
    if (word === "machine" || word === "default") {
      const machine = word === "machine" ? words[++index]?.toLowerCase() : undefined;
      current = { machine, user: "", password: "" };
      found.push(current);
    } else if (word === "login" && current) current.user = words[++index] ?? "";
    else if (word === "password" && current) current.password = words[++index] ?? "";
    else if (word === "account") index += 1;
  }
  return found;
}

/**
 * The text of the user's netrc file ($NETRC, else ~/.netrc); empty when there is none.
 * @throws {UsageError} when others can read it: what it holds is not a secret any more.
 */
export async function readNetrc(env: NodeJS.ProcessEnv = process.env): Promise<string> {
  const path = env["NETRC"] || join(env["HOME"] || homedir(), ".netrc");
  try {
    const { mode } = await stat(path);
    if ((mode & 0o077) !== 0)
      throw new UsageError(`${path}: others can read this file with logins; run chmod 600 on it`);
    return await readFile(path, "utf8");
  } catch (error) {
    if (["ENOENT", "ENOTDIR"].includes(systemCode(error) ?? "")) return "";
    throw error;
  }
}
