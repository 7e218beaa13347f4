import { shortRef, shortSha } from "../core/names.ts";
import { html, type Html } from "./html.ts";
import { pill, table } from "./layout.ts";
import { repoPath } from "./overview.ts";
import { durationPlot } from "./plots.ts";
import type { IgnoredDelivery, Run } from "./source.ts";
import { ago, clock, counted, shortDuration } from "./times.ts";

/** The page of one repo: its runs, how long they took, and the deliveries of which none came. */

const perPage = 50;
const results = ["succeeded", "failed", "cancelled", "superseded", "running", "waiting"];

export interface RepoQuery {
  readonly branch: string;
  readonly result: string;
  /** Runs older than this one. */
  readonly before: string;
}

export function repoPage(
  name: string,
  runs: readonly Run[],
  query: RepoQuery,
  { ignored, now }: { ignored: readonly IgnoredDelivery[]; now: number },
): Html {
  const branches = [...new Set(runs.map(({ ref }) => shortRef(ref)))].sort();
  const fitting = runs.filter(
    (run) =>
      (query.branch === "" || shortRef(run.ref) === query.branch) &&
      (query.result === "" || run.state === query.result),
  );
  const start = query.before === "" ? 0 : startAfter(fitting, query.before);
  const shown = start < 0 ? [] : fitting.slice(start, start + perPage);
  const option = (value: string, chosen: string) =>
    html`<option${value === chosen ? html` selected` : ""}>${value}</option>`;
  const older = start >= 0 && fitting.length > start + perPage ? shown.at(-1)?.id : undefined;
  const select = (label: string, values: readonly string[], chosen: string) =>
    html`<label>${label} <select name="${label.toLowerCase()}"><option value="">all</option>
${values.map((each) => option(each, chosen))}</select></label>`;
  const filter = html`<form class="filter" action="${repoPath(name)}">
${select("Branch", branches, query.branch)}${select("Result", results, query.result)}<button>Show</button></form>`;
  const none = runs.length > 0 ? "No run fits." : "There are no runs yet: a push starts the first.";
  const newest = query.before !== "" && html`<a href="${address(name, query, "")}">Newest</a>`;
  const next = older !== undefined && html`<a rel="next" href="${address(name, query, older)}">Older runs</a>`;
  return html`<div class="head"><h1>${name}</h1>
<p class="sum">${counted(runs.length, "run")} kept · <a href="${repoPath(name)}/badge.svg">badge</a></p></div>
${durationPlot(runs.filter((run) => query.branch === "" || shortRef(run.ref) === query.branch))}
${runs.length > 0 && filter}
<div id="live">${shown.length > 0 ? runTable(shown, now) : html`<p class="empty">${none}</p>`}</div>
${(newest || next) && html`<nav class="pager" aria-label="Pages of runs">${newest}${next}</nav>`}
${ignored.length > 0 && ignoredTable(ignored, now)}`;
}

/** The place after a run; of one that is gone the place of the next older one; -1 when there is none. */
function startAfter(runs: readonly Run[], id: string): number {
  const place = runs.findIndex((run) => run.id === id);
  return place >= 0 ? place + 1 : runs.findIndex((run) => run.id < id);
}

function address(name: string, { branch, result }: RepoQuery, before: string): string {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries({ branch, result, before })) if (value !== "") query.set(key, value);
  return query.size > 0 ? `${repoPath(name)}?${query}` : repoPath(name);
}

function runTable(runs: readonly Run[], now: number): Html {
  const columns = ["Run", "Branch and commit", "By", "When", "#Took", "Why"];
  return table("runs", {
    caption: "Runs, the newest first",
    columns,
    rows: runs.map((run) => runRow(run, now)),
  });
}

function runRow(run: Run, now: number): Html {
  const { id, state, seconds, started, by } = run;
  return html`<tr><th scope="row"><a href="/runs/${id}">${pill(state)}<span class="id">${id.slice(-6)}</span></a></th>
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
