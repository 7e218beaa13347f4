import type { IncomingMessage, ServerResponse } from "node:http";
import { isRunId } from "../core/id.ts";
import { clientAddress, HttpError, networkOf, sendJson } from "../http/server.ts";
import { assets } from "./assets.ts";
import { badge } from "./badge.ts";
import { fleetPage } from "./fleet-page.ts";
import { html, type Html } from "./html.ts";
import { icon, notice, page, safeHeaders, sendPage } from "./layout.ts";
import { LogRequests } from "./log-requests.ts";
import { planOverview } from "./overview.ts";
import { overviewPage, repoPath } from "./overview-page.ts";
import { releasesPage } from "./releases-page.ts";
import { repoPage } from "./repo-page.ts";
import { question, runPage, stagesPart } from "./run-page.ts";
import { credentialFor, Sessions } from "./sessions.ts";
import { bouncePage, returnPath, signIn, signInForm } from "./sign-in.ts";
import type { PageSource, Right, Run, StatusSettings } from "./source.ts";
import { Streams } from "./streams.ts";
import { Tries } from "./tries.ts";
import { cameByLink, checkOrigin, setCookie, type Viewer, viewerOf } from "./viewer.ts";

export { type Overview, planOverview } from "./overview.ts";
export type { Credential, PageSource, Right, Run, Stage, StatusSettings } from "./source.ts";
export { shortRef } from "./source.ts";
export { shortAge, shortDuration } from "./times.ts";

/** A request to the page: where it goes, and whose it is. */
interface Visit {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly url: URL;
  readonly viewer: Viewer;
  readonly settings: StatusSettings;
}

/** The page: runs, logs and the fleet in a browser. Reading is by GET and changes nothing; POST asks where it comes from. */
export class Page {
  readonly #source: PageSource;
  readonly #sessions: Sessions;
  readonly #tries = new Tries();
  readonly #streams = new Streams();
  readonly #logs: LogRequests;

  private constructor(source: PageSource, sessions: Sessions) {
    this.#source = source;
    this.#sessions = sessions;
    this.#logs = new LogRequests(source);
  }

  /** @param state the server's state folder, where the sessions are. */
  static async open(state: string, source: PageSource): Promise<Page> {
    return new Page(source, await Sessions.open(state));
  }

  /** The settings have changed: those who may no longer see something are let go. */
  reload(): void {
    this.#streams.check();
  }

  /**
   * Whose secret a program sends (`Authorization: Bearer …`).
   * @throws {HttpError} 401, or 429 after too many wrong tries.
   */
  bearer(request: IncomingMessage, settings: StatusSettings): { name: string; right: Right } {
    const network = networkOf(clientAddress(request));
    const seconds = this.#tries.wait(network);
    if (seconds > 0)
      throw new HttpError(429, "too many wrong tries; wait some minutes", {
        "retry-after": String(seconds),
      });
    const given = /^Bearer +(\S+)$/i.exec(request.headers.authorization ?? "")?.[1];
    const credential = given && credentialFor(given, settings.credentials);
    if (credential) {
      this.#tries.succeeded(network);
      return { name: credential.name, right: credential.right };
    }
    if (given !== undefined) this.#tries.failed(network);
    throw new HttpError(401, "a token is needed", { "www-authenticate": "Bearer" });
  }

  /** Answer a request; what a program gets for errors is JSON, a person a page. */
  async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const settings = this.#source.settings();
    const target = request.url ?? "/";
    if (!settings || !target.startsWith("/") || !URL.canParse(target, "http://localhost"))
      throw new HttpError(404, "there is no such page");
    const url = new URL(`http://localhost${target}`);
    const viewer = viewerOf(request, settings, this.#sessions);
    const visit = { request, response, url, viewer, settings };
    try {
      await this.#answer(visit);
    } catch (error) {
      if (!(error instanceof HttpError) || response.headersSent || !wantsPage(request)) throw error;
      const { status, message, headers } = error;
      if (error instanceof SignInFirst) {
        const form = signInForm(returnPath(request.method === "GET" ? target : "/"));
        return sendPage(response, status, this.#frame(visit, "Sign in", form), headers);
      }
      const body = notice(
        status === 404 ? "There is no such page" : "That did not work",
        message,
        html`<a href="/">All repos</a>`,
      );
      sendPage(response, status, this.#frame(visit, `${status}`, body), headers);
    }
  }

  async #answer(visit: Visit): Promise<void> {
    const { request, response, url } = visit;
    const path = url.pathname;
    if (path.startsWith("/page/")) return sendAsset(response, path.slice("/page/".length));
    if (path === "/sign-in") return await this.#signIn(visit);
    if (path === "/sign-out") return await this.#signOut(visit);
    if (request.method === "POST") return await this.#steer(visit);
    if (request.method !== "GET" && request.method !== "HEAD")
      throw new HttpError(405, "use GET", { allow: "GET" });
    const [, first = "", ...rest] = path.split("/");
    if (path.endsWith("/badge.svg") && first === "repos")
      return this.#badge(visit, rest.slice(0, -1));
    if (cameByLink(request)) return this.#bounce(visit);
    if (path === "/") return await this.#overview(visit);
    if (path === "/live") return this.#live(visit);
    if (first === "repos") return this.#repo(visit, rest);
    if (first === "runs") return await this.#run(visit, rest);
    if (path === "/fleet" && visit.settings.fleet !== undefined) {
      this.#needRight(visit);
      return this.#send(visit, "Fleet", await fleetPage(visit.settings.fleet, Date.now()));
    }
    if (path === "/releases" && visit.settings.releases.length > 0) {
      this.#needRight(visit);
      return this.#send(visit, "Releases", await releasesPage(visit.settings.releases, Date.now()));
    }
    this.#needRight(visit);
    throw new HttpError(404, "there is no such page");
  }

  /** Whether somebody may see a repo's runs. */
  #canSee({ viewer, settings }: Pick<Visit, "viewer" | "settings">, repo: string): boolean {
    if (viewer.right !== undefined || settings.public) return true;
    return [...this.#source.repos()].some((each) => each.name === repo && each.public);
  }

  /** @throws {HttpError} 401 for strangers: whether there is such a page is not for them to know. */
  #needRight({ viewer }: Visit): void {
    if (viewer.right === undefined) throw new SignInFirst();
  }

  #frame({ viewer, url, settings }: Visit, title: string, body: Html, kind = ""): Html {
    const more = [
      ...(settings.fleet !== undefined && viewer.right ? (["fleet"] as const) : []),
      ...(settings.releases.length > 0 && viewer.right ? (["releases"] as const) : []),
    ];
    return page({ title, viewer, path: url.pathname, body, kind, more });
  }

  #send(visit: Visit, title: string, body: Html, kind = ""): void {
    sendPage(visit.response, 200, this.#frame(visit, title, body, kind));
  }

  #bounce({ request, response }: Visit): void {
    sendPage(response, 200, bouncePage(returnPath(request.url)));
  }

  async #signIn(visit: Visit): Promise<void> {
    const { request, response, url, settings } = visit;
    if (request.method === "GET" || request.method === "HEAD") {
      const to = returnPath(url.searchParams.get("to"));
      return this.#send(visit, "Sign in", signInForm(to));
    }
    if (request.method !== "POST") throw new HttpError(405, "use POST", { allow: "GET, POST" });
    const wrong = await signIn(request, response, {
      settings,
      sessions: this.#sessions,
      tries: this.#tries,
    });
    if (!wrong) return;
    const body = signInForm(wrong.to, wrong.problem);
    sendPage(response, 403, this.#frame(visit, "Sign in", body));
  }

  async #signOut({ request, response, viewer }: Visit): Promise<void> {
    if (request.method !== "POST") throw new HttpError(405, "use POST", { allow: "POST" });
    checkOrigin(request);
    if (viewer.session !== undefined) await this.#sessions.end(viewer.session);
    this.#streams.check();
    response.writeHead(303, {
      ...safeHeaders,
      location: "/sign-in",
      "set-cookie": setCookie(request, undefined),
    });
    response.end();
  }

  /** Rerun and cancel. */
  async #steer({ request, response, url, viewer }: Visit): Promise<void> {
    checkOrigin(request);
    const [, first, id = "", what, ...more] = url.pathname.split("/");
    if (viewer.name === undefined || viewer.right === undefined) throw new SignInFirst();
    const run = first === "runs" && isRunId(id) ? this.#source.run(id) : undefined;
    if (!run || (what !== "rerun" && what !== "cancel") || more.length > 0)
      throw new HttpError(404, "there is no such page");
    if (viewer.right !== "steer") throw new HttpError(403, "you may see this run, not steer it");
    request.resume();
    if (what === "cancel") await this.#source.cancel(run, viewer.name);
    const to = what === "cancel" ? run.id : await this.#source.rerun(run, viewer.name);
    response.writeHead(303, { ...safeHeaders, location: `/runs/${to}` });
    response.end();
  }

  async #overview(visit: Visit): Promise<void> {
    const { viewer, url } = visit;
    const names = [...this.#source.repos()]
      .map(({ name }) => name)
      .filter((name) => this.#canSee(visit, name));
    if (names.length === 0 && viewer.right === undefined) throw new SignInFirst();
    const overview = planOverview(names, this.#source.runs());
    const problems = viewer.right === undefined ? [] : await this.#source.problems();
    const filter = (url.searchParams.get("q") ?? "").slice(0, 200);
    const body = overviewPage(overview, { filter, problems, now: Date.now() });
    this.#send(visit, "Repos", body, "overview");
  }

  /** Says that something has changed, at most once a second. */
  #live(visit: Visit): void {
    const { request, response } = visit;
    if (!this.#canSeeAny(visit)) throw new SignInFirst();
    response.writeHead(200, { ...safeHeaders, ...streamHeaders });
    let told = this.#source.revision();
    response.write(`retry: 2000\nevent: hello\ndata: ${told}\n\n`);
    let quiet = 0;
    const timer = setInterval(() => {
      const now = this.#source.revision();
      if (now !== told) response.write(`event: change\ndata: ${(told = now)}\n\n`);
      else if (++quiet % 15 === 0) response.write(": \n\n");
    }, 1000);
    response.once("close", () => clearInterval(timer));
    this.#watch(request, response, (again) => this.#canSeeAny(again));
  }

  #canSeeAny(visit: Pick<Visit, "viewer" | "settings">): boolean {
    if (visit.viewer.right !== undefined || visit.settings.public) return true;
    return [...this.#source.repos()].some((each) => each.public);
  }

  /** End an answer that goes on once its viewer may not see it any more. */
  #watch(
    request: IncomingMessage,
    response: ServerResponse,
    may: (visit: Pick<Visit, "viewer" | "settings">) => boolean,
  ): void {
    this.#streams.add(response, () => {
      const settings = this.#source.settings();
      return (
        settings !== undefined &&
        may({ settings, viewer: viewerOf(request, settings, this.#sessions) })
      );
    });
  }

  #badge(visit: Visit, parts: readonly string[]): void {
    const name = decoded(parts.join("/"));
    const isKnown = [...this.#source.repos()].some((repo) => repo.name === name);
    // a stranger must not learn from a badge that there is such a repo
    if (!isKnown || !this.#canSee(visit, name)) throw new HttpError(404, "there is no such badge");
    sendImage(visit.response, badge(this.#source.runs().filter(({ repo }) => repo === name)), {
      "cache-control": "no-cache",
      "cross-origin-resource-policy": "cross-origin",
    });
  }

  #repo(visit: Visit, parts: readonly string[]): void {
    const name = decoded(parts.join("/"));
    if (!this.#canSee(visit, name)) throw new SignInFirst();
    const runs = this.#source.runs().filter(({ repo }) => repo === name);
    const isKnown = [...this.#source.repos()].some((repo) => repo.name === name);
    if (!isKnown && runs.length === 0) throw new HttpError(404, "there is no such repo");
    const given = (key: string) => (visit.url.searchParams.get(key) ?? "").slice(0, 300);
    const query = { branch: given("branch"), result: given("result"), before: given("before") };
    const ignored = visit.viewer.right === undefined ? [] : this.#source.ignored(name, 20);
    this.#send(visit, name, repoPage(name, runs, query, { ignored, now: Date.now() }), "repo");
  }

  async #run(visit: Visit, [id = "", what, ...more]: readonly string[]): Promise<void> {
    const { request, response, url } = visit;
    const run = isRunId(id) ? this.#source.run(id) : undefined;
    if (!run || !this.#canSee(visit, run.repo)) {
      this.#needRight(visit);
      throw new HttpError(404, "there is no such run");
    }
    if (more.length > 0) throw new HttpError(404, "there is no such page");
    if (what === undefined) return await this.#showRun(visit, run);
    if (what === "rerun" || what === "cancel") {
      this.#needRight(visit);
      if (visit.viewer.right !== "steer")
        throw new HttpError(403, "you may see this run, not steer it");
      return this.#send(visit, what, question(run, what));
    }
    if (what === "log" && url.searchParams.get("follow") === "1") {
      for (const [name, value] of Object.entries(safeHeaders)) response.setHeader(name, value);
      this.#watch(request, response, (again) => this.#canSee(again, run.repo));
      return await this.#source.followLog(request, response, run, async () => {
        const now = await this.#source.whole(id);
        const part = now && stagesPart(now, Date.now());
        return part ? part.text : undefined;
      });
    }
    if (what === "log") {
      for (const [name, value] of Object.entries(rawHeaders)) response.setHeader(name, value);
      return await this.#source.sendLog(response, run);
    }
    const answer = await this.#logs.answer(run, what, url.searchParams);
    if (answer === undefined) throw new HttpError(404, "there is no such page");
    sendJson(response, 200, answer, safeHeaders);
  }

  async #showRun(visit: Visit, known: Run): Promise<void> {
    const run = (await this.#source.whole(known.id)) ?? known;
    const superseded = this.#source
      .runs()
      .filter(({ by, state }) => state === "superseded" && by === run.id);
    const log = await this.#logs.part(run, visit.url.searchParams.get("from"));
    const canSteer = visit.viewer.right === "steer";
    const body = runPage({ run, superseded, log, canSteer, now: Date.now() });
    this.#send(visit, `${run.repo} ${run.id.slice(-6)}`, body, "run");
  }
}

/** Whoever wants to see this must sign in: the page of errors turns it into the form. */
class SignInFirst extends HttpError {
  override name = "SignInFirst";
  constructor() {
    super(401, "a token is needed", { "www-authenticate": "Bearer" });
  }
}

const streamHeaders = {
  "content-type": "text/event-stream; charset=utf-8",
  "x-accel-buffering": "no",
};

/** What a build printed must not act on this site, whatever a browser takes it for. */
const rawHeaders = {
  ...safeHeaders,
  "content-security-policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
};

function sendImage(response: ServerResponse, svg: string, more: Record<string, string>): void {
  response.writeHead(200, {
    ...rawHeaders,
    "content-type": "image/svg+xml; charset=utf-8",
    "content-length": String(Buffer.byteLength(svg)),
    ...more,
  });
  response.end(svg);
}

/** The script and the stylesheet: their names change with what is in them. */
function sendAsset(response: ServerResponse, name: string): void {
  const lasting = { "cache-control": "public, max-age=31536000, immutable" };
  if (name === "icon.svg")
    return sendImage(response, icon, { "cache-control": "public, max-age=86400" });
  const found = Object.values(assets).find((each) => each.name === name);
  if (!found) throw new HttpError(404, "there is no such page");
  response.writeHead(200, {
    ...safeHeaders,
    ...lasting,
    "content-type": `${found.type}; charset=utf-8`,
    "content-length": String(Buffer.byteLength(found.text)),
  });
  response.end(found.text);
}

/** A browser asks for a page; a program does not say so, or wants JSON. */
function wantsPage({ headers }: IncomingMessage): boolean {
  return headers.accept?.includes("text/html") === true;
}

/** A name from a path; one that is not encoded right is nobody's. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}

export { repoPath };
