import { once } from "node:events";
import { closeSync, openSync } from "node:fs";
import { rm } from "node:fs/promises";
import { createConnection, createServer, type Socket } from "node:net";
import { basename, dirname, join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { Busy, exitCodeOf, Failure, messageOf, Refused, systemCode, UsageError } from "../core/errors.ts";

/**
 * The socket of a running launchfit (unix(7), mode 600): a line of JSON in, lines of JSON out.
 *
 * in   `{"command": "rollback", "version": "1.2"}`
 * out  any number of `{"line": "…"}` for `log`, then one `{"ok": true, …}` or
 *      `{"ok": false, "code": 4, "error": "…"}`, and the connection is closed.
 */
export interface ControlRequest {
  command: string;
  [argument: string]: unknown;
}

export interface ControlAnswer {
  ok: boolean;
  /** With ok false: the exit code that the command line ends with. */
  code?: number;
  error?: string;
  [value: string]: unknown;
}

/**
 * Answers a request; `send` gives lines before it, and says whether the asker keeps up; `closed` is aborted when
 * the asker has gone.
 */
export type ControlHandler = (
  request: ControlRequest,
  send: (value: unknown) => boolean,
  closed: AbortSignal,
) => Promise<Omit<ControlAnswer, "ok">>;

/** Milliseconds that what was sent before the end may take to be read. */
const lastAnswersWithin = 1000;
/** Bytes of a path that unix(7) takes. */
const maxPath = 100;
const maxRequest = 64 * 1024;
/** Bytes of one line of an answer, and of lines that wait for whoever follows the log. */
const maxAnswer = 4 * 1024 * 1024;

/** The socket of a deploy directory. */
export function controlPath(directory: string): string {
  return join(directory, ".launchfit", "socket");
}

/** The same file by a path that unix(7) takes: a long one goes by its folder's descriptor. */
function shortened(path: string): { short: string; free: () => void } {
  if (Buffer.byteLength(path) <= maxPath) return { short: path, free: () => {} };
  const fd = openSync(dirname(path), "r");
  return { short: `/proc/self/fd/${fd}/${basename(path)}`, free: () => closeSync(fd) };
}

export interface ControlServer {
  close(): Promise<void>;
}

/** Serve requests at `path`. The caller holds the directory's lock, so an old socket there is a dead one. */
export async function serveControl(path: string, handle: ControlHandler): Promise<ControlServer> {
  await rm(path, { force: true });
  const connections = new Set<Socket>();
  const server = createServer((socket) => {
    connections.add(socket);
    socket.once("close", () => connections.delete(socket));
    socket.on("error", () => {});
    void answer(socket, handle);
  });
  const { short, free } = shortened(path);
  const before = process.umask(0o177);
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(short, resolve);
  }).finally(() => process.umask(before));
  return {
    async close() {
      const closed = new Promise<void>((resolve) => void server.close(() => resolve()));
      // answers that are being written go out first, but to those who read them only
      for (const socket of connections) socket.destroySoon();
      const late = setTimeout(() => {
        for (const socket of connections) socket.destroy();
      }, lastAnswersWithin);
      await closed;
      clearTimeout(late);
      free();
      await rm(path, { force: true });
    },
  };
}

async function answer(socket: Socket, handle: ControlHandler): Promise<void> {
  const closed = new AbortController();
  socket.once("close", () => closed.abort());
  const send = (value: unknown) => {
    socket.write(`${JSON.stringify(value)}\n`);
    return socket.writableLength < maxAnswer;
  };
  try {
    const lines = createInterface({ input: socket });
    // who hangs up with lines unread breaks the connection, which is an error of theirs, too
    lines.on("error", () => {});
    socket.on("data", () => void (socket.bytesRead > maxRequest && socket.destroy()));
    const [line] = (await once(lines, "line", { signal: closed.signal })) as [string];
    const request = JSON.parse(line) as ControlRequest;
    if (typeof request?.command !== "string") throw new UsageError('a request is {"command": …}');
    send({ ok: true, ...(await handle(request, send, closed.signal)) });
  } catch (error) {
    send({ ok: false, code: exitCodeOf(error) ?? 1, error: messageOf(error) });
  }
  socket.end();
}

/** An answer that says no, as what was thrown. */
export function errorOf({ code, error = "launchfit gave no reason" }: Partial<ControlAnswer>): Error {
  const kinds: Record<number, new (text: string) => Error> = { 2: UsageError, 3: Busy, 4: Refused };
  return new (kinds[code ?? 1] ?? Failure)(error);
}

/** Milliseconds that a status may take. */
export const statusWithin = 5000;

/**
 * Ask the launchfit that runs in a directory for its status.
 * @returns the answer, or undefined when no launchfit runs there.
 * @throws {Failure} when it does not answer in time, or went away before it answered.
 */
export async function askStatus(path: string): Promise<ControlAnswer | undefined> {
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(), statusWithin);
  try {
    return await askControl(path, { command: "status" }, () => {}, late.signal);
  } catch (error) {
    if (!late.signal.aborted) throw error;
    throw new Failure(
      "launchfit does not answer; if it is stopped, kill -CONT it, " +
        "else kill -9 it and start it again, which ends its app and starts it anew",
    );
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Ask the launchfit that runs in a directory.
 * @param onLine gets what comes before the answer.
 * @param signal ends the waiting.
 * @returns the answer, or undefined when no launchfit runs there.
 * @throws {Failure} when it went away before it answered.
 */
export async function askControl(
  path: string,
  request: ControlRequest,
  onLine: (value: Record<string, unknown>) => void = () => {},
  signal?: AbortSignal,
): Promise<ControlAnswer | undefined> {
  let socket: Socket;
  try {
    const { short, free } = shortened(path);
    socket = createConnection(short);
    signal?.addEventListener("abort", () => socket.destroy(new Error("it took too long")));
    await once(socket, "connect").finally(free);
  } catch (error) {
    if (["ENOENT", "ECONNREFUSED"].includes(systemCode(error) ?? "")) return undefined;
    throw new Failure(`cannot ask launchfit at ${path}: ${messageOf(error)}`);
  }
  // whatever breaks the connection, there is no answer
  socket.on("error", () => {});
  // nor may one without an end fill the memory
  let unread = 0;
  socket.on("data", (chunk: Buffer) => {
    const end = chunk.lastIndexOf(10);
    unread = end < 0 ? unread + chunk.length : chunk.length - end;
    if (unread > maxAnswer) socket.destroy();
  });
  socket.write(`${JSON.stringify(request)}\n`);
  const lines = createInterface({ input: socket });
  socket.once("close", () => lines.close());
  for await (const line of lines) {
    const value = JSON.parse(line) as Record<string, unknown>;
    if (typeof value["ok"] === "boolean") {
      socket.destroy();
      return value as ControlAnswer;
    }
    onLine(value);
  }
  throw new Failure("launchfit went away before it answered; look at its log");
}
