import { shortRef } from "../core/names.ts";
import { html, type Html } from "./html.ts";
import { hasResult, type Run, type Stage } from "./source.ts";
import { fullTime, shortDuration } from "./times.ts";

/** Bars, plots and badges as SVG: sizes are attributes, colours are classes: no style stands in the page. */

const barStep = 7;
const barHeight = 26;

/** The last runs of a repo as bars, the newest on the right: the height is the duration, the colour the result. */
export function bars(runs: readonly Run[], count: number): Html {
  const shown = runs.filter(hasResult).slice(0, count);
  const longest = Math.max(1, ...shown.map(({ seconds = 0 }) => seconds));
  // one path for each result: a page of many repos stays small
  const paths = new Map<string, string>();
  for (const [index, run] of shown.entries()) {
    const x = (count - 1 - index) * barStep;
    // by the root, so that a short run beside a long one can be seen
    const height = Math.max(4, Math.round(barHeight * Math.sqrt((run.seconds ?? 0) / longest)));
    const piece = `M${x} ${barHeight}v-${height}h5v${height}z`;
    paths.set(run.state, (paths.get(run.state) ?? "") + piece);
  }
  const width = count * barStep - 2;
  return html`<svg class="bars" width="${width}" height="${barHeight}" viewBox="0 0 ${width} ${barHeight}" role="img"
aria-label="${barsLabel(shown)}"><path class="base" d="M0 ${barHeight - 0.5}h${width}"/>
${[...paths].map(([state, d]) => html`<path class="${state}" d="${d}"/>`)}</svg>`;
}

function barsLabel(runs: readonly Run[]): string {
  if (runs.length === 0) return "no runs yet";
  const counts = new Map<string, number>();
  for (const { state } of runs) counts.set(state, (counts.get(state) ?? 0) + 1);
  const parts = [...counts].map(([state, count]) => `${count} ${state}`);
  const which = runs.length === 1 ? "the last run" : `the last ${runs.length} runs`;
  return `${which}: ${parts.join(", ")}`;
}

const plot = { width: 860, height: 190, left: 64, right: 66, top: 12, bottom: 24 };

/** Durations over time as points that lead to their runs, and the share of good runs as a line. */
export function durationPlot(runs: readonly Run[]): Html | undefined {
  const shown = runs
    .filter((run) => hasResult(run) && run.started)
    .slice(0, 200)
    .reverse();
  if (shown.length < 2) return undefined;
  const { width, height, left, right, top, bottom } = plot;
  const [inner, tall] = [width - left - right, height - top - bottom];
  const max = niceMax(Math.max(...shown.map(({ seconds = 0 }) => seconds)));
  const x = (index: number) => round(left + (inner * (index + 0.5)) / shown.length);
  const y = (seconds: number) => round(top + tall * (1 - seconds / max));
  const good = shareOfGood(shown);
  const line = good.map((share, index) => `${x(index)},${round(top + tall * (1 - share))}`).join(" ");
  const ticks = [0, 0.5, 1].map((part) => {
    const at = round(top + tall * (1 - part));
    return html`<path class="grid" d="M${left} ${at}h${inner}"/>
<text x="${left - 6}" y="${at + 4}" text-anchor="end">${axisDuration(max * part)}</text>
<text class="share" x="${width - right + 6}" y="${at + 4}">${Math.round(part * 100)}%</text>`;
  });
  // the table of runs has the same links for the keyboard
  const points = shown.map((run, index) => {
    const { id, state, seconds = 0 } = run;
    const time = fullTime(run.started ?? run.accepted);
    const what = `${state}, ${shortDuration(seconds)}, ${shortRef(run.ref)}, ${time}`;
    return html`<a href="/runs/${id}" tabindex="-1" aria-label="${what}">
<circle class="${state}" cx="${x(index)}" cy="${y(seconds)}" r="4"><title>${what}</title></circle></a>`;
  });
  const [first, last] = [shown[0], shown.at(-1)].map((run) => run?.started?.slice(0, 10));
  const words = `Duration of ${shown.length} runs, and the share of good ones`;
  return html`<figure class="plot"><svg viewBox="0 0 ${width} ${height}" role="group" aria-label="${words}">
${ticks}
<text class="day" x="${left}" y="${height - 6}">${first}</text>
<text class="day" x="${width - right}" y="${height - 6}" text-anchor="end">${last}</text>
<polyline class="share" points="${line}"/>
${points}
</svg><figcaption>Each point is a run: how long it took (left).
The line is the share of good runs among the ten before (right).</figcaption></figure>`;
}

/** For each run the share of good ones among it and the nine before; a cancelled run counts for nothing. */
export function shareOfGood(runs: readonly Pick<Run, "state">[]): number[] {
  return runs.map((_, index) => {
    const recent = runs.slice(Math.max(0, index - 9), index + 1);
    const judged = recent.filter(({ state }) => state !== "cancelled");
    const good = judged.filter(({ state }) => state === "succeeded");
    return judged.length === 0 ? 1 : good.length / judged.length;
  });
}

/** A duration beside an axis, where there is little room: `0 s`, `2.5 m`, `1 h`. */
function axisDuration(seconds: number): string {
  const [unit, size] = seconds < 60 ? ["s", 1] : seconds < 3600 ? ["m", 60] : ["h", 3600];
  return `${round(seconds / Number(size))} ${unit}`;
}

function niceMax(value: number): number {
  const steps = [1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14_400, 28_800];
  return steps.find((step) => step >= value) ?? value;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}

/** A run's stages side by side, each as wide as it took. */
export function stageBar(stages: readonly Stage[], now: number): Html | undefined {
  if (stages.length === 0) return undefined;
  const width = 1000;
  const starts = stages.map(({ started }) => Date.parse(started));
  const begin = Math.min(...starts);
  // the newest may have begun after `now`, which is not always of this second
  const end = Math.max(now, Math.max(...starts) + 1000);
  const endOf = ({ started, seconds }: Stage) => (seconds === undefined ? end : Date.parse(started) + seconds * 1000);
  const span = Math.max(1, ...stages.map((stage) => endOf(stage) - begin));
  const pieces = stages.map((stage) => {
    const x = round((width * (Date.parse(stage.started) - begin)) / span);
    const wide = Math.max(2, round((width * (endOf(stage) - Date.parse(stage.started))) / span));
    const seconds = (endOf(stage) - Date.parse(stage.started)) / 1000;
    const result = stage.result ?? "running";
    const what = `${stage.name}: ${result}, ${shortDuration(Math.max(0, seconds))}`;
    const wider = Math.max(1, wide - 1.5);
    const title = html`<title>${what}</title>`;
    return html`<rect class="${result}" x="${x}" y="0" width="${wider}" height="14" rx="2">${title}</rect>`;
  });
  return html`<svg class="stagebar" viewBox="0 0 ${width} 14" preserveAspectRatio="none" aria-hidden="true">
${pieces}</svg>`;
}

/** A badge of a repo's last run that has ended, as SVG. The words are ours alone: nothing of a request stands in it. */
export function badge(runs: readonly Run[]): string {
  const last = runs.find(hasResult);
  const words: Record<string, [text: string, colour: string]> = {
    succeeded: ["passing", "#1a7f37"],
    failed: ["failing", "#b3261e"],
    cancelled: ["cancelled", "#5f6873"],
  };
  const [text, colour] = words[last?.state ?? ""] ?? ["no runs", "#5f6873"];
  const [left, right] = [42, 14 + text.length * 6.6];
  const width = Math.round(left + right);
  const made = html`<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="20" role="img"
aria-label="build: ${text}"><title>build: ${text}</title>
<clipPath id="r"><rect width="${width}" height="20" rx="4"/></clipPath>
<g clip-path="url(#r)"><rect width="${left}" height="20" fill="#3b434b"/>
<rect x="${left}" width="${width - left}" height="20" fill="${colour}"/></g>
<g fill="#fff" font-family="system-ui,sans-serif" font-size="11" text-anchor="middle">
<text x="${left / 2}" y="14">build</text><text x="${left + right / 2}" y="14">${text}</text></g></svg>
`;
  return made.text;
}
