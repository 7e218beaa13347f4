import { access, readFile } from "node:fs/promises";
import process from "node:process";
import { formatDuration, formatSize } from "../core/units.ts";
import { $ } from "./exec.ts";
import { isRoot } from "./users.ts";

/**
 * Scopes of systemd: a command in a cgroup of its own, which systemd limits and ends with all that the command starts,
 * however that forks, renames or detaches itself. The command stays the child of whoever starts it, with its
 * environment, files and sandbox, and goes on when that is gone.
 */

/** What the processes of a unit may use together. */
export interface Limits {
  /** Bytes. Beyond them the kernel kills the largest. */
  readonly memory?: number | undefined;
  /** Of one processor: `150%` is one and a half. */
  readonly cpu?: string | undefined;
  /** Processes and threads. */
  readonly processes?: number | undefined;
}

/** The properties of a unit, by systemd.resource-control(5): `MemoryMax=…`. Pure. */
export function limitLines({ memory, cpu, processes }: Limits = {}): string[] {
  // what swaps holds up the whole machine
  const properties = { MemoryMax: memory, MemorySwapMax: memory && 0, CPUQuota: cpu, TasksMax: processes };
  return Object.entries(properties).flatMap(([name, value]) => (value === undefined ? [] : [`${name}=${value}`]));
}

/** All scopes that are made here are in it: `systemctl stop boatyard-runs.slice` ends them. */
export const runsSlice = "boatyard-runs.slice";

/** Makes scopes for a process that systemd obeys. */
export class Scopes {
  readonly #version: number;
  /** The unit that this process is, which at a shutdown ends before its scopes. */
  readonly #unit: string | undefined;

  private constructor(version: number, unit: string | undefined) {
    this.#version = version;
    this.#unit = unit;
  }

  /** Undefined where there is no systemd, and for an ordinary user. */
  static async find(): Promise<Scopes | undefined> {
    const isThere = await access("/run/systemd/system").then(
      () => isRoot(),
      () => false,
    );
    const { stdout } = isThere ? await $({ nothrow: true })`systemd-run --version` : { stdout: "" };
    const version = Number(/^systemd (\d+)/.exec(stdout)?.[1]);
    if (!version) return undefined;
    const ours = Number(process.env["SYSTEMD_EXEC_PID"]) === process.pid;
    const path = ours ? await readFile("/proc/self/cgroup", "utf8").catch(() => "") : "";
    return new Scopes(version, /\/([^/\n]+\.service)(?:\/|$)/m.exec(path)?.[1]);
  }

  /** The words before a command that is to be in a scope, `name` or one that systemd names. */
  words(name?: string, limits?: Limits): string[] {
    const properties = [
      ...(this.#unit === undefined ? [] : [`Before=${this.#unit}`]),
      ...["TimeoutStopSec=2s", ...limitLines(limits)],
      // systemd would end the shell that says what became of the command
      ...(this.#version >= 253 ? ["OOMPolicy=continue"] : []),
    ];
    return [
      ...["systemd-run", "--scope", "--quiet", "--collect", `--slice=${runsSlice}`],
      ...(name === undefined ? [] : [`--unit=${name}`]),
      ...properties.map((each) => `--property=${each}`),
      // what stands in a command is not systemd's to replace
      ...(this.#version >= 254 ? ["--expand-environment=no"] : []),
      "--",
    ];
  }
}

/** End all that is in a scope: TERM, and KILL after two seconds. */
export async function endScope(name: string): Promise<void> {
  await $({ nothrow: true, timeout: 30_000 })`systemctl stop -- ${name}`;
}

/** Lines of a shell's script that print what of its limits the scope met in which it runs, for `describeLimitsMet`. */
export const printLimitsMet =
  'cd "/sys/fs/cgroup$(sed -n s/^0:://p /proc/self/cgroup)" && grep . memory.events pids.events cpu.stat';

/** What of its limits a scope met, in words. */
export interface LimitsMet {
  /** It was out of memory, and the kernel killed something in it. */
  readonly memory?: string;
  /** It could not start a process. */
  readonly processes?: string;
  /** It was held back, and for how long. */
  readonly cpu?: string;
}

/** The words for what `printLimitsMet` printed. Pure. */
export function describeLimitsMet(limits: Limits, printed: string): LimitsMet {
  const found = [...printed.matchAll(/^(\S+:\w+) (\d+)$/gm)].map(([, name, value]) => [name, Number(value)]);
  const counters = Object.fromEntries(found) as Record<string, number | undefined>;
  const met: { -readonly [Key in keyof LimitsMet]: LimitsMet[Key] } = {};
  // the machine's own shortage shows as oom_kill alone
  if (counters["memory.events:oom_kill"])
    met.memory =
      limits.memory !== undefined && counters["memory.events:oom"]
        ? `out of memory (limit ${formatSize(limits.memory)})`
        : "killed because the machine was out of memory";
  if (limits.processes !== undefined && counters["pids.events:max"])
    met.processes = `could not start a process (limit ${limits.processes} processes)`;
  const held = (counters["cpu.stat:throttled_usec"] ?? 0) / 1000;
  if (limits.cpu !== undefined && held >= 1000)
    met.cpu = `held back for ${formatDuration(held)} (limit ${limits.cpu} cpu)`;
  return met;
}
