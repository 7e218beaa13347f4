import { lstat, readFile } from "node:fs/promises";
import { resolve } from "node:path";
import process from "node:process";
import type { Terminal } from "../core/terminal.ts";
import { cleanLine } from "../core/clean.ts";
import { Failure, messageOf } from "../core/errors.ts";
import { formatDuration, formatSize } from "../core/units.ts";
import { $ } from "../exec/exec.ts";
import { purposeOf } from "../exec/users.ts";
import { askStatus, controlPath } from "./control.ts";
import { healthyAnswers } from "./health.ts";
import { readStatus, type Status } from "./status.ts";

/**
 * `launchfit list`: the apps in some directories, and those of this machine: found by the accounts that `setup
 * app` made, by systemd's units launchfit@NAME, by the sockets of the launchfits that run, as far as the asking user
 * may ask them.
 */

/** An app of this machine. What is not known is not there. */
export interface ListedApp {
  directory: string;
  app?: string | undefined;
  version?: string | undefined;
  state: Status["state"] | "unknown";
  /** Milliseconds. */
  uptime?: number | undefined;
  /** Bytes. */
  memory?: number | undefined;
  /** What is wrong, if anything. */
  problem?: string | undefined;
  /** What `launchfit status` would exit with. */
  code: 0 | 1 | 2 | 4;
}

/** The apps in these directories, and with `all` those of this machine, by their directories. */
export async function listApps(folders: readonly string[], { all }: { all: boolean }): Promise<ListedApp[]> {
  const found = all ? await Promise.all([appAccounts(), appUnits()]) : [];
  const named = new Set([...folders.map((folder) => resolve(folder)), ...found.flat()]);
  const running = all ? await runningHere() : [];
  const asked = [...new Set([...named, ...running])].map((each) => ask(each, named.has(each)));
  return (await Promise.all(asked)).sort((a, b) => (a.directory < b.directory ? -1 : 1));
}

/** One exit code for all: whoever watches them looks at what does not run first, then at updates. */
export function worstCode(apps: readonly ListedApp[]): number {
  const codes = apps.map(({ code }) => code);
  return ([1, 4, 2] as const).find((code) => codes.includes(code)) ?? 0;
}

/** The table that people read. */
export function listLines(apps: readonly ListedApp[], terminal: Terminal): string[] {
  const { paint } = terminal;
  const rows = apps.map(({ app, version, state, uptime, memory, problem, directory, code }) => [
    app ?? "–",
    version ?? "–",
    code === 1 ? paint.red(state) : state,
    uptime === undefined ? "–" : formatDuration(uptime),
    memory === undefined ? "–" : formatSize(memory),
    cleanLine(directory),
    problem === undefined ? "" : paint.red(problem),
  ]);
  return terminal.table(rows, {
    header: ["app", "version", "state", "uptime", "memory", "directory", ""],
    right: [3, 4],
  });
}

async function ask(directory: string, isNamed: boolean): Promise<ListedApp> {
  try {
    const answer = await askStatus(controlPath(directory));
    if (answer?.ok) return listed(directory, answer as unknown as Status);
    // anybody can make a socket: for root the files beside it are not worth reading
    if (!isNamed) throw new Failure("what answers there is not a launchfit, or it has just ended");
    return listed(directory, await readStatus(directory));
  } catch (error) {
    return { directory, state: "unknown", problem: cleanLine(messageOf(error)), code: 1 };
  }
}

/** The exit code of `launchfit status`. */
export function statusCode({ state, updates, lastCheck }: Status): 0 | 1 | 2 | 4 {
  if (updates === "not configured" || updates === "unknown") return 2;
  if (lastCheck?.code === 4) return 4;
  return state === "running" ? 0 : 1;
}

function listed(directory: string, status: Status): ListedApp {
  const { version, health, stopped, hint, lastCheck } = status;
  const isIll = health !== undefined && !healthyAnswers.includes(health);
  const isDown = status.state !== "running";
  const code = isIll || isDown ? 1 : statusCode(status);
  const wrong = { 0: undefined, 1: isDown ? stopped?.reason : health, 2: hint, 4: lastCheck?.result };
  const nothing = version === undefined ? "nothing is installed" : undefined;
  return cleaned(directory, { ...status, code, problem: wrong[code] ?? nothing });
}

/** An answer may come from another user's process: of it only what it ought to be is taken, in one clean line. */
function cleaned(directory: string, row: { [Key in keyof ListedApp]?: unknown }): ListedApp {
  const text = (value: unknown) => (typeof value === "string" ? cleanLine(value.slice(0, 1000)) : undefined);
  const count = (value: unknown) => (Number.isFinite(value) ? Number(value) : undefined);
  const { app, version, problem, uptime, memory } = row;
  const state = (text(row.state) ?? "unknown") as ListedApp["state"];
  const code = ([0, 2, 4] as const).find((code) => code === row.code) ?? 1;
  const texts = { app: text(app), version: text(version), problem: text(problem) };
  return { directory, state, code, ...texts, uptime: count(uptime), memory: count(memory) };
}

/** The homes of the accounts that `setup app` made. */
async function appAccounts(): Promise<string[]> {
  const lines = (await readFile("/etc/passwd", "utf8").catch(() => "")).split("\n");
  const accounts = lines.map((line) => line.split(":"));
  return accounts.flatMap(([, , , , comment = "", home = ""]) =>
    purposeOf(comment)?.startsWith("app ") && home.startsWith("/") ? [home] : [],
  );
}

/** The folders in which systemd runs launchfit@NAME, or should. */
async function appUnits(): Promise<string[]> {
  const systemctl = $({ nothrow: true, stdio: ["ignore", "pipe", "ignore"] });
  const units = await systemctl`systemctl list-units --all --full --plain --no-legend ${"launchfit@*.service"}`;
  const names = units.stdout.split("\n").flatMap((line) => line.trim().split(/\s+/)[0] || []);
  if (names.length === 0) return [];
  const shown = await systemctl`systemctl show --property=WorkingDirectory --value ${names}`;
  return shown.stdout.split("\n").filter((line) => line.startsWith("/"));
}

/**
 * The directories of the launchfits that run, by the sockets that /proc/net/unix shows (proc(5)); other users' only for
 * root, whom they would answer.
 */
async function runningHere(): Promise<string[]> {
  const table = (await readFile("/proc/net/unix", "utf8").catch(() => "")).split("\n");
  const paths = table.flatMap((line) => /^(?:\S+\s+){7}(\/.*)$/.exec(line)?.[1] ?? []);
  const found = await Promise.all([...new Set(paths)].map(directoryOf));
  return found.filter((directory) => directory !== undefined);
}

async function directoryOf(path: string): Promise<string | undefined> {
  const directory = /^(.*)\/\.launchfit\/socket$/.exec(path)?.[1];
  const own = process.getuid?.();
  // it may lie in another mount namespace, or have just ended
  const uid = directory === undefined ? undefined : (await lstat(path).catch(() => undefined))?.uid;
  return uid !== undefined && (own === 0 || uid === own) ? directory : undefined;
}
