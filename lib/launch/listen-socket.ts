import { once } from "node:events";
import net, { type AddressInfo, createServer, isIP } from "node:net";
import process from "node:process";
import { getSystemErrorName } from "node:util";
import { UsageError } from "../core/errors.ts";
import { $ } from "../exec/exec.ts";
import { formatListen, type Listen } from "../http/server.ts";
import { listenFds } from "../http/systemd.ts";

/**
 * The socket that launchfit holds open for its app (`app.listen`), bound and listening, as systemd hands one over.
 * launchfit never accepts. The one of a `launchfit@NAME.socket` is taken where systemd gives one: it outlives
 * launchfit, so that not even a kill of it refuses a connection. Else it is bound here, under Node only.
 */
export interface ListenSocket {
  readonly fd: number;
  /** As `127.0.0.1:8080`. */
  readonly address: string;
  close(): void;
}

/**
 * The socket of `app.listen`.
 * @throws {UsageError} when it cannot be had, or systemd's is another one.
 */
export async function openListenSocket(listen: Listen): Promise<ListenSocket> {
  const wanted = formatListen(listen);
  const [given] = listenFds();
  if (given !== undefined) {
    // systemd's listens already; under Deno no child can tell its address
    const address = "Deno" in globalThis ? wanted : await listenOn(given);
    if (address === wanted) return { fd: given, address, close: () => {} };
    throw new UsageError(
      `app.listen is ${wanted}, and the socket that systemd opened is ${address}; write the same in both`,
    );
  }
  const socket = await bind(listen);
  if (socket.address === wanted) return socket;
  socket.close();
  throw new UsageError(`app.listen: ${wanted}: EADDRINUSE; end the process that holds it, or name another`);
}

/** A port of this machine that nobody has: the one by which a version is asked for its health while another serves. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

/** Node has no public call that binds and does not accept: this one is internal, and a test fails when it goes away. */
async function bind(listen: Listen): Promise<ListenSocket> {
  if ("path" in listen) throw new UsageError("app.listen takes an address with a port, not a path");
  const { host, port } = listen;
  const family = isIP(host);
  if (family === 0) throw new UsageError(`app.listen: "${host}" is not an IP address`);
  if ("Deno" in globalThis)
    throw new UsageError(
      "app.listen: Deno cannot open a socket for another program; " +
        "let systemd do it (launchfit@.socket), or run launchfit by Node",
    );
  const { _createServerHandle } = net as unknown as {
    _createServerHandle(host: string, port: number, family: number): { fd: number; close(): void } | number;
  };
  const handle = _createServerHandle(host, port, family);
  if (typeof handle === "number")
    throw new UsageError(
      `app.listen: cannot bind ${formatListen(listen)}: ${getSystemErrorName(handle)}; name another`,
    );
  return { fd: handle.fd, address: await listenOn(handle.fd), close: () => handle.close() };
}

/**
 * Have a socket listen, for whoever accepts: listening lies on the socket, so a child can do it, by Node's public
 * `listen({ fd })`. It ends in the same turn of its event loop, before it could accept.
 * @returns the address.
 */
async function listenOn(fd: number): Promise<string> {
  const script = `const server = require("net").createServer().on("error", () => {}).listen({ fd: 3, backlog: 511 });
const { address, port, family } = server.address() ?? {};
require("fs").writeSync(1, family === "IPv6" ? "[" + address + "]:" + port : address + ":" + port);
process.exit();`;
  const { stdout } = await $({
    stdio: ["ignore", "pipe", "pipe", fd],
  })`${process.execPath} -e ${script}`;
  return stdout;
}

/** Have accept(2) wait again, after a program that did not want that: what a child gets as stdin, libuv makes so. */
export async function makeBlocking({ fd }: ListenSocket): Promise<void> {
  await $({ stdio: [fd, "ignore", "ignore"] })`true`;
}
