// A web server that does exactly what a test tells it to, also what no server should do. It speaks
// HTTP over a bare socket, so that it can lie about lengths and break off where it likes.
import { createServer, type Socket } from "node:net";

export type Asked = {
  method: string;
  /** Path and query, or the whole address when the request came as to a proxy. */
  path: string;
  headers: Record<string, string>;
};

export type Reply = {
  /** Status line and headers, as given and nothing more. */
  head: (status: number, headers?: Record<string, string | number>) => void;
  write: (data: string | Uint8Array) => void;
  /** Break the connection. */
  cut: () => void;
  /** A whole, honest answer. */
  send: (status: number, headers: Record<string, string | number>, body?: string | Uint8Array) => void;
  socket: Socket;
};

/** `count`: how many requests for this path came, this one included. */
export type Handler = (asked: Asked, reply: Reply, count: number) => void | Promise<void>;

export type BadServer = {
  port: number;
  url: string;
  /** All requests in their order. */
  asked: Asked[];
  on: (path: string, handler: Handler) => void;
  stop: () => Promise<void>;
};

/** Starts it on a free port; a path without a handler is 404 with an HTML page. */
export async function startBadServer(handlers: Record<string, Handler> = {}): Promise<BadServer> {
  const asked: Asked[] = [];
  const counts = new Map<string, number>();
  const sockets = new Set<Socket>();
  const known = new Map(Object.entries(handlers));
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket)).on("error", () => {});
    let text = "";
    socket.on("data", (chunk) => {
      text += chunk.toString("latin1");
      for (let end = text.indexOf("\r\n\r\n"); end >= 0; end = text.indexOf("\r\n\r\n")) {
        const request = parse(text.slice(0, end));
        text = text.slice(end + 4);
        asked.push(request);
        const count = (counts.get(request.path) ?? 0) + 1;
        counts.set(request.path, count);
        const handler = known.get(request.path) ?? known.get("*") ?? missing;
        void handler(request, replyOn(socket), count);
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  return {
    port,
    url: `http://127.0.0.1:${port}`,
    asked,
    on: (path, handler) => void known.set(path, handler),
    async stop() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function parse(head: string): Asked {
  const [first = "", ...lines] = head.split("\r\n");
  const [method = "", path = ""] = first.split(" ");
  const headers: Record<string, string> = {};
  for (const line of lines) {
    const colon = line.indexOf(":");
    headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim();
  }
  return { method, path, headers };
}

function replyOn(socket: Socket): Reply {
  const reply: Reply = {
    socket,
    head(status, headers = {}) {
      const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
      socket.write(`HTTP/1.1 ${status} Said So\r\n${lines.join("")}\r\n`);
    },
    write: (data) => void socket.write(data),
    // what was written before arrives before the break
    cut: () => void socket.end(),
    send(status, headers, body = "") {
      const bytes = Buffer.from(body);
      reply.head(status, { "content-length": bytes.length, ...headers });
      socket.write(bytes);
    },
  };
  return reply;
}

const missing: Handler = (_, reply) =>
  reply.send(404, { "content-type": "text/html" }, "<html>there is no such page</html>");

/** An honest file with an ETag: answers ranges, If-Range and If-None-Match. `bytes` may change between requests. */
export function file(bytes: () => Uint8Array, etag: () => string): Handler {
  return ({ method, headers }, reply) => {
    const all = bytes();
    const about = { etag: etag(), "accept-ranges": "bytes" };
    if (headers["if-none-match"] === etag()) return reply.head(304, about);
    const start = Number(/^bytes=(\d+)-$/.exec(headers["range"] ?? "")?.[1] ?? 0);
    if (method === "HEAD") return reply.head(200, { ...about, "content-length": all.length });
    if (start === 0 || headers["if-range"] !== etag()) return reply.send(200, about, all);
    if (start >= all.length) return reply.send(416, about);
    const range = `bytes ${start}-${all.length - 1}/${all.length}`;
    reply.send(206, { ...about, "content-range": range }, all.subarray(start));
  };
}

/** Promises the whole of `bytes`, sends `part` of them and breaks off; a later range is answered well. */
export function cutOnce(bytes: Uint8Array, part: number, etag = '"whole"'): Handler {
  const honest = file(
    () => bytes,
    () => etag,
  );
  return async (asked, reply, count) => {
    if (count > 1) return honest(asked, reply, count);
    reply.head(200, { "content-length": bytes.length, etag });
    reply.write(bytes.subarray(0, part));
    reply.cut();
  };
}
