import { stat } from "node:fs/promises";
import { join } from "node:path";
import { Failure } from "../core/errors.ts";
import { $ } from "../exec/exec.ts";
import { exists } from "../files/files.ts";
import type { Item } from "./items.ts";

/** Units of systemd: on, off, and running the files on disk. */

/**
 * Units that are on, now and at every boot, and run what is on the disk.
 * @param files what their services read when they start, beside their unit files
 */
export function running(units: readonly string[], why: string, files: readonly string[] = []): Item {
  const all = [...files, ...units.map((name) => join("/etc/systemd/system", name.replace(/@.*\./, "@.")))];
  const isOn = async (unit: string) => {
    const { enabled, active } = await unitState(unit);
    // "activating" is also what systemd says of one that ends and is begun again and again
    return /^(?:enabled|static|linked|alias|indirect)/.test(enabled) && (active === "active" || active === "reloading");
  };
  const older = async () => {
    const services = units.filter((name) => name.endsWith(".service"));
    const found = await Promise.all(services.map((unit) => isOlder(unit, "ActiveEnterTimestamp", all)));
    return services.filter((_, at) => found[at]);
  };
  return {
    what: `systemd: enable ${units.join(" ")}`,
    ...{ why, systemd: true, live: [`systemctl enable --now ${units.join(" ")}`] },
    async look() {
      for (const unit of units) if (!(await isOn(unit))) return "make";
      return (await needsReload(units)) || (await older()).length > 0 ? "replace" : "ready";
    },
    async make() {
      if (await needsReload(units)) await systemd(["daemon-reload"]);
      await systemd(["enable", "--now"], units);
      const again = await older();
      if (again.length > 0) await systemd(["restart"], again);
    },
    back: {
      what: `systemd: disable ${units.join(" ")}`,
      isThere: async () => (await thoseOn(units)).length > 0,
      // systemctl refuses them all where one is not there
      remove: async () => await systemd(["disable", "--now"], await thoseOn(units)),
    },
  };
}

/** Units that are off, now and at every boot. */
export function off(units: readonly string[], why: string): Item {
  const { back } = running(units, why);
  return {
    what: `systemd: disable ${units.join(" ")}`,
    ...{ why, systemd: true, live: [`systemctl disable --now ${units.join(" ")}`] },
    look: async () => ((await thoseOn(units)).length > 0 ? "make" : "ready"),
    make: async () => void (await back?.remove("/")),
  };
}

/** Unit files that systemd has read, the patterns of others among them: `build@*`. */
export function read(units: readonly string[], why: string): Item {
  return {
    what: `systemd: reload ${units.join(" ")}`,
    ...{ why, systemd: true, live: [] },
    look: async () => ((await needsReload(units)) ? "make" : "ready"),
    make: async () => await systemd(["daemon-reload"]),
  };
}

async function thoseOn(units: readonly string[]): Promise<string[]> {
  const found: string[] = [];
  for (const unit of units) {
    const { enabled, active } = await unitState(unit);
    if (/^(?:enabled|linked)/.test(enabled) || /^(?:active|activating|reloading)$/.test(active)) found.push(unit);
  }
  return found;
}

/** Whether the file of one has changed on disk: also of one that does not run just now, such as a timer's service. */
async function needsReload(units: readonly string[]): Promise<boolean> {
  const show = ["show", "--all", "--property=NeedDaemonReload", "--value"];
  return /^yes$/m.test((await systemctl(...show, ...units)).stdout);
}

/** Whether a file was changed after the time that systemd has for a unit; one that does not run is not older. */
export async function isOlder(unit: string, property: string, files: readonly string[]): Promise<boolean> {
  if ((await unitState(unit)).active === "inactive") return false;
  const { stdout } = await systemctl("show", "--timestamp=us+utc", `--property=${property}`, "--value", unit);
  // Sun 2026-11-22 10:00:00.123456 UTC
  const [, day, time] = /(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d(?:\.\d{1,3})?)/.exec(stdout) ?? [];
  const found = await Promise.all(files.map((path) => stat(path).catch(() => undefined)));
  return found.some((each) => each && each.ctimeMs >= Date.parse(`${day}T${time}Z`));
}

/** Have systemctl do something. @throws {Failure} with the last words of the service, which say why */
export async function systemd(args: string[], units: readonly string[] = []): Promise<void> {
  const { ok, exitCode, stderr } = await systemctl(...args, ...units);
  if (ok) return;
  // what systemctl says is only that it failed; the units have told their journal why, before systemd's own three lines
  const tail = ["--no-pager", "--quiet", "--output=cat", "--lines=6"];
  const { stdout } = await $({ nothrow: true })`journalctl ${tail} ${units.map((unit) => `--unit=${unit}`)}`;
  const said = (units.length > 0 && stdout.trim()) || stderr.trim() || `exit code ${exitCode}`;
  throw new Failure(`systemctl ${[...args, ...units].join(" ")} failed; the journal ends with:\n${said}`);
}

/** What systemd says of a unit: `enabled`, `static` …, and `active`, `inactive` … */
export type UnitState = { enabled: string; active: string };

export async function unitState(unit: string): Promise<UnitState> {
  const ask = async (verb: string) => (await systemctl(verb, unit)).stdout.trim();
  return { enabled: await ask("is-enabled"), active: await ask("is-active") };
}

/** `systemctl`; its exit code is the caller's to look at. */
export const systemctl = (...args: string[]) => $({ nothrow: true, timeout: 600_000 })`systemctl --no-pager ${args}`;

/** Whether systemd runs this machine: sd_booted(3). */
export const hasSystemd = () => exists("/run/systemd/system");
