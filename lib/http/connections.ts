import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { isIP, type Socket } from "node:net";

/** Who is connected: how many connections a server holds at once, and whose they are. */

/**
 * Keep a server at `max` connections. One more takes the place of the oldest one of the network that has most: so idle
 * or slow clients, however many, keep nobody else out. A connection whose request is there and is being answered stays.
 */
export function limitConnections(server: Server, max: number): void {
  const networks = new Map<string, Set<Socket>>();
  const exchanges = new WeakMap<Socket, [request: IncomingMessage, response: ServerResponse]>();
  const isAnswered = (socket: Socket) => {
    const [request, response] = exchanges.get(socket) ?? [];
    return request?.complete === true && response?.writableEnded === false;
  };
  let count = 0;
  server.on("connection", (socket: Socket) => {
    const network = networkOf(socket.remoteAddress ?? "");
    const sockets = networks.get(network) ?? new Set();
    networks.set(network, sockets.add(socket));
    count += 1;
    socket.once("close", () => {
      count -= 1;
      sockets.delete(socket);
      if (sockets.size === 0 && networks.get(network) === sockets) networks.delete(network);
    });
    if (count > max) closeOne();
  });
  for (const event of ["request", "checkContinue"])
    server.on(event, (request: IncomingMessage, response: ServerResponse) =>
      exchanges.set(request.socket, [request, response]),
    );

  function closeOne(): void {
    for (const sockets of [...networks.values()].sort((a, b) => b.size - a.size)) {
      for (const socket of sockets) {
        if (socket.destroyed || isAnswered(socket)) continue;
        socket.destroy();
        return;
      }
    }
  }
}

/** What belongs to one client as a rule: an IPv4 address, or the /64 of an IPv6 address. */
export function networkOf(address: string): string {
  const plain = address.replace(/^::ffff:(?=\d+\.)/i, "").replace(/%.*$/, "");
  if (isIP(plain) !== 6) return plain;
  const [head = "", tail] = plain.split("::");
  const groups = head === "" ? [] : head.split(":");
  const after = tail ? tail.split(":") : [];
  while (groups.length + after.length < 8) groups.push("0");
  const first = [...groups, ...after].slice(0, 4);
  return `${first.map((group) => Number.parseInt(group, 16).toString(16)).join(":")}::/64`;
}

/**
 * The address of the client. A proxy on this machine (loopback, or a Unix socket) says it in the last place of
 * X-Forwarded-For; of anybody else that header is not believed. Empty for a Unix socket without a proxy.
 */
export function clientAddress(request: IncomingMessage): string {
  const peer = request.socket.remoteAddress ?? "";
  if (peer !== "" && peer !== "::1" && !/^(?:::ffff:)?127\./.test(peer)) return peer;
  const told = String(request.headers["x-forwarded-for"] ?? "");
  const last = told.split(",").at(-1)?.trim() ?? "";
  return last !== "" && isIP(last) ? last : peer;
}
