import { isIP } from "node:net";
import { UsageError } from "../core/errors.ts";

/** Addresses to listen on, apart from the servers: who only reads one in a config need not load node:http. */

/** Where a server listens. */
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
      `"${text}" is no address to listen on; write 127.0.0.1:3420, [::1]:3420, :3420 or unix:/path`,
    );
  }
  return { host: host === undefined ? "127.0.0.1" : host === "" ? "0.0.0.0" : host, port };
}

/** An address as `parseListen` takes it. */
export function formatListen(listen: Listen): string {
  if ("path" in listen) return `unix:${listen.path}`;
  return `${listen.host.includes(":") ? `[${listen.host}]` : listen.host}:${listen.port}`;
}
