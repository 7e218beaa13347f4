// Slaves that are only a few lines, to try server-update against every kind of answer.
import { mkdir, writeFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server } from "node:http";
import type { KeyObject } from "node:crypto";
import { contentOf, digestOf, type Letter, letterHeader, seal } from "../../lib/fleet/letter.ts";
import { join } from "node:path";
import { createServer as createTcpServer, type Server as TcpServer } from "node:net";

export type FakeSlave = {
  /** As a list names it. */
  name: string;
  /** The request lines that came, oldest first. */
  requests: string[];
  headers: IncomingMessage["headers"][];
  /** What their letters said. */
  letters: Letter[];
  close: () => Promise<void>;
};

export type Reply = { status?: number; body?: unknown; headers?: Record<string, string> };

/** Has the master know the repo `site` from before: in its state folder, below `home`. */
export async function knowSite(home: string): Promise<void> {
  const folder = join(home, "server-update/desired-state");
  await mkdir(folder, { recursive: true });
  const text = JSON.stringify({ at: 0, entries: [{ sha: "0".repeat(40), list: "/none", run: "r" }] });
  await writeFile(join(folder, "site.json"), text);
}

/**
 * A server on a loopback port whose answers are made by `answer`: what it says of its repo `site` goes into a letter, any
 * other body as it is. "never" keeps the request waiting.
 */
export async function fakeSlave(
  answer: (url: URL, count: number, letter: Letter) => Reply | "never" | "cut",
  key?: KeyObject,
): Promise<FakeSlave> {
  const requests: string[] = [];
  const headers: IncomingMessage["headers"][] = [];
  const letters: Letter[] = [];
  const server = createServer((request, response) => {
    const text = String(request.headers[letterHeader] ?? "");
    const letter = contentOf(text);
    requests.push(request.url ?? "");
    headers.push(request.headers);
    letters.push(letter);
    const reply = answer(new URL(request.url ?? "", "http://slave"), requests.length, letter);
    if (reply === "never") return;
    if (reply === "cut") return void request.socket.destroy();
    const { status = 202, body = {} } = reply;
    const at = Date.now();
    const sealed = () => ({
      letter: seal(
        { name: "fake", ...(body as object), kind: "answer", to: digestOf(text), at, until: at + 60_000 },
        key,
      ),
    });
    const isRaw = typeof body === "string" || status >= 300;
    const sent = typeof body === "string" ? body : `${JSON.stringify(isRaw ? body : sealed())}\n`;
    response.writeHead(status, { "content-type": "application/json", ...reply.headers });
    response.end(sent);
  });
  const port = await listen(server);
  return {
    name: `127.0.0.1:${port}`,
    ...{ requests, headers, letters },
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
    ...{ requests: [], headers: [], letters: [] },
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

/** What a slave says of its repo `site`: what it serves, and what became of the last order. */
export function siteIs(
  state: string,
  more: { sha?: string; before?: string; error?: string },
  order: Letter,
  digest = "",
): Reply {
  const told = { digest, at: order.at, state, ...more };
  const served = { repo: "site", sha: more.sha, branch: "main", since: "2026-11-20T10:00:00Z" };
  return { status: 200, body: { repos: [{ ...served, order: told }] } };
}

/** A slave that takes an order, and then says of it what `how` says. */
export function tellingSlave(
  how: (asked: number) => { state: string; sha?: string; before?: string; error?: string } | Reply | "never" | "cut",
  key?: KeyObject,
): Promise<FakeSlave> {
  let asked = 0;
  return fakeSlave((url, _, letter) => {
    if (url.pathname === "/get/") return {};
    const said = how(++asked);
    if (typeof said === "string" || !("state" in said)) return said;
    const { state, ...more } = said;
    return siteIs(state, more, letter, String(letter["order"]));
  }, key);
}

/** A slave that works: an order is done at once, at the commit that was asked for or `sha`. */
export function workingSlave(sha: string, before = "0".repeat(40), key?: KeyObject): Promise<FakeSlave> {
  let wanted = sha;
  return fakeSlave((url, _, letter) => {
    if (url.pathname === "/get/") wanted = (letter["sha"] as string | undefined) ?? sha;
    return url.pathname === "/get/" ? {} : siteIs("done", { before, sha: wanted }, letter, String(letter["order"]));
  }, key);
}
