import { createHash, timingSafeEqual } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { isRunId } from "../core/id.ts";
import { HttpError, sendJson } from "../http/server.ts";
import type { Settings } from "./config.ts";
import type { Deliveries } from "./deliveries.ts";
import type { Ignored } from "./ignored.ts";
import { hasEnded, type Records } from "./records.ts";
import { followLog, sendLog } from "./run-log.ts";
import type { Runs, RunView } from "./runs.ts";
import type { Scheduler } from "./scheduler.ts";
import type { Metrics } from "./telemetry.ts";

/** Where a forge's deliveries are accepted; the second is where node-github-hook listens. */
const hookPaths = new Set(["/hook", "/github/callback"]);

interface RoutesParts {
  settings: Settings;
  deliveries: Deliveries;
  ignored: Ignored;
  runs: Runs;
  scheduler: Scheduler;
  records: Records;
  metrics: Metrics;
}

/** Which request goes where: deliveries, /healthz, /metrics, and the runs, which can be read, cancelled and rerun. */
export class Routes {
  readonly #parts: RoutesParts;

  constructor(parts: RoutesParts) {
    this.#parts = parts;
  }

  /** What the world sees: deliveries, /healthz, and the rest behind the token. */
  async web(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const [path = ""] = (request.url ?? "").split("?", 1);
    if (hookPaths.has(path)) return await this.#deliver(request, response);
    if (path === "/healthz") return this.#health(request, response);
    const { token } = this.#parts.settings.config;
    if (token === undefined) throw new HttpError(404, "there is no such page");
    if (!isBearer(request.headers.authorization, token)) {
      throw new HttpError(401, "a token is needed", { "www-authenticate": "Bearer" });
    }
    await this.#trusted(request, response, "the token");
  }

  /** What the Unix socket serves: whoever can open it is trusted. */
  async local(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (request.url === "/healthz") return this.#health(request, response);
    await this.#trusted(request, response, "the server's own user");
  }

  async #deliver(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      if (request.method !== "POST") throw new HttpError(405, "use POST", { allow: "POST" });
      this.#parts.metrics.delivery(await this.#parts.deliveries.handle(request, response));
    } catch (error) {
      this.#parts.metrics.delivery(error instanceof HttpError ? error.status : 500);
      throw error;
    }
  }

  #health(request: IncomingMessage, response: ServerResponse): void {
    onlyGet(request);
    const { draining } = this.#parts.scheduler;
    sendJson(response, draining ? 503 : 200, { status: draining ? "draining" : "ok" });
  }

  /** What those may do who have the token or the socket; `by` is who they are in the records. */
  async #trusted(request: IncomingMessage, response: ServerResponse, by: string): Promise<void> {
    const url = URL.canParse(request.url ?? "/", "http://localhost")
      ? new URL(request.url ?? "/", "http://localhost")
      : undefined;
    if (url?.pathname === "/metrics") {
      response.writeHead(200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" });
      const { queue, draining } = this.#parts.scheduler;
      response.end(this.#parts.metrics.text(queue, draining));
      return;
    }
    if (url?.pathname === "/runs")
      return sendJson(response, 200, { runs: this.#list(url.searchParams) });
    if (url?.pathname === "/ignored") {
      onlyGet(request);
      const repo = url.searchParams.get("repo") ?? undefined;
      const limit = limitOf(url.searchParams);
      return sendJson(response, 200, { ignored: this.#parts.ignored.list({ repo, limit }) });
    }
    if (url?.pathname.startsWith("/runs/")) return await this.#run(request, response, url, by);
    throw new HttpError(404, "there is no such page");
  }

  /** The routes below /runs/ID. */
  async #run(
    request: IncomingMessage,
    response: ServerResponse,
    url: URL,
    by: string,
  ): Promise<void> {
    const [, , id = "", what, ...more] = url.pathname.split("/");
    const { runs } = this.#parts;
    const view = isRunId(id) ? runs.view(id) : undefined;
    if (!view || more.length > 0) throw new HttpError(404, "there is no such run");
    if (what === "cancel" || what === "rerun") {
      if (request.method !== "POST") throw new HttpError(405, "use POST", { allow: "POST" });
      if (what === "rerun")
        return sendJson(response, 202, { run: await runs.rerun(view, by), of: id });
      await runs.cancel(view, by);
      return sendJson(response, 202, { run: id });
    }
    onlyGet(request);
    if (what === undefined) return sendJson(response, 200, await runs.whole(id));
    if (what !== "log") throw new HttpError(404, "there is no such page");
    const path = this.#parts.records.path(id, "log");
    const { mask } = this.#parts.settings;
    if (url.searchParams.get("follow") !== "1")
      return await sendLog(response, path, { mask, growing: !hasEnded(view.state) });
    const endState = () => {
      const state = runs.view(id)?.state;
      if (state === undefined) return "gone";
      return hasEnded(state) ? state : undefined;
    };
    await followLog(response, path, { mask, endState });
  }

  /** Runs by the query, the newest first. */
  #list(query: URLSearchParams): RunView[] {
    const repo = query.get("repo");
    const state = query.get("state");
    return this.#parts.runs
      .list()
      .filter(
        (view) => (repo === null || view.repo === repo) && (state === null || view.state === state),
      )
      .slice(0, limitOf(query));
  }
}

function limitOf(query: URLSearchParams): number {
  const limit = Number(query.get("limit") ?? 100);
  return Number.isInteger(limit) && limit > 0 ? limit : 100;
}

function onlyGet(request: IncomingMessage): void {
  if (request.method !== "GET" && request.method !== "HEAD")
    throw new HttpError(405, "use GET", { allow: "GET" });
}

function isBearer(header: string | undefined, token: string): boolean {
  const given = /^Bearer +(\S+)$/i.exec(header ?? "")?.[1];
  if (given === undefined) return false;
  const digest = (text: string) => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(given), digest(token));
}
