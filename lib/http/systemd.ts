import process from "node:process";
import { $ } from "../exec/exec.ts";

/**
 * What systemd offers a service: sockets it opened (sd_listen_fds(3)), news about its state (sd_notify(3)),
 * a watchdog. Without systemd all of it does nothing.
 *
 * Neither Node nor Deno has datagram sockets of the Unix kind, so the news go through systemd-notify(1), a
 * child: the unit needs `NotifyAccess=all`.
 */

/** The descriptors that systemd (or launchfit) handed to this process; the variables are for it alone. */
export function listenFds(env: NodeJS.ProcessEnv = process.env): number[] {
  const count = Number(env.LISTEN_FDS ?? 0);
  if (Number(env.LISTEN_PID) !== process.pid || !Number.isInteger(count) || count < 1) return [];
  return Array.from({ length: Math.min(count, 64) }, (_, index) => 3 + index);
}

/** Tell systemd a state: `notify("READY=1")`. Quiet when nobody listens, or when systemd-notify is missing. */
export async function notify(...states: string[]): Promise<void> {
  const socket = process.env.NOTIFY_SOCKET;
  if (!socket) return;
  const env = { NOTIFY_SOCKET: socket, PATH: process.env.PATH ?? "/usr/bin:/bin" };
  // not installed: then systemd waits in vain, and its journal says so
  await $({
    env,
    nothrow: true,
    stdio: "ignore",
    timeout: 10_000,
  })`systemd-notify --pid=${process.pid} ${states}`;
}

/** Feed systemd's watchdog twice as often as it asks for; returns how to stop. */
export function startWatchdog(): () => void {
  const every = watchdogInterval();
  if (every === undefined) return () => {};
  const timer = setInterval(() => void notify("WATCHDOG=1"), every).unref();
  return () => clearInterval(timer);
}

/** Milliseconds between two signs of life; undefined when systemd asks for none. */
export function watchdogInterval(env: NodeJS.ProcessEnv = process.env): number | undefined {
  const micros = Number(env.WATCHDOG_USEC ?? 0);
  if (!env.NOTIFY_SOCKET || !(micros > 0)) return undefined;
  if (env.WATCHDOG_PID !== undefined && Number(env.WATCHDOG_PID) !== process.pid) return undefined;
  return Math.max(100, micros / 1000 / 2);
}
