import { createHash, timingSafeEqual } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { HttpError, sendJson } from "../http/server.ts";
import type { Deliveries } from "./deliveries.ts";
import type { Metrics } from "./metrics.ts";
import { Steering } from "./steering.ts";
import type { Yard } from "./yard.ts";

/** Where a forge's deliveries are taken; the second is where node-github-hook listens. */
const hookPaths = new Set(["/hook", "/github/callback"]);

/** Which request goes where. */
export class Routes {
  readonly #yard: Yard;
  readonly #metrics: Metrics;
  readonly #deliveries: Deliveries;
  readonly #steering: Steering;

  constructor(yard: Yard, metrics: Metrics, deliveries: Deliveries) {
    this.#yard = yard;
    this.#metrics = metrics;
    this.#deliveries = deliveries;
    this.#steering = new Steering(yard);
  }

  /** What the world sees: the front door, /healthz, and the rest behind the token. */
  async web(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = request.url ?? "";
    const query = url.indexOf("?");
    const path = query < 0 ? url : url.slice(0, query);
    if (hookPaths.has(path)) {
      try {
        if (request.method !== "POST") throw new HttpError(405, "use POST", { allow: "POST" });
        this.#metrics.delivery(await this.#deliveries.handle(request, response));
      } catch (error) {
        this.#metrics.delivery(error instanceof HttpError ? error.status : 500);
        throw error;
      }
      return;
    }
    if (path === "/healthz") return this.#health(request, response);
    const { token } = this.#yard.config;
    if (token === undefined) throw new HttpError(404, "there is no such page");
    if (!isBearer(request.headers.authorization, token)) {
      throw new HttpError(401, "a token is needed", { "www-authenticate": "Bearer" });
    }
    await this.#inside(request, response);
  }

  /** What the Unix socket serves: whoever can open it may steer. */
  async local(request: IncomingMessage, response: ServerResponse): Promise<void> {
    if (request.url === "/healthz") return this.#health(request, response);
    await this.#inside(request, response);
  }

  #health(request: IncomingMessage, response: ServerResponse): void {
    if (request.method !== "GET" && request.method !== "HEAD")
      throw new HttpError(405, "use GET", { allow: "GET" });
    const draining = this.#yard.draining;
    sendJson(response, draining ? 503 : 200, { status: draining ? "draining" : "ok" });
  }

  async #inside(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = parseUrl(request.url);
    if (url?.pathname === "/metrics") {
      const { waiting, running } = this.#yard.queue;
      const text = this.#metrics.text({ waiting, running, draining: this.#yard.draining });
      response.writeHead(200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" });
      response.end(text);
      return;
    }
    if (url && (url.pathname === "/runs" || url.pathname.startsWith("/runs/"))) {
      return await this.#steering.handle(request, response, url);
    }
    throw new HttpError(404, "there is no such page");
  }
}

function parseUrl(text: string | undefined): URL | undefined {
  try {
    return new URL(text ?? "/", "http://localhost");
  } catch {
    return undefined;
  }
}

function isBearer(header: string | undefined, token: string): boolean {
  const given = /^Bearer +(\S+)$/i.exec(header ?? "")?.[1];
  if (given === undefined) return false;
  const digest = (text: string) => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(given), digest(token));
}
