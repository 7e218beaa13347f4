import { setTimeout as sleep } from "node:timers/promises";
import { messageOf, systemCode } from "../../core/errors.ts";
import { request } from "../../fetch/fetch.ts";
import { signatureHeader, signRequest } from "../sign.ts";

/** One small request to one slave, asked again when there is no answer, and what the answer says. */

export interface SenderOptions {
  /** Signs every request. */
  secret?: string | undefined;
  /** PEM: the authority that signed the slaves' certificates, instead of the public ones. */
  ca?: string | undefined;
  /** Milliseconds for the connection, TLS included; the look-up of a name is not counted. */
  connectTimeout: number;
  /** Milliseconds for all of it. */
  timeout: number;
  /** How often it is sent again when no answer came or the slave was too busy. */
  retries: number;
  signal?: AbortSignal | undefined;
}

export interface Answer {
  status: number;
  /** The body, if it is a JSON object. */
  json: Record<string, unknown> | undefined;
  /** The body's first line, for messages. */
  text: string;
  retryAfter: number | undefined;
}

/**
 * GET a URL, again after growing pauses when no answer came or the slave was too busy.
 * @param patience milliseconds added to the time limit, for answers that the slave delays
 * @throws {NoAnswer}
 */
export type Send = (url: URL, patience?: number) => Promise<Answer>;

/** No answer came, or none that could be read. */
export class NoAnswer extends Error {
  override name = "NoAnswer";
}

/** Answers here are a line of JSON; more is somebody else's server. */
const maxAnswer = 64 * 1024;

export function createSender({ secret, timeout, retries, ...options }: SenderOptions): Send {
  const { signal } = options;
  async function sendOnce(url: URL, patience: number): Promise<Answer> {
    const headers: Record<string, string> = { accept: "application/json" };
    if (secret !== undefined)
      headers[signatureHeader] = signRequest(secret, "GET", url.pathname + url.search);
    const limits = { timeout: timeout + patience, maxBytes: maxAnswer };
    try {
      return answerOf(await request(url, { ...options, ...limits, headers }));
    } catch (error) {
      throw new NoAnswer(signal?.aborted ? "interrupted" : reasonOf(error));
    }
  }
  return async (url, patience = 0) => {
    for (let round = 0; ; round++) {
      let wait = 200 * 2 ** round * (0.5 + Math.random());
      try {
        const answer = await sendOnce(url, patience);
        if (![429, 502, 503].includes(answer.status) || round >= retries) return answer;
        wait = Math.max(wait, Math.min(answer.retryAfter ?? 0, 10_000));
      } catch (error) {
        if (!(error instanceof NoAnswer) || round >= retries || signal?.aborted) throw error;
      }
      await pause(wait, signal);
    }
  };
}

function answerOf({ status, headers, ...body }: Awaited<ReturnType<typeof request>>): Answer {
  if (body.truncated) throw new Error("the answer is too long to be slave-server's");
  const text = body.text.trim();
  const wait = Number(headers["retry-after"]);
  return {
    status,
    json: parseObject(text),
    // control characters of a stranger must not reach the terminal
    text: (text.split("\n", 1)[0] ?? "").replace(/[\x00-\x1f\x7f-\x9f]/g, "").slice(0, 200),
    retryAfter: Number.isFinite(wait) && wait > 0 ? wait * 1000 : undefined,
  };
}

function parseObject(text: string): Record<string, unknown> | undefined {
  if (!text.startsWith("{")) return undefined;
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch {
    return undefined;
  }
}

const plainWords: Record<string, string> = {
  ECONNREFUSED: "connection refused: no slave-server listens there",
  ECONNRESET: "the connection was reset",
  EHOSTUNREACH: "no route to the host",
  ENETUNREACH: "no route to its network",
  ENOTFOUND: "no host has that name",
  EAI_AGAIN: "its name could not be looked up",
  ETIMEDOUT: "the connection timed out",
  EMFILE: "too many open files here; raise ulimit -n or lower --jobs",
};

/** Node gives codes of OpenSSL, Deno words of rustls. */
function aboutCertificate(code = "", message: string): string | undefined {
  if (code === "CERT_HAS_EXPIRED" || /certificate.*Expired/.test(message))
    return "its certificate has expired";
  if (code === "ERR_TLS_CERT_ALTNAME_INVALID" || /certificate.*NotValidForName/.test(message))
    return "its certificate is for another name";
  if (!/CERT|ERR_TLS|UNABLE_TO_VERIFY/.test(code) && !/invalid peer certificate/.test(message))
    return undefined;
  return `its certificate is not trusted (${code || message}); see --ca`;
}

function reasonOf(error: unknown): string {
  const code = systemCode(error);
  const message = messageOf(error);
  if (code !== undefined && plainWords[code] !== undefined) return plainWords[code];
  const certificate = aboutCertificate(code, message);
  if (certificate !== undefined) return certificate;
  return code === undefined || message.includes(code) ? message : `${message} (${code})`;
}

/** Pure: why an answer is a refusal, if it is one. */
export function refusalOf({ status, json, text: body }: Answer): string | undefined {
  if (status >= 200 && status < 300) return undefined;
  const words = wordsOf(json?.["error"]) ?? body;
  return words === "" ? `it answers ${status}` : `it answers ${status}: ${words}`;
}

/** A stranger's word for the table: one line, no control characters. */
export function wordsOf(value: unknown): string | undefined {
  if (typeof value !== "string" || value === "") return undefined;
  return value.replace(/[\x00-\x1f\x7f-\x9f]+/g, " ").slice(0, 500);
}

/** Wait, but not for longer than the run lasts. */
export function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return sleep(ms, undefined, signal ? { signal } : {}).catch(() => {});
}
