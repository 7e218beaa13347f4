import { createHash } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { isRunId } from "../core/id.ts";
import { HttpError, readBody } from "../http/server.ts";
import type { Run } from "../run-store/run-store.ts";
import { Access, checkOrigin, SignInFirst, type Visit } from "./access.ts";
import { fleetPage, servedBy } from "./fleet-page.ts";
import { html, type Html } from "./html.ts";
import { frame, notice, returnPath, signInForm } from "./layout.ts";
import { Logs } from "./log.ts";
import { type Overview, overviewPage, planOverview } from "./overview.ts";
import { badge } from "./plots.ts";
import { releasesPage } from "./releases-page.ts";
import { around, changingPart, question, runPage, runTitle } from "./run-page.ts";
import { readQuery, repoPage, runsPage } from "./runs-page.ts";
import { rawHeaders, redirect, send, sendFile, setSafeHeaders } from "./send.ts";
import type { Credential, PageSource, StatusSettings } from "./source.ts";

export { type Overview, planOverview, type RepoSummary, type Waiting } from "./overview.ts";
export type { Credential, PageSource, Right, StatusSettings } from "./source.ts";
export { shortAge, shortDuration } from "./times.ts";

/** The page: runs, logs and the fleet in a browser. GET reads, and changes nothing; POST asks where it comes from. */
export class Page {
  readonly #source: PageSource;
  readonly #access: Access;
  readonly #logs: Logs;
  /** What was made of all runs at a revision: for those who see all, and for strangers. */
  readonly #made = new Map<boolean, { from: string; overview: Overview; revision: string }>();

  private constructor(source: PageSource, access: Access) {
    this.#source = source;
    this.#access = access;
    this.#logs = new Logs(source);
  }

  /** @param state the server's state folder, where the sessions are. */
  static async open(state: string, source: PageSource): Promise<Page> {
    return new Page(source, await Access.open(state, source));
  }

  /** The settings have changed: those who may no longer see something are let go. */
  reload(): void {
    this.#access.check();
  }

  /**
   * Whose token a program sends (`Authorization: Bearer …`); its answer ends when the token is taken away.
   * @throws {HttpError} 401, or 503 when too many read something now.
   */
  bearer(
    request: IncomingMessage,
    response: ServerResponse,
    settings: StatusSettings,
  ): Pick<Credential, "name" | "right"> {
    const { name, right } = this.#access.viewerOf(request, settings);
    if (name === undefined || right === undefined) throw new SignInFirst();
    this.#access.watch({ request, response }, ({ viewer }) => viewer.name === name && viewer.right === right);
    return { name, right };
  }

  /** Answer a request; what a program gets for errors is JSON, a person a page. */
  async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    setSafeHeaders(response);
    const settings = this.#source.settings();
    const target = request.url ?? "/";
    if (!settings || !target.startsWith("/") || !URL.canParse(target, "http://localhost"))
      throw new HttpError(404, "there is no such page");
    const url = new URL(`http://localhost${target}`);
    const visit = { request, response, url, viewer: this.#access.viewerOf(request, settings), settings };
    try {
      await this.answer(visit);
    } catch (error) {
      if (!(error instanceof HttpError) || response.headersSent || !/\btext\/html\b/.test(request.headers.accept ?? ""))
        throw error;
      const { status, message, headers } = error;
      if (error instanceof SignInFirst) {
        const form = signInForm(returnPath(request.method === "GET" ? target : "/"));
        return await this.show(visit, "Sign in", form, { status, headers });
      }
      const title = status === 404 ? message.slice(0, 1).toUpperCase() + message.slice(1) : "That did not work";
      const why = status === 404 ? "It may have been removed, or its address is another." : message;
      const body = notice(title, why, html`<a href="/">All repos</a>`);
      await this.show(visit, `${status}`, body, { status, headers });
    }
  }

  private async answer(visit: Visit): Promise<void> {
    const { request, url, settings } = visit;
    const { pathname: path, searchParams: query } = url;
    const [, first = "", ...rest] = path.split("/");
    if (first === "page") return await sendFile(visit, rest.join("/"));
    if (path === "/sign-in") return await this.signIn(visit);
    if (request.method === "POST") return await this.act(visit);
    if (path === "/sign-out") throw new HttpError(405, "use POST", { allow: "POST" });
    if (request.method !== "GET" && request.method !== "HEAD") throw new HttpError(405, "use GET", { allow: "GET" });
    if (first === "repos" && rest.at(-1) === "badge.svg") return await this.badge(visit, decoded(rest.slice(0, -1)));
    if (path === "/") return await this.overview(visit);
    if (path === "/live") return this.live(visit);
    if (first === "repos") return await this.repo(visit, decoded(rest));
    if (path === "/runs") {
      if (!this.#access.canSee(visit)) throw new SignInFirst();
      const runs = this.#source.runs().filter(({ repo }) => this.#access.canSee(visit, repo));
      return await this.show(visit, "Runs", runsPage(runs, readQuery(query), Date.now()), { kind: "repo" });
    }
    if (first === "runs") return await this.run(visit, rest);
    this.#access.needRight(visit);
    if (path === "/fleet" && settings.fleet !== undefined)
      return await this.show(visit, "Fleet", await fleetPage(settings.fleet, this.#source.runs(), Date.now()));
    if (path === "/releases" && settings.releases.length > 0)
      return await this.show(visit, "Releases", await releasesPage(settings.releases, Date.now()));
    throw new HttpError(404, "there is no such page");
  }

  /** Send a page in its frame; `kind` says to the script what it does there, `state` is the icon's. */
  private async show(
    visit: Visit,
    title: string,
    body: Html,
    { kind = "", state = "", ...more }: { kind?: string; state?: string; status?: number; headers?: object } = {},
  ): Promise<void> {
    const { viewer, url, settings } = visit;
    const links: [path: string, text: string][] = [
      ["/", "Repos"],
      ["/runs", "Runs"],
    ];
    if (settings.fleet !== undefined && viewer.right) links.push(["/fleet", "Fleet"]);
    if (settings.releases.length > 0 && viewer.right) links.push(["/releases", "Releases"]);
    const { text } = frame({ title, viewer, path: url.pathname, body, kind, state, links });
    await send(visit, { ...more, text, type: "text/html" });
  }

  private async signIn(visit: Visit): Promise<void> {
    const { request, response, url, settings } = visit;
    if (request.method === "GET" || request.method === "HEAD")
      return await this.show(visit, "Sign in", signInForm(returnPath(url.searchParams.get("to"))));
    if (request.method !== "POST") throw new HttpError(405, "use POST", { allow: "GET, POST" });
    checkOrigin(request, settings.origin);
    const form = new URLSearchParams((await readBody(request, 8192)).toString("utf8"));
    const to = returnPath(form.get("to"));
    const cookie = await this.#access.signIn(request, form.get("secret") ?? "", settings);
    if (cookie !== undefined) return redirect(response, to, { "set-cookie": cookie });
    const problem = "That is not a password or token of this server.";
    await this.show(visit, "Sign in", signInForm(to, problem), { status: 403 });
  }

  /** Sign-out, rerun and cancel, by POST. */
  private async act(visit: Visit): Promise<void> {
    const { request, response, url, viewer, settings } = visit;
    checkOrigin(request, settings.origin);
    const form = new URLSearchParams((await readBody(request, 8192)).toString("utf8"));
    if (url.pathname === "/sign-out")
      return redirect(response, "/sign-in", { "set-cookie": await this.#access.signOut(visit) });
    const [, first, id = "", what, ...more] = url.pathname.split("/");
    this.#access.needRight(visit);
    const run = first === "runs" && isRunId(id) ? this.#source.run(id) : undefined;
    if (!run || (what !== "rerun" && what !== "cancel") || more.length > 0)
      throw new HttpError(404, "there is no such page");
    this.#access.needSteer(visit);
    const by = viewer.name ?? "";
    if (what === "cancel") await this.#source.cancel(run, by);
    redirect(
      response,
      `/runs/${what === "cancel" ? run.id : await this.#source.rerun(run, by, form.get("from") || undefined)}`,
    );
  }

  /** What somebody may see of all runs: made once for each change. */
  private madeFor(visit: Visit): { overview: Overview; revision: string } {
    const repos = [...this.#source.repos()].filter(({ name }) => this.#access.canSee(visit, name));
    const isStranger = visit.viewer.right === undefined;
    const from = JSON.stringify([this.#source.revision(), repos.map(({ name }) => name)]);
    const known = this.#made.get(isStranger);
    if (known?.from === from) return known;
    const overview = planOverview(
      repos.map(({ name }) => name),
      this.#source.runs(),
    );
    // when something happens in other repos is not for strangers to know
    const runs = overview.repos.flatMap((repo) => repo.runs.map(({ id, state, reason }) => `${id} ${state} ${reason}`));
    const revision = createHash("sha256").update(runs.sort().join("\n")).digest("base64url");
    const made = { from, overview, revision };
    this.#made.set(isStranger, made);
    return made;
  }

  private async overview(visit: Visit): Promise<void> {
    const { viewer, url } = visit;
    const { overview } = this.madeFor(visit);
    if (overview.repos.length === 0 && viewer.right === undefined) throw new SignInFirst();
    const problems = viewer.right === undefined ? [] : await this.#source.problems();
    const filter = (url.searchParams.get("q") ?? "").trim().slice(0, 200);
    const show = url.searchParams.get("show") ?? "";
    const state = overview.repos.some(({ last }) => last?.state === "failed") ? "failed" : "";
    const body = overviewPage(overview, { filter, show, problems, now: Date.now() });
    await this.show(visit, "Repos", body, { kind: "overview", state });
  }

  /** Says that something has changed, at most once a second. */
  private live(visit: Visit): void {
    const { response } = visit;
    if (!this.#access.canSee(visit)) throw new SignInFirst();
    this.#access.watch(visit, (eyes) => this.#access.canSee(eyes));
    response.writeHead(200, { "content-type": "text/event-stream; charset=utf-8", "x-accel-buffering": "no" });
    if (visit.request.method === "HEAD") return void response.end();
    let told = this.madeFor(visit).revision;
    response.write(`retry: 2000\nevent: hello\ndata: ${told}\n\n`);
    let quiet = 0;
    const timer = setInterval(() => {
      const now = this.madeFor(visit).revision;
      if (now !== told) response.write(`event: change\ndata: ${(told = now)}\n\n`);
      else if (++quiet % 15 === 0) response.write(": \n\n");
    }, 1000);
    response.once("close", () => clearInterval(timer));
  }

  private async badge(visit: Visit, name: string): Promise<void> {
    // a stranger must not learn from a badge that there is such a repo
    if (!this.knows(name) || !this.#access.canSee(visit, name)) throw new HttpError(404, "there is no such badge");
    const text = badge(this.#source.runs().filter(({ repo }) => repo === name));
    const headers = { ...rawHeaders, "cache-control": "no-cache" };
    await send(visit, { text, type: "image/svg+xml", headers });
  }

  private async repo(visit: Visit, name: string): Promise<void> {
    const runs = this.#source.runs().filter(({ repo }) => repo === name);
    const isKnown = this.knows(name) || runs.length > 0;
    if (!isKnown || !this.#access.canSee(visit, name)) {
      this.#access.needRight(visit);
      throw new HttpError(404, "there is no such repo");
    }
    const ignored = visit.viewer.right === undefined ? [] : this.#source.ignored(name, 20);
    const body = repoPage(name, runs, readQuery(visit.url.searchParams), { ignored, now: Date.now() });
    await this.show(visit, name, body, { kind: "repo" });
  }

  private knows(name: string): boolean {
    return [...this.#source.repos()].some((repo) => repo.name === name);
  }

  /** What is below /runs/ID: the run, its log, and what may be done with it. */
  private async run(visit: Visit, [id = "", what, ...more]: readonly string[]): Promise<void> {
    const { response } = visit;
    const { searchParams: query } = visit.url;
    const run = isRunId(id) ? this.#source.run(id) : undefined;
    if (!run || !this.#access.canSee(visit, run.repo)) {
      this.#access.needRight(visit);
      throw new HttpError(404, "there is no such run");
    }
    if (more.length > 0) throw new HttpError(404, "there is no such page");
    if (what === undefined) return await this.showRun(visit, run);
    if (what === "rerun" || what === "cancel") {
      this.#access.needSteer(visit);
      return await this.show(visit, what === "rerun" ? "Run again" : "Cancel", question(run, what, query.get("from")));
    }
    // a search may take its time, too
    this.#access.watch(visit, (eyes) => this.#access.canSee(eyes, run.repo));
    if (what === "log") return await this.log(visit, run);
    const gone = new AbortController();
    response.once("close", () => gone.abort());
    const answer = await this.#logs.answer(run, what, { query, signal: gone.signal });
    if (answer === undefined) throw new HttpError(404, "there is no such page");
    await send(visit, {
      text: `${JSON.stringify(answer)}\n`,
      type: "application/json",
      headers: { "cache-control": "private, no-cache" },
    });
  }

  private async showRun(visit: Visit, known: Run): Promise<void> {
    const { viewer, url, settings } = visit;
    const run = (await this.#source.whole(known.id)) ?? known;
    const log = await this.#logs.part(run, url.searchParams.get("from"));
    const served = settings.fleet && viewer.right && (await servedBy(settings.fleet, run));
    const details = { ...around(run, this.#source.runs()), served, now: Date.now() };
    const body = runPage({ run, ...details, log, canSteer: viewer.right === "steer" });
    await this.show(visit, runTitle(run), body, { kind: "run", state: run.state });
  }

  /** The log as text, or as it grows. */
  private async log({ request, response, url }: Visit, run: Run): Promise<void> {
    if (url.searchParams.get("follow") !== "1" || request.method !== "GET") {
      response.setHeaders(new Headers(rawHeaders));
      const name = `${run.repo.replaceAll(/[^\w.-]+/g, "-")}-${run.id}.log`;
      if (url.searchParams.has("download")) response.setHeader("content-disposition", `attachment; filename="${name}"`);
      return await this.#source.sendLog(response, run);
    }
    await this.#source.followLog(request, response, run, async () => {
      const now = await this.#source.whole(run.id);
      // the clocks run in the browser: all who follow are not sent the same with other times each second
      const time = Math.floor(Date.now() / 10_000) * 10_000;
      return now && changingPart({ run: now, ...around(now, this.#source.runs()), now: time }).text;
    });
  }
}

/** A name from a path; one that is not encoded right is nobody's. */
function decoded(parts: readonly string[]): string {
  try {
    return decodeURIComponent(parts.join("/"));
  } catch {
    return "";
  }
}
