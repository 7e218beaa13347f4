import { stat } from "node:fs/promises";
import { Failure } from "../core/errors.ts";
import { $ } from "../exec/exec.ts";
import { commandLine, type Step } from "./step.ts";

/** Steps that are systemd's: units read, on, and running the files on disk. */

/** `systemctl`; its exit code is the caller's to look at. */
export const systemctl = (...args: string[]) =>
  $({ nothrow: true, timeout: 600_000 })`systemctl --no-pager ${args}`;

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
        ["is-active", /^(?:active|reloading|activating)$/],
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
    async look() {
      for (const unit of units) {
        const { stdout: enabled } = await systemctl("is-enabled", unit);
        const { stdout: active } = await systemctl("is-active", unit);
        if (/^(?:enabled|linked)/.test(enabled) || /^(?:active|activating|reloading)/.test(active))
          return "remove";
      }
      return "ready";
    },
    perform: () => systemd(["disable", "--now"], units),
    byHand: () => [commandLine("systemctl", "disable", "--now", ...units)],
  };
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
      const times = (files ?? []).map((file) =>
        stat(file).then(
          ({ ctimeMs }) => ctimeMs,
          () => 0,
        ),
      );
      const newest = files ? Math.max(0, ...(await Promise.all(times))) : Number.POSITIVE_INFINITY;
      const show = ["show", "--timestamp=unix", "--property=ActiveEnterTimestamp", "--value"];
      for (const unit of units) {
        // what is off starts with the new files when it is switched on
        const { stdout: active } = await systemctl("is-active", unit);
        if (active.trim() === "inactive") continue;
        const { stdout } = await systemctl(...show, unit);
        const since = Number(/^@(\d+)/.exec(stdout.trim())?.[1] ?? NaN);
        if ((since + 1) * 1000 < newest) return "make";
      }
      return "ready";
    },
    perform: () => systemd(["restart"], units),
  };
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
