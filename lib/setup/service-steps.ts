import { stat } from "node:fs/promises";
import { join } from "node:path";
import { cleanLine } from "../core/clean.ts";
import { Failure } from "../core/errors.ts";
import { $ } from "../exec/exec.ts";
import { exists } from "../files/files.ts";
import { file } from "./file-steps.ts";
import { commandLine, type Facts, type Packaged, places, type Step } from "./step.ts";
import { template } from "../files/templates.ts";

/** Scripts with their links on PATH, and units: written, on, and running the files on disk. */

/** A unit's text, with the scripts where they are. */
export function unitText(text: string, packaged: Packaged | undefined): string {
  return text.replace(/\/usr\/local\/bin\/([a-z-]+)/g, (path, script: string) =>
    packaged ? packaged.pathOf(script) : path,
  );
}

/** A unit by its template, or another text; none where a package has brought it. */
export function unit({ packaged }: Facts, name: string, why: string, own: string = template(name)): Step[] {
  if (own === template(name) && packaged?.units.includes(name)) return [];
  const text = unitText(own, packaged);
  const step = file({ path: join(places.units, name), text, why });
  return [{ ...step, unit: { name, text } }];
}

/** What a service is made of, beside its unit. */
export interface Service {
  /** The units that are on. */
  units: string[];
  /** The scripts that it runs, and the files that it reads when it starts. */
  scripts?: readonly string[];
  settings?: readonly string[];
  /** Patterns of units that others switch on: `build@*` */
  others?: readonly string[];
}

/** Units on, and those restarted whose files are newer than their process. */
export function started(service: Service): Step[] {
  const [read, restarted] = renewed(service);
  return [read, enable(service.units, "on now, and at every boot"), restarted];
}

/** Units read again, and services restarted whose files are newer than their process; what is off stays off. */
export function renewed({ units, scripts = [], settings = [], others = [] }: Service): [Step, Step] {
  const files = [
    ...settings,
    ...units.map((name) => join(places.units, name.replace(/@.*\./, "@."))),
    ...scripts.map((name) => join(places.scripts, `${name}.mjs`)),
  ];
  const services = units.filter((name) => name.endsWith(".service"));
  return [
    reload([...units, ...others], "systemd reads the units that changed"),
    restart(services, files, "what runs is older than its files"),
  ];
}

/** Units on disk that systemd has not read. */
export function reload(units: readonly string[], why: string): Step {
  return {
    what: `systemd: reload ${units.join(" ")}`,
    ...{ why, systemd: true },
    async look() {
      // --all: also what is loaded and does not run just now, such as a timer's service
      const show = ["show", "--all", "--property=NeedDaemonReload", "--value"];
      return /^yes$/m.test((await systemctl(...show, ...units)).stdout) ? "make" : "ready";
    },
    perform: () => systemd(["daemon-reload"]),
  };
}

/** On at every boot, and now. */
export function enable(units: readonly string[], why: string): Step {
  return {
    what: `systemd: enable ${units.join(" ")}`,
    ...{ why, systemd: true },
    async look() {
      for (const unit of units) {
        const { enabled, active } = await unitState(unit);
        // "activating" is also what systemd says of one that ends and is begun again and again
        if (!/^(?:enabled|static|linked|alias|indirect)/.test(enabled)) return "make";
        if (active !== "active" && active !== "reloading") return "make";
      }
      return "ready";
    },
    perform: () => systemd(["enable", "--now"], units),
    byHand: () => [commandLine("systemctl", "enable", "--now", ...units)],
    undo: { step: disable(units) },
  };
}

/** Off now, and at every boot. */
export function disable(units: readonly string[]): Step {
  const thoseOn = () =>
    filtered(
      units,
      ({ enabled, active }) => /^(?:enabled|linked)/.test(enabled) || /^(?:active|activating|reloading)$/.test(active),
    );
  return {
    what: `systemd: disable ${units.join(" ")}`,
    ...{ why: "off now, and at every boot", systemd: true },
    look: async () => ((await thoseOn()).length > 0 ? "remove" : "ready"),
    // systemctl refuses them all where one is not there
    perform: async () => systemd(["disable", "--now"], await thoseOn()),
    byHand: () => [commandLine("systemctl", "disable", "--now", ...units)],
  };
}

/** What runs in a unit that nobody enables is ended. */
export function stop(unit: string, why: string): Step {
  return {
    what: `systemd: stop ${unit}`,
    ...{ why, systemd: true },
    look: async () => ((await unitState(unit)).active === "active" ? "remove" : "ready"),
    perform: () => systemd(["stop"], [unit]),
    byHand: () => [commandLine("systemctl", "stop", unit)],
  };
}

/**
 * Services that run older files.
 * @param files those that a service reads when it starts; undefined: all that run are restarted
 */
export function restart(units: readonly string[], files: readonly string[] | undefined, why: string): Step {
  // what is off starts with the new files when it is switched on
  const thoseBegun = () => filtered(units, ({ active }) => active !== "inactive");
  return {
    what: `systemd: restart ${units.join(" ")}`,
    ...{ why, systemd: true },
    async look() {
      for (const unit of await thoseBegun())
        if (!files || (await isOlder(unit, "ActiveEnterTimestamp", files))) return "make";
      return "ready";
    },
    perform: async () => systemd(["restart"], await thoseBegun()),
  };
}

/** A bus that has read its files as they are now; its connections stay, but those of users who are gone. */
export function busReloaded(): Step {
  const unit = "boatyard-bus.service";
  const files = [places.bus, places.busUsers, places.busCertificate, places.busKey];
  return {
    what: `systemd: reload ${unit}`,
    ...{ why: "it reads its users and its certificate anew", systemd: true },
    async look() {
      if ((await unitState(unit)).active !== "active") return "ready";
      return (await isOlder(unit, "StateChangeTimestamp", files)) ? "make" : "ready";
    },
    async perform() {
      const problem = await busProblem();
      if (problem !== undefined)
        throw new Failure(`nats-server does not accept ${places.bus}: ${problem}; correct it, and run this again`);
      await systemd(["reload"], [unit]);
    },
    byHand: () => [commandLine("systemctl", "reload", unit)],
  };
}

async function filtered(units: readonly string[], test: (state: UnitState) => boolean): Promise<string[]> {
  const found: string[] = [];
  for (const unit of units) if (test(await unitState(unit))) found.push(unit);
  return found;
}

/** Whether one of some files was changed after the time that systemd has for a unit; one that has none is not older. */
async function isOlder(unit: string, property: string, files: readonly string[]): Promise<boolean> {
  const show = ["show", "--timestamp=us+utc", `--property=${property}`, "--value"];
  const { stdout } = await systemctl(...show, unit);
  // Sun 2026-11-22 10:00:00.123456 UTC
  const [, day, time] = /(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d(?:\.\d{1,3})?)/.exec(stdout) ?? [];
  const found = await Promise.all(files.map((path) => stat(path).catch(() => undefined)));
  return found.some((each) => each && each.ctimeMs >= Date.parse(`${day}T${time}Z`));
}

/**
 * Have systemctl do something.
 * @throws {Failure} with the last words of the service, which say why.
 */
async function systemd(args: string[], units: readonly string[] = []): Promise<void> {
  const { ok, exitCode, stderr } = await systemctl(...args, ...units);
  if (ok) return;
  // what systemctl says is only that it failed; the units have told their journal why, before systemd's own three lines
  const tail = ["--no-pager", "--quiet", "--output=cat", "--lines=6"];
  const named = units.map((unit) => `--unit=${unit}`);
  const { stdout } = await $({ nothrow: true })`journalctl ${tail} ${named}`;
  const said = (units.length > 0 && stdout.trim()) || stderr.trim() || `exit code ${exitCode}`;
  const command = commandLine("systemctl", ...args, ...units);
  throw new Failure(`${command} failed; the journal ends with:\n${said}`);
}

/** What nats-server finds wrong with the bus's files; undefined: nothing. */
export async function busProblem(): Promise<string | undefined> {
  const { ok, stderr } = await $({ nothrow: true })`nats-server -t -c ${places.bus}`;
  return ok ? undefined : cleanLine(stderr.trim().split("\n").at(-1) ?? "");
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
