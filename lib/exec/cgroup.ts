import { mkdir, readdir, readFile, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { systemCode } from "../core/errors.ts";
import { formatDuration, formatSize } from "../core/units.ts";

/**
 * A cgroup of version 2 (cgroups(7)), by its folder: the kernel's own account of a command and all that it starts,
 * however that forks, renames or detaches itself. It is ended as a whole, and it can be bounded.
 */

/** What the processes of a cgroup may use together. */
export interface Limits {
  /** Bytes. Beyond them the kernel kills them all. */
  readonly memory?: number | undefined;
  /** Percent of one processor: 150 is one and a half. */
  readonly cpu?: number | undefined;
  /** Processes and threads. */
  readonly processes?: number | undefined;
}

/** The files of a cgroup that set these limits, with what is written into them. Pure. */
export function limitFiles({ memory, cpu, processes }: Limits): [file: string, value: string][] {
  const files: [string, string][] = [];
  if (memory !== undefined)
    files.push(
      ["memory.max", String(memory)],
      // a build that swaps holds up the whole machine
      ["memory.swap.max", "0"],
      // else one process dies, and a build that does not look may say that it succeeded
      ["memory.oom.group", "1"],
    );
  if (cpu !== undefined) files.push(["cpu.max", `${Math.round(cpu * 1000)} 100000`]);
  if (processes !== undefined) files.push(["pids.max", String(processes)]);
  return files;
}

/** Make a cgroup with limits. @throws what the file system threw; then there is none. */
export async function makeCgroup(folder: string, limits: Limits): Promise<void> {
  await mkdir(folder);
  try {
    for (const [file, value] of limitFiles(limits))
      await writeFile(join(folder, file), value, { flag: "r+" }).catch((error: unknown) => {
        // a kernel that counts no swap has none to limit
        if (file !== "memory.swap.max" || systemCode(error) !== "ENOENT") throw error;
      });
  } catch (error) {
    await rmdir(folder).catch(() => {});
    throw error;
  }
}

/** The pids in a cgroup and those below it. */
export async function processesIn(folder: string): Promise<number[]> {
  const lists = await Promise.all((await foldersFrom(folder)).map((each) => read(each, "cgroup.procs")));
  return lists.flatMap((text) => text.split("\n").filter(Boolean).map(Number));
}

/** Whether a process lives in a cgroup or below it. */
export async function isPopulated(folder: string): Promise<boolean> {
  return counters(await read(folder, "cgroup.events")).populated === 1;
}

/** Kill all that is in a cgroup, at once, also while it forks. Resolves when none is left, or after 2 s. */
export async function killCgroup(folder: string): Promise<void> {
  await writeFile(join(folder, "cgroup.kill"), "1", { flag: "r+" }).catch(() => {});
  const deadline = Date.now() + 2000;
  while (Date.now() < deadline && (await isPopulated(folder))) await sleep(5);
}

/** Remove a cgroup with those below it; false while a process lives in it. */
export async function removeCgroup(folder: string): Promise<boolean> {
  // the kernel may count a process for some ms after its end
  for (const deadline = Date.now() + 1000; !(await isPopulated(folder)); await sleep(10)) {
    try {
      for (const each of (await foldersFrom(folder)).reverse()) await rmdir(each);
      return true;
    } catch (error) {
      if (systemCode(error) === "ENOENT") return true;
      if (Date.now() > deadline) return false;
    }
  }
  return false;
}

/** What of its limits a cgroup met, in words for its log. */
export interface LimitsMet {
  /** It was out of memory, and the kernel killed it. */
  readonly memory?: string;
  /** It could not start a process. */
  readonly processes?: string;
  /** It was held back, and for how long. */
  readonly cpu?: string;
}

/** What of its limits a cgroup met until now; nothing when it is gone. */
export async function limitsMet(folder: string, limits: Limits): Promise<LimitsMet> {
  return describeLimitsMet(limits, {
    memory: await read(folder, "memory.events"),
    pids: limits.processes === undefined ? "" : await read(folder, "pids.events"),
    cpu: limits.cpu === undefined ? "" : await read(folder, "cpu.stat"),
  });
}

/** The words for what memory.events, pids.events and cpu.stat say. Pure. */
export function describeLimitsMet(
  limits: Limits,
  files: { memory?: string | undefined; pids?: string | undefined; cpu?: string | undefined },
): LimitsMet {
  const memory = counters(files.memory ?? "");
  const pids = counters(files.pids ?? "");
  const cpu = counters(files.cpu ?? "");
  const met: { -readonly [Key in keyof LimitsMet]: LimitsMet[Key] } = {};
  // the machine's own shortage shows as oom_kill alone
  if (memory.oom_kill)
    met.memory =
      limits.memory !== undefined && memory.oom
        ? `out of memory (limit ${formatSize(limits.memory)})`
        : "killed because the machine was out of memory";
  if (limits.processes !== undefined && pids.max)
    met.processes = `could not start a process (limit ${limits.processes} processes)`;
  const held = (cpu.throttled_usec ?? 0) / 1000;
  if (limits.cpu !== undefined && held >= 1000)
    met.cpu = `held back for ${formatDuration(held)} (limit ${limits.cpu}% cpu)`;
  return met;
}

/** The lines `NAME NUMBER` of a file of the kernel. */
function counters(text: string): Record<string, number | undefined> {
  const pairs = [...text.matchAll(/^(\w+) (\d+)$/gm)];
  return Object.fromEntries(pairs.map(([, name, value]) => [name, Number(value)]));
}

/** A file of a cgroup; empty when the cgroup is gone, or has no such controller. */
async function read(folder: string, file: string): Promise<string> {
  return await readFile(join(folder, file), "utf8").catch(() => "");
}

/** A cgroup's folder and those below it, each before its own. */
async function foldersFrom(folder: string): Promise<string[]> {
  const entries = await readdir(folder, { withFileTypes: true }).catch(() => []);
  const below = await Promise.all(
    entries.filter((entry) => entry.isDirectory()).map((entry) => foldersFrom(join(folder, entry.name))),
  );
  return [folder, ...below.flat()];
}
