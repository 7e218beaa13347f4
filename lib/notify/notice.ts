import { createHash } from "node:crypto";
import { hostname } from "node:os";
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

/** The texts of a notice, and how many characters of each are shown. */
const texts = { subject: 300, repo: 300, what: 300, stage: 80, reason: 300, ref: 300, title: 300 } as const;
const names = { author: 100, pusher: 100 } as const;

/** A notice as it may be kept and sent: its secrets masked, nothing in it that acts on a terminal, nothing endless. */
export function prepare(notice: Notice, standing: Standing, mask: (text: string) => string): Told {
  const told: { -readonly [Key in keyof Told]: Told[Key] } = { ...notice, ...standing, host: hostname() };
  for (const [name, most] of Object.entries({ ...texts, ...names }) as [keyof typeof texts, number][])
    Object.assign(told, { [name]: told[name] ? cut(cleanLine(mask(told[name])), most) : undefined });
  const { lines = [] } = notice;
  // masked together: a secret may have several lines
  const shown = mask(lines.slice(-maxLines).join("\n"))
    .split("\n")
    .slice(0, lines.length === 0 ? 0 : maxLines);
  told.lines = shown.map((line) => cut(cleanLine(line), 400));
  told.url = linkOf(notice.url);
  return told;
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

/** A short name that stands for a text and is good as a file's name. */
export function shortHash(text: string): string {
  return createHash("sha256").update(text).digest("hex").slice(0, 20);
}
