import net, { createServer, isIP } from "node:net";
import { getSystemErrorName } from "node:util";
import { messageOf, UsageError } from "../core/errors.ts";
import { formatListen, type Listen } from "../http/server.ts";

/**
 * The address that launchfit holds open for its app (design, section 11, `app.listen`).
 *
 * It is bound here and handed to the app as fd 3 (sd_listen_fds(3)); the app listens on it. While no app
 * lives, the socket stays open in launchfit, and the kernel keeps new connections waiting in its backlog.
 * launchfit never accepts: it would take connections away from the app.
 *
 * Neither runtime has a public call that binds without accepting, so this file uses Node's internal
 * `net._createServerHandle` and, under Deno, libc by FFI; a test fails when either of them goes away.
 */
export interface ListenSocket {
  readonly fd: number;
  close(): void;
}

/**
 * Bind a TCP address.
 * @throws {UsageError} when it cannot be had.
 */
export function openListenSocket(listen: Listen): ListenSocket {
  if ("path" in listen) throw new UsageError("app.listen takes an address with a port, not a path");
  const { host, port } = listen;
  const family = isIP(host);
  if (family === 0) throw new UsageError(`app.listen: "${host}" is not an IP address`);
  try {
    return "Deno" in globalThis ? bindByLibc(host, port, family) : bindByNode(host, port, family);
  } catch (error) {
    throw new UsageError(
      `cannot bind ${formatListen(listen)}: ${messageOf(error)}; end the process that holds it, or name another`,
    );
  }
}

function bindByNode(host: string, port: number, family: number): ListenSocket {
  const { _createServerHandle } = net as unknown as {
    _createServerHandle(host: string, port: number, family: number): ListenSocket | number;
  };
  const handle = _createServerHandle(host, port, family);
  if (typeof handle === "number") throw new Error(getSystemErrorName(handle));
  return { fd: handle.fd, close: () => handle.close() };
}

type Libc = Record<"socket" | "bind" | "setsockopt" | "inet_pton" | "close", (...args: unknown[]) => number>;

function bindByLibc(host: string, port: number, family: number): ListenSocket {
  const { Deno } = globalThis as unknown as {
    Deno: { dlopen(name: string, symbols: Record<string, unknown>): { symbols: Libc } };
  };
  const { symbols } = Deno.dlopen("libc.so.6", {
    socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
    bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
    setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
    inet_pton: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
    close: { parameters: ["i32"], result: "i32" },
  });
  // numbers of Linux: AF_INET 2, AF_INET6 10, SOCK_STREAM 1, SOCK_CLOEXEC 0o2000000, SOL_SOCKET 1, SO_REUSEADDR 2
  const domain = family === 4 ? 2 : 10;
  const fd = symbols.socket(domain, 1 | 0o2000000, 0);
  symbols.setsockopt(fd, 1, 2, new Uint8Array([1, 0, 0, 0]), 4);
  // a sockaddr_in (ip(7)) or sockaddr_in6 (ipv6(7)): domain, port, and the address from byte 4 or 8
  const address = new Uint8Array(family === 4 ? 16 : 28);
  const view = new DataView(address.buffer);
  view.setUint16(0, domain, true);
  view.setUint16(2, port, false);
  const text = new TextEncoder().encode(`${host}\0`);
  symbols.inet_pton(domain, text, address.subarray(family === 4 ? 4 : 8));
  if (fd < 0 || symbols.bind(fd, address, address.length) !== 0) {
    symbols.close(fd);
    throw new Error("EADDRINUSE or EADDRNOTAVAIL");
  }
  return { fd, close: () => void symbols.close(fd) };
}

/**
 * The same, where nobody else listens: binding alone does not fail there, so it listens, and stops at once.
 * @throws {UsageError} when another process holds the address.
 */
export async function openFreeSocket(listen: Listen): Promise<ListenSocket> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen({ ...listen, exclusive: true }, resolve);
  }).catch((error: unknown) => {
    throw new UsageError(`app.listen: ${messageOf(error)}; end the process that holds it, or name another`);
  });
  await new Promise((resolve) => server.close(resolve));
  return openListenSocket(listen);
}
