import { Buffer } from "node:buffer";
import { type KeyObject, sign, verify } from "node:crypto";
import { everybody } from "../bus/address.ts";
import { isRunId } from "../core/id.ts";
import { isSafeRef, isSha, isShortName } from "../core/names.ts";
import { isCanonical, keyId } from "./keys.ts";

/**
 * An order: which commit of a repo a slave shall serve, signed with the master's Ed25519 key. It is a text of its own
 * that any transport can carry and any file can keep: `v1.PAYLOAD.SIGNATURE`, both parts base64url, the signature over
 * `boatyard-order-v1`, a line feed, and PAYLOAD as it stands; PAYLOAD is JSON.
 */
export interface Order {
  repo: string;
  sha: string;
  /** The branch that the commit was the tip of; none: a tag, or a commit that was chosen by hand. */
  branch?: string | undefined;
  /** The name of the slave that it is for; over a bus also `*` for everybody, or `[GROUP]`. */
  target: string;
  /** Milliseconds since 1970. It rises from order to order for a repo, so that an old one cannot be sent again. */
  at: number;
  /** Milliseconds since 1970 after which it is not taken: no bus has a new slave serve an old commit. */
  until: number;
  /** The run of the master that sent it, for logs. */
  run: string;
}

/** An order whose signature fits one of the keys. */
export interface SignedOrder {
  order: Order;
  /** Whose it is: `keyId` of the key. */
  key: string;
  signature: string;
}

/** What a slave may be called: a host's name, an address, or what a person chose. */
export function isTargetName(text: string): boolean {
  return /^[A-Za-z0-9_:][A-Za-z0-9._:-]{0,252}$/.test(text);
}

export function signOrder({ repo, sha, branch, target, at, until, run }: Order, key: KeyObject): string {
  return seal("order", { repo, sha, branch, target, at, until, run }, key);
}

/** `v1.PAYLOAD.SIGNATURE`; without a key the signature is empty. */
function seal(kind: "order" | "report", content: object, key: KeyObject | undefined): string {
  const payload = Buffer.from(JSON.stringify(content)).toString("base64url");
  const signature = key && sign(null, signedText(kind, payload), key).toString("base64url");
  return `v1.${payload}.${signature ?? ""}`;
}

function signedText(kind: "order" | "report", payload: string): Buffer {
  return Buffer.from(`boatyard-${kind}-v1\n${payload}`);
}

/** What an order or a report says, whoever signed it; an empty object for what cannot be read. */
export function contentOf(text: string): Record<string, unknown> {
  try {
    const payload = text.split(".")[1] ?? "";
    return Object(JSON.parse(Buffer.from(payload, "base64url").toString("utf8")));
  } catch {
    return {};
  }
}

/** Read an order and check whose it is. Who it is for and whether it is a new one, the caller must check. */
export function readOrder(text: string, keys: readonly KeyObject[]): SignedOrder | { refusal: string } {
  const [, payload = "", signature = ""] = /^v1\.([A-Za-z0-9_-]{1,4000})\.([A-Za-z0-9_-]{86})$/.exec(text) ?? [];
  if (payload === "" || !isCanonical(signature)) return { refusal: "the order is malformed" };
  const bytes = Buffer.from(signature, "base64url");
  const key = keys.find((each) => verify(null, signedText("order", payload), each, bytes));
  if (!key) return { refusal: "the order is not signed with a master_key of slave.yml; compare the keys" };
  const order = orderIn(contentOf(text));
  if (!order) return { refusal: "the order does not say what an order must; update Boatyard here or on the master" };
  return { order, key: keyId(key), signature };
}

function orderIn({ repo, sha, branch, target, at, until, run }: Record<string, unknown>) {
  const isText = (each: unknown): each is string => typeof each === "string";
  if (!isText(repo) || !isShortName(repo) || !isText(sha) || !isSha(sha)) return undefined;
  if (branch !== undefined && (!isText(branch) || !isSafeRef(branch))) return undefined;
  if (!isText(target) || !isText(run) || !isRunId(run) || !isTime(at) || !isTime(until)) return undefined;
  const isForMany = target === everybody || /^\[[A-Za-z][\w.-]*\]$/.test(target);
  if (!isForMany && !isTargetName(target)) return undefined;
  return { repo, sha, branch, target, at, until, run };
}

/** Whether it is a time in milliseconds since 1970 that a Date can show. */
function isTime(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) <= 8.64e15;
}

/** What `--status --verify` asks for over the bus, signed as over HTTP; it stands where orders do under their repo. */
export const question = { key: "?", method: "GET", path: "/status?verify=1" };

/**
 * The texts of orders that stand under one key of the bus, by repo, and the question.
 * @returns undefined for what cannot be read; what is no order's text is left out
 */
export function readTexts(text: string): Record<string, string> | undefined {
  try {
    const pairs = Object.entries(Object(JSON.parse(text)) as object);
    return Object.fromEntries(
      pairs.filter(([key, each]) => typeof each === "string" && (each.startsWith("v1.") || key === question.key)),
    ) as Record<string, string>;
  } catch {
    return undefined;
  }
}

/** One repo as `GET /status` shows it. */
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
  /** Why the last update failed, when it did. */
  error?: string | undefined;
  /** Somebody wrote into the served tree; only when that was asked for. */
  written?: boolean | undefined;
}

/** What a slave tells over the bus: all that `GET /status` says, and what became of the last order for each repo. */
export interface Report {
  name: string;
  /** When it was written, in ms since 1970. It comes every minute, and with each change. */
  time: number;
  /** As `GET /status` without a repo. */
  inventory: Record<string, unknown>;
  /** By repo. */
  orders: Record<string, OrderState>;
  /** The groups whose orders it reads. */
  groups: string[];
  /** What it serves, compared with the commits, for some minutes; and the nonce of the question. */
  verified?: { nonce: string; repos: unknown } | undefined;
}

/** What became of an order. */
export interface OrderState {
  /** Which one: the end of its text. */
  signature: string;
  at: number;
  state: "queued" | "running" | "done" | "failed" | "refused";
  before?: string | undefined;
  sha?: string | undefined;
  error?: string | undefined;
}

/** A slave that has not told anything for so long, in ms, is off. */
export const offAfter = 150_000;
/** How often a slave reports when nothing changes, in ms. */
export const reportEvery = 60_000;

/** A report as a text, signed where the slave has a key of its own. */
export function writeReport(report: Report, key: KeyObject | undefined): string {
  return seal("report", report, key);
}

/**
 * Read a report.
 * @param slave whose it must be; with a key, only what that signed counts
 * @returns why it does not count, else the report
 */
export function readReport(
  text: string,
  slave: { name: string; key?: KeyObject | undefined },
): Report | { refusal: string } {
  const [, payload = "", signature = ""] = /^v1\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{86})?$/.exec(text) ?? [];
  const bytes = Buffer.from(signature, "base64url");
  const isBy = (key: KeyObject) => verify(null, signedText("report", payload), key, bytes);
  if (slave.key && (signature === "" || !isBy(slave.key)))
    return { refusal: "its report is not signed with the key that the list has for it" };
  const { name, time, inventory, orders, groups, verified } = contentOf(text) as Partial<Report>;
  if (typeof name !== "string" || !isTime(time) || !isObject(inventory) || !isObject(orders))
    return { refusal: "its report cannot be read" };
  if (name.toLowerCase() !== slave.name.toLowerCase()) return { refusal: "its report is another slave's" };
  return { name, time, inventory, orders, groups: listOf(groups), verified };
}

function isObject<T>(value: T): value is T & object {
  return typeof value === "object" && value !== null;
}

/** The groups that a report names; whose it is does not matter. */
export function groupsOfReport(text: string): string[] {
  return listOf(contentOf(text)["groups"]);
}

function listOf(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((each) => typeof each === "string") : [];
}
