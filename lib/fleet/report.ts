import type { KeyObject } from "node:crypto";
import { cleanLine } from "../core/clean.ts";
import { open } from "./letter.ts";

/** What a slave says of itself: the content of its answers over HTTP, and of what it leaves on a bus. */
export interface Report {
  name: string;
  /** When it was written, in ms since 1970. */
  at: number;
  boatyard?: string | undefined;
  node?: string | undefined;
  git?: string | undefined;
  /** Bytes where the repos are. */
  free?: number | undefined;
  /** Seconds. */
  uptime?: number | undefined;
  /** Patterns of the repos that it takes; none: all. */
  allow: string[];
  /** The groups whose orders it reads on a bus. */
  groups: string[];
  repos: RepoStatus[];
  /** The digest of the question, when it has compared its files for one. */
  verified?: string | undefined;
}

/** One repo of it. */
export interface RepoStatus {
  repo: string;
  sha?: string | undefined;
  branch?: string | undefined;
  /** When it was put in place. */
  since?: string | undefined;
  /** `after:` has not succeeded in it yet. */
  pending?: boolean | undefined;
  /** It is a folder that no update of ours made. */
  plain?: boolean | undefined;
  /** Why the last update failed, or was refused. */
  error?: string | undefined;
  /** Somebody wrote into the served tree; only when that was asked for. */
  written?: boolean | undefined;
  order?: OrderState | undefined;
}

/** What became of the last order for a repo. */
export interface OrderState {
  digest: string;
  at: number;
  state: "queued" | "running" | "done" | "failed" | "refused";
  before?: string | undefined;
  sha?: string | undefined;
  error?: string | undefined;
  seconds?: number | undefined;
}

/** Whether an order is over. */
export function isOver(state: OrderState["state"] | undefined): boolean {
  return state === "done" || state === "failed" || state === "refused";
}

/** A slave on a bus that has not reported for so long, in ms, is off. */
export const offAfter = 150_000;
/** How often a slave on a bus reports when nothing changes, in ms. */
export const reportEvery = 60_000;

/** Whose answer it has to be, and to what. */
export interface Expected {
  name: string;
  /** The digest of the letter that it answers; `*` on a bus. */
  to: string;
  /** Its own key, when the list has it: then only that counts. */
  key?: KeyObject | undefined;
  /** The shared secret's key, when the letter was signed with it. */
  shared?: KeyObject | undefined;
}

/** Read a slave's answer; what is in it is a stranger's, and cleaned. */
export function openReport(text: string, { name, to, key, shared }: Expected): Report | { refusal: string } {
  const opened = open(text, "answer", key ? [key] : shared && [shared]);
  if ("refusal" in opened) {
    const whose = key ? "the key that the list has for it" : "the shared secret";
    if (key || shared) return { refusal: `its answer is not signed with ${whose}` };
    return { refusal: "its answer is no letter: it comes from another program" };
  }
  if (opened.letter.to !== to)
    return { refusal: "its answer is not to our letter: it comes from another program, or another time" };
  const report = reportIn(opened.letter);
  if (to === "*" && report.name.toLowerCase() !== name.toLowerCase())
    return { refusal: "its report is another slave's" };
  return report;
}

function reportIn(content: Record<string, unknown>): Report {
  const { word, number, list } = readersOf(content);
  return {
    ...{ name: word("name") ?? "", at: number("at") ?? 0 },
    ...{ boatyard: word("boatyard"), node: word("node"), git: word("git") },
    ...{ free: number("free"), uptime: number("uptime"), verified: word("verified") },
    allow: list("allow").filter((each) => typeof each === "string"),
    groups: list("groups").filter((each) => typeof each === "string"),
    repos: list("repos")
      .map((each) => statusIn(Object(each)))
      .filter(({ repo }) => repo !== ""),
  };
}

function statusIn(content: Record<string, unknown>): RepoStatus {
  const { word, is } = readersOf(content);
  return {
    ...{ repo: word("repo") ?? "", sha: word("sha"), branch: word("branch"), since: word("since") },
    ...{ pending: is("pending"), plain: is("plain"), error: word("error"), written: is("written") },
    order: content["order"] === undefined ? undefined : stateIn(Object(content["order"])),
  };
}

function stateIn(content: Record<string, unknown>): OrderState {
  const { word, number } = readersOf(content);
  return {
    ...{ digest: word("digest") ?? "", at: number("at") ?? 0, state: word("state") as OrderState["state"] },
    ...{ before: word("before"), sha: word("sha"), error: word("error"), seconds: number("seconds") },
  };
}

function readersOf(content: Record<string, unknown>) {
  return {
    word: (name: string) => wordsOf(content[name]),
    number: (name: string) => (typeof content[name] === "number" ? content[name] : undefined),
    is: (name: string) => (typeof content[name] === "boolean" ? content[name] : undefined),
    list: (name: string): unknown[] => (Array.isArray(content[name]) ? content[name] : []),
  };
}

/** A stranger's word for the table: one line, without characters that steer a terminal or turn its text round. */
export function wordsOf(value: unknown): string | undefined {
  if (typeof value !== "string" || value === "") return undefined;
  return cleanLine(value.slice(0, 500));
}
