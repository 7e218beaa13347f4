import { createHash, createPublicKey, type KeyObject, timingSafeEqual } from "node:crypto";
import { readFile, stat } from "node:fs/promises";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { extname } from "node:path";
import { messageOf, Refused, UsageError } from "../../core/errors.ts";
import { newRunId } from "../../core/id.ts";
import { isSafeRef, isSha, isShortName } from "../../core/names.ts";
import { parseDuration } from "../../core/units.ts";
import { createHttpServer, HttpError, sendJson } from "../../http/server.ts";
import { allowedSkew, checkTime, letterHeader, open, type Opened, openOrder, type Order, seal } from "../letter.ts";
import { isOver } from "../report.ts";
import type { Slave } from "./slave.ts";

/** The slave's HTTP side: it answers at once, and has slave-activate do the work. */

export interface HttpOptions {
  /** The keys that shared secrets are. With neither these nor a master's key (--insecure) all may who reach it. */
  secrets: readonly KeyObject[];
  /** Lets Prometheus in. */
  metricsToken: string | undefined;
  /** Served at `/`. */
  file: Awaited<ReturnType<typeof readTestFile>> | undefined;
  onBug: (error: unknown) => void;
}

/** How long an answer can be delayed, in ms. */
const maxWait = 60_000;

export function createHttpSide(slave: Slave, options: HttpOptions): Server {
  const { identity } = slave.options;
  const { secrets, metricsToken } = options;
  const keys = [...slave.options.keys, ...secrets.map((each) => createPublicKey(each))];
  const trusted = keys.length > 0 ? keys : undefined;
  const reader = { keys: trusted, names: trusted && slave.options.names };

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    request.resume();
    await route(request, response).catch((error: unknown) => {
      if (error instanceof Refused) throw new HttpError(401, error.message);
      throw error instanceof UsageError ? new HttpError(400, error.message) : error;
    });
  }

  async function route(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = parseUrl(request.url ?? "");
    const path = url.pathname.replace(/(?<=.)\/$/, "");
    if (path === "/healthz") return sendJson(response, 200, { ok: true, ...slave.counts });
    if (path === "/get" || (path === "/" && url.searchParams.has("repo"))) {
      allowMethods(request, ["GET", "POST"]);
      return await update(url, request, response);
    }
    allowMethods(request, ["GET"]);
    if (path === "/") return sendFile(response, options.file);
    if (path === "/status") return await status(url, request, response);
    if (path !== "/metrics") throw new HttpError(404, "there is nothing here; ask /get/?repo=NAME");
    if (!hasToken(request, metricsToken) && trusted)
      throw new HttpError(401, "metrics are for who has the token; see metrics_token_file in slave.yml");
    response.writeHead(200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" });
    response.end(await slave.metrics());
  }

  /** `GET /get/?repo=NAME`: the order is the letter that comes with it; where nobody has to sign, the query. */
  async function update(url: URL, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const asked = readRequest(url);
    const text = letterOf(request);
    if (text === undefined) {
      const { repo, sha, branch } = asked;
      const at = Math.max(Date.now(), (slave.get(repo)?.order.at ?? 0) + 1);
      const run = newRunId();
      const order = { repo, sha, branch, digest: run, at, until: at + allowedSkew, run };
      await slave.take(order, request.socket.remoteAddress ?? "a local program");
      return sendJson(response, 202, { repo, state: slave.get(repo)?.state });
    }
    const opened = openOrder(text, reader);
    const { order, key } = opened;
    if (order.repo !== asked.repo) throw new HttpError(400, "the order is for another repo than the request");
    await slave.take(order, key);
    answer(response, 202, { repo: order.repo, state: slave.get(order.repo)?.state }, opened);
  }

  /** What is served; with `wait` it waits for the end of an order, or of the last one. */
  async function status(url: URL, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const text = letterOf(request);
    const opened = text === undefined ? undefined : open(text, "question", reader);
    if (opened) checkTime(opened.letter);
    const query = url.searchParams;
    const asked = opened?.letter ?? {
      repo: query.has("repo") ? readRequest(url).repo : undefined,
      ...{ verify: query.has("verify"), wait: parseDuration(query.get("wait") ?? "0s") },
    };
    const { repo, order } = asked as { repo: unknown; order?: unknown };
    if (repo !== undefined && (typeof repo !== "string" || !isShortName(repo)))
      throw new HttpError(400, "that is not a repo name");
    const gone = new AbortController();
    response.once("close", () => gone.abort());
    const end = Date.now() + Math.min(maxWait, Number(asked["wait"]) || 0);
    const isWaiting = () => {
      const last = repo === undefined ? undefined : slave.get(repo);
      return last && !isOver(last.state) && (order === undefined || order === last.order.digest);
    };
    while (isWaiting() && Date.now() < end && !gone.signal.aborted && !slave.closed)
      await slave.change(end - Date.now(), gone.signal);
    answer(response, 200, await slave.report({ repo, verify: asked["verify"] === true }), opened);
  }

  /** Undefined where nobody has to sign, and nobody has. */
  function letterOf({ headers }: IncomingMessage): string | undefined {
    return (headers[letterHeader] as string | undefined) ?? (trusted && "");
  }

  /** To a letter with a letter, which nobody can give as the answer to another. */
  function answer(response: ServerResponse, status: number, value: object, opened: Opened | undefined): void {
    if (opened === undefined) return sendJson(response, status, value);
    const { digest, key, letter: question } = opened;
    const at = Date.now();
    const shared = key && secrets[keys.indexOf(key) - slave.options.keys.length];
    const letter = { ...value, kind: "answer" as const, to: digest, at, until: at + allowedSkew };
    // the master's list has its own key, or it knows the secret only
    sendJson(response, status, { letter: seal(letter, question["own"] === true ? identity : (shared ?? identity)) });
  }

  return createHttpServer(handle, options.onBug);
}

/** Whether a request carries the token for Prometheus. */
function hasToken(request: IncomingMessage, token: string | undefined): boolean {
  const given = /^Bearer (.+)$/.exec(request.headers.authorization ?? "")?.[1];
  if (token === undefined || given === undefined) return false;
  const digest = (text: string) => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(given), digest(token));
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
function readRequest(url: URL): Pick<Order, "repo" | "sha" | "branch"> {
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

function sendFile(response: ServerResponse, file: HttpOptions["file"]): void {
  if (file === undefined) throw new HttpError(404, "this slave is idle; ask /get/?repo=NAME");
  response.writeHead(200, { "content-type": file.type, "content-length": String(file.body.length) });
  response.end(file.body);
}

const types: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".json": "application/json; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".png": "image/png",
  ".svg": "image/svg+xml",
};

/** A file to serve at `/`, for testing, read once: later changes do not show. @throws {UsageError} */
export async function readTestFile(path: string) {
  try {
    // not a device or FIFO, which would have no end
    if (!(await stat(path)).isFile()) throw new Error("it is not a plain file");
    return { body: await readFile(path), type: types[extname(path)] ?? "text/plain; charset=utf-8" };
  } catch (error) {
    throw new UsageError(`${path} cannot be read (${messageOf(error)}); name a plain file to serve`);
  }
}
