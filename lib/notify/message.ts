import { formatDuration } from "../core/units.ts";
import { type Told, shortHash } from "./notice.ts";

/** What a message says, before a target's own shape. Pure. */
export interface Message {
  /** The same for the same notices: by it a receiver knows a message that comes twice. */
  readonly id: string;
  /** `FAILED` or `OK again` … */
  readonly headline: string;
  /** What it is about, in a line. */
  readonly about: string;
  /** Labelled lines: what, where, since when, the commit, who. */
  readonly facts: readonly (readonly [label: string, text: string])[];
  /** The last lines of the stage. */
  readonly lines: readonly string[];
  readonly url: string | undefined;
  /** The newest of what it tells. */
  readonly newest: Told;
  /** All that it tells, in order. */
  readonly all: readonly Told[];
}

/** So many of a burst are named; of the others there is the count. */
const maxNamed = 10;

/** One message about notices of one cause, in the order in which they came: at least one. */
export function composeMessage(all: readonly Told[]): Message {
  const newest = all.at(-1) as Told;
  const id = shortHash(JSON.stringify(all.map((each) => each.id)));
  const { stage, outcome } = newest;
  const names = namesOf(all);
  const colon = outcome === "failed" && stage !== undefined ? `: ${stage}` : "";
  const what = outcome === "news" ? `: ${newest.what}` : colon;
  const about = all.length === 1 ? newest.subject + what : `${shortList(names, 2)}${what} (${all.length} times)`;
  return {
    id,
    headline: headlineOf(newest),
    about,
    facts: factsOf(newest, all, names),
    lines: newest.lines ?? [],
    url: newest.url,
    newest,
    all,
  };
}

function headlineOf({ outcome, change }: Told): string {
  if (outcome === "failed") return change === "broken" ? "FAILED" : "STILL FAILING";
  if (outcome === "news") return "NEWS";
  return change === "fixed" ? "OK again" : "OK";
}

/** The subjects, the first of each repo before all others: the many branches of one hide no other repo. */
function namesOf(all: readonly Told[]): string[] {
  const first = new Map<string, string>();
  for (const { subject, repo = subject } of all) if (!first.has(repo)) first.set(repo, subject);
  return [...new Set([...first.values(), ...all.map(({ subject }) => subject)])];
}

function factsOf(newest: Told, all: readonly Told[], names: readonly string[]) {
  const { reason, seconds, sha, ref, title, author, pusher } = newest;
  const took = seconds === undefined ? "" : ` after ${formatDuration(seconds * 1000)}`;
  const commit = [
    sha?.slice(0, 12),
    ref === undefined ? undefined : `on ${ref.replace(/^refs\/(?:heads|tags)\//, "")}`,
    title === undefined ? undefined : `"${title}"`,
  ].filter((part) => part !== undefined);
  const facts: [string, string | undefined][] = [
    ["what", `${newest.what}${took}${reason === undefined ? "" : `: ${reason}`}`],
    ["where", `${newest.by} on ${newest.host}`],
    ["when", shortTime(newest.at)],
    ["since", sinceOf(newest)],
    ["commit", commit.length > 0 ? commit.join(" ") : undefined],
    ["author", author === undefined ? undefined : `${author} (as the commit says)`],
    ["pushed by", pusher],
    ["all", names.length > 1 ? shortList(names, maxNamed) : undefined],
    ["first", all.length > 1 ? shortTime(all[0]?.at ?? newest.at) : undefined],
  ];
  return facts.flatMap(([label, text]) => (text === undefined ? [] : [[label, text] as const]));
}

function sinceOf({ outcome, change, since, failures, at }: Told): string | undefined {
  if (since === undefined || outcome === "news") return undefined;
  const times = failures === 1 ? "1 failure" : `${failures} failures`;
  if (change === "fixed") {
    const down = formatDuration(Math.max(0, Date.parse(at) - Date.parse(since)));
    return `failed from ${shortTime(since)}, for ${down} (${times})`;
  }
  return `${shortTime(since)} (${times})`;
}

function shortTime(iso: string): string {
  return iso.replace("T", " ").replace(/\.\d+Z$/, "Z");
}

function shortList(names: readonly string[], most: number): string {
  if (names.length <= most) return names.join(", ");
  return `${names.slice(0, most).join(", ")} and ${names.length - most} more`;
}

/** A message in plain text, its headline left out: for mail, ntfy and commands. */
export function plainText({ facts, lines, url, newest }: Message): string {
  const shown = url === undefined ? facts : [...facts, ["link", url] as const];
  const width = Math.max(...shown.map(([label]) => label.length)) + 2;
  const head = shown.map(([label, text]) => `${`${label}:`.padEnd(width)}${text}`);
  if (lines.length === 0) return `${head.join("\n")}\n`;
  const { stage } = newest;
  const ofStage = stage === undefined ? "" : ` of ${stage}`;
  const tail = [`The last lines${ofStage}:`, "", ...lines.map((each) => `  ${each}`)];
  return `${[...head, "", ...tail].join("\n")}\n`;
}

/** The headline with what it is about: a mail's subject, a title. */
export function titleOf({ headline, about }: Pick<Message, "headline" | "about">): string {
  return `${headline}: ${about}`;
}
