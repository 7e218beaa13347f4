import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Terminal } from "../core/terminal.ts";
import { cleanText } from "../core/clean.ts";
import { Failure, ifMissing } from "../core/errors.ts";
import { formatDuration, formatSize } from "../core/units.ts";
import { $, cleanEnvironment, timedOut } from "../exec/exec.ts";
import { findScript } from "../exec/scripts.ts";
import { isRoot } from "../exec/users.ts";
import type { AppState } from "./app-keeper.ts";
import { appRecords, recordedApp } from "./app-process.ts";
import { statusWithin } from "./control.ts";
import { healthyAnswers } from "./health.ts";
import { deployDirectory } from "./deploy-directory.ts";
import { type UpdatesStatus, updatesStatus } from "./launch-file.ts";
import { failedBefore, knownState, type LauncherState, openLauncherState } from "./state.ts";
import { currentRelease, Releases } from "./releases.ts";

/** What `launchfit status` tells; with --json just this. */
export interface Status {
  [key: string]: unknown;
  directory: string;
  /** The app's name, where something is installed. */
  app?: string | undefined;
  /** The version that `current` names. */
  version: string | undefined;
  state: AppState | "not running";
  pid?: number | undefined;
  /** Milliseconds. */
  uptime?: number | undefined;
  /** Bytes, of the app and all that it started. */
  memory?: number | undefined;
  restarts: number;
  lastEnd?: string | undefined;
  health?: string | undefined;
  installed: string[];
  lastCheck?: LauncherState["lastCheck"];
  lastUpdate?: LauncherState["lastUpdate"];
  /** Whether a web folder is followed; with the reason when it is not although nobody said so. */
  updates: UpdatesStatus["updates"];
  hint?: string | undefined;
  /** What the web folder offers and the app is not; with the reason for which it is not taken. */
  offered?: { version: string; reason?: string } | undefined;
  nextCheck?: string | undefined;
  stopped?: LauncherState["stopped"];
  /** The app that runs although no launchfit does: the next one takes it over, or ends it. */
  left?: { version: string; pid: number };
  /** Bytes that the releases take. */
  disk: number;
}

/** What only the launchfit that runs there knows. */
export type RunningStatus = Pick<
  Status,
  "state" | "pid" | "uptime" | "memory" | "restarts" | "lastEnd" | "health" | "nextCheck"
>;

/** The status of a deploy directory. */
export async function describeStatus(
  releases: Releases,
  remembered: LauncherState,
  running: RunningStatus = { state: "not running", restarts: 0 },
): Promise<Status> {
  const { lastCheck, lastUpdate, stopped } = remembered;
  const version = await releases.current();
  const name = await currentRelease(releases.deploy);
  return {
    directory: releases.deploy.path,
    app: name?.slice(0, -1 - (version ?? "").length),
    version,
    ...running,
    installed: await releases.installed(),
    ...(await updatesStatus(() => releases.config(), await knownState(releases.deploy))),
    ...{ lastCheck, lastUpdate, offered: offeredBeside(version, remembered), stopped },
    disk: await sizeOf(releases.deploy.releases),
  };
}

/**
 * The status of a directory in which no launchfit runs.
 * @throws {Failure} when another user's files cannot be read.
 */
export async function readStatus(folder: string): Promise<Status> {
  const deploy = deployDirectory(folder);
  const { uid = 0, gid = 0 } = (await stat(deploy.path).catch(ifMissing)) ?? {};
  if (isRoot() && uid !== 0) return await readAsOwner(deploy.path, uid, gid);
  const state = await openLauncherState(deploy.state);
  const status = await describeStatus(new Releases(deploy), state.value);
  const left = await recordedApp(appRecords(deploy).app);
  return left?.alive ? { ...status, left: { version: left.version, pid: left.pid } } : status;
}

/**
 * What stands there may be a link, a pipe or endless: it is read with its owner's rights, who needs no account (a
 * container's volume), and for a limited time.
 */
async function readAsOwner(folder: string, uid: number, gid: number): Promise<Status> {
  const ids = [`--reuid=${uid}`, `--regid=${gid}`, "--clear-groups", "--no-new-privs"];
  const argv = [...(await findScript("launchfit")), "status", "--json", "--dir", folder];
  const options = { env: cleanEnvironment(), cwd: "/", timeout: statusWithin, grace: 0 };
  const answer = await $({
    ...options,
    nothrow: true,
  })`setpriv ${ids} --bounding-set=-all -- ${argv}`;
  try {
    return JSON.parse(answer.stdout) as Status;
  } catch {
    const why = timedOut(answer) ? "does not come to an end" : "fails";
    throw new Failure(
      `reading ${folder} as user ${uid} ${why}; look yourself: sudo -u '#${uid}' launchfit status --dir ${folder}`,
    );
  }
}

/** What precedes the hint, where a web folder is not followed although nobody said so. */
const notFollowed = {
  "not configured": "no updates are configured",
  unknown: "none until this is corrected",
};

/** What is offered and is not current. Pure. */
function offeredBeside(version: string | undefined, remembered: LauncherState): Status["offered"] {
  const { offered } = remembered;
  if (!offered || offered.version === version) return undefined;
  const reason = failedBefore(remembered, offered);
  return { version: offered.version, ...(reason === undefined ? {} : { reason }) };
}

/** A status as people read it, a line a fact. */
export function statusLines(status: Status, { paint }: Terminal): string[] {
  const { version, state, pid, uptime, restarts, lastEnd, health, installed } = status;
  const { lastCheck, lastUpdate, offered, nextCheck, stopped, disk, memory } = status;
  const good = state === "running" ? paint.green(state) : paint.red(state);
  const ago = (time: string) => `${formatDuration(Math.max(0, Date.now() - Date.parse(time)))} ago`;
  const mark = (ok: boolean, text: string) => (ok ? text : paint.red(text));
  const { updates, hint, left } = status;
  const facts: [string, string | undefined][] = [
    ["version", version ?? "none"],
    ["app", `${good}${pid === undefined ? "" : `, process ${pid}`}`],
    [
      "left",
      left &&
        paint.red(
          `launchfit was killed, and its app (version ${left.version}, process ${left.pid}) runs on; start launchfit again`,
        ),
    ],
    ["uptime", uptime === undefined ? undefined : formatDuration(uptime)],
    ["memory", memory === undefined ? undefined : formatSize(memory)],
    ["restarts", `${restarts}${lastEnd === undefined ? "" : `, the last end: ${lastEnd}`}`],
    ["health", health === undefined ? undefined : mark(healthyAnswers.includes(health), health)],
    ["stopped", stopped && paint.red(`${stopped.reason} (${ago(stopped.at)})`)],
    ["updates", updates === "off" ? "off (launchify.yml)" : undefined],
    [
      "updates",
      updates === "not configured" || updates === "unknown"
        ? paint.red(`${notFollowed[updates]}: ${hint}`)
        : undefined,
    ],
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
    ["offered", offered && offeredText(offered)],
    ["installed", installed.join(", ")],
    ["disk", formatSize(disk)],
  ];
  // several servers have a line each to say; what they say is not ours
  const indented = (value: string) =>
    value
      .split("\n")
      .map((line) => cleanText(line, true))
      .join(`\n${" ".repeat(12)}`);
  return facts.flatMap(([name, value]) =>
    value ? [`${paint.dim(name.padEnd(12))}${indented(value)}`] : [],
  );
}

function offeredText({ version, reason }: NonNullable<Status["offered"]>): string {
  return `${version}, ${reason === undefined ? "not taken yet" : `not taken: ${reason}`}`;
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
