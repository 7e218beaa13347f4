import { mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { messageOf, systemCode } from "../core/errors.ts";
import { isPopulated, killCgroup, type Limits, makeCgroup, removeCgroup } from "./cgroup.ts";
import { ownCgroup, ownUnit, type Plan, planDelegation, scopeName, type UnitSettings } from "./delegation.ts";
import { $ } from "./exec.ts";
import { isAlive } from "./process-tree.ts";
import { keepOthersIn } from "./users.ts";

/** The folder in which a server makes cgroups: found or made when the first is asked for. */

const controllers = ["cpu", "memory", "pids"];

/** A folder in which cgroups can be made. */
export interface Delegation extends Plan {
  /** undefined: none can. */
  readonly folder?: string | undefined;
  /** Whether limits can be set in it. */
  readonly limits: boolean;
}

/** Makes cgroups where this process may, and finds that out when the first one is asked for. */
export class Cgroups {
  #found: Promise<Delegation> | undefined;

  /** Where they are made. Moves this process into a cgroup of its own where that is needed. */
  find(): Promise<Delegation> {
    this.#found ??= prepare();
    return this.#found;
  }

  /** Make a cgroup with limits, as far as there can be any; returns its folder; undefined: there can be none. */
  async make(name: string, limits: Limits): Promise<string | undefined> {
    for (let tries = 1; ; tries++) {
      const { folder, limits: bounded } = await this.find();
      if (folder === undefined) return undefined;
      try {
        await makeCgroup(join(folder, name), bounded ? limits : {});
        return join(folder, name);
      } catch (error) {
        // somebody has stopped the scope
        if (tries > 1 || systemCode(error) !== "ENOENT") throw error;
        this.#found = undefined;
      }
    }
  }

  /** Remove the cgroups that are empty: what lived in them outlived its run. Those just made are left. */
  async tidy(): Promise<void> {
    const { folder } = await this.find();
    if (folder === undefined) return;
    const names = await readdir(folder).catch(() => []);
    for (const name of names.filter((each) => each.startsWith(runPrefix))) {
      const made = await stat(join(folder, name)).catch(() => undefined);
      if (made && Date.now() - made.ctimeMs > 60_000 && !(await isPopulated(join(folder, name))))
        await removeCgroup(join(folder, name));
    }
  }
}

/** What the names of runs' cgroups begin with. */
export const runPrefix = "run-";

async function prepare(): Promise<Delegation> {
  const own = await ownCgroup();
  const unit = own && (await ownUnit(own.path));
  const plan = planDelegation(unit, own !== undefined);
  if (!own || plan.way === "none") return { ...plan, limits: false };
  try {
    const folder = plan.way === "scope" ? await openScope(own.mount, unit?.id) : await openOwn(own.folder, unit);
    if (plan.way === "scope") await keepOthersApart(folder);
    return { ...plan, folder, limits: await hasControllers(folder) };
  } catch (error) {
    const why = systemCode(error) === "EACCES" ? "its own cgroup is root's" : messageOf(error);
    return { way: "none", outlives: false, why, limits: false };
  }
}

/**
 * What makes the scope's cgroup fit for others below it, and keeps the scope while nothing runs: controllers can be
 * given on only by a cgroup without processes of its own (cgroups(7), "no internal processes").
 */
const keepScope = `
cgroup=$0$(sed -n 's/^0:://p' /proc/self/cgroup)
mkdir "$cgroup/keep" && echo 0 >"$cgroup/keep/cgroup.procs" || exit
for each in ${controllers.join(" ")}; do
  grep -qw "$each" "$cgroup/cgroup.controllers" && wanted="$wanted +$each"
done
echo $wanted >"$cgroup/cgroup.subtree_control"
exec sleep infinity`;

/**
 * The scope's folder; the scope is made when it is not there. At a shutdown it ends after the unit, whose runs are then
 * left to its next start. The scope says so, not the unit: a unit that names a scope which is not there can bring
 * systemd (257) into an endless loop.
 */
async function openScope(mount: string, unit = ""): Promise<string> {
  const there = await findScope(mount);
  if (there !== undefined) return there;
  const name = scopeName.replace(".scope", "");
  const options = ["--quiet", "--scope", "--collect", `--unit=${name}`, "--slice=system.slice"];
  const properties = ["--property=Delegate=yes", ...(unit ? [`--property=Before=${unit}`] : [])];
  const start = $({ cwd: "/", nothrow: true, outlives: true, stdio: "ignore" });
  const made = start`systemd-run ${options} ${properties} -- /bin/sh -c ${keepScope} ${mount}`;
  let ended = false;
  void made.finally(() => (ended = true));
  for (const deadline = Date.now() + 10_000; Date.now() < deadline; await sleep(20)) {
    const folder = await findScope(mount);
    if (folder !== undefined) return folder;
    // it also ends when another server makes the scope at this moment
    if (ended && Date.now() > deadline - 8000) break;
  }
  throw new Error(`systemd made no ${scopeName}`);
}

async function findScope(mount: string): Promise<string | undefined> {
  const show = ["--property=ControlGroup", "--value"];
  const ask = $({ nothrow: true, timeout: 10_000 });
  const path = (await ask`systemctl show ${show} -- ${scopeName}`).stdout.trim();
  if (!path.startsWith("/")) return undefined;
  const folder = join(mount, path);
  const ready = (await isPopulated(join(folder, "keep"))) && (await hasEnabled(folder));
  return ready ? folder : undefined;
}

/** Put what runs as other users into the scope, too; what a former server left of it is ended. */
async function keepOthersApart(scope: string): Promise<void> {
  const prefix = "others-";
  for (const name of (await readdir(scope)).filter((each) => each.startsWith(prefix))) {
    if (await isAlive(Number(name.slice(prefix.length)))) continue;
    await killCgroup(join(scope, name));
    await removeCgroup(join(scope, name));
  }
  const own = join(scope, `${prefix}${process.pid}`);
  await mkdir(own, { recursive: true });
  keepOthersIn(own);
}

/** The server's own cgroup, made fit for others below it; or its unit's, when systemd started it in a cgroup below. */
async function openOwn(own: string, unit: UnitSettings | undefined): Promise<string> {
  const folder = unit && basename(own) === unit.delegateSubgroup ? dirname(own) : own;
  const mine = join(folder, "server");
  if (unit && folder === own) {
    await mkdir(mine, { recursive: true });
    await writeFile(join(mine, "cgroup.procs"), String(process.pid), { flag: "r+" });
  }
  const probe = join(folder, `${runPrefix}probe-${process.pid}`);
  await makeCgroup(probe, {});
  const canKill = await stat(join(probe, "cgroup.kill")).catch(() => undefined);
  await removeCgroup(probe);
  if (!canKill) throw new Error("its kernel cannot end a cgroup (Linux 5.14 can)");
  // what is not delegated is systemd's, and with a process in it a cgroup cannot have any
  if (unit) await enableControllers(folder);
  return folder;
}

async function enableControllers(folder: string): Promise<void> {
  const available = (await words(join(folder, "cgroup.controllers"))).filter((each) => controllers.includes(each));
  const wanted = available.map((each) => `+${each}`).join(" ");
  await writeFile(join(folder, "cgroup.subtree_control"), wanted, { flag: "r+" }).catch(() => {});
}

/** Whether a cgroup gives all controllers that it has on to those below it. */
async function hasEnabled(folder: string): Promise<boolean> {
  const [available, enabled] = await Promise.all(
    ["cgroup.controllers", "cgroup.subtree_control"].map((file) => words(join(folder, file))),
  );
  return controllers.every((each) => !available?.includes(each) || enabled?.includes(each));
}

async function hasControllers(folder: string): Promise<boolean> {
  const enabled = await words(join(folder, "cgroup.subtree_control"));
  return controllers.every((each) => enabled.includes(each));
}

async function words(file: string): Promise<string[]> {
  return (await readFile(file, "utf8").catch(() => "")).trim().split(/\s+/);
}
