import { readdir, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import process from "node:process";
import { Failure, Refused } from "../core/errors.ts";
import { $, type Shell } from "../exec/exec.ts";
import { as, commentFor, lookUpUser } from "../exec/users.ts";
import { exists, makeFolder, readIfThere, writeAtomic } from "../files/files.ts";
import { StateFile } from "../files/state-file.ts";
import { placesOf, type Record, recordSchema, type Spec } from "./app.ts";
import { caddyfileWith, commonFiles, filesOf, gitSettings, type ServerFile, unitsOf } from "./files.ts";

/** As root on the server: an app's account, files, repository, units and site, made as a spec says. */

const recordFolder = "/etc/boatyard/apps";
const units = "/etc/systemd/system";
const firstPort = 21_000;

/** The record of an app; undefined: there is none of that name. */
export async function readRecord(name: string): Promise<Record | undefined> {
  return await new StateFile(placesOf(name).record, recordSchema).read();
}

/** The names of the apps of this machine. */
export async function appNames(): Promise<string[]> {
  const files = await readdir(recordFolder).catch(() => []);
  return files
    .filter((name) => name.endsWith(".json"))
    .map((name) => name.slice(0, -5))
    .sort();
}

/**
 * The record for a spec: the port that the app has, or one that nobody has.
 * @throws {Refused} when a host is another app's.
 */
async function recordFor(spec: Spec): Promise<Record> {
  const names = (await appNames()).filter((name) => name !== spec.name);
  const others = (await Promise.all(names.map(readRecord))).filter((each) => each !== undefined);
  for (const { spec: other } of others) {
    const taken = spec.hosts.find((host) => other.hosts.includes(host));
    if (taken !== undefined) throw new Refused(`${taken} is the host of the app ${other.name} on this server`);
  }
  const known = (await readRecord(spec.name))?.port;
  if (known !== undefined) return { spec, port: known };
  const taken = others.map(({ port }) => port);
  let port = firstPort;
  while (taken.includes(port) || !(await isFree(port))) port += 1;
  return { spec, port };
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer().once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });
}

/**
 * What differs from what a spec asks for, in a few words each; empty: all is there. Changes nothing.
 * @throws {Refused} when an account or a host is another's.
 */
export async function differences(spec: Spec): Promise<string[]> {
  const record = await recordFor(spec);
  const { name } = spec;
  const { bare, checkout, env, data } = placesOf(name);
  if (!(await hasAccount(name))) return [`user ${name}`];
  const found: string[] = [];
  const files = [...commonFiles, ...filesOf(record, process.execPath), ...unitFiles(record)];
  for (const { path, text } of files) if ((await readIfThere(path)) !== text) found.push(path);
  for (const path of [bare, checkout, env, data]) if (!(await exists(path))) found.push(path);
  const caddyfile = await readIfThere("/etc/caddy/Caddyfile");
  if (caddyfileWith(caddyfile) !== caddyfile) found.push("/etc/caddy/Caddyfile");
  for (const unit of await obsoleteUnits(record)) found.push(unit);
  const wanted = ["caddy.service", ...pathUnits(spec)];
  const { stdout } = await $({ nothrow: true })`systemctl is-active -- ${wanted}`;
  const states = stdout.split("\n");
  for (const [at, unit] of wanted.entries()) if (states[at] !== "active") found.push(unit);
  // written last: a make that was killed is done again
  if (!same(await readRecord(name), record)) found.push(placesOf(name).record);
  return found;
}

const same = (a: unknown, b: unknown) => JSON.stringify(a) === JSON.stringify(b);

/**
 * Make what a spec asks for; again, it changes nothing. What runs is started anew where its unit has changed, or where
 * `restart` says so: connections to a socket wait meanwhile.
 * @throws {Refused} when an account or a host is another's.
 */
export async function makeApp(spec: Spec, { restart = false } = {}): Promise<void> {
  const record = await recordFor(spec);
  const { name, branch, processes } = spec;
  const { home, bare, checkout, data, env, deploy, record: recordFile } = placesOf(name);
  const before = await readRecord(name);
  const comment = commentFor(`app ${name}`);
  if (!(await hasAccount(name)))
    await $`useradd -U --no-create-home --shell /bin/sh --home-dir ${home} --comment ${comment} ${name}`;
  const user = await lookUpUser(name);
  await $`install -d -m 700 -o ${name} -g ${name} ${home}`;
  const theirs = $(as(user, { cwd: home }));
  await theirs`mkdir -p -m 700 .ssh apps ${data} ${processes.map(deploy)}`;
  await theirs`git init --quiet --bare --initial-branch=${branch} -- ${bare}`;
  await theirs`git init --quiet --initial-branch=${branch} -- ${checkout}`;
  for (const [folder, key, value] of gitSettings(spec)) await theirs`git -C ${folder} config -- ${key} ${value}`;
  await theirs`git -C ${bare} symbolic-ref HEAD ${`refs/heads/${branch}`}`;

  await makeFolder(recordFolder);
  if (!(await exists(env))) await writeOwned(env, "# NAME=value, a line each: boatyard app env\n", name);
  for (const file of [...commonFiles, ...filesOf(record, process.execPath)]) await put(file, theirs);

  const obsolete = await obsoleteUnits(record);
  if (obsolete.length > 0) await $({ nothrow: true })`systemctl disable --now --quiet ${[...obsolete].sort()}`;
  for (const unit of obsolete) await rm(join(units, unit), { force: true });
  const changed: string[] = [];
  for (const file of unitFiles(record)) if (await put(file, theirs)) changed.push(file.path);
  await $`systemctl daemon-reload`;
  await $`systemctl enable --now --quiet ${pathUnits(spec)}`;
  // a launchfit lets go of a socket, or takes one, when it starts
  const isOther = before !== undefined && !same(before, record);
  if (restart || isOther || changed.length > 0)
    for (const kind of processes) await $`systemctl try-restart ${placesOf(name).unit(kind)}.service`;

  await makeSites();
  await new StateFile(recordFile, recordSchema).write(record);
}

/** Caddy reads the sites as they are now. */
async function makeSites(): Promise<void> {
  const path = "/etc/caddy/Caddyfile";
  const before = await readIfThere(path);
  const text = caddyfileWith(before);
  if (text !== before) await writeAtomic(path, text, { mode: 0o644 });
  const checked = await $({ nothrow: true })`caddy validate --adapter caddyfile --config ${path}`;
  if (!checked.ok) throw new Failure(`Caddy does not take ${path}: ${checked.stderr.trim().split("\n").at(-1)}`);
  await $`systemctl enable --quiet caddy`;
  // where it does not run, or its administration moves to a socket, a reload finds nobody
  if (!(await $({ nothrow: true })`systemctl reload caddy`).ok) await $`systemctl restart caddy`;
}

/** Remove an app. What it has written stays, with its account, unless `purge`. */
export async function removeApp(name: string, { purge = false } = {}): Promise<void> {
  const { home, bare, checkout, env, site, record } = placesOf(name);
  const names = (await readdir(units)).filter((file) => file.startsWith(placesOf(name).unit("")));
  if (names.length > 0) await $({ nothrow: true })`systemctl disable --now --quiet ${names.sort()}`;
  for (const file of names) await rm(join(units, file), { force: true });
  await $`systemctl daemon-reload`;
  await rm(site, { force: true });
  if (await exists("/etc/caddy/Caddyfile")) await makeSites();
  const user = await lookUpUser(name).catch(() => undefined);
  if (user) await $(as(user))`rm -rf -- ${[bare, checkout, `${home}/apps`, `${home}/.ssh`]}`;
  await rm(env, { force: true });
  if (user && purge) await $`userdel --remove ${name}`;
  // last: a removal that was killed can be done again
  await rm(record, { force: true });
}

/** Write a file of root's folder that the app's user may read, and nobody else. */
export async function writeOwned(path: string, text: string, user: string): Promise<void> {
  const { uid, gid } = await lookUpUser(user);
  const fresh = `${path}.new`;
  await rm(fresh, { force: true });
  await writeAtomic(fresh, text, { mode: 0o600 });
  await $`chown ${`${uid}:${gid}`} ${fresh}`;
  await $`mv -f ${fresh} ${path}`;
}

/** Write a file unless it has that text. @returns whether it was written. */
async function put({ path, text, mode, isOwners = false }: ServerFile, theirs: Shell): Promise<boolean> {
  if ((await readIfThere(path)) === text) return false;
  if (isOwners) {
    // in a home, where its user could have put a link
    const script = `mkdir -p "$(dirname "$0")" && cat >"$0.new" && chmod "$1" "$0.new" && mv -f "$0.new" "$0"`;
    await theirs({ input: text })`/bin/sh -c ${script} ${path} ${mode.toString(8)}`;
    return true;
  }
  await makeFolder(dirname(path));
  await writeAtomic(path, text, { mode });
  return true;
}

/** @throws {Refused} when the account is not of an app of that name. */
async function hasAccount(name: string): Promise<boolean> {
  const { ok, stdout } = await $({ nothrow: true })`getent passwd -- ${name}`;
  if (!ok) return false;
  if (stdout.split(":")[4] === commentFor(`app ${name}`)) return true;
  throw new Refused(`this server has a user ${name} that boatyard up did not make; name the app otherwise: app.name`);
}

const pathUnits = ({ name, processes }: Spec) => processes.map((kind) => `${placesOf(name).unit(kind)}.path`);

function unitFiles(record: Record): ServerFile[] {
  const all = record.spec.processes.flatMap((kind) => Object.entries(unitsOf(record, kind, process.execPath)));
  return all.map(([name, text]) => ({ path: join(units, name), text, mode: 0o644 }));
}

/** Units of processes that the app no longer has. */
async function obsoleteUnits(record: Record): Promise<string[]> {
  const wanted = unitFiles(record).map(({ path }) => path);
  const files = await readdir(units).catch(() => []);
  const own = files.filter((file) => file.startsWith(placesOf(record.spec.name).unit("")) && !file.endsWith(".wants"));
  return own.filter((file) => !wanted.includes(join(units, file)));
}
