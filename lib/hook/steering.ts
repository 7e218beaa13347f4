import { createReadStream } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import type { IncomingMessage, ServerResponse } from "node:http";
import { HttpError, sendJson } from "../http/server.ts";
import { isRunId } from "../core/id.ts";
import { MaskedStream } from "./mask-file.ts";
import { hasEnded, recordOf, type RunRecord } from "./records.ts";
import type { Yard } from "./yard.ts";

/** What the list and the pages show of a run: its record less what only the server needs. */
export type RunView = Omit<RunRecord, "cookie" | "pid" | "pidStart"> & {
  position?: number;
};

/** The routes under /runs: the same for the Unix socket and, behind the token, for HTTP. */
export class Steering {
  readonly #yard: Yard;

  constructor(yard: Yard) {
    this.#yard = yard;
  }

  async handle(request: IncomingMessage, response: ServerResponse, url: URL): Promise<void> {
    const [, , id, what, ...more] = url.pathname.split("/");
    if (id === undefined) return sendJson(response, 200, { runs: this.list(url.searchParams) });
    const view = isRunId(id) ? this.view(id) : undefined;
    if (!view || more.length > 0) throw new HttpError(404, "there is no such run");
    if (what === "cancel" || what === "rerun") {
      if (request.method !== "POST") throw new HttpError(405, "use POST", { allow: "POST" });
      return what === "cancel"
        ? await this.#cancel(response, view)
        : await this.#rerun(response, view);
    }
    if (request.method !== "GET" && request.method !== "HEAD")
      throw new HttpError(405, "use GET", { allow: "GET" });
    if (what === undefined) return sendJson(response, 200, view);
    if (what !== "log") throw new HttpError(404, "there is no such page");
    if (url.searchParams.get("follow") === "1") return await this.#follow(response, id);
    await this.#log(response, id);
  }

  /** Runs, the newest first: those that wait, those with a folder, and the superseded ones that are remembered. */
  list(query: URLSearchParams): RunView[] {
    const limit = Number(query.get("limit") ?? 100);
    const repo = query.get("repo");
    const state = query.get("state");
    const views = new Map<string, RunView>();
    for (const record of this.#yard.records.all()) views.set(record.id, viewOf(record));
    for (const entry of this.#yard.queue.entries())
      if (!views.has(entry.id)) views.set(entry.id, recordOf(entry));
    for (const memory of this.#yard.spool.seen.all())
      if (!views.has(memory.run)) views.set(memory.run, viewOfMemory(memory));
    return [...views.values()]
      .filter(
        (view) => (repo === null || view.repo === repo) && (state === null || view.state === state),
      )
      .sort((a, b) => b.accepted.localeCompare(a.accepted) || b.id.localeCompare(a.id))
      .slice(0, Number.isInteger(limit) && limit > 0 ? limit : 100);
  }

  view(id: string): RunView | undefined {
    const record = this.#yard.records.get(id);
    if (record) return viewOf(record);
    for (const entry of this.#yard.queue.entries()) if (entry.id === id) return recordOf(entry);
    const memory = this.#yard.spool.seen.get(id);
    return memory ? viewOfMemory(memory) : undefined;
  }

  async #cancel(response: ServerResponse, view: RunView): Promise<void> {
    if (!(await this.#yard.cancel(view.id)))
      throw new HttpError(409, `the run has ended already: ${view.state}`);
    sendJson(response, 202, { run: view.id });
  }

  async #rerun(response: ServerResponse, view: RunView): Promise<void> {
    if (!hasEnded(view.state)) throw new HttpError(409, `the run has not ended yet: ${view.state}`);
    const run = await this.#yard.rerun(view.id);
    if (run === undefined) throw new HttpError(410, whyNoRerun(view));
    sendJson(response, 202, { run, of: view.id });
  }

  async #log(response: ServerResponse, id: string): Promise<void> {
    response.writeHead(200, {
      "content-type": "text/plain; charset=utf-8",
      "x-content-type-options": "nosniff",
    });
    const masked = new MaskedStream(this.#yard.mask);
    try {
      for await (const chunk of createReadStream(this.#yard.records.path(id, "log"))) {
        if (!response.write(masked.write(chunk as Buffer))) await drained(response);
        if (response.destroyed) return;
      }
    } catch (error) {
      // a run that waits has no log yet
      if ((error as { code?: string }).code !== "ENOENT") throw error;
    }
    response.end(masked.end());
  }

  /** The log as server-sent events (a `data:` line each), as it grows; then `event: end` with the run's state. */
  async #follow(response: ServerResponse, id: string): Promise<void> {
    response.writeHead(200, {
      "content-type": "text/event-stream; charset=utf-8",
      "cache-control": "no-store",
      "x-accel-buffering": "no",
    });
    response.flushHeaders();
    const masked = new MaskedStream(this.#yard.mask);
    const piece = Buffer.alloc(64 * 1024);
    let file: FileHandle | undefined;
    let at = 0;
    try {
      for (let quiet = 0; !response.destroyed; ) {
        // looked at before the log: an ended run writes no more
        const view = this.view(id);
        // opened once: at a run's end its log may be replaced by a masked one, which is shorter
        file ??= await open(this.#yard.records.path(id, "log")).catch(() => undefined);
        const { bytesRead } = (await file?.read(piece, 0, piece.length, at)) ?? { bytesRead: 0 };
        if (bytesRead > 0) {
          at += bytesRead;
          await sendEvent(response, masked.write(piece.subarray(0, bytesRead)));
          continue;
        }
        if (!view || hasEnded(view.state)) {
          await sendEvent(response, masked.end());
          response.end(`event: end\ndata: ${view?.state ?? "gone"}\n\n`);
          return;
        }
        // a comment now and then keeps proxies from closing a quiet stream
        if (++quiet % 75 === 0) response.write(": \n\n");
        await new Promise((resolve) => setTimeout(resolve, 200));
      }
    } finally {
      await file?.close();
    }
  }
}

/** A text as one server-sent event; to its readers a lone carriage return ends a line, too. */
async function sendEvent(response: ServerResponse, text: string): Promise<void> {
  if (text === "") return;
  const lines = text.replace(/(?:\r\n|\r|\n)$/, "").split(/\r\n|\r|\n/);
  if (!response.write(`data: ${lines.join("\ndata: ")}\n\n`)) await drained(response);
}

/** A superseded run never began, so nothing is kept of it: the run that took its place is the one to repeat. */
function whyNoRerun({ state, by }: RunView): string {
  return state === "superseded" && by !== undefined
    ? `the run never began: ${by} took its place; rerun that one`
    : "what the run was made of is not kept any more; push again";
}

function drained(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      response.off("drain", done);
      response.off("close", done);
      resolve();
    };
    response.once("drain", done);
    response.once("close", done);
  });
}

function viewOf(record: RunRecord): RunView {
  const { cookie: _cookie, pid: _pid, pidStart: _start, ...view } = record;
  return view;
}

function viewOfMemory(memory: {
  run: string;
  repo: string;
  ref: string;
  sha?: string | undefined;
  accepted: string;
  state: string;
  by?: string | undefined;
  delivery?: string | undefined;
}): RunView {
  const { run, repo, ref, sha, accepted, state, by, delivery } = memory;
  return {
    id: run,
    repo,
    kind: ref.startsWith("refs/tags/") ? "release" : "push",
    ref,
    sha,
    accepted,
    state: state as RunRecord["state"],
    by,
    delivery,
    forge: "",
    event: "",
    attempt: 0,
  };
}
