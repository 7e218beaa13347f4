import { shortRef } from "../core/names.ts";
import { hasResult, type Run } from "../run-store/run-store.ts";
import { html, type Html } from "./html.ts";
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

const plot = { width: 860, height: 150, left: 58, top: 8, bottom: 4 };

/** The last runs as bars of their stages, each leading to its run; and how many of a month's were good. */
export function runsPlot(runs: readonly Run[], now: number): Html | undefined {
  const shown = runs
    .filter((run) => hasResult(run) && run.started !== undefined)
    .slice(0, 60)
    .reverse();
  if (shown.length < 2) return undefined;
  const { width, height, left, top, bottom } = plot;
  const tall = height - top - bottom;
  const sorted = shown.map(({ seconds = 0 }) => seconds).sort((a, b) => a - b);
  // one that took far longer than most would press these flat: it is cut, and marked
  const most = sorted[Math.floor(sorted.length * 0.9)] ?? 0;
  const max = Math.max(1, Math.min(sorted.at(-1) ?? 0, most * 2));
  const wide = Math.min(24, (width - left) / shown.length);
  const ticks = [0, 0.5, 1].map((part) => {
    const at = round(top + tall * (1 - part));
    return html`<path class="grid" d="M${left} ${at}H${width}"/>
<text x="${left - 6}" y="${at + 4}" text-anchor="end">${shortDuration(max * part)}</text>`;
  });
  // the table of runs has the same links for the keyboard
  const bar = (run: Run, index: number) => {
    const { id, state, seconds = 0, stages = [] } = run;
    const x = round(left + wide * index + 1);
    const high = (value: number) => (tall * Math.min(value, max)) / max;
    const known = stages.filter((stage) => (stage.seconds ?? 0) > 0);
    let at = 0;
    const pieces = (known.length > 0 ? known : [{ name: "", result: state, seconds }]).map((stage) => {
      const from = high(at);
      at += stage.seconds ?? 0;
      const share = Math.max(1, high(at) - from - 0.5);
      return html`<rect class="${stage.result}" x="${x}" y="${round(top + tall - from - share)}"
width="${round(wide - 2)}" height="${round(share)}"/>`;
    });
    const waited = Math.max(0, (Date.parse(run.started ?? "") - Date.parse(run.accepted)) / 1000);
    const stagesText = known.map((stage) => `${stage.name} ${shortDuration(stage.seconds ?? 0)}`).join(", ");
    const took = `${shortDuration(seconds)}, waited ${shortDuration(waited)}`;
    const what = `${state}, ${took}, ${shortRef(run.ref)}, ${fullTime(run.accepted)}`;
    const [own, half] = [round(wide - 2), round((wide - 2) / 2)];
    const cross = html`<path class="cross" d="M${x} ${top + tall - 8}l${own} 8m0 -8l-${own} 8"/>`;
    return html`<a href="/runs/${id}" tabindex="-1" aria-label="${what}"><title>${what}
${stagesText}</title>${pieces}${state === "failed" && cross}
${seconds > max && html`<path class="over" d="M${x} ${top + 3}l${half} -8 ${half} 8"/>`}
</a>`;
  };
  const month = runs.filter((run) => now - Date.parse(run.accepted) < 30 * 86_400_000 && run.state !== "cancelled");
  const judged = month.filter(hasResult);
  const good = judged.filter(({ state }) => state === "succeeded").length;
  const share =
    judged.length > 0 && `${Math.round((100 * good) / judged.length)} % of 30 days' ${judged.length} are good.`;
  const words = `Duration of ${shown.length} runs by their stages`;
  return html`<figure class="plot"><svg viewBox="0 0 ${width} ${height}" role="group" aria-label="${words}">
${ticks}${shown.map(bar)}</svg><figcaption>${share} Each bar is a run, the newest on the right: its stages, one on the
other; a cross: it failed; a tip: it took longer.</figcaption></figure>`;
}

/** The last day of all repos: each run where it ended, what failed before all else. */
export function dayStrip(repos: readonly { readonly runs: readonly Run[] }[], now: number): Html | false {
  const day = 86_400_000;
  const ended = repos
    .flatMap(({ runs }) => runs.filter((run) => hasResult(run) && now - Date.parse(run.ended ?? "") < day))
    .sort((a, b) => Number(a.state === "failed") - Number(b.state === "failed"));
  if (ended.length === 0) return false;
  const paths = new Map<string, string>();
  for (const run of ended) {
    const x = Math.round(1000 * (1 - (now - Date.parse(run.ended ?? "")) / day));
    const piece = run.state === "failed" ? `M${x} 0v16` : `M${x} 6v10`;
    paths.set(run.state, (paths.get(run.state) ?? "") + piece);
  }
  const failed = ended.filter(({ state }) => state === "failed").length;
  const words = `${ended.length} runs ended in the last 24 hours, ${failed} failed`;
  return html`<figure class="day"><svg viewBox="0 0 1000 16" preserveAspectRatio="none" role="img"
aria-label="${words}">
${[...paths].map(([state, d]) => html`<path class="${state}" d="${d}"/>`)}</svg>
<figcaption><a href="/runs?since=2d">${words}</a></figcaption></figure>`;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
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
