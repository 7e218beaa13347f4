import { readdir, stat } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { ifMissing, messageOf, UsageError } from "../core/errors.ts";
import { findOnPath } from "../exec/scripts.ts";
import { isRoot, purposeOf } from "../exec/users.ts";
import { exists, readIfThere } from "../files/files.ts";
import { folder, type Item } from "../items/items.ts";
import { hasSystemd, unitState } from "../items/services.ts";
import { readHooks, type RepoEntry } from "./hooks-file.ts";
import { readScripts, type Scripts } from "./scripts.ts";

/** Reading the machine, or the root folder of another one, before anything is planned. */

/** Where setup puts things, on the finished system. */
export const places = {
  config: "/etc/boatyard",
  hooks: "/etc/boatyard/hooks.yml",
  /** A file a repo. */
  hooksFolder: "/etc/boatyard/hooks.d",
  fleet: "/etc/server-update",
  list: "/etc/server-update/slavelist.txt",
  listSecret: "/etc/server-update/secret",
  /** Signs orders; its public half is beside it, with `.pub`. */
  masterKey: "/etc/server-update/master.key",
  /** What server-update keeps. */
  fleetState: "/var/lib/server-update",
  slave: "/etc/boatyard/slave.yml",
  slaveFolder: "/etc/boatyard/slave.d",
  slaveSecret: "/etc/boatyard/slave.secret",
  /** The bus: nats.conf, who may use it, its certificate and key, and what it keeps. */
  bus: "/etc/boatyard/nats.conf",
  busUsers: "/etc/boatyard/nats-users.conf",
  busUsersFolder: "/etc/boatyard/nats-users.d",
  busCertificate: "/etc/boatyard/bus.crt",
  busKey: "/etc/boatyard/bus.key",
  busState: "/var/lib/boatyard-bus",
  units: "/etc/systemd/system",
  state: "/var/lib/boatyard",
};

/** Where configuration and secrets are. */
export const configFolder = (): Item => folder({ path: places.config, why: "configuration and secrets" });

/** An account of passwd(5). */
export interface Account {
  name: string;
  uid: number;
  gid: number;
  comment: string;
  home: string;
}

/** What a plan depends on, read before it is made. */
export interface Facts {
  /** `/`, or what --root names. */
  root: string;
  accounts: ReadonlyMap<string, Account>;
  scripts: Scripts;
  /** The text of hooks.yml. */
  hooks: string | undefined;
  /** The repos in it and in hooks.d; none when they cannot be read, and then `hooksProblem` says why. */
  repos: readonly RepoEntry[];
  hooksProblem?: string | undefined;
  /** Whether hook-server's unit is installed. */
  hookServer: boolean;
  /** The account that slave-server's unit names; undefined: there is no such unit. */
  slave: string | undefined;
  /** Whether systemd holds a port for it: one that only connects out has none. */
  slaveSocket?: boolean | undefined;
  /** The text of slave.yml. */
  slaveSettings?: string | undefined;
  /** The texts of slave.d. */
  slaveMore?: string | undefined;
  /** The apps that are switched on here, with their accounts. */
  apps: readonly { app: string; user: string }[];
  /** The lines of nats-users.d, and the text made of them; undefined: this machine runs no bus. */
  busUsers?: { lines: string; text: string } | undefined;
  nginx: boolean;
  hostname: string;
}

/** One thing that was checked; `fix`: it is wrong, and this is what to do. */
export interface Finding {
  what: string;
  fix?: string | undefined;
}

/** What to do by hand at the end: a heading and lines. */
export interface Note {
  title: string;
  lines: string[];
}

export interface Plan {
  /** What is odd about it, though it can be done. */
  warnings?: string[];
  /** Programs that what is set up runs. */
  needs?: readonly string[];
  /** Scripts that units of the plan start. */
  scripts?: readonly string[];
  items: Item[];
  notes: Note[];
  /** What is said when all is ready; default: that nothing was missing. */
  nothing?: string;
}

export async function readFacts(root: string): Promise<Facts> {
  // a permission that Deno was not given is said as such
  if (!(await stat(root).catch(ifMissing))?.isDirectory())
    throw new UsageError(`--root: ${root} is not a folder; make it, or name another`);
  const text = (path: string) => readIfThere(join(root, path));
  const accounts = parsePasswd((await text("etc/passwd")) ?? "");
  const hooks = await text(places.hooks);
  const read = await readAll(root, hooks).catch((error: unknown) => messageOf(error));
  // a package's units are elsewhere, and count once they are on
  const unitFiles = (name: string, wants = "multi-user.target.wants") => [
    join(root, places.units, name),
    join(root, places.units, wants, name),
  ];
  const isInstalled = async (...unit: [name: string, wants?: string]) =>
    (await Promise.all(unitFiles(...unit).map(exists))).includes(true);
  const slaveUnits = await Promise.all(unitFiles("slave-server.service").map(readIfThere));
  const busText = await text(places.busUsers);
  const users = await filesIn(root, places.busUsersFolder, ".conf");
  return {
    ...{ root, accounts, hooks, scripts: await readScripts(root) },
    ...(typeof read === "string" ? { repos: [], hooksProblem: read } : { repos: read }),
    hookServer: await isInstalled("hook-server.service"),
    slave: /^User=(\S+)$/m.exec(slaveUnits.join("\n"))?.[1],
    slaveSocket: await isInstalled("slave-server.socket", "sockets.target.wants"),
    slaveSettings: await text(places.slave),
    slaveMore: (await filesIn(root, places.slaveFolder, ".yml")).map((each) => each.text).join(""),
    apps: await appsOf(root, accounts),
    busUsers: busText === undefined ? undefined : { lines: users.map((each) => each.text).join(""), text: busText },
    nginx: await exists(join(root, "etc/nginx")),
    hostname: root === "/" ? hostname() : ((await text("etc/hostname")) ?? "server").trim(),
  };
}

/** The files of a folder whose names end so, in order. */
export async function filesIn(root: string, folder: string, end: string): Promise<{ file: string; text: string }[]> {
  const names = (await readdir(join(root, folder)).catch(() => [])).filter((name) => name.endsWith(end)).sort();
  return await Promise.all(
    names.map(async (name) => {
      const file = join(folder, name);
      return { file, text: (await readIfThere(join(root, file))) ?? "" };
    }),
  );
}

/** All repos. @throws {UsageError} when a file is not YAML */
async function readAll(root: string, hooks = "{}"): Promise<RepoEntry[]> {
  const files = [{ file: places.hooks, text: hooks }, ...(await filesIn(root, places.hooksFolder, ".yml"))];
  return (await Promise.all(files.map(({ file, text }) => readHooks(text, file)))).flat();
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
  const canAsk = root === "/" && (await hasSystemd());
  const apps: { app: string; user: string }[] = [];
  for (const { comment, name: user } of accounts.values()) {
    const app = /^app (.+)$/.exec(purposeOf(comment) ?? "")?.[1];
    if (app === undefined) continue;
    if (!canAsk || (await unitState(`launchfit@${user}.service`)).enabled === "enabled") apps.push({ app, user });
  }
  return apps;
}

/** `su` without `-` leaves out where useradd, nginx and nats-server are. */
export function completePath(): void {
  const { PATH } = process.env;
  if (PATH !== undefined && isRoot()) process.env["PATH"] = `${PATH}:/usr/local/sbin:/usr/sbin:/sbin`;
}

/** Debian's packages of the programs that steps run, where their names differ. */
const packages: Readonly<Record<string, string>> = {
  flock: "util-linux",
  setpriv: "util-linux",
  ssh: "openssh-client",
  "ssh-keygen": "openssh-client",
  "ssh-keyscan": "openssh-client",
  "systemd-sysusers": "systemd",
  "systemd-tmpfiles": "systemd",
  userdel: "passwd",
  node: "nodejs",
};

/** Which of these are not on PATH, with the command that installs them; undefined: none. */
export async function missingPrograms(names: readonly string[]): Promise<string | undefined> {
  const missing: string[] = [];
  for (const name of [...new Set(names)].sort()) if (!(await findOnPath(name))) missing.push(name);
  if (missing.length === 0) return undefined;
  const from = new Set(missing.map((name) => packages[name] ?? name));
  const are = missing.length === 1 ? "is" : "are";
  return `${missing.join(", ")} ${are} not installed: apt-get install ${[...from].join(" ")}`;
}
