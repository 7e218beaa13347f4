// Slaves that are only a few lines, to try server-update against every kind of answer.
import { mkdir, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server } from "node:http";
import {
  answerHeader,
  digestOf,
  type Keys,
  orderHeader,
  requestHeader,
  signAnswer,
} from "../../lib/fleet/signature.ts";
import { join } from "node:path";
import { createServer as createTcpServer, type Server as TcpServer } from "node:net";

export type FakeSlave = {
  /** As a list names it. */
  name: string;
  /** The request lines that came, oldest first. */
  requests: string[];
  headers: IncomingMessage["headers"][];
  close: () => Promise<void>;
};

export type Reply = { status?: number; body?: unknown; headers?: Record<string, string> };

/** Has the master know the repo `site` from before: in its state folder, below `home`. */
export async function knowSite(home: string): Promise<void> {
  const want = join(home, "server-update/want");
  await mkdir(want, { recursive: true });
  const text = JSON.stringify({ sha: "0".repeat(40), list: "/none", at: 0 });
  await writeFile(join(want, "site.json"), text);
}

/** A server on a loopback port whose answers are made by `answer`, and bound with `keys`; "never" keeps the request waiting. */
export async function fakeSlave(
  answer: (url: URL, count: number) => Reply | "never" | "cut",
  keys: Keys = {},
): Promise<FakeSlave> {
  const requests: string[] = [];
  const headers: IncomingMessage["headers"][] = [];
  const server = createServer((request, response) => {
    requests.push(request.url ?? "");
    headers.push(request.headers);
    const reply = answer(new URL(request.url ?? "", "http://slave"), requests.length);
    if (reply === "never") return;
    if (reply === "cut") return void request.socket.destroy();
    const { status = 202, body = { job: "J", repo: "site" } } = reply;
    const text = typeof body === "string" ? body : `${JSON.stringify(body)}\n`;
    const signed = request.headers[orderHeader] ?? request.headers[requestHeader];
    const bound: Record<string, string> =
      typeof signed === "string" ? { [answerHeader]: signAnswer(keys, digestOf(signed), status, text) } : {};
    const plain = { "content-type": "application/json" };
    response.writeHead(status, { ...plain, ...bound, ...reply.headers });
    response.end(text);
  });
  const port = await listen(server);
  return {
    name: `127.0.0.1:${port}`,
    requests,
    headers,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** Takes the connection and says nothing. */
export async function silentSlave(): Promise<FakeSlave> {
  const sockets = new Set<{ destroy: () => void }>();
  const server = createTcpServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
  });
  const port = await listen(server);
  return {
    name: `127.0.0.1:${port}`,
    requests: [],
    headers: [],
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        for (const socket of sockets) socket.destroy();
      }),
  };
}

async function listen(server: Server | TcpServer): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", () => resolve()));
  const address = server.address();
  return address !== null && typeof address === "object" ? address.port : 0;
}

/** A slave that works: a job that is done at once, at the commit that was asked for or `sha`. */
export function workingSlave(sha: string, before = "0".repeat(40), keys: Keys = {}): Promise<FakeSlave> {
  let wanted = sha;
  return fakeSlave((url) => {
    if (url.pathname === "/get/") {
      wanted = url.searchParams.get("sha") ?? sha;
      return {};
    }
    if (url.pathname === "/status") {
      return {
        status: 200,
        body: { repo: "site", sha: wanted, branch: "main", since: "2026-11-20T10:00:00Z" },
      };
    }
    return { status: 200, body: { job: "J", state: "done", before, sha: wanted } };
  }, keys);
}
