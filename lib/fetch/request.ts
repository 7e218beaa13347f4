import type { Agent } from "node:http";
import { isIP, type Socket } from "node:net";
import type { Readable } from "node:stream";
import { type Agents, bareHost, closeAgents, openAgents } from "../http/proxy.ts";
import { FetchFailed } from "./retry.ts";
import { exchange, takeLogin } from "./send.ts";

/** One plain request and its small answer, within limits of time and size. */

export interface RequestOptions {
  /** Default: GET. */
  method?: string;
  headers?: Record<string, string>;
  body?: string | undefined;
  /** Go through the environment's proxies, for a server on the web; default: past all of them. */
  throughProxy?: boolean;
  /** Milliseconds for all of it. */
  timeout: number;
  /** Milliseconds for the connection, TLS included; the look-up of a name is not counted. Default: `timeout`. */
  connectTimeout?: number;
  /** So many bytes of the body are read, and no more; 0: the answer's head is enough. */
  maxBytes: number;
  /** PEM: the authorities that are trusted, instead of the public ones. */
  ca?: string | undefined;
  /** An open connection to the server, which is used instead of a new one. */
  socket?: Socket;
  signal?: AbortSignal | undefined;
}

export interface Answer {
  status: number;
  /** Names in lower case. */
  headers: Record<string, string | undefined>;
  /** The body as UTF-8. */
  text: string;
  /** The body is longer than `maxBytes`. */
  truncated: boolean;
}

/**
 * One plain request and its small answer: on a connection of its own, without retries and redirects. A login in the
 * URL is sent.
 * @throws {FetchFailed} when no answer comes in time or it is cut off; the `signal`'s reason; else the system's error.
 */
export async function request(
  address: URL | string,
  {
    method = "GET",
    body,
    throughProxy = false,
    timeout,
    connectTimeout = timeout,
    maxBytes,
    ca,
    socket,
    ...more
  }: RequestOptions,
): Promise<Answer> {
  const url = new URL(address);
  const abort = new AbortController();
  const late = (what: string, limit: number) =>
    abort.abort(new FetchFailed(`no ${what} within ${limit / 1000} s`, { again: true }));
  const stop = startLimit(timeout, () => late("answer", timeout));
  const proxied = throughProxy ? await openAgents() : undefined;
  const signal = more.signal ? AbortSignal.any([more.signal, abort.signal]) : abort.signal;
  try {
    const authorization = await takeLogin(url, async () => undefined);
    const own = authorization === undefined ? {} : { authorization };
    const headers = { connection: "close", ...own, ...more.headers };
    const onLate = () => late("connection", connectTimeout);
    const agent =
      (socket ? undefined : proxied?.[url.protocol as keyof Agents]) ??
      (await agentFor(url, { ca, open: socket, limit: connectTimeout, onLate }));
    const response = await exchange({ url, method, headers, body, agent, signal });
    return {
      status: response.status,
      headers: response.headers,
      ...(await readText(response.body, maxBytes)),
    };
  } catch (error) {
    throw signal.aborted ? signal.reason : error;
  } finally {
    stop();
    if (proxied) closeAgents(proxied);
  }
}

async function readText(body: Readable, maxBytes: number): Promise<Pick<Answer, "text" | "truncated">> {
  const pieces: Buffer[] = [];
  let size = 0;
  try {
    // to leave the loop ends the connection
    if (maxBytes === 0) body.on("error", () => {}).destroy();
    else
      for await (const piece of body as AsyncIterable<Buffer>) {
        pieces.push(piece);
        size += piece.length;
        if (size > maxBytes) break;
      }
  } catch {
    throw new FetchFailed("the answer was cut off", { again: true });
  }
  const text = Buffer.concat(pieces).subarray(0, maxBytes).toString("utf8");
  return { text, truncated: size > maxBytes };
}

/**
 * Call `onLate` after so many milliseconds. Counted in parts, between which is looked at what has come: the time in
 * which this process was too busy for that (hundreds of TLS handshakes at once, a machine under load) is hardly
 * counted, as it is not the other side's.
 * @returns what ends it before
 */
function startLimit(limit: number, onLate: () => void): () => void {
  const parts = 8;
  let timer: NodeJS.Timeout;
  const count = (left: number) => {
    timer = setTimeout(() => (left > 1 ? count(left - 1) : onLate()), limit / parts);
  };
  count(parts);
  return () => clearTimeout(timer);
}

interface NewAgent {
  ca: string | undefined;
  open: Socket | undefined;
  /** Milliseconds. */
  limit: number;
  onLate: () => void;
}

/** An agent for one connection: `open`, which is there already, or its own, which tells when opening takes too long. */
async function agentFor(url: URL, { ca, open, limit, onLate }: NewAgent): Promise<Agent> {
  const secure = url.protocol === "https:";
  const { default: web } = await (secure ? import("node:https") : import("node:http"));
  const agent = new web.Agent({ keepAlive: false, ...(ca === undefined ? {} : { ca }) });
  const connect = agent.createConnection.bind(agent);
  agent.createConnection = (options, done) => {
    if (open) return secure ? connect({ ...options, socket: open } as typeof options, done) : open;
    const socket = connect(options, done) as Socket;
    let stop = () => {};
    const start = () => (stop = startLimit(limit, onLate));
    // many names at once wait for the resolver: that is not the server's fault
    if (isIP(bareHost(url))) start();
    else socket.once("lookup", start);
    for (const over of [secure ? "secureConnect" : "connect", "close"]) socket.once(over, () => stop());
    return socket;
  };
  return agent;
}
