import { Buffer } from "node:buffer";
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  generateKeyPairSync,
  type KeyObject,
  sign,
  verify,
} from "node:crypto";
import { open } from "node:fs/promises";
import { nkeyOf } from "../bus/nkey.ts";
import { readSecretFile } from "../config/secrets.ts";
import { Failure, messageOf, systemCode, UsageError } from "../core/errors.ts";
import { isRunId } from "../core/id.ts";
import { isSafeRef, isSha, isShortName } from "../core/names.ts";
import { writeAtomic } from "../files/files.ts";

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
  return `v1.${payload}.${sign(null, orderText(payload), key).toString("base64url")}`;
}

function orderText(payload: string): Buffer {
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
  const key = keys.find((each) => verify(null, orderText(payload), each, bytes));
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

/** What a slave tells over the bus: all that `GET /status` says, and what became of the last order for each repo. */
export interface Report {
  name: string;
  /** When it was written, in ms since 1970. It comes every minute, and with each change. */
  time: number;
  /** As `GET /status` without a repo. */
  inventory: Record<string, unknown>;
  /** By repo. */
  orders: Record<string, OrderState>;
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

/** A report as a text, signed where the slave has a key of its own: `v1.PAYLOAD.` and the signature or nothing. */
export function writeReport(report: Report, key: KeyObject | undefined): string {
  const payload = Buffer.from(JSON.stringify(report)).toString("base64url");
  const signature = key && sign(null, reportText(payload), key).toString("base64url");
  return `v1.${payload}.${signature ?? ""}`;
}

function reportText(payload: string): Buffer {
  return Buffer.from(`boatyard-report-v1\n${payload}`);
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
  const [, payload = "", signature = ""] =
    /^v1\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{86})?$/.exec(text) ?? [];
  if (slave.key !== undefined) {
    const bytes = Buffer.from(signature, "base64url");
    if (signature === "" || !verify(null, reportText(payload), slave.key, bytes))
      return { refusal: "its report is not signed with the key that the list has for it" };
  }
  try {
    const json = Buffer.from(payload, "base64url").toString("utf8");
    const { name, time, inventory, orders } = JSON.parse(json) as Report;
    const isObject = (value: unknown) => typeof value === "object" && value !== null;
    if (typeof name !== "string" || name.toLowerCase() !== slave.name.toLowerCase())
      return { refusal: "its report is another slave's" };
    if (Number.isSafeInteger(time) && isObject(inventory) && isObject(orders))
      return { name, time, inventory, orders };
  } catch {
    // said below
  }
  return { refusal: "its report cannot be read" };
}

/** Ed25519 keys: private ones as PEM files (PKCS #8), public ones as one word, `ed25519:` and 43 characters of base64url. */

/**
 * Make a key pair: `path` (mode 600) and `path.pub`.
 * @throws {Failure} when there is something at `path` already
 */
export async function writeKey(
  path: string,
): Promise<{ publicKey: string; id: string; nkey: string }> {
  const { privateKey } = generateKeyPairSync("ed25519");
  const publicKey = formatPublicKey(privateKey);
  try {
    const file = await open(path, "wx", 0o600);
    try {
      await file.writeFile(privateKey.export({ type: "pkcs8", format: "pem" }));
      await file.sync();
    } finally {
      await file.close();
    }
    await writeAtomic(`${path}.pub`, `${publicKey}\n`, { mode: 0o644 });
  } catch (error) {
    const why =
      systemCode(error) === "EEXIST"
        ? "is there already, and is left alone; name another by --out"
        : `cannot be written: ${messageOf(error)}`;
    throw new Failure(`${path} ${why}`);
  }
  return { publicKey, id: keyId(privateKey), nkey: nkeyOf(privateKey) };
}

/**
 * A private key from a file, such as `server-update keygen` or `openssl genpkey -algorithm ed25519` makes.
 * @param where `file:line:col` of the place that names it
 * @throws {UsageError} when it cannot be read, others can read it, or it is another kind of key
 */
export async function readPrivateKey(path: string, where = ""): Promise<KeyObject> {
  const text = await readSecretFile(path, where);
  const prefix = where === "" ? "" : `${where}: `;
  let key: KeyObject | undefined;
  try {
    key = createPrivateKey(text);
  } catch {
    // the error might quote the key
  }
  if (key?.asymmetricKeyType === "ed25519") return key;
  throw new UsageError(
    `${prefix}${path} is not an Ed25519 private key in PEM; make one with: server-update keygen`,
  );
}

/**
 * A public key from its word.
 * @throws {UsageError}
 */
export function parsePublicKey(text: string): KeyObject {
  const x = /^ed25519:([A-Za-z0-9_-]{43})$/.exec(text)?.[1];
  if (x !== undefined && isCanonical(x))
    return createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" });
  throw new UsageError(
    `${JSON.stringify(text.slice(0, 80))} is not a public key; write ed25519: and the 43 characters that server-update keygen prints`,
  );
}

/** The word for the public half of a key. */
export function formatPublicKey(key: KeyObject): string {
  const publicKey = key.type === "private" ? createPublicKey(key) : key;
  return `ed25519:${publicKey.export({ format: "jwk" }).x}`;
}

/** A short name for a public key, for files and logs. */
export function keyId(key: KeyObject): string {
  return createHash("sha256").update(formatPublicKey(key)).digest("hex").slice(0, 16);
}

/** Whether a text is base64url as it would be written: the last character may carry bits that count for nothing. */
export function isCanonical(text: string): boolean {
  return Buffer.from(text, "base64url").toString("base64url") === text;
}
