import { Buffer } from "node:buffer";
import { lstat, open, readdir, readlink, realpath, stat } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname, join, relative } from "node:path";
import process from "node:process";
import { ifMissing, messageOf, Refused, UsageError } from "../core/errors.ts";
import { type Build, readBuildLine } from "../core/version.ts";
import { $ } from "../exec/exec.ts";
import { isRoot } from "../exec/users.ts";
import { exists, readIfThere } from "../files/files.ts";
import { readHooks } from "./hooks-file.ts";
import { type Account, type Builds, type Facts, type Packaged, places } from "./step.ts";
import { templates } from "./templates.ts";

/** Reading the machine, or the root folder of another one, before anything is planned. */

/**
 * @param from the folder with the scripts' single files; default: where setup itself is, or dist/ beside its source
 * @param mayBePackaged those of the package that setup itself is of are not to be copied
 */
export async function readFacts(
  root: string,
  from: string | undefined,
  mayBePackaged = false,
): Promise<Facts> {
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
    hostname:
      root === "/"
        ? hostname()
        : ((await readIfThere(join(root, "etc/hostname"))) ?? "server").trim(),
  };
}

/** The accounts that files of ours in sysusers.d(5) will make. */
export function parseSysusers(text: string): Account[] {
  return [...text.matchAll(/^u (\S+) \S+ "([^"]*)" (\S+)/gm)].map(
    ([, name = "", comment = "", home = ""]) => ({ name, uid: 999, gid: 999, comment, home }),
  );
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

/** The apps whose service is switched on; below another root, where that cannot be asked, those that have an account. */
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

/** The scripts that can be installed. */
async function findScripts(from: string | undefined): Promise<Map<string, string>> {
  if (from !== undefined) {
    if (await isFolder(from)) return await scriptsIn(from);
    throw new UsageError(`--from: ${from} is not a folder that can be read`);
  }
  const here = dirname(await realpath(process.argv[1] ?? "."));
  const beside = await scriptsIn(here);
  return beside.size > 0 ? beside : await scriptsIn(join(here, "../dist"));
}

/** NAME → file, for the .mjs files in a folder that are named as ours are. */
export async function scriptsIn(folder: string): Promise<Map<string, string>> {
  const names = await readdir(folder).catch(() => []);
  const ours = names.filter((name) => /^[a-z-]+\.mjs$/.test(name)).sort();
  return new Map(ours.map((name) => [name.slice(0, -4), join(folder, name)]));
}

/**
 * The package that the running setup is of; undefined: none.
 * @throws {UsageError} for one of npm that is not everybody's, whose files services would not find.
 */
export async function readPackaged(): Promise<Packaged | undefined> {
  const folder = dirname(await realpath(process.argv[1] ?? "."));
  if (await exists(join(folder, "packaged-by"))) {
    const names = await readdir("/usr/lib/systemd/system").catch(() => []);
    const units = names.filter((name) => Object.hasOwn(templates, name));
    return { by: "dpkg", folder, units, pathOf: (script) => `/usr/bin/${script}` };
  }
  if (!folder.includes("/node_modules/boatyard/")) return undefined;
  const prefix = /^(.*)\/lib\/node_modules\/boatyard\//.exec(folder)?.[1];
  if (prefix === undefined)
    throw new UsageError(
      `${folder} is not an installation for everybody; install it so: npm install --global boatyard`,
    );
  const names = new Set<string>(await readdir(join(prefix, "bin")).catch(() => []));
  const pathOf = (script: string) =>
    names.has(script) ? join(prefix, "bin", script) : join(folder, `${script}.mjs`);
  return { by: "npm", folder, units: [], pathOf };
}

/** A unit's text, with the scripts where they are. */
export function unitText(template: string, packaged: Packaged | undefined): string {
  return template.replace(/\/usr\/local\/bin\/([a-z-]+)/g, (path, script: string) =>
    packaged ? packaged.pathOf(script) : path,
  );
}

/** The versions of what is to be installed, of what is there, and of newer files beside the first. */
async function readBuilds(root: string, scripts: ReadonlyMap<string, string>): Promise<Builds> {
  const [first] = scripts.values();
  const [installed] = (await scriptsIn(join(root, places.scripts))).values();
  const ours = first === undefined ? undefined : await readBuild(first);
  return {
    ours,
    installed: installed === undefined ? undefined : ((await readBuild(installed)) ?? null),
    newer: first === undefined ? undefined : await newerBeside(dirname(first), ours),
  };
}

/** What a bundle says of itself at its top; undefined: nothing. */
async function readBuild(file: string): Promise<Build | undefined> {
  return readBuildLine(await headOf(file));
}

/**
 * Newer scripts in a folder below or above, as they lie there after `scp -r dist host:boatyard` has found
 * the folder of the last time.
 */
async function newerBeside(folder: string, ours: Build | undefined): Promise<Builds["newer"]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  const below = entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
  for (const name of ["..", ...below]) {
    const file = join(folder, name, "setup.mjs");
    const build = await readBuild(file);
    if (
      build?.date !== undefined &&
      Date.parse(build.date) > Date.parse(ours?.date ?? "1970-01-01")
    )
      return { file, build };
  }
  return undefined;
}

/** Whether a file, or what a link leads to, is a script of Boatyard's. */
export async function isOurScript(path: string): Promise<boolean> {
  const to = await readlink(path).catch(() => undefined);
  // also one whose script has gone
  if (to?.startsWith(`${places.scripts}/`)) return true;
  const head = await headOf(path);
  return (
    readBuildLine(head) !== undefined ||
    // bundles from before they said which version they are
    /^#!.*node\n[^]*Node 20\.15 or newer is needed/.test(head)
  );
}

/** The first 2 KB of a file; nothing where there is none. */
async function headOf(path: string): Promise<string> {
  const found = await lstat(await realpath(path).catch(() => path)).catch(() => undefined);
  if (!found?.isFile()) return "";
  const handle = await open(path, "r").catch(() => undefined);
  if (!handle) return "";
  try {
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(2048), 0, 2048, 0);
    return buffer.subarray(0, bytesRead).toString("latin1");
  } finally {
    await handle.close();
  }
}

/** `systemctl`; its exit code is the caller's to look at. */
export const systemctl = (...args: string[]) =>
  $({ nothrow: true, timeout: 600_000 })`systemctl --no-pager ${args}`;

/** `su` without `-` leaves out where useradd, nginx and nats-server are. */
export function completePath(): void {
  const { PATH } = process.env;
  if (PATH !== undefined && isRoot())
    process.env["PATH"] = `${PATH}:/usr/local/sbin:/usr/sbin:/sbin`;
}

/** What systemd says of a unit: `enabled`, `static` …, and `active`, `inactive` … */
export async function unitState(unit: string): Promise<{ enabled: string; active: string }> {
  const ask = async (verb: string) => (await systemctl(verb, unit)).stdout.trim();
  return { enabled: await ask("is-enabled"), active: await ask("is-active") };
}

/** Whether systemd runs this machine: sd_booted(3). */
export const hasSystemd = () => isFolder("/run/systemd/system");

async function isFolder(path: string): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.isDirectory() === true;
}

/**
 * A path of the finished system, below the root.
 * @throws {Refused} when a link in it leads out of the root.
 */
export async function inRoot(root: string, path: string): Promise<string> {
  const full = join(root, path);
  if (root === "/") return full;
  for (let folder = dirname(full); ; folder = dirname(folder)) {
    const real = await realpath(folder).catch(() => undefined);
    if (real === undefined && folder !== dirname(folder)) continue;
    await refuseOutside(root, real ?? "/", path);
    return full;
  }
}

/** @throws {Refused} unless what a path leads to is below the root. */
export async function refuseOutside(root: string, real: string, path: string): Promise<void> {
  if (relative(await realpath(root), real).startsWith(".."))
    throw new Refused(`${path} leads out of ${root} through a link; correct the link`);
}
