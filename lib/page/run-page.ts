import { shortRef, shortSha } from "../core/names.ts";
import type { Span } from "./ansi.ts";
import { html, type Html, type Value } from "./html.ts";
import { pageTitle, pill, table } from "./layout.ts";
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
  const { run, now } = details;
  return html`<title>${pageTitle(runTitle(run))}</title>${summary(details)}${stagesPart(run, now)}`;
}

function summary({ run, superseded, behind, now }: Changing): Html {
  const { commit, sha, rerun, by } = run;
  const runLink = (id: string) => html`<a href="/runs/${id}">${id.slice(-6)}</a>`;
  const fact = (name: string, value: Value, kind?: string) =>
    value && html`<div><dt>${name}</dt><dd${kind !== undefined && html` class="${kind}"`}>${value}</dd></div>\n`;
  const short = shortSha(sha ?? "");
  const { url } = commit ?? {};
  const link = url === undefined ? short : html`<a href="${url}" rel="noreferrer noopener external">${short}</a>`;
  const more = superseded.length > 10 && `and ${superseded.length - 10} more`;
  const took =
    run.seconds !== undefined
      ? shortDuration(run.seconds)
      : run.started !== undefined && !hasEnded(run) && clock(run.started, now);
  const title = commit?.title ?? `${run.kind} of ${shortRef(run.ref)}`;
  const facts = [
    fact("Repo", html`<a href="${repoPath(run.repo)}">${run.repo}</a>`),
    fact("Ref", shortRef(run.ref), "ref"),
    fact("Commit", sha !== undefined && link, "sha"),
    fact("Author", commit?.author),
    fact("Pushed by", commit?.pusher),
    fact("Accepted", html`${ago(run.accepted, now)} <span class="soft">${run.forge} ${run.event}</span>`),
    fact("Took", took),
    fact("Waits behind", run.state === "waiting" && behind && runLink(behind.id)),
    fact("Attempt", run.attempt > 1 && run.attempt),
    fact("Builder", run.builder),
    fact("Rerun of", rerun && html`${runLink(rerun.of)} <span class="soft">by ${rerun.by}</span>`),
    fact("Cancelled by", run.cancelledBy),
    fact(run.state === "superseded" ? "Superseded by" : "Gave way to", by !== undefined && runLink(by)),
    superseded.length > 0 &&
      fact("Superseded", [...superseded.slice(0, 10).map(({ id }) => html`${runLink(id)} `), more]),
  ];
  return html`<div id="summary"><div class="head"><h1>${pill(run.state)}<span>${title}</span></h1></div>
<dl class="facts">${facts}</dl>
${run.reason !== undefined && html`<p class="reason ${run.state}">${run.reason}</p>`}</div>`;
}

function actions(run: Run): Html {
  const what = hasEnded(run) ? "rerun" : "cancel";
  const words = what === "rerun" ? "Run again" : "Cancel";
  return html`<p class="actions"><a class="button" href="/runs/${run.id}/${what}">${words}</a></p>`;
}

/** The stages, as a bar and as a table. */
function stagesPart({ stages = [] }: Run, now: number): Html {
  if (stages.length === 0) return html`<div id="stagebar"></div><div id="stages"></div>`;
  const rows = stages.map((stage) => stageRow(stage, now));
  return html`<div id="stagebar">${stageBar(stages, now)}</div>
<div id="stages">${table("stages", { caption: "Stages", columns: ["Stage", "Result", "Took", "Why"], rows })}</div>`;
}

function stageRow(stage: Stage, now: number): Html {
  const place =
    stage.from === undefined
      ? html`${stage.name}`
      : html`<a href="#stage-${stage.from}" data-at="${stage.from}" data-to="${stage.to}">${stage.name}</a>`;
  const { result, seconds } = stage;
  const took = seconds !== undefined ? shortDuration(seconds) : result === undefined && clock(stage.started, now);
  return html`<tr><th scope="row">${place}</th><td>${pill(result ?? "running")}</td><td class="num">${took}</td>
<td class="why">${stage.why}</td></tr>`;
}

function logPart(run: Run, { first, lines, more }: LogPart): Html {
  const earlier = first > 1 && `?from=${Math.max(1, first - plainLines)}#log`;
  const isLive = !hasEnded(run);
  const later = html`<a href="?from=${first + lines.length}#log">Later lines</a><a href="?from=end#log">The end</a>`;
  const none = html`<span class="empty">${isLive ? "Nothing was printed yet." : "Nothing was printed."}</span>`;
  const line = (spans: readonly Span[], index: number) => {
    const n = first + index;
    const parts = spans.map(([text, classes]) =>
      classes === "" ? text : html`<span class="${classes}">${text}</span>`,
    );
    return html`<a id="L${n}" class="n" href="#L${n}" data-n="${n}" aria-label="line ${n}"></a>${parts}\n`;
  };
  return html`<section class="log" id="log" aria-label="Log" data-run="${run.id}" data-live="${isLive && "yes"}">
<div class="logbar"><h2>Log</h2><div class="tools" data-tools hidden></div>
<a href="/runs/${run.id}/log" class="raw">Raw</a></div>
<pre class="lines" data-plain tabindex="0" aria-label="Log lines">${lines.length === 0 ? none : lines.map(line)}</pre>
<noscript><nav class="pager" aria-label="Pages of the log">
${earlier && html`<a href="${earlier}">Earlier lines</a>`}${more && later}</nav></noscript>
</section>`;
}

/** The question before a run is cancelled or run again. */
export function question(run: Run, what: "rerun" | "cancel"): Html {
  const also = `with its ${run.kind === "push" ? "on_success commands" : "publishing"} too.`;
  const [title, button, kind, ask] =
    what === "rerun"
      ? [
          "Run again",
          "Run again",
          "main",
          `Run this again? A new run of the same commit starts when its turn comes, ${also}`,
        ]
      : ["Cancel", "Cancel the run", "danger", "Cancel this run? What it has started is ended."];
  return html`<section class="notice"><h1>${title}</h1><p>${ask}</p>
<p><strong>${run.repo}</strong> <span class="ref">${shortRef(run.ref)}</span> ${pill(run.state)}
<span class="soft">accepted ${fullTime(run.accepted)}</span></p>
<form method="post" action="/runs/${run.id}/${what}"><button class="${kind}">${button}</button>
<a class="button" href="/runs/${run.id}">Back</a></form></section>`;
}
