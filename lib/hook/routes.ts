import { createHash, timingSafeEqual } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { isRunId } from "../core/id.ts";
import { HttpError, sendJson } from "../http/server.ts";
import type { Settings } from "./config.ts";
import type { Deliveries } from "./deliveries.ts";
import type { Ignored } from "./ignored.ts";
import { hasEnded, recordOf, type Records, type RunRecord, type RunState } from "./records.ts";
import { followLog, sendLog } from "./run-log.ts";
import type { Scheduler } from "./scheduler.ts";
import type { Store } from "./store.ts";
import type { Metrics } from "./telemetry.ts";

/** Where a forge's deliveries are accepted; the second is where node-github-hook listens. */
const hookPaths = new Set(["/hook", "/github/callback"]);

/** What the list and the pages show of a run: its record less what only the server needs. */
export type RunView = Omit<RunRecord, "cookie" | "cgroup" | "pid" | "pidStart">;

interface RoutesParts {
  settings: Settings;
  deliveries: Deliveries;
  ignored: Ignored;
  store: Store;
  scheduler: Scheduler;
  records: Records;
  accept: Store["accept"];
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
    await this.#trusted(request, response);
  }

  /** What the Unix socket serves: whoever can open it is trusted. */
  async local(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (request.url === "/healthz") return this.#health(request, response);
    await this.#trusted(request, response);
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

  async #trusted(request: IncomingMessage, response: ServerResponse): Promise<void> {
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
    if (url?.pathname.startsWith("/runs/")) return await this.#run(request, response, url);
    throw new HttpError(404, "there is no such page");
  }

  /** The routes below /runs/ID. */
  async #run(request: IncomingMessage, response: ServerResponse, url: URL): Promise<void> {
    const [, , id = "", what, ...more] = url.pathname.split("/");
    const view = isRunId(id) ? this.#view(id) : undefined;
    if (!view || more.length > 0) throw new HttpError(404, "there is no such run");
    if (what === "cancel" || what === "rerun") {
      if (request.method !== "POST") throw new HttpError(405, "use POST", { allow: "POST" });
      return what === "cancel"
        ? await this.#cancel(response, view)
        : await this.#rerun(response, view);
    }
    onlyGet(request);
    if (what === undefined) return sendJson(response, 200, view);
    if (what !== "log") throw new HttpError(404, "there is no such page");
    const path = this.#parts.records.path(id, "log");
    const { mask } = this.#parts.settings;
    if (url.searchParams.get("follow") !== "1")
      return await sendLog(response, path, { mask, growing: !hasEnded(view.state) });
    const endState = () => {
      const state = this.#view(id)?.state;
      if (state === undefined) return "gone";
      return hasEnded(state) ? state : undefined;
    };
    await followLog(response, path, { mask, endState });
  }

  /** Runs, the newest first: those that wait, those with a folder, and the superseded ones that are remembered. */
  #list(query: URLSearchParams): RunView[] {
    const repo = query.get("repo");
    const state = query.get("state");
    const views = new Map<string, RunView>();
    for (const view of this.#views()) if (!views.has(view.id)) views.set(view.id, view);
    return [...views.values()]
      .filter(
        (view) => (repo === null || view.repo === repo) && (state === null || view.state === state),
      )
      .sort((a, b) => b.accepted.localeCompare(a.accepted) || b.id.localeCompare(a.id))
      .slice(0, limitOf(query));
  }

  #view(id: string): RunView | undefined {
    for (const view of this.#views()) if (view.id === id) return view;
    return undefined;
  }

  /** All that is known of every run, the best view of each first. */
  *#views(): Iterable<RunView> {
    for (const record of this.#parts.records.all()) yield viewOf(record);
    for (const entry of this.#parts.scheduler.queue.entries()) yield recordOf(entry);
    for (const { entry, state, by } of this.#parts.store.known())
      yield { ...recordOf(entry), state: state as RunState, by };
  }

  async #cancel(response: ServerResponse, view: RunView): Promise<void> {
    if (!(await this.#parts.scheduler.cancel(view.id)))
      throw new HttpError(409, `the run has ended already: ${view.state}`);
    sendJson(response, 202, { run: view.id });
  }

  /** Run an ended run once more, as a new run. */
  async #rerun(response: ServerResponse, view: RunView): Promise<void> {
    if (!hasEnded(view.state)) throw new HttpError(409, `the run has not ended yet: ${view.state}`);
    const record = this.#parts.records.get(view.id);
    const payload = await this.#parts.records.payload(view.id);
    if (!record || !payload) throw new HttpError(410, whyNoRerun(view));
    const { repo, forge, event, kind, ref, sha, release, onlyIfCheckedOut } = record;
    const change = { kind, ref, sha, release, onlyIfCheckedOut };
    const [entry] = await this.#parts.accept({ repo, forge, event }, [change], payload);
    sendJson(response, 202, { run: entry?.id, of: view.id });
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

/** A superseded run was never started, so nothing is kept of it: the run that took its place is the one to repeat. */
function whyNoRerun({ state, by }: RunView): string {
  return state === "superseded" && by !== undefined
    ? `the run was never started: ${by} took its place; rerun that one`
    : "what the run was made of is not kept any more; push again";
}

function viewOf(record: RunRecord): RunView {
  const { cookie: _cookie, cgroup: _cgroup, pid: _pid, pidStart: _start, ...view } = record;
  return view;
}
