import { createHash } from "node:crypto";
import { hostname } from "node:os";
import type { Mask } from "../core/mask.ts";
import { cleanLine } from "../core/clean.ts";

/** Something that people are told of. All texts may come from outside. */
export interface Notice {
  /** Names the event: told again under the same id, it is one. */
  readonly id: string;
  /** The script that tells it: `hook-server`. */
  readonly by: string;
  /** What it is about: `jostylr/site main`. Whether an outcome is a change is judged within one subject. */
  readonly subject: string;
  /** Whose it is, where several have subjects: `jostylr/site`. Default: the subject. */
  readonly repo?: string | undefined;
  /** `news`: neither broken nor healed, yet worth a message: an update was taken. */
  readonly outcome: "failed" | "ok" | "news";
  /** What happened, in a few words: `push failed`. */
  readonly what: string;
  /** ISO time. */
  readonly at: string;
  /** The stage that failed. */
  readonly stage?: string | undefined;
  /** Why, in a line. */
  readonly reason?: string | undefined;
  readonly seconds?: number | undefined;
  /** A branch or tag. */
  readonly ref?: string | undefined;
  readonly sha?: string | undefined;
  /** The first line of the commit's message. */
  readonly title?: string | undefined;
  /** As the commit says, which proves nothing. */
  readonly author?: string | undefined;
  /** The account that the forge names. */
  readonly pusher?: string | undefined;
  /** The last lines that the stage printed. */
  readonly lines?: readonly string[] | undefined;
  /** A page that shows more. */
  readonly url?: string | undefined;
}

/** What a notice means for its subject. */
export interface Standing {
  /** `broken`: the first failure after good; `fixed`: the first good after a failure. */
  readonly change: "broken" | "fixed" | undefined;
  /** When the subject broke: ISO time; undefined when it was well before and is. */
  readonly since?: string | undefined;
  /** How many failures in a row there were, this one included. */
  readonly failures: number;
}

/** A notice as it is kept and sent: masked, cleaned and cut, with what it means. */
export interface Told extends Notice, Standing {
  readonly host: string;
}

/** Which notices a target gets. `change`: the first failure, the recovery, and news. */
export type When = "change" | "failure" | "always";

/** Whether a target with that `when` is told. */
export function isWanted(told: Pick<Told, "outcome" | "change">, when: When): boolean {
  if (when === "always") return true;
  if (when === "failure") return told.outcome === "failed";
  return told.change !== undefined || told.outcome === "news";
}

/** Lines of a log that a message shows. */
export const maxLines = 20;

/** A notice as it may be kept and sent: its secrets masked, nothing in it that acts on a terminal, nothing endless. */
export function prepare(notice: Notice, standing: Standing, mask: Mask): Told {
  const line = (text: string, most = 300) => cut(cleanLine(mask(text)), most);
  const optional = (text: string | undefined, most?: number) =>
    text === undefined || text === "" ? undefined : line(text, most);
  const { lines = [] } = notice;
  return {
    ...notice,
    ...standing,
    host: hostname(),
    subject: line(notice.subject),
    repo: optional(notice.repo),
    what: line(notice.what),
    stage: optional(notice.stage, 80),
    reason: optional(notice.reason),
    ref: optional(notice.ref),
    title: optional(notice.title),
    author: optional(notice.author, 100),
    pusher: optional(notice.pusher, 100),
    url: linkOf(notice.url),
    // masked together: a secret may have several lines
    lines: mask(lines.slice(-maxLines).join("\n"))
      .split("\n")
      .filter((_, at) => at < maxLines && lines.length > 0)
      .map((each) => cut(cleanLine(each), 400)),
  };
}

/** A link as chats and mail take it; undefined for what is none. */
function linkOf(url: string | undefined): string | undefined {
  if (url === undefined || !/^https?:/.test(url) || !URL.canParse(url)) return undefined;
  return new URL(url).href.replaceAll("|", "%7C");
}

/** The first so many characters of a text; none of them is cut in two. */
export function cut(text: string, most: number): string {
  if (text.length <= most) return text;
  const characters = Array.from(text.slice(0, most * 2));
  return characters.length <= most ? text : `${characters.slice(0, most - 1).join("")}…`;
}

/** What several notices have in common that one message tells together: how it ended, where, and why. */
export function causeOf({ outcome, change, stage, reason, what }: Told): string {
  return JSON.stringify([outcome, change, stage, reason, outcome === "news" ? what : ""]);
}

/** Where room is needed: the oldest of the repo that has most, so that none pushes out another's. */
export function oldestOfMost<T>(all: readonly T[], repoOf: (one: T) => string): T {
  const counts = new Map<string, number>();
  for (const each of all) counts.set(repoOf(each), (counts.get(repoOf(each)) ?? 0) + 1);
  const most = Math.max(...counts.values());
  return all.find((each) => counts.get(repoOf(each)) === most) as T;
}

/** A short name that stands for a text and is good as a file's name. */
export function shortHash(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 20);
}
