import { constants } from "node:fs";
import { open, realpath } from "node:fs/promises";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { dirname, extname, join, sep } from "node:path";
import { messageOf, UsageError } from "../../core/errors.ts";
import { isSafeRef, isSha, isShortName } from "../../core/names.ts";
import { parseDuration } from "../../core/units.ts";
import { createHttpServer, HttpError, sendJson } from "../../http/server.ts";
import { answerHeader, digestOf, signAnswer } from "../signature.ts";
import { Access, type AccessOptions, type Grant, hasToken } from "./access.ts";
import type { Job, Wanted } from "./jobs.ts";
import type { Slave } from "./slave.ts";
import { Nonces } from "./taken-once.ts";

/** The slave's HTTP side: it answers at once, and has slave-activate do the work. */

export interface HttpOptions extends Omit<AccessOptions, "nonces"> {
  /** Lets Prometheus in. */
  metricsToken: string | undefined;
  /** Served at `/`. */
  file: TestFile | undefined;
  onBug: (error: unknown) => void;
}

export interface HttpSide {
  server: Server;
  /** Once the jobs are closed: delayed answers are given then. */
  close(): Promise<void>;
}

/** How long the answer about a job can be delayed, in ms. */
const maxWait = 60_000;

export async function createHttpSide(slave: Slave, given: HttpOptions): Promise<HttpSide> {
  const { jobs, inventory } = slave;
  const options = { ...slave.options, ...given };
  const nonces = new Nonces(join(options.state, "nonces.txt"));
  if (options.secrets.length > 0) await nonces.open();
  const access = new Access({ ...options, nonces });

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = parseUrl(request.url ?? "");
    const [, first = "", second = "", ...more] = url.pathname.split("/");
    const atRoot = url.pathname === "/";
    if (url.pathname === "/healthz") return sendJson(response, 200, { ok: true, ...jobs.counts });
    if ((first === "get" && second === "" && more.length === 0) || (atRoot && url.searchParams.has("repo"))) {
      allowMethods(request, ["GET", "POST"]);
      const grant = await access.checkUpdate(request);
      request.resume();
      const job = await update(url, grant, request);
      return answer(response, 202, job, grant);
    }
    allowMethods(request, ["GET"]);
    if (first === "metrics" && second === "" && hasToken(request, options.metricsToken))
      return sendText(response, await inventory.metrics());
    if (atRoot) return sendFile(response, options.file);
    if (!["status", "jobs", "metrics"].includes(first) || more.length > 0)
      throw new HttpError(404, "there is nothing here; ask /get/?repo=NAME");
    const grant = access.checkRead(request);
    if (first === "jobs") return answer(response, 200, await jobAt(second, url, response), grant);
    if (second !== "") throw new HttpError(404, "there is nothing here; ask /status");
    if (first === "metrics") return sendText(response, await inventory.metrics());
    return answer(response, 200, await status(url), grant);
  }

  /** Start or join a job, once what was asked for is known to be wanted and allowed. */
  async function update(url: URL, { order }: Grant, request: IncomingMessage): Promise<{ job: string; repo: string }> {
    const wanted = readRequest(url);
    const { repo, sha, branch } = wanted;
    if (order && (order.order.repo !== repo || order.order.sha !== sha || order.order.branch !== branch))
      throw new HttpError(400, "the order says another thing than the request that carries it");
    const job = await slave.take(wanted, request.socket.remoteAddress ?? "a local program", order);
    return { job, repo };
  }

  async function status(url: URL): Promise<unknown> {
    const verify = url.searchParams.has("verify");
    if (!url.searchParams.has("repo")) return await inventory.all(verify);
    const { repo } = readRequest(url);
    slave.checkAllowed(repo);
    const found = await inventory.repo(repo, verify);
    if (!found?.sha && !found?.plain) {
      const why = found?.error === undefined ? "" : `; its last update failed: ${found.error}`;
      throw new HttpError(404, `no "${repo}" is served here${why}`);
    }
    return found;
  }

  async function jobAt(id: string, url: URL, response: ServerResponse): Promise<Partial<Job>> {
    const job = jobs.get(id);
    if (!job) throw new HttpError(404, "no such job");
    const gone = new AbortController();
    response.once("close", () => gone.abort());
    await jobs.wait(job, waitOf(url), gone.signal);
    return shownJob(job);
  }

  /** An answer that is bound to its request. */
  function answer(response: ServerResponse, status: number, value: unknown, { credential, secret }: Grant): void {
    if (credential === undefined) return sendJson(response, status, value);
    const own = { key: options.identity, secret };
    const bound = signAnswer(own, digestOf(credential), status, `${JSON.stringify(value)}\n`);
    sendJson(response, status, value, { [answerHeader]: bound });
  }

  const server = createHttpServer(handle, options.onBug);
  return {
    server,
    async close() {
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
        // delayed answers are on their way
        setTimeout(() => server.closeIdleConnections(), 50);
        setTimeout(() => server.closeAllConnections(), 1000).unref();
      });
    },
  };
}

export function isLoopbackAddress(address: string): boolean {
  return /^(?:127\.|::1$|::ffff:127\.)/.test(address);
}

function parseUrl(text: string): URL {
  // a request line may hold anything; only a path is taken
  if (!text.startsWith("/") || text.startsWith("//") || !URL.canParse(text, "http://slave")) {
    throw new HttpError(400, "the request's address is malformed");
  }
  return new URL(text, "http://slave");
}

function allowMethods(request: IncomingMessage, methods: readonly string[]): void {
  if (methods.includes(request.method ?? "")) return;
  throw new HttpError(405, `use ${methods.join(" or ")}`, { allow: methods.join(", ") });
}

/** Pure: what a request asks for. */
function readRequest(url: URL): Omit<Wanted, "order"> {
  const one = (name: string) => {
    const [value, ...more] = url.searchParams.getAll(name);
    if (more.length > 0) throw new HttpError(400, `${name} is given twice`);
    return value;
  };
  const [repo = "", sha, branch] = [one("repo"), one("sha"), one("branch")];
  if (repo === "") throw new HttpError(400, "no repo is named; ask /get/?repo=NAME");
  if (!isShortName(repo)) throw new HttpError(400, "that is not a repo name");
  if (sha !== undefined && !isSha(sha)) throw new HttpError(400, "sha must be a full commit id");
  if (branch !== undefined && (!isSafeRef(branch) || sha === undefined))
    throw new HttpError(400, "branch must be the name of the branch that sha is of");
  return { repo, sha, branch };
}

function waitOf(url: URL): number {
  const text = url.searchParams.get("wait");
  if (text === null) return 0;
  try {
    return Math.min(maxWait, parseDuration(text));
  } catch {
    throw new HttpError(400, "wait must be a duration such as 30s");
  }
}

function shownJob({ job, repo, state, before, sha, seconds, error }: Job): Partial<Job> {
  return { job, repo, state, before, sha, seconds, error };
}

function sendText(response: ServerResponse, text: string): void {
  response.writeHead(200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" });
  response.end(text);
}

function sendFile(response: ServerResponse, file: TestFile | undefined): void {
  if (file === undefined) throw new HttpError(404, "this slave is idle; ask /get/?repo=NAME");
  response.writeHead(200, {
    "content-type": file.type,
    "content-length": String(file.body.length),
  });
  response.end(file.body);
}

/** A file that is served at `/`, for testing. */
export interface TestFile {
  body: Uint8Array;
  type: string;
}

const maxFile = 10 * 1024 * 1024;

const types: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".json": "application/json; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".png": "image/png",
  ".svg": "image/svg+xml",
};

/**
 * Read the file, once: later changes do not show.
 * @throws {UsageError} for what is no plain file, too large, or a link to outside of its folder
 */
export async function readTestFile(path: string): Promise<TestFile> {
  const wrong = (why: string) => new UsageError(`${path} ${why}; name a plain file to serve`);
  try {
    const real = await realpath(path);
    const folder = await realpath(dirname(path));
    if (!real.startsWith(join(folder, sep))) throw wrong("is a link that leads out of its folder");
    // a FIFO is not waited for
    const file = await open(real, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const info = await file.stat();
      if (!info.isFile()) throw wrong("is not a plain file");
      if (info.size > maxFile) throw wrong(`has more than ${maxFile / 1024 / 1024} MiB`);
      const type = types[extname(path)] ?? "text/plain; charset=utf-8";
      return { body: (await file.readFile()).subarray(0, maxFile), type };
    } finally {
      await file.close();
    }
  } catch (error) {
    throw error instanceof UsageError ? error : wrong(`cannot be read (${messageOf(error)})`);
  }
}
