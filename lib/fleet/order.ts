import { Buffer } from "node:buffer";
import { type KeyObject, sign, verify } from "node:crypto";
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
  /** The name of the slave that it is for. */
  target: string;
  /** Milliseconds since 1970. It rises from order to order for a repo, so that an old one cannot be sent again. */
  at: number;
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

export function signOrder({ repo, sha, branch, target, at, run }: Order, key: KeyObject): string {
  const json = JSON.stringify({ repo, sha, branch, target, at, run });
  const payload = Buffer.from(json).toString("base64url");
  return `v1.${payload}.${sign(null, signedText(payload), key).toString("base64url")}`;
}

function signedText(payload: string): Buffer {
  return Buffer.from(`boatyard-order-v1\n${payload}`);
}

/** Read an order and check whose it is. Who it is for and whether it is a new one, the caller must check. */
export function readOrder(
  text: string,
  keys: readonly KeyObject[],
): SignedOrder | { refusal: string } {
  const [, payload = "", signature = ""] =
    /^v1\.([A-Za-z0-9_-]{1,4000})\.([A-Za-z0-9_-]{86})$/.exec(text) ?? [];
  if (payload === "" || !isCanonical(signature)) return { refusal: "the order is malformed" };
  const bytes = Buffer.from(signature, "base64url");
  const key = keys.find((each) => verify(null, signedText(payload), each, bytes));
  if (!key)
    return {
      refusal: "the order is not signed with a master_key of slave.yml; compare the keys",
    };
  const order = parsePayload(Buffer.from(payload, "base64url").toString("utf8"));
  if (!order) return { refusal: "the order does not say what an order must; update this slave" };
  return { order, key: keyId(key), signature };
}

function parsePayload(text: string): Order | undefined {
  let value: Partial<Record<keyof Order, unknown>>;
  try {
    value = JSON.parse(text) as typeof value;
  } catch {
    return undefined;
  }
  const { repo, sha, branch, target, at, run } = value ?? {};
  const isText = (each: unknown): each is string => typeof each === "string";
  if (!isText(repo) || !isShortName(repo) || !isText(sha) || !isSha(sha)) return undefined;
  if (branch !== undefined && (!isText(branch) || !isSafeRef(branch))) return undefined;
  if (!isText(target) || !isTargetName(target) || !isText(run) || !isRunId(run)) return undefined;
  if (typeof at !== "number" || !Number.isSafeInteger(at) || at < 0) return undefined;
  return { repo, sha, branch, target, at, run };
}
