import { once } from "node:events";
import { type IncomingMessage, request } from "node:http";
import { join } from "node:path";
import process from "node:process";
import { json } from "node:stream/consumers";
import { cleanText } from "../core/clean.ts";
import { Failure, systemCode } from "../core/errors.ts";
import { shortRef, shortSha } from "../core/names.ts";
import { formatDuration } from "../core/units.ts";
import type { Terminal } from "../core/terminal.ts";
import type { IgnoredDelivery } from "../run-store/ignored.ts";
import type { RunView } from "./runs.ts";

/** What `hook-server list|show|log|cancel|rerun` do with a server that runs. */

/** Speaks to the hook-server of a state folder, through the Unix socket in it. */
export class HookClient {
  readonly #socket: string;

  constructor(state: string) {
    this.#socket = join(state, "socket");
  }

  /**
   * A route's JSON answer.
   * @throws {Failure} when no server answers, or when it answers with an error.
   */
  async json(path: string, method: "GET" | "POST" = "GET"): Promise<Record<string, unknown>> {
    const response = await this.open(path, method);
    const value = (await json(response)) as Record<string, unknown>;
    if ((response.statusCode ?? 500) >= 400) throw new Failure(String(value.error));
    return value;
  }

  /** A run's log as it is now. */
  async log(id: string, write: (text: string) => Promise<void>): Promise<void> {
    const response = await this.stream(`/runs/${id}/log`);
    for await (const text of response.setEncoding("utf8")) await write(text as string);
  }

  /** A run's log as it grows, until its end; returns the state it ended with. */
  async follow(id: string, write: (text: string) => Promise<void>): Promise<string> {
    const response = await this.stream(`/runs/${id}/log?follow=1`);
    let rest = "";
    for await (const text of response.setEncoding("utf8")) {
      const events = (rest + (text as string)).split("\n\n");
      rest = events.pop() ?? "";
      for (const event of events) {
        const lines = event.split("\n");
        const data = lines.filter((line) => line.startsWith("data: ")).map((line) => line.slice(6));
        if (lines[0] === "event: end") return data[0] ?? "";
        if (data.length > 0) await write(`${data.join("\n")}\n`);
      }
    }
    throw new Failure("hook-server ended while its log was read; see hook-server list");
  }

  private async stream(path: string): Promise<IncomingMessage> {
    const response = await this.open(path, "GET");
    if (response.statusCode === 200) return response;
    response.resume();
    throw new Failure(`there is no log: hook-server answered ${response.statusCode}`);
  }

  private open(path: string, method: string): Promise<IncomingMessage> {
    return new Promise((resolve, reject) => {
      const call = request({ socketPath: this.#socket, path, method, headers: { host: "localhost" } }, resolve);
      call.once("error", (error) => reject(this.unreachable(error)));
      call.end();
    });
  }

  private unreachable(error: Error): Failure {
    const code = systemCode(error);
    if (code === "EACCES") return new Failure(`${this.#socket} is not yours; run this as the user hook-server runs as`);
    return new Failure(
      `no hook-server answers at ${this.#socket}${code === undefined ? "" : ` (${code})`}; ` +
        "start it, or name its folder with --state",
    );
  }
}

/** Print what waits, runs and ran, the newest first. */
export async function list(
  client: HookClient,
  terminal: Terminal,
  filter: { repo?: string | undefined; state?: string | undefined; limit: number },
): Promise<void> {
  const query = new URLSearchParams({ limit: String(filter.limit) });
  if (filter.repo !== undefined) query.set("repo", filter.repo);
  if (filter.state !== undefined) query.set("state", filter.state);
  const answer = await client.json(`/runs?${query}`);
  terminal.printJson(answer);
  const runs = answer.runs as RunView[];
  const rows = runs.map((run) => [
    run.id,
    run.repo,
    cleanText(shortRef(run.ref)),
    shortSha(run.sha ?? ""),
    painted(terminal, run.state),
    run.seconds === undefined ? "" : formatDuration(run.seconds * 1000),
    ageOf(run.accepted),
    run.by === undefined ? cleanText(run.reason ?? "") : `by ${run.by}`,
  ]);
  for (const line of terminal.table(rows, {
    header: ["RUN", "REPO", "REF", "COMMIT", "STATE", "TIME", "ACCEPTED", ""],
  }))
    terminal.print(line);
}

/** Print the deliveries of which no run came, and why, the newest first. */
export async function listIgnored(
  client: HookClient,
  terminal: Terminal,
  { repo, limit }: { repo?: string | undefined; limit: number },
): Promise<void> {
  const query = new URLSearchParams({ limit: String(limit) });
  if (repo !== undefined) query.set("repo", repo);
  const answer = await client.json(`/ignored?${query}`);
  terminal.printJson(answer);
  const rows = (answer.ignored as IgnoredDelivery[]).map((each) =>
    [ageOf(each.time), each.repo ?? "", `${each.forge} ${each.event}`, shortRef(each.ref ?? ""), each.reason].map(
      (text) => cleanText(text),
    ),
  );
  for (const line of terminal.table(rows, { header: ["RECEIVED", "REPO", "EVENT", "REF", "WHY"] }))
    terminal.print(line);
}

/** How long ago an ISO time was, in one unit: `42 s ago`, `3 min ago`, `5 h ago`, `12 days ago`. */
export function ageOf(time: string, now = Date.now()): string {
  const seconds = Math.max(0, Math.floor((now - Date.parse(time)) / 1000));
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 2 * 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86_400)} days ago`;
}

function painted({ paint }: Terminal, state: string): string {
  if (state === "succeeded") return paint.green(state);
  if (state === "failed") return paint.red(state);
  return state === "running" || state === "starting" ? paint.yellow(state) : paint.dim(state);
}

/** Print all that is known of a run. */
export async function show(client: HookClient, terminal: Terminal, id: string): Promise<void> {
  const run = await client.json(`/runs/${encodeURIComponent(id)}`);
  terminal.printJson(run);
  const rows = Object.entries(run).map(([key, value]) => [
    key,
    cleanText(typeof value === "string" ? value : JSON.stringify(value)),
  ]);
  for (const line of terminal.table(rows)) terminal.print(line);
}

/** Print a run's log, by default the newest's. @returns the exit code: 1 when a followed run did not succeed. */
export async function log(client: HookClient, id: string | undefined, follow: boolean): Promise<number> {
  const run = id ?? (await newest(client));
  const lines = new LineWriter();
  if (!follow) {
    await client.log(encodeURIComponent(run), (text) => lines.write(text));
    await lines.end();
    return 0;
  }
  const state = await client.follow(encodeURIComponent(run), (text) => lines.write(text));
  return state === "succeeded" ? 0 : 1;
}

/** So much of a line without an end is kept at most. */
const maxLine = 64 * 1024;

/** Prints a build's output line by line: on a terminal its colours stay, and nothing else acts on it. */
class LineWriter {
  readonly #colours = process.stdout.isTTY === true && !process.env.NO_COLOR;
  #rest = "";

  async write(text: string): Promise<void> {
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop() ?? "";
    const pieces = lines.map((line) => `${cleanText(line, this.#colours)}\n`);
    if (this.#rest.length > maxLine) {
      pieces.push(cleanText(this.#rest, this.#colours));
      this.#rest = "";
    }
    if (!process.stdout.write(pieces.join(""))) await once(process.stdout, "drain");
  }

  /** Print what came after the last line's end. */
  async end(): Promise<void> {
    if (this.#rest !== "") await this.write("\n");
  }
}

async function newest(client: HookClient): Promise<string> {
  const { runs } = await client.json("/runs?limit=1000");
  const started = (runs as RunView[]).find((run) => run.started !== undefined);
  if (!started) throw new Failure("nothing has run yet; push something, or name a run");
  return started.id;
}

/** What `hook-server run` asks for. */
export interface RunWish {
  repo: string;
  branch?: string | undefined;
  tag?: string | undefined;
  sha?: string | undefined;
}

/** Start a run. @returns the exit code: with `follow` 1 when it, or the one that took its place, did not succeed. */
export async function run(client: HookClient, terminal: Terminal, wish: RunWish, follow: boolean): Promise<number> {
  const given = Object.entries(wish).filter((entry): entry is [string, string] => entry[1] !== undefined);
  let { run: id } = await client.json(`/run?${new URLSearchParams(given)}`, "POST");
  if (!follow) {
    terminal.printJson({ run: id });
    terminal.print(`${String(id)} is accepted; hook-server log -f ${String(id)}`);
    return 0;
  }
  for (;;) {
    await log(client, String(id), true);
    const ended = await client.json(`/runs/${String(id)}`);
    const { state, by, reason } = ended as unknown as RunView;
    if (state === "superseded" && by !== undefined) {
      terminal.note(`${String(id)} is superseded by ${by}, a newer push`);
      id = by;
      continue;
    }
    terminal.printJson(ended);
    if (state === "succeeded") return 0;
    terminal.warn(`${String(id)} ${state}${reason === undefined ? "" : `: ${cleanText(reason)}`}`);
    return 1;
  }
}

/** Cancel a run, or run it again. */
export async function steer(
  client: HookClient,
  terminal: Terminal,
  what: "cancel" | "rerun",
  id: string,
): Promise<void> {
  const answer = await client.json(`/runs/${encodeURIComponent(id)}/${what}`, "POST");
  terminal.printJson(answer);
  terminal.print(what === "cancel" ? `${id} is cancelled` : `${String(answer.run)} runs ${id} again`);
}
