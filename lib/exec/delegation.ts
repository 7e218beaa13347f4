import { readFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { $ } from "./exec.ts";

/**
 * Where a server may make cgroups, by what systemd knows of its unit. Under systemd only a delegated subtree is ours to
 * change (systemd.io/CGROUP_DELEGATION): root makes a scope for it, which is no part of the server's unit, so that what
 * runs in it goes on when the server is stopped, killed or upgraded; others use their unit, if it says Delegate=yes.
 */

/** The scope in which root's server has a cgroup for each run. */
export const scopeName = "boatyard-runs.scope";

/** What is known of a unit: lines `Key=value` of its file, or of `systemctl show`. */
export interface UnitSettings {
  /** Its name; only systemctl tells it. */
  readonly id: string;
  readonly user: string;
  readonly delegate: boolean;
  /** In which cgroup of the unit systemd (254 and later) starts the server itself. */
  readonly delegateSubgroup: string;
  readonly killMode: string;
  /** The unit may not change cgroups, not even its own. */
  readonly protectControlGroups: boolean;
}

/** Read a unit's settings; those that are not there have systemd's defaults. Pure. */
export function readUnitSettings(text: string): UnitSettings {
  const value = (key: string) => new RegExp(`^${key}=(.*)$`, "m").exec(text)?.[1]?.trim() ?? "";
  const isOn = (key: string) => /^(?:yes|true|on|1)$/i.test(value(key));
  return {
    id: value("Id"),
    user: value("User"),
    delegate: isOn("Delegate"),
    delegateSubgroup: value("DelegateSubgroup"),
    killMode: value("KillMode") || "control-group",
    protectControlGroups: isOn("ProtectControlGroups"),
  };
}

/** How the cgroups of runs are made. */
export interface Plan {
  /** `scope`: in a scope of their own; `own`: below the server's own cgroup; `none`: not at all. */
  readonly way: "scope" | "own" | "none";
  /** Whether what is started goes on when the server ends. */
  readonly outlives: boolean;
  /** Why it is no better, and what to do about it. */
  readonly why?: string;
}

/** Which way there is for a server that `unit` runs (undefined: started by hand, or there is no systemd). Pure. */
export function planDelegation(unit: UnitSettings | undefined, cgroup2: boolean): Plan {
  const none = (why: string): Plan => ({ way: "none", outlives: false, why });
  if (!cgroup2) return none("there is no cgroup v2 here");
  if (!unit) return { way: "own", outlives: false };
  if (unit.protectControlGroups)
    return none("its unit says ProtectControlGroups=yes; bring the current one: setup server");
  if (unit.user === "" || unit.user === "root") return { way: "scope", outlives: true };
  if (!unit.delegate) return none("its unit does not say Delegate=yes");
  if (unit.killMode !== "process")
    return {
      way: "own",
      outlives: false,
      why: "DelegateSubgroup=server with KillMode=process lets them go on (systemd 254 and later)",
    };
  if (unit.delegateSubgroup === "")
    return none("KillMode=process needs DelegateSubgroup=server, or its unit cannot start again");
  return { way: "own", outlives: true };
}

/** What a server finds that systemd runs as this unit, or by hand when there is no such unit. Changes nothing. */
export async function planFor(unitName: string): Promise<Plan & { readonly byHand: boolean }> {
  const unit = await settingsOf(unitName);
  return {
    ...planDelegation(unit, (await cgroupMount()) !== undefined),
    byHand: unit === undefined,
  };
}

/** The unit in whose name systemd started this very process, as far as it tells. */
export async function ownUnit(path: string): Promise<UnitSettings | undefined> {
  if (Number(process.env.SYSTEMD_EXEC_PID) !== process.pid) return undefined;
  const name = path.split("/").findLast((each) => each.endsWith(".service"));
  return name === undefined ? undefined : await settingsOf(name);
}

/** A unit's settings, from systemd; undefined when it does not know the unit, or is not there. */
async function settingsOf(unit: string): Promise<UnitSettings | undefined> {
  const keys = ["Id", "LoadState", "User", "Delegate", "DelegateSubgroup", "KillMode"];
  const show = `--property=${[...keys, "ProtectControlGroups"].join(",")}`;
  const { stdout } = await $({ nothrow: true, timeout: 10_000 })`systemctl show ${show} -- ${unit}`;
  return /^LoadState=loaded$/m.test(stdout) ? readUnitSettings(stdout) : undefined;
}

/** Where the hierarchy of version 2 is mounted. */
async function cgroupMount(): Promise<string | undefined> {
  const mounts = await readFile("/proc/self/mountinfo", "utf8").catch(() => "");
  return /^\d+ \d+ \S+ \/\S* (\S+) .*? - cgroup2 /m.exec(mounts)?.[1];
}

/** This process's cgroup of version 2: where the hierarchy is mounted, its path in it, its folder. */
export async function ownCgroup(): Promise<{ mount: string; path: string; folder: string } | undefined> {
  const mount = await cgroupMount();
  const cgroups = await readFile("/proc/self/cgroup", "utf8").catch(() => "");
  const path = /^0::(\/.*)$/m.exec(cgroups)?.[1];
  // a path that leads out of a container's namespace is none of ours
  if (mount === undefined || path === undefined || path.startsWith("/..")) return undefined;
  return { mount, path, folder: join(mount, path) };
}
