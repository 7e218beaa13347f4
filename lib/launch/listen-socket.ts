import { createRequire } from "node:module";
import { isIP } from "node:net";
import { messageOf, UsageError } from "../core/errors.ts";
import { formatListen, type Listen } from "../http/listen-address.ts";

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
      `cannot bind ${formatListen(listen)}: ${messageOf(error)}; end who holds it, or name another`,
    );
  }
}

interface Handle {
  fd: number;
  close(): void;
}

function bindByNode(host: string, port: number, family: number): ListenSocket {
  const net = createRequire(import.meta.url)("node:net") as {
    _createServerHandle(host: string, port: number, family: number): Handle | number;
  };
  const handle = net._createServerHandle(host, port, family);
  if (typeof handle === "number") {
    const { getSystemErrorName } = createRequire(import.meta.url)("node:util") as {
      getSystemErrorName(errno: number): string;
    };
    throw new Error(getSystemErrorName(handle));
  }
  // libuv binds late: an address in use shows up when somebody listens, unless it is asked for here
  return { fd: handle.fd, close: () => handle.close() };
}

interface Libc {
  symbols: Record<"socket" | "bind" | "setsockopt" | "close", (...args: unknown[]) => number>;
}

function bindByLibc(host: string, port: number, family: number): ListenSocket {
  const { Deno } = globalThis as unknown as {
    Deno: { dlopen(name: string, symbols: Record<string, unknown>): Libc };
  };
  const { symbols } = Deno.dlopen("libc.so.6", {
    socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
    bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
    setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
    close: { parameters: ["i32"], result: "i32" },
  });
  // numbers of Linux: AF_INET 2, AF_INET6 10, SOCK_STREAM 1, SOCK_CLOEXEC 0o2000000, SOL_SOCKET 1, SO_REUSEADDR 2
  const fd = symbols.socket(family === 4 ? 2 : 10, 1 | 0o2000000, 0);
  symbols.setsockopt(fd, 1, 2, new Uint8Array([1, 0, 0, 0]), 4);
  const address = socketAddress(host, port, family);
  if (fd < 0 || symbols.bind(fd, address, address.length) !== 0) {
    symbols.close(fd);
    throw new Error("EADDRINUSE or EADDRNOTAVAIL");
  }
  return { fd, close: () => void symbols.close(fd) };
}

/** A sockaddr_in or sockaddr_in6 (ip(7), ipv6(7)). */
function socketAddress(host: string, port: number, family: number): Uint8Array {
  const bytes = new Uint8Array(family === 4 ? 16 : 28);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, family === 4 ? 2 : 10, true);
  view.setUint16(2, port, false);
  if (family === 4) {
    bytes.set(host.split(".").map(Number), 4);
    return bytes;
  }
  const [head = "", tail] = host.split("::");
  const groups = (text: string) =>
    text === "" ? [] : text.split(":").map((part) => parseInt(part, 16));
  const first = groups(head);
  const last = tail === undefined ? [] : groups(tail);
  const all = [
    ...first,
    ...Array.from({ length: 8 - first.length - last.length }, () => 0),
    ...last,
  ];
  all.forEach((group, index) => view.setUint16(8 + index * 2, group, false));
  return bytes;
}
