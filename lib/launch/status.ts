import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import type { RunningApp } from "./app-process.ts";
import type { AppState } from "./app-keeper.ts";
import type { LauncherState } from "./launcher-state.ts";

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

export interface StatusParts {
  directory: string;
  state: LauncherState;
  app: {
    state: Status["state"];
    restarts: number;
    lastEnd?: string | undefined;
    running?: RunningApp | undefined;
  };
  version: string | undefined;
  installed: string[];
  health?: string | undefined;
  nextCheck?: Date | undefined;
}

export async function describeStatus(parts: StatusParts): Promise<Status> {
  const { directory, state, app, version, installed, health, nextCheck } = parts;
  return {
    directory,
    version,
    state: app.state,
    pid: app.running?.pid,
    uptime: app.running && Date.now() - app.running.startedAt.getTime(),
    restarts: app.restarts,
    lastEnd: app.lastEnd,
    health,
    installed,
    lastCheck: state.lastCheck,
    lastUpdate: state.lastUpdate,
    nextCheck: nextCheck?.toISOString(),
    stopped: state.stopped,
    disk: await sizeOf(join(directory, "releases")),
  };
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
