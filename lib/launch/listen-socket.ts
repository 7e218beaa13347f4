import { once } from "node:events";
import { chmod, lstat, rm } from "node:fs/promises";
import net, { type AddressInfo, createConnection, createServer, isIP } from "node:net";
import process from "node:process";
import { getSystemErrorName } from "node:util";
import { ifMissing, UsageError } from "../core/errors.ts";
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

/** Of a socket in the file system. */
export interface PathRights {
  /** Octal. */
  mode?: string | undefined;
  group?: string | undefined;
}

/**
 * The socket of `app.listen`.
 * @throws {UsageError} when it cannot be had, or systemd's is another one.
 */
export async function openListenSocket(listen: Listen, rights: PathRights = {}): Promise<ListenSocket> {
  const wanted = formatListen(listen);
  const [given] = listenFds();
  if (given !== undefined) {
    // systemd's listens already; under Deno, or of a path, no child can tell its address
    const address = "Deno" in globalThis || "path" in listen ? wanted : await listenOn(given);
    if (address === wanted) return { fd: given, address, close: () => {} };
    throw new UsageError(
      `app.listen is ${wanted}, and the socket that systemd opened is ${address}; write the same in both`,
    );
  }
  const socket = "path" in listen ? await bindPath(listen.path, rights) : await bind(listen);
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

async function bind({ host, port }: { host: string; port: number }): Promise<ListenSocket> {
  const family = isIP(host);
  if (family === 0) throw new UsageError(`app.listen: "${host}" is not an IP address`);
  const handle = openHandle(host, port, family);
  return { fd: handle.fd, address: await listenOn(handle.fd), close: () => handle.close() };
}

/** Only who may connect can, from the first moment on. The file of one that a killed launchfit left is replaced. */
async function bindPath(path: string, { mode = "660", group }: PathRights): Promise<ListenSocket> {
  const peer = createConnection(path);
  const answers = await once(peer, "connect").then(
    () => true,
    () => false,
  );
  peer.destroy();
  const about = await lstat(path).catch(ifMissing);
  if (answers || (about && !about.isSocket()))
    throw new UsageError(`app.listen: ${path}: EADDRINUSE; end the process that holds it, or name another`);
  await rm(path, { force: true });
  const before = process.umask(0o177);
  let handle: Handle;
  try {
    handle = openHandle(path, -1, -1);
  } finally {
    process.umask(before);
  }
  if (group !== undefined) await $`chgrp -- ${group} ${path}`;
  await chmod(path, Number.parseInt(mode, 8));
  await listenOn(handle.fd);
  return { fd: handle.fd, address: formatListen({ path }), close: () => handle.close() };
}

interface Handle {
  fd: number;
  close(): void;
}

/** Node has no public call that binds and does not accept: this one is internal, and a test fails when it goes away. */
function openHandle(host: string, port: number, family: number): Handle {
  if ("Deno" in globalThis)
    throw new UsageError(
      "app.listen: Deno cannot open a socket for another program; " +
        "let systemd do it (launchfit@.socket), or run launchfit by Node",
    );
  const { _createServerHandle } = net as unknown as {
    _createServerHandle(host: string, port: number, family: number): Handle | number;
  };
  const handle = _createServerHandle(host, port, family);
  if (typeof handle !== "number") return handle;
  const address = formatListen(family < 0 ? { path: host } : { host, port });
  throw new UsageError(`app.listen: cannot bind ${address}: ${getSystemErrorName(handle)}; name another`);
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
  const { stdout } = await $({ stdio: ["ignore", "pipe", "pipe", fd] })`${process.execPath} -e ${script}`;
  return stdout;
}

/** Have accept(2) wait again, after a program that did not want that: what a child gets as stdin, libuv makes so. */
export async function makeBlocking({ fd }: ListenSocket): Promise<void> {
  await $({ stdio: [fd, "ignore", "ignore"] })`true`;
}
