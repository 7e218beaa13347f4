import { createHash } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { HttpError } from "../http/server.ts";
import { fleetPage } from "./fleet-page.ts";
import { Gate, SignInFirst, type Visit } from "./gate.ts";
import { html, type Html } from "./html.ts";
import { notice, page } from "./layout.ts";
import { overviewPage, planOverview } from "./overview.ts";
import { releasesPage } from "./releases-page.ts";
import { repoPage } from "./repo-page.ts";
import { badge } from "./plots.ts";
import { RunRequests } from "./run-requests.ts";
import { redirect, sendFile, sendImage, sendPage, setSafeHeaders } from "./send.ts";
import { Sessions, Tries } from "./sessions.ts";
import type { Credential, PageSource, StatusSettings } from "./source.ts";
import { bouncePage, returnPath, signIn, signInForm } from "./sign-in.ts";
import { cameByLink, checkOrigin, setCookie } from "./viewer.ts";

export { type Overview, planOverview, type RepoSummary, type Waiting } from "./overview.ts";
export type { Credential, PageSource, Right, Run, Stage, StatusSettings } from "./source.ts";
export { hasEnded, hasResult } from "./source.ts";
export { shortAge, shortDuration } from "./times.ts";

/** The page: runs, logs and the fleet in a browser. GET reads, and changes nothing; POST asks where it comes from. */
export class Page {
  readonly #source: PageSource;
  readonly #sessions: Sessions;
  readonly #tries = new Tries();
  readonly #gate: Gate;
  readonly #runs: RunRequests;
  /** What strangers are told at a revision of all. */
  #publicRevision = { all: "", own: "" };

  private constructor(source: PageSource, sessions: Sessions) {
    this.#source = source;
    this.#sessions = sessions;
    this.#gate = new Gate({ source, sessions, tries: this.#tries });
    this.#runs = new RunRequests({
      source,
      gate: this.#gate,
      send: (...answer) => this.send(...answer),
    });
  }

  /** @param state the server's state folder, where the sessions are. */
  static async open(state: string, source: PageSource): Promise<Page> {
    return new Page(source, await Sessions.open(state));
  }

  /** The settings have changed: those who may no longer see something are let go. */
  reload(): void {
    this.#gate.check();
  }

  /**
   * Whose secret a program sends (`Authorization: Bearer …`).
   * @throws {HttpError} 401, or 429 after too many wrong tries.
   */
  bearer(request: IncomingMessage, settings: StatusSettings): Credential {
    return this.#gate.bearer(request, settings);
  }

  /** Answer a request; what a program gets for errors is JSON, a person a page. */
  async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    setSafeHeaders(response);
    const settings = this.#source.settings();
    const target = request.url ?? "/";
    if (!settings || !target.startsWith("/") || !URL.canParse(target, "http://localhost"))
      throw new HttpError(404, "there is no such page");
    const url = new URL(`http://localhost${target}`);
    const viewer = this.#gate.viewerOf(request, settings);
    const visit = { request, response, url, viewer, settings };
    try {
      await this.answer(visit);
    } catch (error) {
      if (!(error instanceof HttpError) || response.headersSent || !wantsPage(request)) throw error;
      const { status, message, headers } = error;
      if (error instanceof SignInFirst) {
        const form = signInForm(returnPath(request.method === "GET" ? target : "/"));
        return sendPage(response, status, this.frame(visit, "Sign in", form), headers);
      }
      const title = status === 404 ? sentence(message) : "That did not work";
      const why = status === 404 ? "It may have been removed, or its address is another." : message;
      const body = notice(title, why, html`<a href="/">All repos</a>`);
      sendPage(response, status, this.frame(visit, `${status}`, body), headers);
    }
  }

  private async answer(visit: Visit): Promise<void> {
    const { request, response, url, settings } = visit;
    const path = url.pathname;
    if (path.startsWith("/page/")) return sendFile(response, path.slice("/page/".length));
    if (path === "/sign-in") return await this.signIn(visit);
    if (path === "/sign-out") return await this.signOut(visit);
    if (request.method === "POST") return await this.#runs.steer(visit);
    if (request.method !== "GET" && request.method !== "HEAD") throw new HttpError(405, "use GET", { allow: "GET" });
    const [, first = "", ...rest] = path.split("/");
    if (path.endsWith("/badge.svg") && first === "repos") return this.badge(visit, rest.slice(0, -1));
    if (cameByLink(request, settings)) return sendPage(response, 200, bouncePage(returnPath(request.url)));
    if (path === "/") return await this.overview(visit);
    if (path === "/live") return this.live(visit);
    if (first === "repos") return this.repo(visit, rest);
    if (first === "runs") return await this.#runs.answer(visit, rest);
    this.#gate.needRight(visit);
    if (path === "/fleet" && settings.fleet !== undefined)
      return this.send(visit, "Fleet", await fleetPage(settings.fleet, Date.now()));
    if (path === "/releases" && settings.releases.length > 0)
      return this.send(visit, "Releases", await releasesPage(settings.releases, Date.now()));
    throw new HttpError(404, "there is no such page");
  }

  private frame({ viewer, url, settings }: Visit, title: string, body: Html, kind = ""): Html {
    const links: [path: string, text: string][] = [["/", "Repos"]];
    if (settings.fleet !== undefined && viewer.right) links.push(["/fleet", "Fleet"]);
    if (settings.releases.length > 0 && viewer.right) links.push(["/releases", "Releases"]);
    return page({ title, viewer, path: url.pathname, body, kind, links });
  }

  /** Send a page in its frame; `kind` says to the script what it does there. */
  private send(visit: Visit, title: string, body: Html, kind = ""): void {
    sendPage(visit.response, 200, this.frame(visit, title, body, kind));
  }

  private async signIn(visit: Visit): Promise<void> {
    const { request, response, url, settings } = visit;
    if (request.method === "GET" || request.method === "HEAD") {
      const to = returnPath(url.searchParams.get("to"));
      return this.send(visit, "Sign in", signInForm(to));
    }
    if (request.method !== "POST") throw new HttpError(405, "use POST", { allow: "GET, POST" });
    const wrong = await signIn(request, response, {
      settings,
      sessions: this.#sessions,
      tries: this.#tries,
    });
    if (!wrong) return;
    const body = signInForm(wrong.to, wrong.problem);
    sendPage(response, 403, this.frame(visit, "Sign in", body));
  }

  private async signOut({ request, response, viewer, settings }: Visit): Promise<void> {
    if (request.method !== "POST") throw new HttpError(405, "use POST", { allow: "POST" });
    checkOrigin(request, settings.origin);
    if (viewer.session !== undefined) await this.#sessions.end(viewer.session);
    this.#gate.check();
    redirect(response, "/sign-in", { "set-cookie": setCookie(request, settings, undefined) });
  }

  private async overview(visit: Visit): Promise<void> {
    const { viewer, url } = visit;
    const names = [...this.#source.repos()].map(({ name }) => name).filter((name) => this.#gate.canSee(visit, name));
    if (names.length === 0 && viewer.right === undefined) throw new SignInFirst();
    const overview = planOverview(names, this.#source.runs());
    const problems = viewer.right === undefined ? [] : await this.#source.problems();
    const filter = (url.searchParams.get("q") ?? "").trim().slice(0, 200);
    const body = overviewPage(overview, { filter, problems, now: Date.now() });
    this.send(visit, "Repos", body, "overview");
  }

  /** Says that something has changed, at most once a second. */
  private live(visit: Visit): void {
    const { response } = visit;
    if (!this.#gate.canSee(visit)) throw new SignInFirst();
    this.#gate.watch(visit, (eyes) => this.#gate.canSee(eyes));
    response.writeHead(200, {
      "content-type": "text/event-stream; charset=utf-8",
      "x-accel-buffering": "no",
    });
    if (visit.request.method === "HEAD") return void response.end();
    let told = this.revisionFor(visit);
    response.write(`retry: 2000\nevent: hello\ndata: ${told}\n\n`);
    let quiet = 0;
    const timer = setInterval(() => {
      const now = this.revisionFor(visit);
      if (now !== told) response.write(`event: change\ndata: ${(told = now)}\n\n`);
      else if (++quiet % 15 === 0) response.write(": \n\n");
    }, 1000);
    response.once("close", () => clearInterval(timer));
  }

  /** Changes with whatever somebody can see: when something happens in other repos is not for strangers to know. */
  private revisionFor({ viewer, settings }: Visit): string {
    const all = this.#source.revision();
    if (viewer.right !== undefined || settings.public) return all;
    if (this.#publicRevision.all !== all) {
      const repos = [...this.#source.repos()].filter((repo) => repo.public);
      const names = new Set(repos.map(({ name }) => name));
      const runs = this.#source.runs().filter(({ repo }) => names.has(repo));
      const text = runs.map(({ id, state }) => `${id} ${state}`).join("\n");
      this.#publicRevision = { all, own: createHash("sha256").update(text).digest("hex") };
    }
    return this.#publicRevision.own;
  }

  private badge(visit: Visit, parts: readonly string[]): void {
    const name = decoded(parts.join("/"));
    // a stranger must not learn from a badge that there is such a repo
    if (!this.knows(name) || !this.#gate.canSee(visit, name)) throw new HttpError(404, "there is no such badge");
    sendImage(visit.response, badge(this.#source.runs().filter(({ repo }) => repo === name)), {
      "cache-control": "no-cache",
      "cross-origin-resource-policy": "cross-origin",
    });
  }

  private knows(name: string): boolean {
    return [...this.#source.repos()].some((repo) => repo.name === name);
  }

  private repo(visit: Visit, parts: readonly string[]): void {
    const name = decoded(parts.join("/"));
    if (!this.#gate.canSee(visit, name)) throw new SignInFirst();
    const runs = this.#source.runs().filter(({ repo }) => repo === name);
    if (!this.knows(name) && runs.length === 0) throw new HttpError(404, "there is no such repo");
    const given = (key: string) => (visit.url.searchParams.get(key) ?? "").slice(0, 300);
    const query = { branch: given("branch"), result: given("result"), before: given("before") };
    const ignored = visit.viewer.right === undefined ? [] : this.#source.ignored(name, 20);
    this.send(visit, name, repoPage(name, runs, query, { ignored, now: Date.now() }), "repo");
  }
}

/** A browser asks for a page; a program does not say so, or wants JSON. */
function wantsPage({ headers }: IncomingMessage): boolean {
  return headers.accept?.includes("text/html") === true;
}

function sentence(text: string): string {
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}

/** A name from a path; one that is not encoded right is nobody's. */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}
