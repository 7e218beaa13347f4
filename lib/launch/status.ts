import { stat } from "node:fs/promises";
import type { Terminal } from "../core/terminal.ts";
import { cleanText } from "../core/clean.ts";
import { Failure, ifMissing } from "../core/errors.ts";
import { formatDuration, formatSize } from "../core/units.ts";
import { $, timedOut } from "../exec/exec.ts";
import { exists } from "../files/files.ts";
import { findScript } from "../exec/scripts.ts";
import { isRoot } from "../exec/users.ts";
import { AppProcesses } from "./app.ts";
import { statusWithin } from "./control.ts";
import { healthyAnswers } from "./health.ts";
import { deployDirectory } from "./deploy-directory.ts";
import { type UpdatesStatus, updatesStatus } from "./launch-file.ts";
import { failedBefore, knownState, launcherFile, type LauncherState } from "./state.ts";
import { currentRelease, Releases } from "./releases.ts";

/** What `launchfit status` tells; with --json just this. */
export interface Status {
  [key: string]: unknown;
  directory: string;
  /** The app's name, where something is installed. */
  app?: string | undefined;
  /** The version that `current` names. */
  version: string | undefined;
  state: "stopped" | "starting" | "running" | "waiting to restart" | "given up" | "not running";
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
  /** The app that runs although no launchfit does: the next one ends it, and starts it anew. */
  left?: { version: string; pid: number };
  /** Bytes that the releases take; undefined where counting them takes too long. */
  disk?: number | undefined;
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
    disk: await diskUsage(releases.deploy.releases),
  };
}

/**
 * The status of a directory in which no launchfit runs.
 * @throws {Failure} when another user's files cannot be read.
 */
export async function readStatus(folder: string): Promise<Status> {
  const deploy = deployDirectory(folder);
  const owner = await otherOwner(deploy.path);
  if (owner) return (await runAsOwner(owner, ["status", "--dir", deploy.path])) as Status;
  const remembered = (await launcherFile(deploy).read()) ?? {};
  const status = await describeStatus(new Releases(deploy), remembered);
  const [left] = await (await AppProcesses.open(deploy.state)).living();
  return left ? { ...status, left: { version: left.version, pid: left.pid } } : status;
}

/** Whom a directory belongs to, by number: the owner of a container's volume needs no account. */
export interface Owner {
  uid: number;
  gid: number;
}

/** The owner of a directory, where we are root and that is another user. */
export async function otherOwner(folder: string): Promise<Owner | undefined> {
  const { uid = 0, gid = 0 } = (await stat(folder).catch(ifMissing)) ?? {};
  return isRoot() && uid !== 0 ? { uid, gid } : undefined;
}

/**
 * What a command of launchfit says with --json, run with the rights of the owner of the directories that it reads: what
 * stands there may be a link, a pipe or endless. It takes a limited time.
 * @throws {Failure} when it says nothing.
 */
export async function runAsOwner({ uid, gid }: Owner, [command = "", ...words]: readonly string[]): Promise<unknown> {
  const ids = [`--reuid=${uid}`, `--regid=${gid}`, "--clear-groups", "--no-new-privs"];
  const argv = [...(await findScript("launchfit")), command, "--json", ...words];
  const options = { cwd: "/", timeout: statusWithin, grace: 0, nothrow: true };
  const answer = await $(options)`setpriv ${ids} --bounding-set=-all -- ${argv}`;
  try {
    return JSON.parse(answer.stdout);
  } catch {
    const why = timedOut(answer) ? "does not come to an end" : "fails";
    const folders = words.filter((word) => word.startsWith("/")).join(" ");
    throw new Failure(
      `reading ${folders} as user ${uid} ${why}; look yourself: ` +
        `sudo -u '#${uid}' launchfit ${command} ${words.join(" ")}`,
    );
  }
}

/** What precedes the hint, where a web folder is not followed although nobody said so. */
const notFollowed = { "not configured": "no updates are configured", unknown: "none until this is corrected" };

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
          `launchfit was killed, and its app (version ${left.version}, process ${left.pid}) runs on; ` +
            "start launchfit again, which ends it and starts it anew",
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
      updates === "not configured" || updates === "unknown" ? paint.red(`${notFollowed[updates]}: ${hint}`) : undefined,
    ],
    ["last check", lastCheck && `${mark(lastCheck.ok, lastCheck.result)} (${ago(lastCheck.at)})`],
    ["next check", nextCheck && `in ${formatDuration(Math.max(0, Date.parse(nextCheck) - Date.now()))}`],
    [
      "last update",
      lastUpdate &&
        `${lastUpdate.from} → ${lastUpdate.to}: ${mark(lastUpdate.ok, lastUpdate.reason ?? "done")} ` +
          `(${ago(lastUpdate.at)})`,
    ],
    ["offered", offered && offeredText(offered)],
    ["installed", installed.join(", ")],
    ["disk", disk === undefined ? undefined : formatSize(disk)],
  ];
  // several servers have a line each to say; what they say is not ours
  const indented = (value: string) =>
    value
      .split("\n")
      .map((line) => cleanText(line, true))
      .join(`\n${" ".repeat(12)}`);
  return facts.flatMap(([name, value]) => (value ? [`${paint.dim(name.padEnd(12))}${indented(value)}`] : []));
}

function offeredText({ version, reason }: NonNullable<Status["offered"]>): string {
  return `${version}, ${reason === undefined ? "not taken yet" : `not taken: ${reason}`}`;
}

/** Bytes on the disk of all below a folder, by du(1): of very many files a status must not wait for the last. */
async function diskUsage(folder: string): Promise<number | undefined> {
  if (!(await exists(folder))) return 0;
  const options = { cwd: folder, timeout: statusWithin / 4, grace: 0, nothrow: true };
  const { stdout } = await $(options)`du -sk .`;
  const blocks = /^(\d+)\s/.exec(stdout)?.[1];
  return blocks === undefined ? undefined : Number(blocks) * 1024;
}
