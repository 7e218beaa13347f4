import { readdir, stat } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { ifMissing, messageOf, UsageError } from "../core/errors.ts";
import { isRoot } from "../exec/users.ts";
import { exists, readIfThere } from "../files/files.ts";
import { readHooks } from "./hooks-file.ts";
import { findScripts, readBuilds, readPackaged } from "./scripts.ts";
import { hasSystemd, unitState } from "./service-steps.ts";
import { type Account, type Facts, places } from "./step.ts";

/** Reading the machine, or the root folder of another one, before anything is planned. */

/**
 * @param from the folder with the scripts' single files; default: where setup itself is, or dist/ beside its source
 * @param mayBePackaged those of the package that setup itself is of are not to be copied
 */
export async function readFacts(root: string, from: string | undefined, mayBePackaged = false): Promise<Facts> {
  // a permission that Deno was not given is said as such
  if (!(await stat(root).catch(ifMissing))?.isDirectory())
    throw new UsageError(`--root: ${root} is not a folder; make it, or name another`);
  const passwd = await readIfThere(join(root, "etc/passwd"));
  const accounts = parsePasswd(passwd ?? "");
  const later = join(root, "etc/sysusers.d");
  for (const name of await readdir(later).catch(() => [])) {
    if (!name.startsWith("boatyard-")) continue;
    for (const account of parseSysusers((await readIfThere(join(later, name))) ?? ""))
      if (!accounts.has(account.name)) accounts.set(account.name, account);
  }
  const hooks = await readIfThere(join(root, places.hooks));
  const read = await readHooks(hooks ?? "{}").catch((error: unknown) => messageOf(error));
  const scripts = await findScripts(from);
  // a package's units are elsewhere, and count once they are on
  const unitFiles = (name: string, wants = "multi-user.target.wants") => [
    join(root, places.units, name),
    join(root, places.units, wants, name),
  ];
  const isInstalled = async (...unit: [name: string, wants?: string]) =>
    (await Promise.all(unitFiles(...unit).map(exists))).includes(true);
  const slaveUnits = await Promise.all(unitFiles("slave-server.service").map(readIfThere));
  return {
    root,
    accounts,
    scripts,
    builds: await readBuilds(root, scripts),
    packaged: mayBePackaged ? await readPackaged() : undefined,
    hooks,
    ...(typeof read === "string" ? { repos: [], hooksProblem: read } : { repos: read.repos }),
    hookServer: await isInstalled("hook-server.service"),
    slave: /^User=(\S+)$/m.exec(slaveUnits.join("\n"))?.[1],
    slaveSocket: await isInstalled("slave-server.socket", "sockets.target.wants"),
    slaveSettings: await readIfThere(join(root, places.slave)),
    apps: await appsOf(root, accounts),
    busUsers: await readIfThere(join(root, places.busUsers)),
    nginx: await exists(join(root, "etc/nginx")),
    hostname: root === "/" ? hostname() : ((await readIfThere(join(root, "etc/hostname"))) ?? "server").trim(),
  };
}

/** The accounts that files of ours in sysusers.d(5) will make. */
export function parseSysusers(text: string): Account[] {
  return [...text.matchAll(/^u (\S+) \S+ "([^"]*)" (\S+)/gm)].map(([, name = "", comment = "", home = ""]) => ({
    name,
    uid: 999,
    gid: 999,
    comment,
    home,
  }));
}

/** passwd(5) as a map. */
export function parsePasswd(text: string): Map<string, Account> {
  const accounts = new Map<string, Account>();
  for (const line of text.split("\n")) {
    const [name = "", , uid, gid, comment = "", home = ""] = line.split(":");
    if (name !== "" && !name.startsWith("#") && uid !== undefined)
      accounts.set(name, { name, uid: Number(uid), gid: Number(gid), comment, home });
  }
  return accounts;
}

/** The apps whose service is switched on; below another root, where it cannot be asked, those that have an account. */
async function appsOf(root: string, accounts: Facts["accounts"]): Promise<Facts["apps"]> {
  if (!(await exists(join(root, places.units, "launchfit@.service")))) return [];
  const canAsk = root === "/" && (await hasSystemd());
  const apps: { app: string; user: string }[] = [];
  for (const { comment, name: user } of accounts.values()) {
    const app = /^Boatyard app (.+)$/.exec(comment)?.[1];
    if (app === undefined) continue;
    const unit = `launchfit@${user}.service`;
    if (!canAsk || (await unitState(unit)).enabled === "enabled") apps.push({ app, user });
  }
  return apps;
}

/** `su` without `-` leaves out where useradd, nginx and nats-server are. */
export function completePath(): void {
  const { PATH } = process.env;
  if (PATH !== undefined && isRoot()) process.env["PATH"] = `${PATH}:/usr/local/sbin:/usr/sbin:/sbin`;
}
