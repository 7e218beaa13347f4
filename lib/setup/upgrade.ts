import { readFile, realpath, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import process from "node:process";
import type { Terminal } from "../core/terminal.ts";
import { cleanLine } from "../core/clean.ts";
import { Failure, Refused, UsageError } from "../core/errors.ts";
import { $ } from "../exec/exec.ts";
import { findOnPath, withRuntime } from "../exec/scripts.ts";
import { isRoot } from "../exec/users.ts";
import { exists } from "../files/files.ts";
import { fetchScripts } from "./fetch-scripts.ts";
import { scriptsIn } from "./machine.ts";
import { renewedBus } from "./plan-bus.ts";
import { renewedApp, renewedServer } from "./plan-server.ts";
import { renewedSlave } from "./plan-slave.ts";
import { type Facts, places, type Plan, type Step, versions } from "./step.ts";

/**
 * `setup upgrade`: newer scripts are found (a folder, or a signed web folder), and the setup among them makes the plan and
 * carries it out, since it knows its own units and files.
 */

export interface UpgradeOptions {
  /** A folder or a URL; undefined: beside setup. */
  from: string | undefined;
  key: string | undefined;
  allowDowngrade: boolean;
  dryRun: boolean;
  terminal: Terminal;
  signal: AbortSignal;
}

/**
 * The folder with the newer scripts.
 * @throws {Refused} when what is installed is a package manager's, or what was fetched cannot be trusted.
 * @throws {UsageError} when nothing is installed, or nothing newer is named.
 */
export async function findNewer(options: UpgradeOptions): Promise<string> {
  const { from, terminal } = options;
  await refusePackages();
  if (from !== undefined && /^[a-z+]+:\/\//i.test(from)) {
    if (!isRoot()) throw new UsageError("only root can do this; say sudo setup upgrade …");
    return await fetchScripts(from, { ...options, note: (line) => terminal.note(line) });
  }
  const folder = from ?? join(await realpath(process.argv[1] ?? "."), "..");
  const here = await realpath(folder).catch(() => undefined);
  if (here === (await realpath(places.scripts).catch(() => places.scripts)))
    throw new UsageError(
      "these are the scripts that are installed; say where newer ones are: setup upgrade --from DIR, or --from URL",
    );
  if (here === undefined || !(await exists(join(here, "setup.mjs"))))
    throw new UsageError(
      `--from: ${folder} has no setup.mjs; name the folder with the new scripts`,
    );
  for (const path of [here, ...(await scriptsIn(here)).values()])
    if ((await stat(path)).mode & 0o002)
      throw new Refused(
        `${path} can be written by everybody, and what is in it would run as root; chmod o-w ${path}, once you know who wrote it`,
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

/**
 * What is replaced, and restarted, for all that is set up on this machine. The new scripts were tried by then.
 * @throws {Failure} when one of them does not run, or the new hook-server does not accept hooks.yml.
 */
export async function planUpgrade(
  facts: Facts,
  { allowDowngrade }: { allowDowngrade: boolean },
): Promise<Plan> {
  const { heading = [], warnings = [] } = versions(facts.builds);
  const { ours, installed } = facts.builds;
  if (!allowDowngrade && Date.parse(installed?.date ?? "") > Date.parse(ours?.date ?? ""))
    throw new Refused(
      `${heading[0]}: what is installed is newer; --allow-downgrade goes back all the same`,
    );
  const steps: Step[] = [
    ...(facts.hookServer ? renewedServer(facts) : []),
    ...(facts.slave === undefined ? [] : renewedSlave(facts, facts.slave)),
    ...(facts.busUsers === undefined ? [] : renewedBus(facts)),
    ...facts.apps.flatMap(({ user }) => renewedApp(facts, user)),
  ];
  if (steps.length === 0) throw new UsageError(nothingHere);
  for (const [name, script] of facts.scripts)
    if (!(await isSameFile(script, join(places.scripts, `${name}.mjs`)))) await tryScript(script);
  if (facts.hookServer && facts.hooks !== undefined) warnings.push(...(await tryHooks(facts)));
  // files first, all of them, and each once; what runs them is restarted when they are all there
  const once = steps.filter(
    ({ what }, at) => steps.findIndex((other) => other.what === what) === at,
  );
  return {
    ...{ heading, warnings, notes: [], nothing: "nothing was older" },
    steps: [...once.filter(({ systemd }) => !systemd), ...once.filter(({ systemd }) => systemd)],
  };
}

async function isSameFile(one: string, other: string): Promise<boolean> {
  const there = await readFile(other).catch(() => undefined);
  return there !== undefined && there.equals(await readFile(one));
}

const nothingHere =
  "setup has installed nothing here that could be upgraded; see setup server, setup slave, setup app";

/** @throws {Failure} with what it says, when it does not even tell its version. */
async function tryScript(file: string): Promise<void> {
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

/**
 * The new hook-server reads hooks.yml. What it finds wrong with a repo is said; that may be so with the old one, too.
 * @throws {Failure} when it would not start with it.
 */
async function tryHooks({ scripts }: Facts): Promise<string[]> {
  const script = scripts.get("hook-server");
  if (script === undefined) return [];
  const flags = ["--check", "--json", "--config", places.hooks];
  const checked = await $({ nothrow: true, timeout: 120_000 })`${withRuntime(script)} ${flags}`;
  if (checked.stdout.trim() === "") {
    const said = checked.stderr.trim().replaceAll(/^hook-server: /gm, "");
    throw new Failure(
      `the new hook-server does not accept ${places.hooks}: ${said}; correct it first; nothing was replaced`,
    );
  }
  const { findings } = JSON.parse(checked.stdout) as {
    findings: { what: string; fix?: string }[];
  };
  // where it is tried, only root has to reach it
  const here = `${dirname(script)}/`;
  return findings.flatMap(({ what, fix }) =>
    fix === undefined || what.includes(here) ? [] : [`hook-server --check: ${what}: ${fix}`],
  );
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
      `${file} is of the Debian package ${name}; ${left}; type: apt-get update && apt-get install --only-upgrade ${name}`,
    );
  if (!own) throw new UsageError(nothingHere);
}
