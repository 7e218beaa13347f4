import type { IncomingMessage, ServerResponse } from "node:http";
import { isRunId } from "../core/id.ts";
import { didYouMean } from "../core/names.ts";
import { HttpError, sendJson } from "../http/server.ts";
import type { Settings } from "./config/config.ts";
import type { Deliveries } from "./receive/deliveries.ts";
import { type Page, type PageSource, planOverview } from "../page/page.ts";
import type { Ignored } from "../run-store/ignored.ts";
import { overviewOf } from "./telemetry/overview.ts";
import type { Runs, RunView } from "./runs.ts";
import type { Scheduler } from "./runs/scheduler.ts";
import type { Metrics } from "./telemetry/telemetry.ts";

/** Where a forge's deliveries are accepted; the second is where node-github-hook listens. */
const hookPaths = new Set(["/hook", "/github/callback"]);

interface RoutesParts {
  settings: Settings;
  deliveries: Deliveries;
  ignored: Ignored;
  runs: Runs;
  scheduler: Scheduler;
  metrics: Metrics;
  page: Page;
  source: PageSource;
}

/** Which request goes where: deliveries, /healthz, /metrics, and the runs, which can be read, cancelled and rerun. */
export class Routes {
  readonly #parts: RoutesParts;

  constructor(parts: RoutesParts) {
    this.#parts = parts;
  }

  /** What the world sees: deliveries, /healthz, and, with the page, the rest behind a token or as a page. */
  web(request: IncomingMessage, response: ServerResponse, withPage: boolean): Promise<void> | void {
    const [path = ""] = (request.url ?? "").split("?", 1);
    if (hookPaths.has(path)) return this.#parts.deliveries.handle(request, response);
    if (path === "/healthz") return this.health(request, response);
    if (withPage) return this.viewed(request, response);
    throw new HttpError(404, "there is no such page");
  }

  /** What is for those who have a token or have signed in. */
  private async viewed(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { status } = this.#parts.settings.config;
    if (status === undefined) throw new HttpError(404, "there is no such page");
    // what else stands there is of a proxy that asks for a password
    if (!/^Bearer\b/i.test(request.headers.authorization ?? ""))
      return await this.#parts.page.handle(request, response);
    const { name, right } = this.#parts.page.bearer(request, response, status);
    // what changes something is asked for by POST
    if (right !== "steer" && !isGet(request)) throw new HttpError(403, "this token may see, not steer");
    await this.trusted(request, response, name);
  }

  /** What the Unix socket serves: whoever can open it is trusted. */
  async local(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (request.url === "/healthz") return this.health(request, response);
    await this.trusted(request, response, "the server's own user");
  }

  private health(request: IncomingMessage, response: ServerResponse): void {
    onlyGet(request);
    const { draining } = this.#parts.scheduler;
    sendJson(response, draining ? 503 : 200, { status: draining ? "draining" : "ok" });
  }

  /** What those may do who have the token or the socket; `by` is who they are in the records. */
  private async trusted(request: IncomingMessage, response: ServerResponse, by: string): Promise<void> {
    const url = URL.canParse(request.url ?? "/", "http://localhost")
      ? new URL(request.url ?? "/", "http://localhost")
      : undefined;
    if (url?.pathname === "/metrics") {
      response.writeHead(200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" });
      const { scheduler, metrics, runs } = this.#parts;
      const { repos } = planOverview(this.repoNames(), runs.list());
      response.end(metrics.text(scheduler, scheduler.draining, repos));
      return;
    }
    if (url?.pathname === "/overview") {
      onlyGet(request);
      const overview = planOverview(this.repoNames(), this.#parts.runs.list());
      return sendJson(response, 200, overviewOf(overview, await this.#parts.source.problems()));
    }
    if (url?.pathname === "/run") return await this.begin(request, response, url.searchParams, by);
    if (url?.pathname === "/runs") return sendJson(response, 200, { runs: this.list(url.searchParams) });
    if (url?.pathname === "/ignored") {
      onlyGet(request);
      const repo = url.searchParams.get("repo") ?? undefined;
      const limit = limitOf(url.searchParams);
      return sendJson(response, 200, { ignored: this.#parts.ignored.list({ repo, limit }) });
    }
    if (url?.pathname.startsWith("/runs/")) return await this.run(request, response, url, by);
    throw new HttpError(404, "there is no such page");
  }

  /** Start a run by hand: POST /run?repo=OWNER/NAME with branch, tag or sha. */
  private async begin(request: IncomingMessage, response: ServerResponse, query: URLSearchParams, by: string) {
    if (request.method !== "POST") throw new HttpError(405, "use POST", { allow: "POST" });
    const { settings, scheduler, runs } = this.#parts;
    if (scheduler.draining) throw new HttpError(503, "the server is about to stop", { "retry-after": "10" });
    const [name = "", branch, tag, sha] = ["repo", "branch", "tag", "sha"].map((key) => query.get(key) ?? undefined);
    const { repos } = settings.config;
    const repo = repos.get(name);
    if (!repo) throw new HttpError(404, `${name} is not in hooks.yml${didYouMean(name, [...repos.keys()])}`);
    sendJson(response, 202, { run: await runs.begin(repo, { branch, tag, sha }, by) });
  }

  /** The routes below /runs/ID. */
  private async run(request: IncomingMessage, response: ServerResponse, url: URL, by: string): Promise<void> {
    const [, , id = "", what, ...more] = url.pathname.split("/");
    const { runs, source } = this.#parts;
    const view = isRunId(id) ? runs.view(id) : undefined;
    if (!view || more.length > 0) throw new HttpError(404, "there is no such run");
    if (what === "cancel" || what === "rerun") {
      if (request.method !== "POST") throw new HttpError(405, "use POST", { allow: "POST" });
      const from = url.searchParams.get("from") ?? undefined;
      if (what === "rerun") return sendJson(response, 202, { run: await runs.rerun(view, by, from), of: id });
      await runs.cancel(view, by);
      return sendJson(response, 202, { run: id });
    }
    onlyGet(request);
    if (what === undefined) return sendJson(response, 200, await runs.whole(id));
    if (what !== "log") throw new HttpError(404, "there is no such page");
    if (url.searchParams.get("follow") !== "1") return await source.sendLog(response, view);
    await source.followLog(request, response, view);
  }

  private repoNames(): Iterable<string> {
    return this.#parts.settings.config.repos.keys();
  }

  /** Runs by the query, the newest first. */
  private list(query: URLSearchParams): RunView[] {
    const repo = query.get("repo");
    const state = query.get("state");
    return this.#parts.runs
      .list()
      .filter((view) => (repo === null || view.repo === repo) && (state === null || view.state === state))
      .slice(0, limitOf(query));
  }
}

function limitOf(query: URLSearchParams): number {
  const limit = Number(query.get("limit") ?? 100);
  return Number.isInteger(limit) && limit > 0 ? limit : 100;
}

function isGet({ method }: IncomingMessage): boolean {
  return method === "GET" || method === "HEAD";
}

function onlyGet(request: IncomingMessage): void {
  if (!isGet(request)) throw new HttpError(405, "use GET", { allow: "GET" });
}
