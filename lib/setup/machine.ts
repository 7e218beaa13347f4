import { readdir, realpath, stat } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname, join, relative } from "node:path";
import process from "node:process";
import { Refused, UsageError } from "../core/errors.ts";
import { exists, readIfThere } from "../files/files.ts";
import { parsePasswd, parseSysusers } from "./accounts.ts";
import { type Facts, places } from "./step.ts";

/** Reading the machine, or the root folder of another one, before anything is planned. */

/** @param from the folder with the scripts' single files; default: where setup itself is, or dist/ beside its source */
export async function readFacts(root: string, from: string | undefined): Promise<Facts> {
  if (!(await stat(root).catch(() => undefined))?.isDirectory())
    throw new UsageError(`--root: ${root} is not a folder; make it, or name another`);
  const passwd = await readIfThere(join(root, "etc/passwd"));
  const accounts = parsePasswd(passwd ?? "");
  const later = join(root, "etc/sysusers.d");
  for (const name of await readdir(later).catch(() => [])) {
    if (!name.startsWith("boatyard-")) continue;
    for (const account of parseSysusers((await readIfThere(join(later, name))) ?? ""))
      if (!accounts.has(account.name)) accounts.set(account.name, account);
  }
  return {
    root,
    accounts,
    scripts: await findScripts(from),
    hooks: await readIfThere(join(root, places.hooks)),
    hookServer: await exists(join(root, places.units, "hook-server.service")),
    nginx: await exists(join(root, "etc/nginx")),
    hostname:
      root === "/"
        ? hostname()
        : ((await readIfThere(join(root, "etc/hostname"))) ?? "server").trim(),
  };
}

/** NAME → file, for the .mjs files that are named as ours are. */
async function findScripts(from: string | undefined): Promise<Map<string, string>> {
  const here = dirname(await realpath(process.argv[1] ?? "."));
  const folders = from === undefined ? [here, join(here, "../dist")] : [from];
  for (const folder of folders) {
    const names = await readdir(folder).catch(() => undefined);
    if (names === undefined && from !== undefined)
      throw new UsageError(`--from: ${from} is not a folder that can be read`);
    const found = (names ?? []).filter((name) => /^[a-z-]+\.mjs$/.test(name)).sort();
    if (found.length > 0)
      return new Map(found.map((name) => [name.slice(0, -4), join(folder, name)]));
  }
  return new Map();
}

/** Whether systemd runs this machine: sd_booted(3). */
export async function hasSystemd(): Promise<boolean> {
  return await stat("/run/systemd/system").then(
    (found) => found.isDirectory(),
    () => false,
  );
}

/**
 * A path of the finished system, below the root.
 * @throws {Refused} when a link in it leads out of the root.
 */
export async function inRoot(root: string, path: string): Promise<string> {
  const full = join(root, path);
  if (root === "/") return full;
  const top = await realpath(root);
  for (let folder = dirname(full); ; folder = dirname(folder)) {
    const real = await realpath(folder).catch(() => undefined);
    if (real === undefined && folder !== dirname(folder)) continue;
    if (real === undefined || relative(top, real).startsWith(".."))
      throw new Refused(`${path} leads out of ${root} through a link; correct the link`);
    return full;
  }
}
