import { shortRef, shortSha } from "../core/names.ts";
import type { IgnoredDelivery } from "../run-store/ignored.ts";
import type { Run } from "../run-store/run-store.ts";
import { html, type Html } from "./html.ts";
import { pill, table } from "./layout.ts";
import { repoPath } from "./overview.ts";
import { runsPlot } from "./plots.ts";
import { ago, clock, counted, shortDuration } from "./times.ts";

/** Lists of runs: those of one repo, with how long they took and what started none; and those of all. */

const perPage = 50;
const results = ["succeeded", "failed", "cancelled", "superseded", "running", "waiting"];
const ages = { "12h": 12, "2d": 48, "7d": 168, "30d": 720 };

type RunsQuery = ReturnType<typeof readQuery>;

/** What is asked for in the address; `before`: runs older than this one. */
export function readQuery(query: URLSearchParams) {
  const text = (name: string) => (query.get(name) ?? "").slice(0, 300);
  return {
    ...{ repo: text("repo"), branch: text("branch"), result: text("result"), since: text("since") },
    before: text("before"),
  };
}

/** The runs of all repos. */
export function runsPage(runs: readonly Run[], query: RunsQuery, now: number): Html {
  const repos = [...new Set(runs.map(({ repo }) => repo))].sort();
  return html`<div class="head"><h1>Runs</h1></div>${list(runs, query, { path: "/runs", repos, now })}`;
}

export function repoPage(
  name: string,
  runs: readonly Run[],
  query: RunsQuery,
  { ignored, now }: { ignored: readonly IgnoredDelivery[]; now: number },
): Html {
  const ofBranch = runs.filter((run) => query.branch === "" || shortRef(run.ref) === query.branch);
  return html`<div class="head"><h1>${name}</h1>
<p class="sum">${counted(runs.length, "run")} kept · <a href="${repoPath(name)}/badge.svg">badge</a></p></div>
${runsPlot(ofBranch, now)}${list(runs, { ...query, repo: "" }, { path: repoPath(name), repos: [], now })}
${ignored.length > 0 && ignoredTable(ignored, now)}`;
}

interface Place {
  readonly path: string;
  /** To choose from; none where all are of one. */
  readonly repos: readonly string[];
  readonly now: number;
}

function list(runs: readonly Run[], query: RunsQuery, { path, repos, now }: Place): Html {
  const hours = ages[query.since as keyof typeof ages] as number | undefined;
  const oldest = hours === undefined ? "" : new Date(now - hours * 3_600_000).toISOString();
  const fitting = runs.filter(
    (run) =>
      (query.repo === "" || run.repo === query.repo) &&
      (query.branch === "" || shortRef(run.ref) === query.branch) &&
      (query.result === "" || run.state === query.result) &&
      run.accepted >= oldest,
  );
  const before = query.before;
  const start = before === "" ? 0 : fitting.findIndex(({ id }) => id < before);
  const shown = start < 0 ? [] : fitting.slice(start, start + perPage);
  const older = start >= 0 && fitting.length > start + perPage ? shown.at(-1)?.id : undefined;
  const select = (label: string, values: readonly string[], chosen: string) =>
    html`<label>${label} <select name="${label.toLowerCase()}"><option value="">all</option>
${values.map((value) => html`<option${value === chosen && html` selected`}>${value}</option>`)}</select></label>`;
  const branches = [...new Set(runs.map(({ ref }) => shortRef(ref)))].sort();
  const filter = html`<form class="filter" action="${path}">
${repos.length > 0 && select("Repo", repos, query.repo)}${select("Branch", branches, query.branch)}
${select("Result", results, query.result)}${select("Since", Object.keys(ages), query.since)}
<button>Show</button></form>`;
  const none = runs.length > 0 ? "No run fits." : "There are no runs yet: a push starts the first.";
  const newest = before !== "" && html`<a href="${address(path, query, "")}">Newest</a>`;
  const next = older !== undefined && html`<a rel="next" href="${address(path, query, older)}">Older runs</a>`;
  return html`${runs.length > 0 && filter}
<div id="live">${shown.length > 0 ? runTable(shown, repos.length > 0, now) : html`<p class="empty">${none}</p>`}</div>
${(newest || next) && html`<nav class="pager" aria-label="Pages of runs">${newest}${next}</nav>`}`;
}

function address(path: string, query: RunsQuery, before: string): string {
  const set = Object.entries({ ...query, before }).filter(([, value]) => value !== "");
  return set.length > 0 ? `${path}?${new URLSearchParams(set)}` : path;
}

function runTable(runs: readonly Run[], withRepo: boolean, now: number): Html {
  const columns = ["Run", ...(withRepo ? ["Repo"] : []), "Branch and commit", "By", "When", "#Took", "Why"];
  const rows = runs.map((run) => runRow(run, withRepo, now));
  return table("runs", { caption: "Runs, the newest first", columns, rows });
}

function runRow(run: Run, withRepo: boolean, now: number): Html {
  const { id, repo, state, seconds, started, by } = run;
  return html`<tr><th scope="row"><a href="/runs/${id}">${pill(state)}<span class="id">${id.slice(-6)}</span></a></th>
${withRepo && html`<td class="repo"><a href="${repoPath(repo)}">${repo}</a></td>`}
<td class="what"><span class="ref">${shortRef(run.ref)}</span> <span class="sha">${shortSha(run.sha ?? "")}</span>
<span class="title">${run.commit?.title}</span></td>
<td class="by">${run.commit?.pusher ?? (run.forge === "poll" && "poll")}</td>
<td class="when">${ago(run.ended ?? started ?? run.accepted, now)}</td>
<td class="num">${seconds !== undefined ? shortDuration(seconds) : clock(started, now)}</td>
<td class="why">${by !== undefined ? html`by <a href="/runs/${by}">${by.slice(-6)}</a>` : run.reason}</td></tr>
`;
}

function ignoredTable(ignored: readonly IgnoredDelivery[], now: number): Html {
  const rows = ignored.map(
    ({ time, forge, event, ref, reason }) => html`<tr><td class="when">${ago(time, now)}</td><td>${forge} ${event}</td>
<td>${ref !== undefined && html`<span class="ref">${shortRef(ref)}</span>`}</td><td>${reason}</td></tr>
`,
  );
  return html`<section class="more"><h2>Ignored deliveries</h2>
<p class="sum">What the forge sent and started nothing, the newest first.</p>
${table("ignored", { columns: ["When", "Event", "Ref", "Why"], rows })}</section>`;
}
