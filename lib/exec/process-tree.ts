import { randomBytes } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";

/**
 * Ending a process with all that it started, by what Linux's /proc tells (proc(5)).
 * Found are: descendants, members of its session and process group, and whoever carries its cookie in
 * the environment; so children that called setsid or forked twice are found too. A process that did
 * both and also cleared its environment is not, and neither is one that forks faster than it is looked
 * for: these only a scope ends.
 */

/** What /proc/PID/stat says of a process. */
export interface ProcessStat {
  pid: number;
  parent: number;
  group: number;
  session: number;
  /** `Z` and `X` are dead already. */
  state: string;
  /** Clock ticks since boot: with the pid, it names one process for ever (until the next boot). */
  startTime: number;
}

const cookieName = "BOATYARD_COOKIE";

/** A fresh mark for the environment of a child, by which its whole tree can be found. */
export function newCookie(): string {
  return randomBytes(12).toString("hex");
}

/**
 * The environment variable that carries a cookie, behind those that this process itself was started with:
 * who ends a build finds the daemons that the build's stages started, too.
 */
export function cookieEnvironment(cookie: string): Record<string, string> {
  const outer = process.env[cookieName];
  return { [cookieName]: outer ? `${outer}.${cookie}` : cookie };
}

/** What is known of a process, or undefined when there is none. */
export function processStat(pid: number): ProcessStat | undefined {
  const text = readProc(`/proc/${pid}/stat`);
  if (text === undefined) return undefined;
  // the name in brackets may hold anything, also blanks and brackets
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const [state = "X", parent, group, session] = fields;
  return {
    pid,
    state,
    parent: Number(parent),
    group: Number(group),
    session: Number(session),
    startTime: Number(fields[19]),
  };
}

/** A file of /proc, which is never on a disk: reading it at once costs a tenth of asking for it. */
function readProc(path: string): string | undefined {
  try {
    return readFileSync(path, "latin1");
  } catch {
    // it has ended, or is another user's
    return undefined;
  }
}

/** The start time of a process in clock ticks since boot, or undefined when it does not live. */
export async function startTimeOf(pid: number): Promise<number | undefined> {
  const stat = processStat(pid);
  return stat && isLive(stat) ? stat.startTime : undefined;
}

/** Whether the very process that had this pid and start time still lives. */
export async function isAlive(pid: number, startTime?: number): Promise<boolean> {
  const now = await startTimeOf(pid);
  return now !== undefined && (startTime === undefined || now === startTime);
}

function isLive(stat: ProcessStat): boolean {
  return stat.state !== "Z" && stat.state !== "X";
}

/** All processes that /proc shows. */
function allProcesses(): ProcessStat[] {
  const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  const stats = pids.map((pid) => processStat(Number(pid)));
  return stats.filter((stat) => stat !== undefined);
}

/** Whose tree: the root's pid, and the cookie it was started with. */
export interface Tree {
  pid?: number | undefined;
  cookie?: string | undefined;
}

/** The living processes of a tree, this process left out. */
export async function membersOf({ pid, cookie }: Tree): Promise<ProcessStat[]> {
  const members = new Set<number>();
  const all = allProcesses().filter((stat) => isLive(stat) && stat.pid !== process.pid && stat.pid !== 1);
  if (pid !== undefined) {
    for (const stat of all) if (stat.pid === pid || stat.session === pid || stat.group === pid) members.add(stat.pid);
  }
  if (cookie !== undefined) {
    for (const { pid: each } of all) if (carries(each, cookie)) members.add(each);
  }
  // descendants of any member, however they regrouped themselves
  for (let before = -1; before !== members.size; ) {
    before = members.size;
    for (const stat of all) if (members.has(stat.parent)) members.add(stat.pid);
  }
  return all.filter((stat) => members.has(stat.pid));
}

function carries(pid: number, cookie: string): boolean {
  // another user's processes cannot be read, nor ended, by an ordinary user
  const environment = readProc(`/proc/${pid}/environ`) ?? "";
  const own = environment.split("\0").find((each) => each.startsWith(`${cookieName}=`));
  return (
    own !== undefined &&
    own
      .slice(cookieName.length + 1)
      .split(".")
      .includes(cookie)
  );
}

/** What this process has started and is still there, by parent: `PID command line`. Its texts come from outside. */
export function descendants(): string[] {
  const all = allProcesses().filter(isLive);
  const found = [process.pid];
  for (const pid of found) for (const stat of all) if (stat.parent === pid) found.push(stat.pid);
  return found.slice(1).map((pid) => {
    const words = (readProc(`/proc/${pid}/cmdline`) ?? "").split("\0").join(" ").trim();
    return `${pid} ${words || "(ended)"}`;
  });
}

/**
 * End a tree: TERM to all, then KILL to what still lives after `grace` milliseconds, until none is left.
 * @returns how many processes had to be killed.
 */
export async function endTree(tree: Tree, { grace = 5000 }: { grace?: number } = {}): Promise<number> {
  const known = new Map<number, number>();
  const told = new Set<number>();
  const look = async () => {
    const members = await membersOf(tree);
    for (const { pid, startTime } of members) known.set(pid, startTime);
    return members;
  };
  const tell = (members: ProcessStat[]) => {
    for (const { pid } of members.filter((member) => !told.has(member.pid))) {
      told.add(pid);
      send(pid, "SIGTERM");
    }
  };
  tell(await look());
  const deadline = Date.now() + grace;
  while (Date.now() < deadline) {
    const members = await look();
    // once more: the last one may have forked, and ended, while this look was under way
    if ((await alive()).length === 0 && (await look()).length === 0) return 0;
    // forked while it was looked for, by one that has ended since; what a handler of TERM starts has its parent
    tell(orphansOf(members));
    await sleep(20);
  }
  const killed = new Set<number>();
  // more than one pass: what forks while it is looked for shows up in the next one
  for (let pass = 0; pass < 50; pass++) {
    await look();
    const left = await alive();
    if (left.length === 0 && (await look()).length === 0) break;
    for (const pid of left) {
      send(pid, "SIGKILL");
      killed.add(pid);
    }
    await sleep(10);
  }
  return killed.size;

  async function alive(): Promise<number[]> {
    const checks = await Promise.all([...known].map(async ([pid, start]) => ((await isAlive(pid, start)) ? pid : 0)));
    return checks.filter((pid) => pid !== 0);
  }
}

/** Those whose parent is not among them. */
function orphansOf(members: ProcessStat[]): ProcessStat[] {
  const pids = new Set(members.map(({ pid }) => pid));
  return members.filter(({ parent }) => !pids.has(parent));
}

function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // it has ended by itself, or belongs to somebody else
  }
}
