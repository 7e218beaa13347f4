import { shortRef, shortSha } from "../core/names.ts";
import type { Span } from "./ansi.ts";
import { html, type Html } from "./html.ts";
import { pageTitle, pill } from "./layout.ts";
import { repoPath } from "./overview.ts";
import { stageBar } from "./plots.ts";
import { hasEnded, type Run, type Stage } from "./source.ts";
import { ago, clock, fullTime, shortDuration } from "./times.ts";

/** The page of one run: what it is of, its stages, its log. */

/** Lines of a log that a page has for those who have no script. */
export const plainLines = 500;

/** A part of the log, for those who have no script. */
export interface LogPart {
  /** The number of the first line, from 1. */
  readonly first: number;
  readonly lines: readonly (readonly Span[])[];
  /** Whether there are more lines after these. */
  readonly more: boolean;
}

export interface RunDetails {
  readonly run: Run;
  /** The runs that it superseded. */
  readonly superseded: readonly Run[];
  /** The run of its repo that is under way: one that waits is behind it. */
  readonly behind: Run | undefined;
  readonly log: LogPart;
  readonly canSteer: boolean;
  readonly now: number;
}

export function runPage({ log, canSteer, ...details }: RunDetails): Html {
  const { run, now } = details;
  return html`${summary(details)}
${canSteer && actions(run)}
${stagesPart(run, now)}
${logPart(run, log)}`;
}

type Changing = Omit<RunDetails, "log" | "canSteer">;

/** The page's title: in a row of tabs it says what became of a run. */
export function runTitle({ state, repo, id }: Run): string {
  return `${state}: ${repo} ${id.slice(-6)}`;
}

/** What changes while a run goes on, beside its log: the live stream sends it anew. */
export function changingPart(details: Changing): Html {
  return html`<title>${pageTitle(runTitle(details.run))}</title>${summary(details)}${stagesPart(details.run, details.now)}`;
}

function summary({ run, superseded, behind, now }: Changing): Html {
  const { commit } = run;
  const took =
    run.seconds !== undefined
      ? shortDuration(run.seconds)
      : run.started !== undefined && !hasEnded(run) && clock(run.started, now);
  return html`<div id="summary"><div class="head"><h1>${pill(run.state)}<span>${commit?.title ?? `${run.kind} of ${shortRef(run.ref)}`}</span></h1></div>
<dl class="facts"><div><dt>Repo</dt><dd><a href="${repoPath(run.repo)}">${run.repo}</a></dd></div>
<div><dt>Ref</dt><dd class="ref">${shortRef(run.ref)}</dd></div>
${run.sha !== undefined && html`<div><dt>Commit</dt><dd class="sha">${commit?.url === undefined ? shortSha(run.sha) : html`<a href="${commit.url}" rel="noreferrer noopener external">${shortSha(run.sha)}</a>`}</dd></div>`}
${commit?.author !== undefined && html`<div><dt>Author</dt><dd>${commit.author}</dd></div>`}
${commit?.pusher !== undefined && html`<div><dt>Pushed by</dt><dd>${commit.pusher}</dd></div>`}
<div><dt>Accepted</dt><dd>${ago(run.accepted, now)} <span class="soft">${run.forge} ${run.event}</span></dd></div>
${took && html`<div><dt>Took</dt><dd>${took}</dd></div>`}
${run.state === "waiting" && behind && html`<div><dt>Waits behind</dt><dd><a href="/runs/${behind.id}">${behind.id.slice(-6)}</a></dd></div>`}
${run.attempt > 1 && html`<div><dt>Attempt</dt><dd>${run.attempt}</dd></div>`}
${run.builder !== undefined && html`<div><dt>Builder</dt><dd>${run.builder}</dd></div>`}
${run.rerun && html`<div><dt>Rerun of</dt><dd><a href="/runs/${run.rerun.of}">${run.rerun.of.slice(-6)}</a> <span class="soft">by ${run.rerun.by}</span></dd></div>`}
${run.cancelledBy !== undefined && html`<div><dt>Cancelled by</dt><dd>${run.cancelledBy}</dd></div>`}
${run.by !== undefined && html`<div><dt>${run.state === "superseded" ? "Superseded by" : "Gave way to"}</dt><dd><a href="/runs/${run.by}">${run.by.slice(-6)}</a></dd></div>`}
${superseded.length > 0 && html`<div><dt>Superseded</dt><dd>${superseded.slice(0, 10).map((each) => html`<a href="/runs/${each.id}">${each.id.slice(-6)}</a> `)}${superseded.length > 10 && `and ${superseded.length - 10} more`}</dd></div>`}</dl>
${run.reason !== undefined && html`<p class="reason ${run.state}">${run.reason}</p>`}</div>`;
}

function actions(run: Run): Html {
  const what = hasEnded(run) ? "rerun" : "cancel";
  return html`<p class="actions"><a class="button" href="/runs/${run.id}/${what}">${what === "rerun" ? "Run again" : "Cancel"}</a></p>`;
}

/** The stages, as a bar and as a table. */
function stagesPart({ stages = [] }: Run, now: number): Html {
  if (stages.length === 0) return html`<div id="stagebar"></div><div id="stages"></div>`;
  return html`<div id="stagebar">${stageBar(stages, now)}</div><div id="stages"><table class="stages"><caption class="away">Stages</caption><thead class="away"><tr><th scope="col">Stage</th><th scope="col">Result</th><th scope="col">Took</th><th scope="col">Why</th></tr></thead><tbody>${stages.map(
    (stage) => stageRow(stage, now),
  )}</tbody></table></div>`;
}

function stageRow(stage: Stage, now: number): Html {
  const place =
    stage.from === undefined
      ? html`${stage.name}`
      : html`<a href="#stage-${stage.from}" data-at="${stage.from}" data-to="${stage.to}">${stage.name}</a>`;
  return html`<tr><th scope="row">${place}</th><td>${pill(stage.result ?? "running")}</td><td class="num">${stage.seconds !== undefined ? shortDuration(stage.seconds) : stage.result === undefined && clock(stage.started, now)}</td><td class="why">${stage.why ?? ""}</td></tr>`;
}

function logPart(run: Run, { first, lines, more }: LogPart): Html {
  const earlier = first > 1 && `?from=${Math.max(1, first - plainLines)}#log`;
  return html`<section class="log" id="log" aria-label="Log" data-run="${run.id}" data-live="${hasEnded(run) ? "" : "yes"}" data-failed="${run.state === "failed" ? "yes" : ""}">
<div class="logbar"><h2>Log</h2><div class="tools" data-tools hidden></div><a href="/runs/${run.id}/log" class="raw">Raw</a></div>
<pre class="lines" data-plain tabindex="0" aria-label="Log lines">${lines.length === 0 && html`<span class="empty">${hasEnded(run) ? "Nothing was printed." : "Nothing was printed yet."}</span>`}${lines.map(
    (spans, index) =>
      html`<a id="L${first + index}" class="n" href="#L${first + index}" data-n="${first + index}" aria-label="line ${first + index}"></a>${spans.map(([text, classes]) => (classes === "" ? text : html`<span class="${classes}">${text}</span>`))}
`,
  )}</pre>
<noscript><nav class="pager" aria-label="Pages of the log">${earlier && html`<a href="${earlier}">Earlier lines</a>`}${more && html`<a href="?from=${first + lines.length}#log">Later lines</a><a href="?from=end#log">The end</a>`}</nav></noscript>
</section>`;
}

/** The question before a run is cancelled or run again. */
export function question(run: Run, what: "rerun" | "cancel"): Html {
  const ask =
    what === "rerun"
      ? html`Run this again? A new run of the same commit starts when its turn comes, with its ${run.kind === "push" ? "on_success commands" : "publishing"} too.`
      : html`Cancel this run? What it has started is ended.`;
  return html`<section class="notice"><h1>${what === "rerun" ? "Run again" : "Cancel"}</h1><p>${ask}</p><p><strong>${run.repo}</strong> <span class="ref">${shortRef(run.ref)}</span> ${pill(run.state)} <span class="soft">accepted ${fullTime(run.accepted)}</span></p>
<form method="post" action="/runs/${run.id}/${what}"><button class="${what === "cancel" ? "danger" : "main"}">${what === "rerun" ? "Run again" : "Cancel the run"}</button> <a class="button" href="/runs/${run.id}">Back</a></form></section>`;
}
