import { isRunId } from "../core/id.ts";
import { HttpError, sendJson } from "../http/server.ts";
import type { Gate, Visit } from "./gate.ts";
import type { Html } from "./html.ts";
import { LogRequests } from "./log-requests.ts";
import { changingPart, question, runPage, runTitle } from "./run-page.ts";
import { rawHeaders, redirect } from "./send.ts";
import { isUnderWay, type PageSource, type Run } from "./source.ts";
import { checkOrigin } from "./viewer.ts";

interface RunRequestsParts {
  source: PageSource;
  gate: Gate;
  /** Sends a page in its frame. */
  send: (visit: Visit, title: string, body: Html, kind?: string) => void;
}

/** What is below /runs/ID: the run, its log, and what may be done with it. */
export class RunRequests {
  readonly #parts: RunRequestsParts;
  readonly #logs: LogRequests;

  constructor(parts: RunRequestsParts) {
    this.#parts = parts;
    this.#logs = new LogRequests(parts.source);
  }

  /** Answer a GET. @throws {HttpError} */
  async answer(visit: Visit, [id = "", what, ...more]: readonly string[]): Promise<void> {
    const { gate, source, send } = this.#parts;
    const run = isRunId(id) ? source.run(id) : undefined;
    if (!run || !gate.canSee(visit, run.repo)) {
      gate.needRight(visit);
      throw new HttpError(404, "there is no such run");
    }
    if (more.length > 0) throw new HttpError(404, "there is no such page");
    if (what === undefined) return await this.show(visit, run);
    if (what === "rerun" || what === "cancel") {
      gate.needSteer(visit);
      return send(visit, what === "rerun" ? "Run again" : "Cancel", question(run, what));
    }
    // a search may take its time, too
    gate.watch(visit, (eyes) => gate.canSee(eyes, run.repo));
    if (what === "log") return await this.log(visit, run);
    const gone = new AbortController();
    visit.response.once("close", () => gone.abort());
    const by = visit.viewer.right === undefined ? "strangers" : "known";
    const asked = { query: visit.url.searchParams, by, signal: gone.signal } as const;
    const answer = await this.#logs.answer(run, what, asked);
    if (answer === undefined) throw new HttpError(404, "there is no such page");
    sendJson(visit.response, 200, answer);
  }

  /** Rerun and cancel, by POST. @throws {HttpError} */
  async steer(visit: Visit): Promise<void> {
    const { request, response, url, viewer, settings } = visit;
    const { gate, source } = this.#parts;
    checkOrigin(request, settings.origin);
    const [, first, id = "", what, ...more] = url.pathname.split("/");
    gate.needRight(visit);
    const run = first === "runs" && isRunId(id) ? source.run(id) : undefined;
    if (!run || (what !== "rerun" && what !== "cancel") || more.length > 0)
      throw new HttpError(404, "there is no such page");
    gate.needSteer(visit);
    request.resume();
    const by = viewer.name ?? "";
    if (what === "cancel") await source.cancel(run, by);
    redirect(response, `/runs/${what === "cancel" ? run.id : await source.rerun(run, by)}`);
  }

  private async show(visit: Visit, known: Run): Promise<void> {
    const { source, send } = this.#parts;
    const run = (await source.whole(known.id)) ?? known;
    const log = await this.#logs.part(run, visit.url.searchParams.get("from"));
    const canSteer = visit.viewer.right === "steer";
    const body = runPage({ run, ...this.around(run), log, canSteer, now: Date.now() });
    send(visit, runTitle(run), body, "run");
  }

  /** The log as text, or as it grows. */
  private async log(visit: Visit, run: Run): Promise<void> {
    const { request, response, url } = visit;
    const { source } = this.#parts;
    const follows = url.searchParams.get("follow") === "1" && request.method === "GET";
    if (!follows) {
      response.setHeaders(new Headers(rawHeaders));
      return await source.sendLog(response, run);
    }
    await source.followLog(request, response, run, async () => {
      const now = await source.whole(run.id);
      // the clocks run in the browser: all who follow are not sent the same with other times each second
      const time = Math.floor(Date.now() / 10_000) * 10_000;
      return now && changingPart({ run: now, ...this.around(now), now: time }).text;
    });
  }

  /** The other runs that a run's page names. */
  private around({ id, repo }: Run): { superseded: readonly Run[]; behind: Run | undefined } {
    const runs = this.#parts.source.runs();
    return {
      superseded: runs.filter(({ by, state }) => state === "superseded" && by === id),
      behind: runs.find((run) => run.repo === repo && isUnderWay(run)),
    };
  }
}
