import { Buffer } from "node:buffer";
import { createHash, type KeyObject, sign, verify } from "node:crypto";
import { checkValue, type Infer, y } from "../config/yaml.ts";
import { Refused } from "../core/errors.ts";
import { isRunId } from "../core/id.ts";
import { safeRefs, shortNames } from "../core/names.ts";

/**
 * What goes between a master and its slaves, over HTTP or a bus: a text that says what it is, whom it is for, when it
 * was written and until when it counts, signed with Ed25519. `v2.PAYLOAD.SIGNATURE`, both parts base64url: PAYLOAD is
 * JSON, the signature is over `v2.PAYLOAD` as it stands. Where nobody has a key the signature is empty.
 */
export interface Letter {
  kind: "order" | "question" | "answer";
  /** A slave's name; of an answer the digest of the letter that it answers, on a bus `*`. */
  to: string;
  /** Milliseconds since 1970. Of orders for a repo it rises, so that an old one cannot be sent again. */
  at: number;
  /** Milliseconds since 1970 after which it does not count. */
  until: number;
  [content: string]: unknown;
}

/** Over HTTP a letter is this header. */
export const letterHeader = "boatyard-letter";
/** How far two clocks may differ, and how long a letter is good that waits for nobody, in ms. */
export const allowedSkew = 300_000;

export function seal(letter: Letter, key: KeyObject | undefined): string {
  const text = `v2.${Buffer.from(JSON.stringify(letter)).toString("base64url")}`;
  return `${text}.${key ? sign(null, Buffer.from(text), key).toString("base64url") : ""}`;
}

/** What a letter is known by: of its payload, as a signature has more than one form. */
export function digestOf(text: string): string {
  return createHash("sha256")
    .update(text.split(".")[1] ?? "")
    .digest("hex");
}

export interface Opened {
  letter: Letter;
  digest: string;
  /** Whose it is, of the keys that were given. */
  key: KeyObject | undefined;
}

/** Who reads: one of the keys must have signed a letter (undefined: nobody has to), for one of the names. */
export interface Reader {
  keys: readonly KeyObject[] | undefined;
  names?: readonly string[] | undefined;
}

/** Read a letter. When it is for, the caller must check. @throws {Refused} for one that is not for this reader */
export function open(text: string, kind: Letter["kind"], { keys, names }: Reader): Opened {
  const [, payload = "", mark = ""] = /^v2\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{86})?$/.exec(text) ?? [];
  if (payload === "" && text !== "") throw new Refused(`the ${kind} is malformed`);
  const [signed, bytes] = [Buffer.from(`v2.${payload}`), Buffer.from(mark, "base64url")];
  const key = keys?.find((each) => mark !== "" && verify(null, signed, each, bytes));
  if (keys && !key)
    throw new Refused(
      `the ${kind} is not signed${mark === "" ? "" : " with a key that is known here"}; compare master_key and ` +
        "secret_file of slave.yml with --key-file and --secret-file of server-update",
    );
  const letter = contentOf(text);
  if (letter.kind !== kind || typeof letter.to !== "string" || !isTime(letter.at) || !isTime(letter.until))
    throw new Refused(`it is no ${kind}`);
  const to = letter.to.toLowerCase();
  if (names && !names.some((name) => name.toLowerCase() === to))
    throw new Refused(
      `the ${kind} is for another slave, ${to}; this one is called ${names.join(", ")}: see name: in slave.yml`,
    );
  return { letter, digest: digestOf(text), key };
}

/** What a letter says, whoever signed it; nothing for what cannot be read. */
export function contentOf(text: string): Letter {
  return objectIn(Buffer.from(text.split(".")[1] ?? "", "base64url").toString("utf8")) as Letter;
}

/** What a JSON document says; nothing for what is none. */
export function objectIn(text: string): Record<string, unknown> {
  try {
    return Object(JSON.parse(text)) as Record<string, unknown>;
  } catch {
    return {};
  }
}

/** Whether it is a time in milliseconds since 1970 that a Date can show. */
function isTime(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0 && (value as number) <= 8.64e15;
}

/** @throws {Refused} for a letter that does not count at a time, in ms: it is over, or a clock is wrong */
export function checkTime({ kind, at, until }: Pick<Letter, "kind" | "at" | "until">, now = Date.now()): void {
  const show = (time: number) => new Date(time).toISOString();
  const here = `and the clock here says ${show(now)}`;
  if (at > now + allowedSkew)
    throw new Refused(`the ${kind} was written at ${show(at)}, ${here}; set both clocks (NTP)`);
  if (now <= until) return;
  throw new Refused(
    `the ${kind} was good until ${show(until)}, ${here}; ` +
      "the master renews an order: server-update --converge; or set both clocks (NTP)",
  );
}

/** What an order says: which commit of a repo a slave shall serve. */
export const orderSchema = y.object({
  repo: y.string({ match: shortNames }),
  // undefined: the newest; only where nobody has to sign
  sha: y.optional(y.string({ match: /^(?:[0-9a-f]{40}|[0-9a-f]{64})$/ })),
  // the branch that the commit was the tip of; none: a tag, or a commit that was chosen by hand
  branch: y.optional(y.string({ match: safeRefs })),
  // it may be older than what is served, where slave.yml allows that
  back: y.optional(y.boolean()),
  // by it the order is known
  digest: y.string(),
  at: y.number(),
  until: y.number(),
  // the run of the master that sent it, for logs
  run: y.string(),
});
export type Order = Infer<typeof orderSchema>;

/**
 * Read an order. When it counts, the caller must check.
 * @throws {Refused} also for one that says more than is known here: a part of it might be what makes it harmless
 */
export function openOrder(text: string, reader: Reader): Opened & { order: Order } {
  const opened = open(text, "order", reader);
  const { kind: _, own: __, to, ...content } = opened.letter;
  try {
    const order = checkValue({ ...content, digest: opened.digest }, orderSchema);
    if (order.sha !== undefined && isRunId(order.run) && isTargetName(to)) return { ...opened, order };
  } catch {
    // said below
  }
  throw new Refused("the order does not say what an order must; update Boatyard here or on the master");
}

/** What a slave may be called: a host's name, an address, or what a person chose. */
export function isTargetName(text: string): boolean {
  return /^[A-Za-z0-9_:][A-Za-z0-9._:-]{0,252}$/.test(text);
}

/** Where the question stands on a bus, among the names of repos. */
export const questionKey = "?";

/**
 * The letters that lie on a bus for a slave, by repo.
 * @returns undefined for what cannot be read; what is no letter's text is left out
 */
export function readLetters(text: string): Record<string, string> | undefined {
  try {
    const pairs = Object.entries(Object(JSON.parse(text)) as Record<string, unknown>);
    const isLetter = (pair: [string, unknown]): pair is [string, string] =>
      typeof pair[1] === "string" && pair[1].startsWith("v2.");
    return Object.fromEntries(pairs.filter(isLetter));
  } catch {
    return undefined;
  }
}
