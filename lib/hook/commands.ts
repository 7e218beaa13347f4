import { once } from "node:events";
import process from "node:process";
import { Failure } from "../core/errors.ts";
import type { Terminal } from "../cli/terminal.ts";
import { formatDuration } from "../core/units.ts";
import type { HookClient } from "./client.ts";
import type { RunView } from "./steering.ts";

/** What `hook-server list|show|log|cancel|rerun` do with a server that runs. */

const shortRef = (ref: string) => ref.replace(/^refs\/(?:heads|tags)\//, "");

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
    shortRef(run.ref),
    run.sha?.slice(0, 10) ?? "",
    painted(terminal, run.state),
    run.seconds === undefined ? "" : formatDuration(run.seconds * 1000),
    run.by === undefined ? (run.reason ?? "") : `by ${run.by}`,
  ]);
  for (const line of terminal.table(rows, {
    header: ["RUN", "REPO", "REF", "COMMIT", "STATE", "TIME", ""],
  }))
    terminal.print(line);
}

function painted({ paint }: Terminal, state: string): string {
  if (state === "succeeded") return paint.green(state);
  if (state === "failed") return paint.red(state);
  return state === "running" || state === "starting" ? paint.yellow(state) : paint.dim(state);
}

export async function show(client: HookClient, terminal: Terminal, id: string): Promise<void> {
  const run = await client.json(`/runs/${encodeURIComponent(id)}`);
  terminal.printJson(run);
  const rows = Object.entries(run).map(([key, value]) => [
    key,
    typeof value === "string" ? value : JSON.stringify(value),
  ]);
  for (const line of terminal.table(rows)) terminal.print(line);
}

/** @returns the exit code: 1 when a followed run did not end well. */
export async function log(
  client: HookClient,
  id: string | undefined,
  follow: boolean,
): Promise<number> {
  const run = id ?? (await newest(client));
  const write = async (text: string) => {
    if (!process.stdout.write(text)) await once(process.stdout, "drain");
  };
  if (!follow) {
    await client.log(encodeURIComponent(run), write);
    return 0;
  }
  return (await client.follow(encodeURIComponent(run), write)) === "succeeded" ? 0 : 1;
}

async function newest(client: HookClient): Promise<string> {
  const { runs } = await client.json("/runs?limit=1000");
  const begun = (runs as RunView[]).find((run) => run.started !== undefined);
  if (!begun) throw new Failure("nothing has run yet; push something, or name a run");
  return begun.id;
}

export async function steer(
  client: HookClient,
  terminal: Terminal,
  what: "cancel" | "rerun",
  id: string,
): Promise<void> {
  const answer = await client.json(`/runs/${encodeURIComponent(id)}/${what}`, "POST");
  terminal.printJson(answer);
  terminal.print(
    what === "cancel" ? `${id} is cancelled` : `${String(answer.run)} runs ${id} again`,
  );
}
