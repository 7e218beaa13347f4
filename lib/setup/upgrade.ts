import { readdir, readFile, readlink } from "node:fs/promises";
import { dirname, join } from "node:path";
import { Failure, Refused, UsageError } from "../core/errors.ts";
import { $ } from "../exec/exec.ts";
import { withRuntime } from "../exec/scripts.ts";
import { exists, readIfThere } from "../files/files.ts";
import { nothingHere, tryScript } from "./newer-scripts.ts";
import { renewedBus } from "./plan-bus.ts";
import { renewedApp, renewedServer } from "./plan-server.ts";
import { renewedSlave } from "./plan-slave.ts";
import { emptyFolderRemoved, fileRemoved, linkRemoved } from "./remove-steps.ts";
import { readPackaged, scriptsIn, versions } from "./scripts.ts";
import { reload, restart, systemctl, unitState } from "./service-steps.ts";
import { type Facts, type Finding, type Packaged, places, type Plan, type Step } from "./step.ts";

/**
 * What `setup upgrade` does: files of an older version are replaced by those of this one; where a package has brought
 * this version, what setup had put in the way of the package's files is removed.
 */

/**
 * What is replaced, and restarted, for all that is set up on this machine. The new scripts were tried by then.
 * @throws {Failure} when one of them does not run, or the new hook-server does not accept hooks.yml.
 */
export async function planUpgrade(facts: Facts, { allowDowngrade }: { allowDowngrade: boolean }): Promise<Plan> {
  const { heading = [], warnings = [] } = versions(facts.builds);
  const { ours, installed } = facts.builds;
  if (!allowDowngrade && Date.parse(installed?.date ?? "") > Date.parse(ours?.date ?? ""))
    throw new Refused(`${heading[0]}: what is installed is newer; --allow-downgrade goes back all the same`);
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
  const once = steps.filter(({ what }, at) => steps.findIndex((other) => other.what === what) === at);
  return {
    ...{ heading, warnings, notes: [], nothing: "nothing was older" },
    steps: [...once.filter(({ systemd }) => !systemd), ...once.filter(({ systemd }) => systemd)],
  };
}

async function isSameFile(one: string, other: string): Promise<boolean> {
  const there = await readFile(other).catch(() => undefined);
  return there !== undefined && there.equals(await readFile(one));
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

/** What an earlier `setup` has left that is found before the package's files. */
interface Leftovers {
  steps: Step[];
  /** Units that are on by what was left, and have to be on by the package's. */
  units: string[];
  findings: Finding[];
}

async function readLeftovers(packaged: Packaged): Promise<Leftovers> {
  const steps: Step[] = [];
  const units: string[] = [];
  const findings: Finding[] = [];
  const fix = "boatyard setup upgrade removes it";
  for (const script of (await scriptsIn(packaged.folder)).keys()) {
    const to = join(places.scripts, `${script}.mjs`);
    for (const folder of [places.bin, "/bin"]) {
      const path = join(folder, script);
      if ((await readlink(path).catch(() => undefined)) !== to) continue;
      findings.push({ what: `${path} is the package's`, fix });
      steps.push(linkRemoved(path, to));
    }
    if (await exists(to)) steps.push(fileRemoved(to));
  }
  if (await exists(places.scripts)) steps.push(emptyFolderRemoved(places.scripts));
  for (const name of packaged.units) {
    const path = join(places.units, name);
    const text = await readIfThere(path);
    if (!text?.includes("Description=Boatyard")) continue;
    const other = name === "slave-server.service" && !/^User=slave$/m.test(text);
    const edit = `systemctl edit ${name} has room for User= and its folders`;
    const byHand = `it has a user of its own: ${edit}; then remove it`;
    findings.push({ what: `${path} is the package's`, fix: other ? byHand : fix });
    if (other) continue;
    steps.push(fileRemoved(path));
    units.push(name);
  }
  // what is on of build@ and the like has a link to the file that goes
  for (const folder of ["multi-user.target.wants", "timers.target.wants"])
    for (const name of await readdir(join(places.units, folder)).catch(() => []))
      if (/@.+\./.test(name) && units.includes(name.replace(/@.+\./, "@."))) units.push(name);
  return { steps, units, findings };
}

/** What `setup check` says of it. */
export async function checkLeftovers(): Promise<Finding[]> {
  const packaged = await readPackaged();
  return packaged?.by === "dpkg" ? (await readLeftovers(packaged)).findings : [];
}

/** What `setup upgrade` does about it; undefined: nothing is left, or no package is here. */
export async function planLeftovers(): Promise<Plan | undefined> {
  const packaged = await readPackaged();
  if (packaged?.by !== "dpkg") return undefined;
  const { steps, units } = await readLeftovers(packaged);
  if (steps.length === 0) return undefined;
  const again = units.filter((name) => !name.includes("@."));
  const services = again.filter((name) => name.endsWith(".service"));
  return {
    heading: ["what an earlier setup has put before the package's files is removed"],
    steps: [
      ...steps,
      ...(again.length > 0 ? [enabledAgain(again)] : []),
      reload(units, "systemd reads the package's units"),
      restart(services, undefined, "what runs is what was removed"),
    ],
    notes: [],
  };
}

/** Units that are on are on by the package's files. */
function enabledAgain(units: readonly string[]): Step {
  const linkOf = (unit: string) => join(places.units, "multi-user.target.wants", unit);
  const isOn = async (unit: string) =>
    (await unitState(unit)).enabled === "enabled" ||
    (await readlink(linkOf(unit)).catch(() => undefined)) !== undefined;
  return {
    what: `systemd: enable again ${units.join(" ")}`,
    ...{ why: "those that are on, by the package's files", systemd: true },
    async look() {
      for (const unit of units) if (await isOn(unit)) return "replace";
      return "ready";
    },
    async perform() {
      for (const unit of units) if (await isOn(unit)) await systemctl("reenable", unit);
    },
  };
}
