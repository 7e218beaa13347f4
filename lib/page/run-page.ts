import { shortRef, shortSha } from "../core/names.ts";
import { hasEnded, isUnderWay, type Run, type RunStage } from "../run-store/run-store.ts";
import type { Span } from "./ansi.ts";
import { html, type Html, type Value } from "./html.ts";
import { iconLink, pageTitle, pill, table } from "./layout.ts";
import { type LogPart, partSize } from "./log.ts";
import { repoPath } from "./overview.ts";
import { ago, clock, counted, fullTime, shortDuration } from "./times.ts";

/** The page of one run: what it is of, why it failed, its stages, its log. */

interface Around {
  /** The runs that it superseded. */
  readonly superseded: readonly Run[];
  /** The run of its repo that is under way: one that waits is behind it. */
  readonly behind: Run | undefined;
  /** Of a run that failed the last good one of its ref, and what was pushed since, the newest first. */
  readonly good: Run | undefined;
  readonly since: readonly Run[];
}

interface Changing extends Around {
  readonly run: Run;
  readonly served?: { readonly here: number; readonly of: number } | undefined;
  readonly now: number;
}

interface RunDetails extends Changing {
  readonly log: LogPart;
  readonly canSteer: boolean;
}

/** The other runs that a run's page names. @param runs all, the newest first. */
export function around(run: Run, runs: readonly Run[]): Around {
  const { id, repo, ref, sha, state } = run;
  const superseded = runs.filter((each) => each.state === "superseded" && each.by === id);
  const behind = runs.find((each) => each.repo === repo && isUnderWay(each));
  if (state !== "failed") return { superseded, behind, good: undefined, since: [] };
  const own = runs.filter((each) => each.repo === repo && each.ref === ref && each.id <= id);
  const at = own.findIndex((each) => each.state === "succeeded");
  const commits = new Map(own.slice(0, Math.max(0, at)).map((each) => [each.sha, each]));
  // the same commit was good before: what changed is not in it
  if (own[at]?.sha !== undefined && own[at].sha === sha) commits.clear();
  return { superseded, behind, good: own[at], since: [...commits.values()] };
}

export function runPage({ log, canSteer, ...details }: RunDetails): Html {
  const { run, now, good, since } = details;
  return html`${summary(details)}
${canSteer && actions(run)}
${good && sinceGood(run, good, since, now)}
${stagesPart(run, now, good)}
${logPart(run, log)}`;
}

/** The page's title: in a row of tabs it says what became of a run. */
export function runTitle({ state, repo, id }: Run): string {
  return `${state}: ${repo} ${id.slice(-6)}`;
}

/** What changes while a run goes on, beside its log: the live stream sends it anew. */
export function changingPart(details: Changing): Html {
  const { run, now, good } = details;
  return html`<title>${pageTitle(runTitle(run))}</title>${iconLink(run.state)}${summary(details)}
${stagesPart(run, now, good)}`;
}

const runLink = (id: string) => html`<a href="/runs/${id}">${id.slice(-6)}</a>`;

function summary({ run, superseded, behind, served, now }: Changing): Html {
  const { commit, rerun, by } = run;
  const fact = (name: string, value: Value, kind?: string) =>
    value && html`<div><dt>${name}</dt><dd${kind !== undefined && html` class="${kind}"`}>${value}</dd></div>\n`;
  const more = superseded.length > 10 && `and ${superseded.length - 10} more`;
  const took =
    run.seconds !== undefined
      ? shortDuration(run.seconds)
      : run.started !== undefined && !hasEnded(run) && clock(run.started, now);
  const title = commit?.title ?? `${run.kind} of ${shortRef(run.ref)}`;
  const facts = [
    fact("Repo", html`<a href="${repoPath(run.repo)}">${run.repo}</a>`),
    fact("Ref", shortRef(run.ref), "ref"),
    fact("Commit", run.sha !== undefined && commitLink(run), "sha"),
    fact("Author", commit?.author),
    fact("Pushed by", commit?.pusher),
    fact("Accepted", html`${ago(run.accepted, now)} <span class="soft">${run.forge} ${run.event}</span>`),
    fact("Took", took),
    fact("Served by", served && html`<a href="/fleet">${served.here} of ${counted(served.of, "host")}</a>`),
    fact("Waits behind", run.state === "waiting" && behind && runLink(behind.id)),
    fact("Attempt", run.attempt > 1 && run.attempt),
    fact("Builder", run.builder),
    fact("Rerun of", rerun && html`${runLink(rerun.of)} <span class="soft">by ${rerun.by}</span>`),
    fact("Started at", rerun?.from),
    fact("Cancelled by", run.cancelledBy),
    fact(run.state === "superseded" ? "Superseded by" : "Gave way to", by !== undefined && runLink(by)),
    superseded.length > 0 &&
      fact("Superseded", [...superseded.slice(0, 10).map(({ id }) => html`${runLink(id)} `), more]),
  ];
  return html`<div id="summary"><div class="head"><h1>${pill(run.state)}<span>${title}</span></h1></div>
${run.reason !== undefined && html`<p class="reason ${run.state}">${run.reason}</p>`}
<dl class="facts">${facts}</dl></div>`;
}

/** A commit's digits, leading to the forge where its address is known. */
export function commitLink({ sha = "", commit }: Run): Html {
  const { url } = commit ?? {};
  if (url === undefined) return html`${shortSha(sha)}`;
  return html`<a href="${url}" rel="noreferrer noopener external">${shortSha(sha)}</a>`;
}

/** No button that must fail: a superseded run leads to the one that took its place. */
function actions(run: Run): Html | false {
  if (run.state === "superseded" && run.by !== undefined)
    return html`<p class="actions"><a class="button" href="/runs/${run.by}">The run that took its place</a></p>`;
  const button = (to: string, words: string) => html`<a class="button" href="/runs/${run.id}/${to}">${words}</a>\n`;
  if (!hasEnded(run)) return html`<p class="actions">${button("cancel", "Cancel")}</p>`;
  const failed = stagesToStartAt(run).find(({ result }) => result === "failed" || result === "timeout")?.name;
  return html`<p class="actions">${button("rerun", "Run again")}
${failed !== undefined && button(`rerun?from=${encodeURIComponent(failed)}`, `Run again from ${failed}`)}</p>`;
}

/** Since when it fails, and what came since. */
function sinceGood(run: Run, good: Run, since: readonly Run[], now: number): Html {
  const rows = since.slice(0, 20).map(
    (each) => html`<li>${each.id === run.id ? each.id.slice(-6) : runLink(each.id)}
<span class="sha">${commitLink(each)}</span> <span class="title">${each.commit?.title}</span>
<span class="soft">${each.commit?.author ?? each.commit?.pusher}</span></li>`,
  );
  const count = since.length === 0 ? "the same commit" : `${counted(since.length, "commit")} built since`;
  return html`<details class="since"><summary>Last good: ${good.id.slice(-6)}, ${ago(good.accepted, now)} · ${count}
</summary><ul><li>${runLink(good.id)} <span class="sha">${commitLink(good)}</span>
<span class="title">${good.commit?.title}</span> ${pill("succeeded")}</li>${rows}</ul></details>`;
}

/** The stages; of a run that failed beside the last good one's. */
function stagesPart({ stages = [] }: Run, now: number, good: Run | undefined): Html {
  if (stages.length === 0) return html`<div id="stages"></div>`;
  const rows = stages.map((stage) => stageRow(stage, now, good));
  const columns = ["Stage", "Result", "Took", "Why"];
  return html`<div id="stages">${table("stages", { caption: "Stages", columns, rows })}</div>`;
}

function stageRow(stage: RunStage, now: number, good: Run | undefined): Html {
  const { name, from, result, seconds } = stage;
  const link = from === undefined ? name : html`<a href="?from=@${from}#log" data-at="${from}">${name}</a>`;
  const took = seconds !== undefined ? shortDuration(seconds) : result === undefined && clock(stage.started, now);
  const before = good?.stages?.find((each) => each.name === name)?.seconds;
  const other = before !== undefined && html`<span class="soft">last good: ${shortDuration(before)}</span>`;
  return html`<tr><th scope="row">${link}</th><td>${pill(result ?? "running")}</td><td class="num">${took}</td>
<td class="why">${stage.why} ${other}</td></tr>`;
}

function logPart(run: Run, { from, lines, more, error }: LogPart): Html {
  const earlier = from > 0 && `?from=${Math.max(1, from + 1 - partSize)}#log`;
  const later = html`<a href="?from=${from + 1 + lines.length}#log">Later lines</a><a href="?from=end#log">The end</a>`;
  const isLive = !hasEnded(run);
  const none = html`<span class="empty">${isLive ? "Nothing was printed yet." : "Nothing was printed."}</span>`;
  const row = (spans: readonly Span[], index: number) => {
    const n = from + index + 1;
    const parts = spans.map(([text, classes]) =>
      classes === "" ? text : html`<span class="${classes}">${text}</span>`,
    );
    return html`<div class="row${from + index === error && " error"}" id="L${n}"><a class="n" href="#L${n}"
data-n="${n}" aria-label="line ${n}"></a><span class="t">${parts}</span></div>\n`;
  };
  return html`<section class="log" id="log" aria-label="Log" data-run="${run.id}" data-live="${isLive && "yes"}">
<div class="logbar"><h2>Log</h2><div class="tools" data-tools hidden></div><span class="raw">
<a href="/runs/${run.id}/log">Raw</a> <a href="/runs/${run.id}/log?download=1">Download</a></span></div>
<div class="lines" tabindex="0" role="region" aria-label="Log lines">${lines.length === 0 ? none : lines.map(row)}</div>
<noscript><nav class="pager" aria-label="Pages of the log">
${earlier && html`<a href="${earlier}">Earlier lines</a>`}${more && later}</nav></noscript>
</section>`;
}

/** The stages after the first at which a run that is run again may start. */
function stagesToStartAt({ kind, stages = [] }: Run): readonly RunStage[] {
  return kind === "push" ? stages.slice(1).filter(({ name }) => !name.startsWith("then: ")) : [];
}

/** The question before a run is cancelled or run again; `from`: the stage that is chosen already. */
export function question(run: Run, what: "rerun" | "cancel", from: string | null): Html {
  const also = `with its ${run.kind === "push" ? "on_success commands" : "publishing"} too.`;
  const isRerun = what === "rerun";
  const stages = isRerun ? stagesToStartAt(run) : [];
  const options = stages.map(({ name }) => html`<option${name === from && html` selected`}>${name}</option>`);
  const choice = html`<p><label>Start at <select name="from"><option value="">the first stage</option>${options}
</select></label></p>`;
  const ask = isRerun
    ? `Run this again? A new run of the same commit starts when its turn comes, ${also}`
    : "Cancel this run? What it has started is ended.";
  return html`<section class="notice"><h1>${isRerun ? "Run again" : "Cancel"}</h1><p>${ask}</p>
<p><strong>${run.repo}</strong> <span class="ref">${shortRef(run.ref)}</span> ${pill(run.state)}
<span class="soft">accepted ${fullTime(run.accepted)}</span></p>
<form method="post" action="/runs/${run.id}/${what}">${stages.length > 0 && choice}
<button class="${isRerun ? "main" : "danger"}">
${isRerun ? "Run again" : "Cancel the run"}</button> <a class="button" href="/runs/${run.id}">Back</a></form>
</section>`;
}
