import { shortRef, shortSha } from "../core/names.ts";
import { hasResult, isUnderWay, type Run } from "../run-store/run-store.ts";
import { html, type Html, type Value } from "./html.ts";
import { pill, table } from "./layout.ts";
import { bars, dayStrip } from "./plots.ts";
import { ago, clock, counted, shortDuration } from "./times.ts";

/** The overview: of each repo its last run, and what runs and waits; and the page that shows it. Pure. */

/** Runs of a repo that have a bar. */
const shownBars = 30;

export interface RepoSummary {
  readonly name: string;
  /** The newest run that has ended, superseded ones left out. */
  readonly last: Run | undefined;
  /** What is under way. */
  readonly running: Run | undefined;
  /** How many wait. */
  readonly waiting: number;
  /** All runs of it, the newest first. */
  readonly runs: readonly Run[];
}

/** A run that waits, and what for. */
export interface Waiting {
  readonly run: Run;
  /** The run of its repo that is under way; undefined: it waits for room, or for its time. */
  readonly behind: Run | undefined;
}

export interface Overview {
  /** The worst first. */
  readonly repos: readonly RepoSummary[];
  readonly running: readonly Run[];
  /** The oldest first. */
  readonly waiting: readonly Waiting[];
}

/**
 * @param names the repos to be shown.
 * @param runs all runs, the newest first.
 */
export function planOverview(names: Iterable<string>, runs: readonly Run[]): Overview {
  const byRepo = new Map<string, Run[]>();
  for (const name of names) byRepo.set(name, []);
  for (const run of runs) byRepo.get(run.repo)?.push(run);
  const repos = [...byRepo].map(
    ([name, own]): RepoSummary => ({
      name,
      last: own.find(hasResult),
      running: own.find(isUnderWay),
      waiting: own.filter(({ state }) => state === "waiting").length,
      runs: own,
    }),
  );
  const running = repos.flatMap((repo) => repo.runs.filter(isUnderWay));
  const waiting = repos
    .flatMap((repo) => repo.runs.filter(({ state }) => state === "waiting"))
    .map((run) => ({ run, behind: byRepo.get(run.repo)?.find(isUnderWay) }))
    .sort((a, b) => (a.run.accepted < b.run.accepted ? -1 : 1));
  return { repos: repos.sort(worstFirst), running, waiting };
}

function badness({ last, running, waiting }: RepoSummary): number {
  if (last?.state === "failed") return 0;
  if (running) return 1;
  if (waiting > 0) return 2;
  if (last?.state === "cancelled") return 3;
  return last ? 4 : 5;
}

function worstFirst(a: RepoSummary, b: RepoSummary): number {
  const when = ({ runs }: RepoSummary) => runs[0]?.accepted ?? "";
  return badness(a) - badness(b) || when(b).localeCompare(when(a)) || a.name.localeCompare(b.name);
}

/** The run that the table shows of a repo. */
function shownOf({ last, running, runs }: RepoSummary): Run | undefined {
  return running ?? last ?? runs[0];
}

/** What the filter looks for a text in, the server's and the script's: in lower case. */
function wordsOf(repo: RepoSummary): string {
  const { ref = "", commit } = shownOf(repo) ?? {};
  const words = [repo.name, repo.last?.state, shortRef(ref), commit?.title, commit?.pusher];
  return words.join(" ").toLowerCase();
}

/** The address of a repo's page. */
export function repoPath(name: string): string {
  return `/repos/${name.split("/").map(encodeURIComponent).join("/")}`;
}

export function overviewPage(
  overview: Overview,
  { filter, show, problems, now }: { filter: string; show: string; problems: readonly string[]; now: number },
): Html {
  const fits = { failed: isFailed, running: isRunning, waiting: isWaiting }[show] ?? (() => true);
  const shown = overview.repos.filter((repo) => fits(repo) && wordsOf(repo).includes(filter.toLowerCase()));
  const caption = "All repos, the worst first";
  const columns = ["Repo", "Last run", "Branch and commit", "By", "When", "#Took", `Last ${shownBars}`];
  const list = html`<ul>${problems.map((each) => html`<li>${each}</li>`)}</ul>`;
  return html`<div id="problems">
${problems.length > 0 && html`<section class="problems" aria-label="Problems of the server">${list}</section>`}</div>
<div class="head"><h1>Repos</h1><p class="sum">${counts(overview, show)}</p>
<form class="filter" role="search" action="/"><label><span class="away">Filter</span><input type="search" name="q"
value="${filter}" placeholder="Filter by repo, branch, commit, person" autocomplete="off" data-filter></label>
<noscript><button>Filter</button></noscript></form></div>
<div id="live">${dayStrip(overview.repos, now)}${underWay(overview, now)}
${table("repos", { caption, columns, rows: shown.map((repo) => row(repo, now)) })}
<p class="empty" data-none${shown.length > 0 && html` hidden`}>No repo fits the filter.</p></div>`;
}

const isFailed = ({ last }: RepoSummary) => last?.state === "failed";
const isRunning = ({ running }: RepoSummary) => running !== undefined;
const isWaiting = ({ waiting }: RepoSummary) => waiting > 0;

/** Each count leads to what it counts. */
function counts({ repos, running, waiting }: Overview, show: string): Html {
  const link = (count: number, state: string) =>
    count > 0 &&
    html` · <a href="/?show=${state}"${show === state && html` aria-current="page"`}>${count} ${state}</a>`;
  const all = counted(repos.length, "repo");
  return html`${show === "" ? all : html`<a href="/">${all}</a>`}${link(repos.filter(isFailed).length, "failed")}
${link(running.length, "running")}${link(waiting.length, "waiting")}`;
}

/** What runs and waits now. */
function underWay({ running, waiting }: Overview, now: number): Html | false {
  if (running.length === 0 && waiting.length === 0) return false;
  return html`<section class="now" aria-label="Under way"><ul>
${running.map((run) => item(run, run.state, run.commit?.title, clock(run.started ?? run.accepted, now)))}
${waiting.slice(0, 50).map(({ run, behind }) => item(run, "waiting", waitsFor(run, behind), ago(run.accepted, now)))}
</ul></section>`;
}

function waitsFor({ reason }: Run, behind: Run | undefined): Value {
  if (!behind) return reason ?? "for a free place";
  return html`behind <a href="/runs/${behind.id}">the run of ${shortRef(behind.ref)}</a>`;
}

function item({ id, repo, ref }: Run, state: string, title: Value, time: Value): Html {
  return html`<li>${pill(state)}<a href="/runs/${id}">${repo}</a><span class="ref">${shortRef(ref)}</span>
<span class="title">${title}</span><span class="clock">${time}</span></li>`;
}

function row(repo: RepoSummary, now: number): Html {
  const { name, last, running, waiting, runs } = repo;
  const [owner, short] = [name.slice(0, name.lastIndexOf("/") + 1), name.slice(name.lastIndexOf("/") + 1)];
  const state = running ? running.state : (last?.state ?? (waiting > 0 ? "waiting" : "none"));
  const shown = shownOf(repo);
  const href = shown ? `/runs/${shown.id}` : repoPath(name);
  const title = shown?.commit?.title ?? shortSha(shown?.sha ?? "");
  const took = running ? clock(running.started, now) : last?.seconds !== undefined && shortDuration(last.seconds);
  return html`<tr class="${last?.state ?? "none"}" data-words="${wordsOf(repo)}"><th scope="row">
<a href="${repoPath(name)}" title="${name}" aria-label="${name}"
><span class="owner">${owner}</span><span class="name">${short}</span></a></th>
<td class="state">${running && last?.state === "failed" && html`<a href="/runs/${last.id}">${pill("failed")}</a> `}<a
href="${href}">${pill(state)}</a></td>
<td class="what">
${shown && html`<span class="ref">${shortRef(shown.ref)}</span> <span class="title">${title}</span>`}</td>
<td class="by">${shown?.commit?.pusher ?? (shown?.forge === "poll" ? "poll" : "")}</td>
<td class="when">${shown ? ago(shown.ended ?? shown.started ?? shown.accepted, now) : "never"}</td>
<td class="num">${took}</td>
<td class="bar"><a href="${repoPath(name)}" tabindex="-1">${bars(runs, shownBars)}</a></td></tr>
`;
}
