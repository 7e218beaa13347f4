import { Buffer } from "node:buffer";
import { type KeyObject, sign, verify } from "node:crypto";

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
  const signature = key && sign(null, signedText(payload), key).toString("base64url");
  return `v1.${payload}.${signature ?? ""}`;
}

function signedText(payload: string): Buffer {
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
    if (signature === "" || !verify(null, signedText(payload), slave.key, bytes))
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
