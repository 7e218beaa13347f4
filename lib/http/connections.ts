import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { isIP, type Socket } from "node:net";

/** Who is connected: how many connections a server holds at once, and whose they are. */

/** The requests that came over a Unix socket. */
const localRequests = new WeakSet<IncomingMessage>();

/** A connection, and the last request that came over it. */
interface Connection {
  readonly network: string;
  request?: IncomingMessage;
  response?: ServerResponse;
}

/**
 * Keep a server at `max` connections. One more takes the place of the oldest one of the network that has most: so idle
 * or slow clients, however many, keep nobody else out. A connection whose request is there and is being answered stays.
 */
export function limitConnections(server: Server, max: number): void {
  /** The oldest first. */
  const connections = new Map<Socket, Connection>();
  let isUnixSocket = false;
  server.on("listening", () => {
    const address = server.address();
    isUnixSocket = address === null || typeof address === "string";
  });
  server.on("connection", (socket: Socket) => {
    connections.set(socket, { network: networkOf(socket.remoteAddress ?? "") });
    socket.once("close", () => connections.delete(socket));
    if (connections.size > max) closeOne();
  });
  for (const event of ["request", "checkContinue"])
    server.on(event, (request: IncomingMessage, response: ServerResponse) => {
      const connection = connections.get(request.socket);
      if (connection) {
        connection.request = request;
        connection.response = response;
      }
      if (isUnixSocket) localRequests.add(request);
    });

  function closeOne(): void {
    const counts = new Map<string, number>();
    for (const { network } of connections.values()) counts.set(network, (counts.get(network) ?? 0) + 1);
    let oldest: Socket | undefined;
    let most = 0;
    for (const [socket, connection] of connections) {
      const count = counts.get(connection.network) ?? 0;
      if (count <= most || socket.destroyed || isAnswered(connection)) continue;
      oldest = socket;
      most = count;
    }
    oldest?.destroy();
  }
}

function isAnswered({ request, response }: Connection): boolean {
  return request?.complete === true && response?.writableEnded === false;
}

/** What belongs to one client as a rule: an IPv4 address, or the /64 of an IPv6 address. */
export function networkOf(address: string): string {
  const plain = withoutPrefix(address).replace(/%.*$/, "");
  if (isIP(plain) !== 6) return plain;
  const [head = "", tail] = plain.split("::");
  const groups = head === "" ? [] : head.split(":");
  const after = tail ? tail.split(":") : [];
  while (groups.length + after.length < 8) groups.push("0");
  const first = [...groups, ...after].slice(0, 4);
  return `${first.map((group) => Number.parseInt(group, 16).toString(16)).join(":")}::/64`;
}

/** A dual-stack socket writes IPv4 addresses as IPv6 ones. */
function withoutPrefix(address: string): string {
  return address.replace(/^::ffff:(?=\d+\.)/i, "");
}

/**
 * The address of whoever is connected; `unix` for a Unix socket. Empty when the connection was gone before it could be
 * asked: that is nobody, who is trusted with nothing.
 */
export function peerOf(request: IncomingMessage): string {
  const address = withoutPrefix(request.socket.remoteAddress ?? "");
  return address || (localRequests.has(request) ? "unix" : "");
}

/**
 * The address of the client: what a proxy on this machine says in the last place of X-Forwarded-For, else the address
 * of whoever is connected. Empty when it is not known, as for a Unix socket without a proxy. Whatever else runs on this
 * machine can claim any over TCP, but not over a Unix socket that it cannot open.
 */
export function clientAddress(request: IncomingMessage): string {
  const peer = peerOf(request);
  if (!/^(?:unix|::1|127\..*)$/.test(peer)) return peer;
  const told = String(request.headers["x-forwarded-for"] ?? "");
  const last = told.split(",").at(-1)?.trim() ?? "";
  if (last !== "" && isIP(last)) return last;
  return peer === "unix" ? "" : peer;
}
