// Ends or starves a process at an exact system call, by strace's fault injection.
import { spawnSync } from "node:child_process";
import { scriptArgv } from "./run.ts";
import { slowness } from "./wait.ts";

/** Why calls cannot be injected here; undefined when they can. */
export const needsStrace = (() => {
  const { status } = spawnSync("strace", ["-f", "-qq", "-o", "/dev/null", "true"], {
    stdio: "ignore",
  });
  return status === 0 ? undefined : "needs strace (apt install strace), and the right to trace";
})();

/** The calls that change a directory, as they are called on every machine. */
export const changingCalls = {
  rename: "rename,renameat,renameat2",
  symlink: "symlink,symlinkat",
  unlink: "unlink,unlinkat,rmdir",
  fsync: "fsync,fdatasync",
  mkdir: "mkdir,mkdirat",
} as const;

/**
 * The command line that runs a script and injects a fault: `inject("launchfit", args, "rename…", "signal=KILL:when=2")`.
 * A runtime whose own wake-up was taken from it hangs: it is killed after a while, since whoever ends strace lets it live.
 */
export function injected(script: string, args: string[], calls: string, fault: string): string[] {
  // names that this machine's calls do not have are passed over, with "?"
  const names = calls
    .split(",")
    .map((name) => `?${name}`)
    .join(",");
  return [
    ...["strace", "-f", "-qq", "-o", "/dev/null", "-e", `trace=${names}`],
    ...["-e", `inject=${names}:${fault}`, "timeout", "--signal=KILL", String(Math.ceil(20 * slowness()))],
    ...[...scriptArgv(script), ...args],
  ];
}
