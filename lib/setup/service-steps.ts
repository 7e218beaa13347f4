import { lstat, readFile, readlink, rename, rm, stat, symlink } from "node:fs/promises";
import { join } from "node:path";
import { cleanLine } from "../core/clean.ts";
import { Failure, Refused, UsageError } from "../core/errors.ts";
import { $ } from "../exec/exec.ts";
import { temporaryBeside } from "../files/files.ts";
import { content, file, fileRemoved, folder, makeParent } from "./file-steps.ts";
import { inRoot, isOurScript, systemctl } from "./machine.ts";
import { commandLine, type Facts, type OwnedPath, places, type Step } from "./step.ts";
import { templates } from "./templates.ts";

/** Scripts with their links on PATH, and units: written, on, and running the files on disk. */

/**
 * The script files in one folder, where they find each other, with a link for each on PATH.
 * @param needs programs that the scripts run
 */
export function scriptSteps(
  facts: Facts,
  names: readonly string[],
  needs: readonly string[],
): Step[] {
  const why = "where the scripts are, beside each other";
  const steps: Step[] = [{ ...folder({ path: places.scripts, mode: 0o755, why }), needs }];
  for (const name of names) {
    const from = facts.scripts.get(name);
    if (from === undefined)
      throw new UsageError(
        `the script ${name} is not beside setup, nor in the folder of --from; copy dist/${name}.mjs there`,
      );
    const path = join(places.scripts, `${name}.mjs`);
    steps.push(copy({ path, from, mode: 0o755, why: `the script ${name}` }));
    steps.push(link({ path: join(places.bin, name), to: path, why: "on everybody's PATH" }));
  }
  return steps;
}

/** A unit as its template has it. */
export function unit(
  name: keyof typeof templates,
  why: string,
  text: string = templates[name],
): Step {
  return {
    ...file({ path: join(places.units, name), text, mode: 0o644, why }),
    unit: { name, text, isTemplate: text === templates[name] },
  };
}

/** Units on, and those restarted whose files, or settings, are newer than their process. */
export function started(
  names: string[],
  scripts: readonly string[],
  others: readonly string[] = [],
  settings: readonly string[] = [],
): Step[] {
  const [read, ...renew] = renewed(names, scripts, others, settings);
  return [...(read ? [read] : []), enable(names, "on now, and at every boot"), ...renew];
}

/**
 * Units read again, and services restarted whose files are newer than their process; what is off stays off.
 * @param others patterns of units that others switch on: `build@*`
 */
export function renewed(
  names: string[],
  scripts: readonly string[],
  others: readonly string[] = [],
  settings: readonly string[] = [],
): Step[] {
  const files = [
    ...settings,
    ...names.map((name) => join(places.units, name.replace(/@.*\./, "@."))),
    ...scripts.map((name) => join(places.scripts, `${name}.mjs`)),
  ];
  const services = names.filter((name) => name.endsWith(".service"));
  return [
    reload([...names, ...others], "systemd reads the units that changed"),
    restart(services, files, "what runs is older than its files"),
  ];
}

/** A script's file, the same as another. */
function copy(options: OwnedPath & { from: string }): Step {
  const { path, from } = options;
  return content(options, copy, {
    what: `script ${path}`,
    wanted: () => readFile(from, "utf8"),
    undo: { step: fileRemoved(path) },
  });
}

/** A link to one of our scripts. Another link or copy of a script of ours gives way to it. */
export function link(options: { path: string; to: string; why: string }): Step {
  const { path, to, why } = options;
  return {
    what: `link ${path} -> ${to}`,
    ...{ path, why },
    async look(root) {
      const here = await inRoot(root, path);
      if ((await readlink(here).catch(() => undefined)) === to) return "ready";
      if (!(await lstat(here).catch(() => undefined))) return "make";
      if (await isOurScript(here)) return "replace";
      throw new Refused(`${here} is there and is not one of Boatyard's scripts; move it away`);
    },
    async perform(root) {
      const here = await inRoot(root, path);
      await makeParent(here);
      const temporary = temporaryBeside(here);
      await symlink(to, temporary);
      try {
        await rename(temporary, here);
      } catch (error) {
        await rm(temporary, { force: true });
        throw error;
      }
    },
    underRoot: () => [link(options)],
    undo: { step: fileRemoved(path, { ifLinkTo: to }) },
  };
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
      // the exit code tells of one of them only
      for (const [word, wanted] of [
        ["is-enabled", /^(?:enabled|static|linked|alias|indirect)/],
        // "activating" is also what systemd says of one that ends and is begun again and again
        ["is-active", /^(?:active|reloading)$/],
      ] as const) {
        const words = (await systemctl(word, ...units)).stdout.trim().split("\n");
        if (words.length !== units.length || !words.every((each) => wanted.test(each)))
          return "make";
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
  return {
    what: `systemd: disable ${units.join(" ")}`,
    ...{ why: "off now, and at every boot", systemd: true },
    look: async () => ((await thoseOn(units)).length > 0 ? "remove" : "ready"),
    // systemctl refuses them all where one is not there
    perform: async () => systemd(["disable", "--now"], await thoseOn(units)),
    byHand: () => [commandLine("systemctl", "disable", "--now", ...units)],
  };
}

async function thoseOn(units: readonly string[]): Promise<string[]> {
  const found: string[] = [];
  for (const unit of units) {
    const { stdout: enabled } = await systemctl("is-enabled", unit);
    const { stdout: active } = await systemctl("is-active", unit);
    if (/^(?:enabled|linked)/.test(enabled) || /^(?:active|activating|reloading)/.test(active))
      found.push(unit);
  }
  return found;
}

/** What runs in a unit that nobody enables is ended. */
export function stop(unit: string, why: string): Step {
  return {
    what: `systemd: stop ${unit}`,
    ...{ why, systemd: true },
    look: async () =>
      (await systemctl("is-active", unit)).stdout.trim() === "active" ? "remove" : "ready",
    perform: () => systemd(["stop"], [unit]),
    byHand: () => [commandLine("systemctl", "stop", unit)],
  };
}

/**
 * Services that run older files.
 * @param files those that a service reads when it starts; undefined: all that run are restarted
 */
export function restart(
  units: readonly string[],
  files: readonly string[] | undefined,
  why: string,
): Step {
  return {
    what: `systemd: restart ${units.join(" ")}`,
    ...{ why, systemd: true },
    async look() {
      const newest = files ? await newestOf(files) : Number.POSITIVE_INFINITY;
      const show = ["show", "--timestamp=unix", "--property=ActiveEnterTimestamp", "--value"];
      for (const unit of await thoseBegun(units)) {
        const { stdout } = await systemctl(...show, unit);
        const since = Number(/^@(\d+)/.exec(stdout.trim())?.[1] ?? NaN);
        if ((since + 1) * 1000 < newest) return "make";
      }
      return "ready";
    },
    perform: async () => systemd(["restart"], await thoseBegun(units)),
  };
}

/** When the last of some files was changed, in ms since 1970. */
async function newestOf(files: readonly string[]): Promise<number> {
  const found = await Promise.all(files.map((file) => stat(file).catch(() => undefined)));
  return Math.max(0, ...found.map((each) => each?.ctimeMs ?? 0));
}

/** What is off starts with the new files when it is switched on. */
async function thoseBegun(units: readonly string[]): Promise<string[]> {
  const found: string[] = [];
  for (const unit of units)
    if ((await systemctl("is-active", unit)).stdout.trim() !== "inactive") found.push(unit);
  return found;
}

/**
 * Have systemctl do something.
 * @throws {Failure} with the last words of the service, which say why.
 */
async function systemd(args: string[], units: readonly string[] = []): Promise<void> {
  const { ok, exitCode, stderr } = await systemctl(...args, ...units);
  if (ok) return;
  // what systemctl itself says is only that it failed; the service has told its journal why
  const unit = units.find((name) => name.endsWith(".service")) ?? units[0] ?? "";
  const tail = ["--no-pager", "--quiet", "--output=cat", "--lines=3"];
  const journal = await $({ nothrow: true })`journalctl ${tail} --unit=${unit}`;
  const why = journal.stdout.trim() || stderr.trim() || `exit code ${exitCode}`;
  const command = commandLine("systemctl", ...args, ...units);
  throw new Failure(`${command} failed; journalctl --unit=${unit} ends with:\n${why}`);
}

/** A bus that has read its files as they are now; its connections stay, but those of users who are gone. */
export function busReloaded(): Step {
  const unit = "boatyard-bus.service";
  const files = [places.bus, places.busUsers, places.busCertificate, places.busKey];
  return {
    what: `systemd: reload ${unit}`,
    ...{ why: "it reads its users and its certificate anew", systemd: true },
    async look() {
      if ((await systemctl("is-active", unit)).stdout.trim() !== "active") return "ready";
      const show = ["show", "--timestamp=us+utc", "--property=StateChangeTimestamp", "--value"];
      const read = timeOf((await systemctl(...show, unit)).stdout);
      return read > (await newestOf(files)) ? "ready" : "make";
    },
    async perform() {
      const test = await $({ nothrow: true })`nats-server -t -c ${places.bus}`;
      if (!test.ok)
        throw new Failure(
          `nats-server does not accept ${places.bus}: ${cleanLine(test.stderr.trim().split("\n").at(-1) ?? "")}; correct it, and run this again`,
        );
      await systemd(["reload"], [unit]);
    },
    byHand: () => [commandLine("systemctl", "reload", unit)],
  };
}

/** Milliseconds since 1970 of `Sun 2026-11-22 10:00:00.123456 UTC`; 0: none. */
function timeOf(text: string): number {
  const [, day, time] = /(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d(?:\.\d{1,3})?)/.exec(text) ?? [];
  return day === undefined ? 0 : Date.parse(`${day}T${time}Z`);
}
