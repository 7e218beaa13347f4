import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import type { Terminal } from "../core/terminal.ts";
import { cleanLine } from "../core/clean.ts";
import { Failure } from "../core/errors.ts";
import { shortRef, shortSha } from "../core/names.ts";
import { shortAge, shortDuration } from "../page/page.ts";
import type { HookClient } from "./client.ts";
import type { OverviewAnswer, RepoState, ShortRun } from "./telemetry/overview.ts";

/** `hook-server status`: what the page shows at `/`, as a table in a terminal. */

const watchInterval = 1000;
const titleWidth = 40;

/**
 * Print the overview once, or keep it until `signal` says to end: on a terminal it is drawn anew each second, elsewhere
 * it is printed when it has changed.
 * @throws {Failure} when no server answers; while it is watched, only at the start.
 */
export async function showStatus(
  client: HookClient,
  terminal: Terminal,
  { watch, signal }: { watch: boolean; signal: AbortSignal },
): Promise<void> {
  let seen = "";
  let overview = await readOverview(client);
  let trouble = "";
  while (!signal.aborted) {
    const text = JSON.stringify([overview, trouble]);
    if (watch && terminal.stdoutIsTTY && !terminal.json)
      draw([...(trouble === "" ? [] : [terminal.paint.red(trouble)]), ...linesOf(overview, terminal)]);
    else if (text !== seen) {
      if (seen !== "") terminal.print();
      if (trouble === "") show(overview, terminal);
      else terminal.warn(trouble);
    }
    seen = text;
    if (!watch) return;
    await sleep(watchInterval, undefined, { signal }).catch(() => {});
    try {
      overview = await readOverview(client);
      trouble = "";
    } catch (error) {
      // it may be restarted: it is asked again
      if (!(error instanceof Failure)) throw error;
      trouble = error.message;
    }
  }
}

async function readOverview(client: HookClient): Promise<OverviewAnswer> {
  return (await client.json("/overview")) as unknown as OverviewAnswer;
}

function show(overview: OverviewAnswer, terminal: Terminal): void {
  terminal.printJson(overview);
  for (const line of linesOf(overview, terminal)) terminal.print(line);
}

/** Write the lines over what stands there, as many as there is room for. */
function draw(lines: readonly string[]): void {
  const rows = Math.max(1, (process.stdout.rows || 24) - 1);
  const shown = lines.slice(0, rows).map((line) => `${line}\u001b[K\n`);
  // a line that is too long is cut by the terminal, so that none takes two
  process.stdout.write(`\u001b[?7l\u001b[H${shown.join("")}\u001b[J\u001b[?7h`);
}

/** The overview in lines. */
export function linesOf(
  { problems, repos, running, waiting }: OverviewAnswer,
  { paint, table }: Pick<Terminal, "paint" | "table">,
  now = Date.now(),
): string[] {
  const failed = repos.filter(({ last }) => last?.state === "failed").length;
  const counts = [
    repos.length === 1 ? "1 repo" : `${repos.length} repos`,
    ...(failed > 0 ? [paint.red(`${failed} failed`)] : []),
    ...(running.length > 0 ? [paint.yellow(`${running.length} running`)] : []),
    ...(waiting.length > 0 ? [`${waiting.length} waiting`] : []),
  ];
  const underWay = [
    ...running.map((run) => [
      paint.yellow(run.state),
      cleanLine(run.repo),
      refOf(run),
      titleOf(run),
      clockOf(run, now),
    ]),
    ...waiting.map((run) => [
      paint.dim(run.state),
      cleanLine(run.repo),
      refOf(run),
      run.behind === undefined ? cleanLine(run.reason ?? "for a free place") : `behind ${run.behind}`,
      shortAge(Date.parse(run.accepted), now),
    ]),
  ];
  const rows = repos.map((repo) => rowOf(repo, paint, now));
  const header = ["REPO", "LAST RUN", "REF", "COMMIT", "BY", "WHEN", "TOOK", "LAST 30"];
  return [
    ...problems.map((each) => paint.red(cleanLine(each))),
    counts.join(" · "),
    ...(underWay.length > 0 ? ["", ...table(underWay)] : []),
    "",
    ...table(rows, { header, right: [6] }),
  ];
}

function rowOf({ repo, last, running, waiting, recent }: RepoState, paint: Terminal["paint"], now: number) {
  const run = running ?? last;
  const state = run?.state ?? (waiting > 0 ? "waiting" : "no runs");
  return [
    cleanLine(repo),
    paintOf(state, paint)(state),
    run ? refOf(run) : "",
    run ? titleOf(run) : "",
    run ? cleanLine(run.commit?.pusher ?? (run.forge === "poll" ? "poll" : "")) : "",
    run ? shortAge(Date.parse(run.ended ?? run.started ?? run.accepted), now) : "never",
    running ? clockOf(running, now) : last?.seconds === undefined ? "" : shortDuration(last.seconds),
    barsOf(recent, paint),
  ];
}

function refOf({ ref }: ShortRun): string {
  return cleanLine(shortRef(ref));
}

/** The commit's first line, cut; without one its id. */
function titleOf({ commit, sha }: ShortRun): string {
  const title = [...cleanLine(commit?.title ?? shortSha(sha ?? ""))];
  return title.length > titleWidth ? `${title.slice(0, titleWidth - 1).join("")}…` : title.join("");
}

function clockOf({ started, accepted }: ShortRun, now: number): string {
  return shortDuration(Math.max(0, Math.floor((now - Date.parse(started ?? accepted)) / 1000)));
}

/** The last runs as bars, the newest on the right: the height is the duration (by its root), the colour the result. */
function barsOf(recent: RepoState["recent"], paint: Terminal["paint"]): string {
  const longest = Math.max(1, ...recent.map(({ seconds = 0 }) => seconds));
  const bars = recent.map(({ state, seconds = 0 }) => {
    const height = Math.round(Math.sqrt(seconds / longest) * (heights.length - 1));
    return paintOf(state, paint)(heights[height] ?? "█");
  });
  return bars.reverse().join("");
}

const heights = [..."▁▂▃▄▅▆▇█"];

function paintOf(state: string, paint: Terminal["paint"]): (text: string) => string {
  if (state === "succeeded") return paint.green;
  if (state === "failed") return paint.red;
  return state === "running" || state === "starting" ? paint.yellow : paint.dim;
}
