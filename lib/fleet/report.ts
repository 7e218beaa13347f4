import type { KeyObject } from "node:crypto";
import { cleanLine } from "../core/clean.ts";
import { Failure } from "../core/errors.ts";
import { type Letter, open } from "./letter.ts";

/** What a slave says of itself. It is a stranger's word: what is not as it must be is left out, and text is cleaned. */

type Reader<T> = (value: unknown) => T;
type Shape = Record<string, Reader<unknown>>;
type Has<S extends Shape, Key extends keyof S> = undefined extends ReturnType<S[Key]> ? never : Key;
type Read<S extends Shape> = { [Key in keyof S as Has<S, Key>]: ReturnType<S[Key]> } & {
  [Key in keyof S as Has<S, Key> extends never ? Key : never]?: ReturnType<S[Key]>;
};

/** A stranger's word for the table: one line, without characters that steer a terminal or turn its text round. */
export function wordsOf(value: unknown): string | undefined {
  if (typeof value !== "string" || value === "") return undefined;
  return cleanLine(value.slice(0, 500));
}

const text = (value: unknown) => wordsOf(value) ?? "";
const number = (value: unknown) => (typeof value === "number" ? value : undefined);
const flag = (value: unknown) => (typeof value === "boolean" ? value : undefined);

function listOf<T>(read: Reader<T>): Reader<T[]> {
  return (value) => (Array.isArray(value) ? value.map(read) : []);
}

function record<S extends Shape>(shape: S): Reader<Read<S>> {
  return (value) => {
    const found = Object(value) as Record<string, unknown>;
    return Object.fromEntries(Object.entries(shape).map(([name, read]) => [name, read(found[name])])) as Read<S>;
  };
}

const states = ["queued", "running", "done", "failed", "refused"] as const;

/** What became of the last order for a repo. */
const orderState = record({
  digest: text,
  at: (value) => number(value) ?? 0,
  state: (value) => states.find((each) => each === value) ?? "queued",
  before: wordsOf,
  sha: wordsOf,
  error: wordsOf,
  seconds: number,
});
export type OrderState = ReturnType<typeof orderState>;

const repoStatus = record({
  repo: text,
  sha: wordsOf,
  branch: wordsOf,
  // when it was put in place
  since: wordsOf,
  // `after:` has not succeeded in it yet
  pending: flag,
  // it is a folder that no update of ours made
  plain: flag,
  // why the last update failed, or was refused
  error: wordsOf,
  // somebody wrote into the served tree; only when that was asked for
  written: flag,
  order: (value) => (value === undefined ? undefined : orderState(value)),
});
export type RepoStatus = ReturnType<typeof repoStatus>;

/** The content of a slave's answers over HTTP, and of what it leaves on a bus. */
const reportOf = record({
  name: text,
  // when it was written, in ms since 1970
  at: (value) => number(value) ?? 0,
  boatyard: wordsOf,
  node: wordsOf,
  git: wordsOf,
  // bytes where the repos are
  free: number,
  // seconds
  uptime: number,
  // patterns of the repos that it takes; none: all
  allow: listOf(text),
  repos: listOf(repoStatus),
  // the digest of the question, when it has compared its files for one
  verified: wordsOf,
});
export type Report = ReturnType<typeof reportOf>;

/** Whether an order is over. */
export function isOver(state: OrderState["state"]): boolean {
  return state !== "queued" && state !== "running";
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

/** Read a slave's answer. @throws {Failure} for what is not its own */
export function openReport(text: string, { name, to, key, shared }: Expected): Report {
  let letter: Letter;
  try {
    ({ letter } = open(text, "answer", { keys: key ? [key] : shared && [shared] }));
  } catch {
    const whose = key ? "the key that the list has for it" : "the shared secret";
    if (key || shared) throw new Failure(`its answer is not signed with ${whose}`);
    throw new Failure("its answer is no letter: it comes from another program");
  }
  if (letter.to !== to)
    throw new Failure("its answer is not to our letter: it comes from another program, or another time");
  const report = reportOf(letter);
  report.repos = report.repos.filter(({ repo }) => repo !== "");
  if (to === "*" && report.name.toLowerCase() !== name.toLowerCase())
    throw new Failure("its report is another slave's");
  return report;
}
