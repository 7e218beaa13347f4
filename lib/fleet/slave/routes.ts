import { readFile, stat } from "node:fs/promises";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { extname, join } from "node:path";
import { Failure, messageOf, UsageError } from "../../core/errors.ts";
import { $, timedOut } from "../../exec/exec.ts";
import { createHttpServer, HttpError, sendJson } from "../../http/server.ts";
import { isSha, isShortName } from "../../core/names.ts";
import { parseDuration } from "../../core/units.ts";
import { Nonces, refusalOfPage, requireSignature } from "./guard.ts";
import { type Job, Jobs } from "./jobs.ts";
import { servedBy } from "../repo/link.ts";
import { placeOf } from "../repo/state.ts";
import { isAllowed } from "../settings.ts";

/** The slave's HTTP side: it answers at once, and has slave-activate do the work. */

export interface SlaveOptions {
  repos: string;
  /** Jobs and nonces. */
  state: string;
  /** Patterns of repos that may be asked for; none: all. */
  allow: readonly string[];
  jobs: number;
  queue: number;
  /** Milliseconds for one update. */
  timeout: number;
  /** Valid now; none: no signature is asked for. */
  secrets: readonly string[];
  /** Names of this machine that a Host header may carry when there is no secret. */
  hosts: readonly string[];
  /** A file to serve at `/`. */
  file: string | undefined;
  /** The argv of slave-activate, to which the repo and its flags are added. */
  activate: readonly string[];
  activateFlags: readonly string[];
  note: (line: string) => void;
  onBug: (error: unknown) => void;
}

export interface Slave {
  server: Server;
  jobs: Jobs;
  close(): Promise<void>;
}

/** How long the answer about a job can be delayed, in ms. */
const maxWait = 60_000;

export async function createSlave(options: SlaveOptions): Promise<Slave> {
  const { note } = options;
  const nonces = new Nonces(join(options.state, "nonces.txt"));
  if (options.secrets.length > 0) await nonces.open();
  const jobs = new Jobs({
    dir: join(options.state, "jobs"),
    jobs: options.jobs,
    queue: options.queue,
    run: (repo, sha) => runActivate(repo, sha, options),
    onError: (error) => note(`job: ${messageOf(error)}`),
  });
  await jobs.open();

  async function guard(request: IncomingMessage): Promise<void> {
    if (options.secrets.length > 0) return await requireSignature(request, options.secrets, nonces);
    const reason = refusalOfPage(request.headers, options.hosts);
    if (reason !== undefined) throw new HttpError(403, reason);
  }

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = parseUrl(request.url ?? "");
    const [, first = "", second = "", ...more] = url.pathname.split("/");
    const asks = first === "get" && second === "" && more.length === 0;
    const atRoot = url.pathname === "/";
    if (url.pathname === "/healthz") return sendJson(response, 200, { ok: true, ...jobs.counts });
    if (asks || (atRoot && url.searchParams.has("repo"))) {
      allowMethods(request, ["GET", "POST"]);
      await guard(request);
      request.resume();
      const { repo, sha } = readRequest(url, options.allow);
      const job = await jobs.request(repo, sha);
      note(
        `${job.job} ${repo}${sha === undefined ? "" : ` ${sha}`} requested by ${request.socket.remoteAddress ?? "a local program"}`,
      );
      return sendJson(response, 202, { job: job.job, repo });
    }
    allowMethods(request, ["GET"]);
    if (atRoot) return await sendFile(request, response, options);
    if (first === "status" && second === "") {
      await guard(request);
      return sendJson(response, 200, await status(url, options));
    }
    if (first === "jobs" && more.length === 0) {
      await guard(request);
      return await sendJob(request, response, second, url);
    }
    throw new HttpError(404, "there is nothing here; ask /get/?repo=NAME");
  }

  async function sendJob(
    request: IncomingMessage,
    response: ServerResponse,
    id: string,
    url: URL,
  ): Promise<void> {
    const job = jobs.get(id);
    if (!job) throw new HttpError(404, "no such job");
    const gone = new AbortController();
    request.socket.once("close", () => gone.abort());
    await jobs.wait(job, waitOf(url), gone.signal);
    sendJson(response, 200, shownJob(job));
  }

  const server = createHttpServer(handle, options.onBug);
  return {
    server,
    jobs,
    async close() {
      jobs.close();
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
        // delayed answers are on their way
        setTimeout(() => server.closeIdleConnections(), 50);
        setTimeout(() => server.closeAllConnections(), 1000).unref();
      });
    },
  };
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

/** Pure: what an update request asks for. */
export function readRequest(
  url: URL,
  allow: readonly string[],
): { repo: string; sha: string | undefined } {
  const [repo = "", ...repos] = url.searchParams.getAll("repo");
  const [sha, ...shas] = url.searchParams.getAll("sha");
  if (repos.length > 0 || shas.length > 0) throw new HttpError(400, "repo or sha is given twice");
  if (repo === "") throw new HttpError(400, "no repo is named; ask /get/?repo=NAME");
  if (!isShortName(repo)) throw new HttpError(400, "that is not a repo name");
  if (sha !== undefined && !isSha(sha)) throw new HttpError(400, "sha must be a full commit id");
  if (!isAllowed(repo, allow)) throw new HttpError(403, `repo "${repo}" is not allowed here`);
  return { repo, sha };
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

async function status(url: URL, { repos, allow }: SlaveOptions): Promise<unknown> {
  const { repo } = readRequest(url, allow);
  const tree = await servedBy(placeOf(repos, repo)).catch(() => undefined);
  if (!tree) throw new HttpError(404, `no "${repo}" is served here`);
  return { repo, sha: tree.sha, branch: tree.branch, since: tree.since, pending: tree.pending };
}

const types: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".json": "application/json; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".png": "image/png",
  ".svg": "image/svg+xml",
};

async function sendFile(
  request: IncomingMessage,
  response: ServerResponse,
  { file, secrets, hosts }: SlaveOptions,
): Promise<void> {
  const reason = secrets.length > 0 ? undefined : refusalOfPage(request.headers, hosts);
  if (reason !== undefined) throw new HttpError(403, reason);
  if (file === undefined) throw new HttpError(404, "this slave is idle; ask /get/?repo=NAME");
  const body = await readFile(file).catch(() => undefined);
  if (!body) throw new HttpError(404, "the file is gone");
  response.writeHead(200, {
    "content-type": types[extname(file)] ?? "text/plain; charset=utf-8",
    "content-length": String(body.length),
  });
  response.end(body);
}

async function runActivate(
  repo: string,
  sha: string | undefined,
  options: SlaveOptions,
): Promise<{ before?: string | undefined; sha: string }> {
  const { activate, activateFlags, timeout, note } = options;
  const pinned = sha === undefined ? [] : ["--sha", sha];
  const flags = ["--json", "--wait", ...activateFlags, ...pinned];
  const done = await $({ timeout, nothrow: true })`${activate} ${repo} ${flags}`;
  if (done.exitCode === 0) {
    const { before, sha: got } = JSON.parse(done.stdout) as { before?: string; sha: string };
    note(`${repo} serves ${got} after ${(done.duration / 1000).toFixed(1)} s`);
    return { before, sha: got };
  }
  const last = done.stderr.trim().split("\n").at(-1) ?? "";
  const reason = timedOut(done)
    ? `the update took longer than ${timeout / 1000} s and was stopped`
    : last.replace(/^slave-activate: /, "") || messageOf(done.cause);
  note(`${repo}: ${reason}`);
  throw new Failure(reason);
}

/** @throws {UsageError} when the file to serve is not a file */
export async function checkFile(file: string): Promise<void> {
  const found = await stat(file).catch(() => undefined);
  if (!found?.isFile()) throw new UsageError(`${file} is not a file that can be served`);
}
