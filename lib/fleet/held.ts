import { readdirSync, readlinkSync } from "node:fs";

/**
 * Whether any process that we may look at works in a folder or has something in it open. In one go and not by
 * promises: that takes a tenth of the time for thousands of small reads of /proc.
 */
export function isHeld(folder: string): boolean {
  const inside = (path: string) => path === folder || path.startsWith(`${folder}/`);
  const target = (path: string) => attempt(() => readlinkSync(path)) ?? "";
  for (const pid of attempt(() => readdirSync("/proc")) ?? []) {
    if (!/^\d+$/.test(pid)) continue;
    if (inside(target(`/proc/${pid}/cwd`)) || inside(target(`/proc/${pid}/root`))) return true;
    const fds = attempt(() => readdirSync(`/proc/${pid}/fd`)) ?? [];
    if (fds.some((fd) => inside(target(`/proc/${pid}/fd/${fd}`)))) return true;
  }
  return false;
}

/** Processes end while they are looked at, and others' cannot be looked at. */
function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
