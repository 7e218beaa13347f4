import type { KeyObject } from "node:crypto";
import { UsageError } from "../../core/errors.ts";
import { didYouMean } from "../../core/names.ts";
import { formatPublicKey, parsePublicKey } from "../keys.ts";
import { isTargetName } from "../letter.ts";

/** The list of slaves: text in, targets out. */

/** One slave. */
export interface Target {
  /** As the list names it, ranges expanded: what tables and lists of failed ones show. */
  name: string;
  /** The endpoint that starts an update; its query gets `repo`. */
  url: URL;
  /** What the slave is called: orders name it. */
  slave: string;
  /** Its public key, when the list has it: then only answers that it signed count. */
  key?: KeyObject | undefined;
  /** The group it is in; "" before the first `[name]`. */
  group: string;
}

const defaultPort = 9999;
/** More than this out of one line is a typing mistake. */
const maxRange = 100_000;
/** So many wrong lines are named: a file that is no list has many. */
const maxProblems = 20;

/**
 * Read a list: `host`, `host:port`, `[IPv6]:port`, an http(s) URL, `web[01-20].example.com`, `bus://NAME`; each of them
 * takes `name=NAME` and `key=ed25519:…`; `[name]` starts a group, `#` a comment.
 * @param file its name in messages
 * @returns with the targets a line `file:line: …` for every one that is there twice; it is asked once
 * @throws {UsageError} naming every bad line: then nothing must be sent.
 */
export function parseList(text: string, file: string) {
  const problems: string[] = [];
  const duplicates: string[] = [];
  const seen = new Map<string, number>();
  const targets: Target[] = [];
  let group = "";
  for (const [index, raw] of text.split(/\r?\n/).entries()) {
    const where = `${file}:${index + 1}`;
    const line = raw.replace(/(^|\s)#.*$/, "").trim();
    if (line === "") continue;
    const heading = /^\[([A-Za-z][\w.-]*)\]$/.exec(line)?.[1];
    if (heading !== undefined) {
      group = heading;
      continue;
    }
    try {
      for (const { name, slave, key: publicKey } of entriesOf(line)) {
        const url = endpointOf(name);
        // a slave may be in several groups: only the same group twice is a mistake
        const key = `${url.href} ${group}`;
        const first = seen.get(key);
        if (first === undefined) {
          seen.set(key, index + 1);
          const host = url.hostname.replace(/^\[|\]$/g, "");
          targets.push({ name, url, slave: slave ?? host, key: publicKey, group });
        } else {
          duplicates.push(`${where}: ${name} is there already (line ${first}); it is asked once`);
        }
      }
    } catch (error) {
      if (!(error instanceof UsageError)) throw error;
      problems.push(`${where}: ${error.message}`);
    }
  }
  if (problems.length > maxProblems)
    problems.splice(maxProblems, Infinity, `and ${problems.length - maxProblems} lines more`);
  if (problems.length > 0) throw new UsageError(problems.join("\n"));
  return { targets, duplicates };
}

/** One line: its hosts, each with its name and key. A range in the name goes along with the one in the host. */
function entriesOf(line: string) {
  const [host = "", ...options] = line.split(/\s+/);
  let [slaves, key]: [string[] | undefined, KeyObject | undefined] = [undefined, undefined];
  for (const option of options) {
    const [, word, value = ""] = /^(name|key)=(.+)$/.exec(option) ?? [];
    if (word === "key") key = parsePublicKey(value);
    else if (word === "name") slaves = expandRanges(value);
    else throw wrongTarget(line);
  }
  const names = expandRanges(host);
  const bad = slaves?.find((each) => !isTargetName(each));
  if (bad !== undefined) throw new UsageError(`"${bad}" cannot be a slave's name`);
  if (slaves !== undefined && slaves.length !== names.length)
    throw new UsageError(`${names.length} slaves, and ${slaves.length} names for them`);
  if (key !== undefined && names.length > 1)
    throw new UsageError("one key for several slaves; give each a line of its own");
  return names.map((name, index) => ({ name, slave: slaves?.[index], key }));
}

/**
 * The targets of one group, or all of them, each endpoint once.
 * @throws {UsageError} for a group that the list does not have.
 */
export function chooseTargets(targets: readonly Target[], group?: string): Target[] {
  const groups = new Set(targets.map((target) => target.group));
  if (group !== undefined && !groups.has(group)) {
    const known = [...groups].filter((name) => name !== "");
    const has = known.length > 0 ? `it has ${known.join(", ")}` : "it has no groups";
    throw new UsageError(`no group "${group}" in the list${didYouMean(group, known)}; ${has}`);
  }
  const chosen = new Map<string, Target>();
  for (const target of targets) {
    if (group !== undefined && target.group !== group) continue;
    if (!chosen.has(target.url.href)) chosen.set(target.url.href, target);
  }
  return [...chosen.values()];
}

/** `web[01-20]` → web01 … web20; `[1-3,7]` too; several ranges: all combinations. */
export function expandRanges(text: string): string[] {
  // the brackets of an IPv6 address are not a range
  const match = /\[(\d[\d,-]*)\]/.exec(text);
  if (!match) return [text];
  const before = text.slice(0, match.index);
  const after = text.slice(match.index + match[0].length);
  const numbers = (match[1] ?? "").split(",").flatMap((part) => {
    const [, from, to] = /^(\d+)(?:-(\d+))?$/.exec(part) ?? [];
    if (from === undefined) {
      throw new UsageError(`"[${match[1]}]" is not a range; write [01-20] or [1-3,7]`);
    }
    return numbersBetween(from, to ?? from);
  });
  const tails = expandRanges(after);
  if (numbers.length * tails.length > maxRange) {
    throw new UsageError(`"${text}" is over ${maxRange} slaves; split it`);
  }
  return numbers.flatMap((number) => tails.map((tail) => before + number + tail));
}

function numbersBetween(from: string, to: string): string[] {
  const count = Number(to) - Number(from) + 1;
  if (count < 1) throw new UsageError(`range ${from}-${to} runs backwards; write ${to}-${from}`);
  if (count > maxRange) {
    throw new UsageError(`range ${from}-${to} has over ${maxRange} numbers; split it`);
  }
  // leading zeros say how wide the numbers are
  const width = from.startsWith("0") || to.startsWith("0") ? Math.max(from.length, to.length) : 0;
  return Array.from({ length: count }, (_, index) => String(Number(from) + index).padStart(width, "0"));
}

function endpointOf(text: string): URL {
  // a name and not an address: the slave connects out
  if (/^bus:\/\/[A-Za-z0-9_][A-Za-z0-9._-]{0,252}$/.test(text)) return new URL(text);
  const pattern = /^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_][\w.-]{0,252})(?::([1-9]\d{0,4}))?$/;
  const [, host = "", port = defaultPort] = pattern.exec(text) ?? [];
  const whole = /^https?:\/\//i.test(text) ? text : `http://${host}:${port}/get/`;
  const url = URL.canParse(whole) && !whole.includes("\\") ? new URL(whole) : undefined;
  // 10.1 is none, and would be 10.0.0.1
  if (!url || (host !== "" && !host.startsWith("[") && url.hostname !== host.toLowerCase())) throw wrongTarget(text);
  if (url.username !== "" || url.password !== "")
    throw new UsageError("a URL here must not hold a password; sign requests with --secret-file");
  url.hash = "";
  return url;
}

function wrongTarget(text: string): UsageError {
  return new UsageError(
    `"${text}" is not a slave; write host, host:port, [IPv6]:port, an http(s) URL, or web[01-20].example.com, or ` +
      "bus://NAME, and after it, if need be, name=NAME or key=ed25519:…",
  );
}

/** A target as a line of a list. */
export function lineOf({ name, url, slave, key }: Target): string {
  const host = url.hostname.replace(/^\[|\]$/g, "");
  const named = slave === host ? "" : ` name=${slave}`;
  return `${name}${named}${key === undefined ? "" : ` key=${formatPublicKey(key)}`}`;
}

/** Addresses of one slave: `GET /get/?repo=NAME`, and its status. The endpoint's own query stays. */
export function addressesOf({ url }: Target) {
  const status = new URL(url);
  status.pathname = status.pathname.replace(/(?<=\/)(?:get\/?|[^/]*)$/, "status");
  const update = (repo: string): URL => {
    const asked = new URL(url);
    asked.searchParams.set("repo", repo);
    return asked;
  };
  return { update, status };
}

/**
 * The steps of a run over `count` targets: `["1", "10%", "100%"]` → how many are asked after each step, rising
 * to all of them.
 * @throws {UsageError} for what is neither a count nor a share.
 */
export function planBatches(steps: readonly string[], count: number): number[] {
  const ends = steps.map((step) => Math.min(count, Math.max(1, amountOf(step, count, "--batch"))));
  const rising = [...new Set([...ends, count])].sort((a, b) => a - b);
  return rising.filter((end) => end > 0);
}

/**
 * `5` or `10%` of `count` as a number, shares rounded up.
 * @throws {UsageError} for anything else.
 */
export function amountOf(text: string, count: number, flag: string): number {
  const match = /^(\d+)(%?)$/.exec(text);
  if (!match || (match[2] === "%" && Number(match[1]) > 100)) {
    throw new UsageError(`${flag}: "${text}" is neither a number nor a share such as 10%`);
  }
  return match[2] === "%" ? Math.ceil((count * Number(match[1])) / 100) : Number(match[1]);
}
