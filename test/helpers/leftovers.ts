// What a test file left behind, found by its temporary folder.
import { readdir, readFile, readlink } from "node:fs/promises";
import process from "node:process";

/** Processes whose environment, arguments or working folder name `folder` (Linux only). */
export async function processesOf(folder: string): Promise<{ pid: number; command: string }[]> {
  const found: { pid: number; command: string }[] = [];
  for (const name of await readdir("/proc").catch(() => [])) {
    const pid = Number(name);
    if (!Number.isInteger(pid) || pid === process.pid) continue;
    const [environment, command, cwd] = await Promise.all([
      readFile(`/proc/${pid}/environ`, "latin1").catch(() => ""),
      readFile(`/proc/${pid}/cmdline`, "latin1").catch(() => ""),
      readlink(`/proc/${pid}/cwd`).catch(() => ""),
    ]);
    if ([environment, command, cwd].some((text) => text.includes(folder))) {
      found.push({ pid, command: command.replaceAll("\0", " ").trim() });
    }
  }
  return found;
}

/** Kills all at once, as a crash does: none of them sees another one's end. With two passes since a process may fork meanwhile. */
export async function killProcessesOf(folder: string): Promise<void> {
  for (let pass = 0; pass < 2; pass++) {
    const found = await processesOf(folder);
    for (const signal of ["SIGSTOP", "SIGKILL"] as const)
      for (const { pid } of found) {
        try {
          process.kill(pid, signal);
        } catch {
          // It ended by itself.
        }
      }
  }
}
