import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Terminal } from "../cli/terminal.ts";
import { formatDuration, formatSize } from "../core/units.ts";
import type { AppState } from "./app-keeper.ts";
import { healthyAnswers } from "./health.ts";
import type { LauncherState } from "./launcher-state.ts";
import type { Releases } from "./releases.ts";

/** What `launchfit status` tells; with --json just this. */
export interface Status {
  [key: string]: unknown;
  directory: string;
  /** The version that `current` names. */
  version: string | undefined;
  state: AppState | "not running";
  pid?: number | undefined;
  /** Milliseconds. */
  uptime?: number | undefined;
  restarts: number;
  lastEnd?: string | undefined;
  health?: string | undefined;
  installed: string[];
  lastCheck?: LauncherState["lastCheck"];
  lastUpdate?: LauncherState["lastUpdate"];
  nextCheck?: string | undefined;
  stopped?: LauncherState["stopped"];
  /** Bytes that the releases take. */
  disk: number;
}

/** What only the launchfit that runs there knows. */
export type RunningStatus = Pick<
  Status,
  "state" | "pid" | "uptime" | "restarts" | "lastEnd" | "health" | "nextCheck"
>;

/** The status of a deploy directory. */
export async function describeStatus(
  releases: Releases,
  { lastCheck, lastUpdate, stopped }: LauncherState,
  running: RunningStatus = { state: "not running", restarts: 0 },
): Promise<Status> {
  const { state, pid, uptime, restarts, lastEnd, health, nextCheck } = running;
  return {
    directory: releases.deploy.path,
    version: await releases.current(),
    ...{ state, pid, uptime, restarts, lastEnd, health },
    installed: await releases.installed(),
    ...{ lastCheck, lastUpdate, nextCheck, stopped },
    disk: await sizeOf(releases.deploy.releases),
  };
}

/** A status as people read it, a line a fact. */
export function statusLines(status: Status, { paint }: Terminal): string[] {
  const { version, state, pid, uptime, restarts, lastEnd, health, installed } = status;
  const { lastCheck, lastUpdate, nextCheck, stopped, disk } = status;
  const good = state === "running" ? paint.green(state) : paint.red(state);
  const ago = (time: string) => `${formatDuration(Math.max(0, Date.now() - Date.parse(time)))} ago`;
  const mark = (ok: boolean, text: string) => (ok ? text : paint.red(text));
  const facts: [string, string | undefined][] = [
    ["version", version ?? "none"],
    ["app", `${good}${pid === undefined ? "" : `, process ${pid}`}`],
    ["uptime", uptime === undefined ? undefined : formatDuration(uptime)],
    ["restarts", `${restarts}${lastEnd === undefined ? "" : `, the last end: ${lastEnd}`}`],
    ["health", health === undefined ? undefined : mark(healthyAnswers.includes(health), health)],
    ["stopped", stopped && paint.red(`${stopped.reason} (${ago(stopped.at)})`)],
    ["last check", lastCheck && `${mark(lastCheck.ok, lastCheck.result)} (${ago(lastCheck.at)})`],
    [
      "next check",
      nextCheck && `in ${formatDuration(Math.max(0, Date.parse(nextCheck) - Date.now()))}`,
    ],
    [
      "last update",
      lastUpdate &&
        `${lastUpdate.from} → ${lastUpdate.to}: ${mark(lastUpdate.ok, lastUpdate.reason ?? "done")} (${ago(lastUpdate.at)})`,
    ],
    ["installed", installed.join(", ")],
    ["disk", formatSize(disk)],
  ];
  return facts.flatMap(([name, value]) => (value ? [`${paint.dim(name.padEnd(12))}${value}`] : []));
}

/** The bytes of all files below a folder; 0 when there is none. */
async function sizeOf(folder: string): Promise<number> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  const sizes = await Promise.all(
    entries.map(async (entry) => {
      const path = join(folder, entry.name);
      if (entry.isDirectory()) return sizeOf(path);
      return entry.isFile() ? (await stat(path)).size : 0;
    }),
  ).catch(() => [0]);
  return sizes.reduce((sum, size) => sum + size, 0);
}
