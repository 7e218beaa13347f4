import { chmodSync, rmSync } from "node:fs";
import type { Server } from "node:http";
import { isIP } from "node:net";
import process from "node:process";
import { messageOf, UsageError } from "../core/errors.ts";

/** Where a server listens: addresses and Unix sockets. */

export type Listen = { host: string; port: number } | { path: string };

/**
 * Read `127.0.0.1:3420`, `[::1]:3420`, `localhost:3420`, `:3420` (all addresses), `3420` (loopback) or `unix:/path`.
 * @throws {UsageError} for anything else.
 */
export function parseListen(text: string): Listen {
  const path = /^(?:unix:)?(\/.+)$/.exec(text)?.[1];
  if (path) return { path };
  const match = /^(?:(?:\[([0-9a-fA-F:.]+)\]|([^:[\]]*)):)?(\d{1,5})$/.exec(text);
  const port = Number(match?.[3]);
  const host = match?.[1] ?? match?.[2];
  if (!match || port > 65535 || (match[1] && isIP(match[1]) !== 6)) {
    throw new UsageError(
      `"${text}" is not an address to listen on; write 127.0.0.1:3420, [::1]:3420, :3420 or unix:/path`,
    );
  }
  return { host: host === undefined ? "127.0.0.1" : host === "" ? "0.0.0.0" : host, port };
}

/** An address as `parseListen` takes it. */
export function formatListen(listen: Listen): string {
  // Node knows no path of a socket that it was given
  if ("path" in listen) return listen.path === "" ? "systemd's socket" : `unix:${listen.path}`;
  return `${listen.host.includes(":") ? `[${listen.host}]` : listen.host}:${listen.port}`;
}

/**
 * Start listening; the address it got is returned (port 0 asks for a free one).
 * @throws {UsageError} when the address cannot be had.
 */
export function listenOn(server: Server, listen: Listen | { fd: number }): Promise<Listen> {
  return new Promise((resolve, reject) => {
    const onError = (error: Error) => {
      const where = "fd" in listen ? `descriptor ${listen.fd}` : formatListen(listen);
      reject(
        new UsageError(
          `cannot listen on ${where}: ${messageOf(error)}; ` +
            "name another address, or stop the process that listens there",
        ),
      );
    };
    server.once("error", onError);
    server.listen(listen, () => {
      server.off("error", onError);
      const address = server.address();
      if (address === null || typeof address === "string") resolve({ path: address ?? "" });
      else resolve({ host: address.address, port: address.port });
    });
  });
}

/** Listen on a Unix socket that only this user can open, in a folder whose lock the caller holds. */
export async function listenPrivately(server: Server, path: string): Promise<void> {
  // a socket that is there is a dead server's
  rmSync(path, { force: true });
  const before = process.umask(0o177);
  const listening = listenOn(server, { path });
  // it is there already: what others make meanwhile has its usual mode
  process.umask(before);
  await listening;
  chmodSync(path, 0o600);
}

/** Answer what has been asked, within half a second, and close all connections. */
export function closeServer(server: Server): Promise<void> {
  return new Promise((resolve) => {
    server.close(() => resolve());
    server.closeIdleConnections();
    // those that follow a log learn it by the end of their connection
    setTimeout(() => server.closeAllConnections(), 500).unref();
  });
}
