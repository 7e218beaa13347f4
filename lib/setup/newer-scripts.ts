import { cp, mkdir, mkdtemp, readdir, realpath, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { tarLimits } from "../archive/tar.ts";
import { unpack } from "../archive/unpack.ts";
import { atEnd } from "../core/at-exit.ts";
import { cleanLine } from "../core/clean.ts";
import { Failure, messageOf, Refused, UsageError } from "../core/errors.ts";
import type { Terminal } from "../core/terminal.ts";
import { $ } from "../exec/exec.ts";
import { findOnPath, withRuntime } from "../exec/scripts.ts";
import { isRoot } from "../exec/users.ts";
import { exists, readIfThere, writeAtomic } from "../files/files.ts";
import { acquireLock } from "../files/lock.ts";
import { type Accepted, accepted, checkArchive, checkLine, checkVersion } from "../web-folder/rollback-guard.ts";
import { Trust } from "../web-folder/trust.ts";
import { currentFor, thisPlatform } from "../web-folder/version-file.ts";
import { type SignedVersion, WebFolder } from "../web-folder/web-folder.ts";
import { scriptsIn } from "./scripts.ts";
import { places } from "./step.ts";

/**
 * Newer scripts for `setup upgrade`: from a folder, or a signed web folder, verified as launchfit verifies an app. The
 * setup among them makes the plan and carries it out, since it knows its own units and files.
 */

export interface NewerOptions {
  /** A folder or a URL; undefined: beside setup. */
  from: string | undefined;
  /** The pinned fingerprint; the one that was accepted first is remembered. */
  key: string | undefined;
  allowDowngrade: boolean;
  /** Nothing of a web folder is remembered: neither a key that is pinned nor what was accepted. */
  dryRun: boolean;
  terminal: Terminal;
  signal: AbortSignal;
}

/**
 * The folder with the newer scripts.
 * @throws {Refused} when what is installed is a package manager's, or what was fetched cannot be trusted.
 * @throws {UsageError} when nothing is installed, or nothing newer is named.
 */
export async function findNewer(options: NewerOptions): Promise<string> {
  const { from } = options;
  await refusePackages();
  if (from !== undefined && /^[a-z+]+:\/\//i.test(from)) {
    if (!isRoot()) throw new UsageError("only root can do this; say sudo setup upgrade …");
    return await fetchScripts(from, options);
  }
  const folder = from ?? join(await realpath(process.argv[1] ?? "."), "..");
  const here = await realpath(folder).catch(() => undefined);
  if (here === (await realpath(places.scripts).catch(() => places.scripts)))
    throw new UsageError(
      "these are the scripts that are installed; say where newer ones are: setup upgrade --from DIR, or --from URL",
    );
  if (here === undefined || !(await exists(join(here, "setup.mjs"))))
    throw new UsageError(`--from: ${folder} has no setup.mjs; name the folder with the new scripts`);
  for (const path of [here, ...(await scriptsIn(here)).values()])
    if ((await stat(path)).mode & 0o002)
      throw new Refused(
        `${path} can be written by everybody, and what is in it would run as root; ` +
          `chmod o-w ${path}, once you know who wrote it`,
      );
  return here;
}

/** Whether this process runs the setup of that folder. */
export async function isOwnFolder(folder: string): Promise<boolean> {
  return join(folder, "setup.mjs") === (await realpath(process.argv[1] ?? "."));
}

/**
 * Let the setup of that folder go on.
 * @returns its exit code
 * @throws {Failure} when it does not run.
 */
export async function handOver(folder: string, flags: readonly string[]): Promise<number> {
  await tryScript(join(folder, "setup.mjs"));
  const argv = [...withRuntime(join(folder, "setup.mjs")), "upgrade", "--from", folder, ...flags];
  const { exitCode } = await $({
    stdio: ["inherit", "inherit", "inherit"],
    nothrow: true,
  })`${argv}`;
  return exitCode ?? 1;
}

/** @throws {Refused} when the scripts are a package's, with the command that upgrades it. */
async function refusePackages(): Promise<void> {
  const own = (await scriptsIn(places.scripts)).size > 0;
  const found = await findOnPath("setup");
  const file = await realpath(found ?? process.argv[1] ?? "/").catch(() => "");
  if (file.startsWith(`${places.scripts}/`)) return;
  const left = "nothing was replaced";
  if (file.includes("/node_modules/boatyard/"))
    throw new Refused(
      `${file} was installed by npm, which upgrades it; ${left}; type: npm install --global boatyard@latest`,
    );
  const owner = (await $({ nothrow: true })`dpkg -S ${file}`).stdout;
  const name = /^([a-z0-9][a-z0-9.+-]*):/.exec(owner)?.[1];
  if (name !== undefined)
    throw new Refused(
      `${file} is of the Debian package ${name}; ${left}; type: ` +
        `apt-get update && apt-get install --only-upgrade ${name}`,
    );
  if (!own) throw new UsageError(nothingHere);
}

export const nothingHere =
  "setup has installed nothing here that could be upgraded; see setup server, setup slave, setup app";

/** @throws {Failure} with what it says, when it does not even tell its version. */
export async function tryScript(file: string): Promise<void> {
  const { ok, stderr } = await $({
    nothrow: true,
    timeout: 60_000,
  })`${withRuntime(file)} --version`;
  if (ok) return;
  const lines = stderr.trim().split("\n");
  // Node shows the place first
  const said = lines.find((line) => /^\w*Error\b/.test(line)) ?? lines[0] ?? "";
  throw new Failure(`${file} does not run: ${cleanLine(said)}; nothing was replaced`);
}

/** What was accepted before: an older VERSION is not taken later, and nothing by another key. */
interface Record extends Accepted {
  pin?: string[];
}

const maxSize = 200 * 1024 ** 2;

/**
 * Fetch what the web folder offers, and check it.
 * @returns a folder of root's with the scripts, which is gone when this process ends.
 * @throws {Busy} while another upgrade is at work.
 * @throws {Refused} when it is not signed by the pinned key, is older than what was accepted before, or is no Boatyard.
 */
async function fetchScripts(url: string, options: NewerOptions): Promise<string> {
  const { signal, terminal, allowDowngrade, dryRun } = options;
  const note = (line: string) => terminal.note(line);
  await mkdir(places.upgrades, { recursive: true, mode: 0o700 });
  // held until this process ends
  await acquireLock("/run/boatyard-upgrade.lock", { what: "setup upgrade", secluded: true });
  // of one that was killed
  for (const name of await readdir(places.upgrades))
    if (name.startsWith("fetch-")) await rm(join(places.upgrades, name), { recursive: true, force: true });
  const temporary = await mkdtemp(join(places.upgrades, "fetch-"));
  atEnd(() => rm(temporary, { recursive: true, force: true }));
  const recordFile = join(places.upgrades, "accepted.json");
  const keys = join(places.upgrades, "keys");
  const store = dryRun ? join(temporary, "keys") : keys;
  if (dryRun && (await exists(keys))) await cp(keys, store, { recursive: true });
  const state = await readRecord(recordFile);
  const folder = new WebFolder(url, { temporary, timeout: 30_000, maxSize, signal, note });
  try {
    const context = { store, pinned: state.pin ?? [], folders: [folder], app: state.app };
    const trust = await Trust.open(context, { key: options.key, note });
    const version = await folder.version((given) => trust.verifyVersion(folder, given));
    const offer = offered(version, state, folder.name("VERSION"), { allowDowngrade });
    const archive = await folder.archive(offer.line, trust.signers);
    const name = folder.name(offer.line.file);
    try {
      checkArchive(state, offer, archive, name, { allowDowngrade });
      const unpacked = join(temporary, "scripts");
      await mkdir(unpacked);
      const limits = { ...tarLimits, size: maxSize, entries: 1000 };
      const hasTop = (_: unknown, hasFile: (path: string) => boolean) => hasFile("setup.mjs");
      const scripts = await unpack(archive.fd, unpacked, name, { limits, signal, strip: hasTop });
      if (!(await scriptsIn(scripts)).has("setup")) throw new Refused(`${name} holds no setup.mjs: is it Boatyard?`);
      await trust.accept();
      const after = accepted(state, offer, archive, { allowDowngrade });
      const text = `${JSON.stringify({ ...after, pin: trust.pins }, null, 2)}\n`;
      if (!dryRun) await writeAtomic(recordFile, text, { mode: 0o600 });
      return scripts;
    } finally {
      await archive.discard();
    }
  } finally {
    folder.close();
  }
}

/** Which archive is for this machine, if its VERSION may be taken. */
function offered(
  version: SignedVersion | undefined,
  state: Record,
  name: string,
  { allowDowngrade }: { allowDowngrade: boolean },
): SignedVersion & { app: string; line: ReturnType<typeof currentFor> } {
  if (!version?.signature) throw new Refused(`${name} is not signed (VERSION.sig)`);
  checkVersion(state, version, name, { allowDowngrade });
  const app = version.file.app ?? "boatyard";
  if (app !== (state.app ?? "boatyard"))
    throw new Refused(`${name} is for the app ${app}, not for ${state.app ?? "boatyard"}`);
  const line = currentFor(version.file, thisPlatform(process.platform, false), name);
  checkLine(state, { ...version, line }, name);
  return { ...version, app, line };
}

/** @throws {Failure} when the file cannot be understood: to forget it would be to drop the guard. */
async function readRecord(file: string): Promise<Record> {
  const text = await readIfThere(file);
  if (text === undefined) return { floor: {}, versions: {} };
  try {
    const { floor, versions, ...rest } = JSON.parse(text) as Record;
    return { ...rest, floor: floor ?? {}, versions: versions ?? {} };
  } catch (error) {
    throw new Failure(
      `${file} cannot be read: ${messageOf(error)}; correct it, or remove it to forget what was accepted before`,
    );
  }
}
