import { cleanLine } from "../core/clean.ts";
import { Failure, messageOf, systemCode } from "../core/errors.ts";
import { formatDuration } from "../core/units.ts";

/** Which failures of a fetch are worth another try, and when. Pure. */

/** A fetch failed; its message says how, without the URL. */
export class FetchFailed extends Failure {
  override name = "FetchFailed";
  /** The HTTP status, when the server gave one. */
  readonly status: number | undefined;
  /** Whether another try may succeed. */
  readonly again: boolean;
  /** Milliseconds that the server asks to wait. */
  readonly retryAfter: number | undefined;
  /** What callers tell apart: more bytes than allowed, or another content than the pinned one. */
  readonly reason: "too large" | "wrong content" | undefined;
  constructor(message: string, { status, again = false, retryAfter, reason }: Partial<FetchFailed> = {}) {
    // a server's words may steer no terminal
    super(cleanLine(message));
    this.status = status;
    this.again = again;
    this.retryAfter = retryAfter;
    this.reason = reason;
  }
}

const passing = new Set([408, 425, 429, 500, 502, 503, 504]);

/** A status that is not a file, as an error. */
export function statusFailure(status: number, reason: string, retryAfter?: string): FetchFailed {
  const wait = parseRetryAfter(retryAfter, Date.now());
  const when =
    wait === undefined || wait <= maxWait
      ? ""
      : `, and asks to wait for ${formatDuration(wait)}; run this again after ` +
        `${new Date(Date.now() + wait).toISOString().slice(0, 16)}Z`;
  return new FetchFailed(`the server answered ${status}${reason ? ` ${reason}` : ""}${when}`, {
    status,
    again: passing.has(status),
    retryAfter: wait,
  });
}

/** Milliseconds from a Retry-After header: seconds or a date (RFC 9110, 10.2.3), and a year at most. */
export function parseRetryAfter(value: string | undefined, now: number): number | undefined {
  if (value === undefined) return undefined;
  if (/^\d+$/.test(value.trim())) return Math.min(Number(value) * 1000, maxRetryAfter);
  const date = Date.parse(value);
  return Number.isNaN(date) ? undefined : Math.min(Math.max(0, date - now), maxRetryAfter);
}

const maxRetryAfter = 365 * 24 * 60 * 60 * 1000;

/** Milliseconds; a server that asks for more is not waited for: the next run may try again. */
export const maxWait = 120_000;

/**
 * Milliseconds to wait before try `attempt` (1 is the first repetition): doubled each time, a random
 * part off so that many clients do not come back together; a server's Retry-After is a lower bound.
 */
export function waitBefore(
  attempt: number,
  base: number,
  retryAfter: number | undefined,
  random: number = Math.random(),
): number {
  const doubled = Math.min(base * 2 ** (attempt - 1), 30_000);
  return Math.max(doubled * (0.5 + random / 2), retryAfter ?? 0);
}

const lastingCodes = new Set([
  "ENOTFOUND",
  "ENOSPC",
  "EDQUOT",
  "EROFS",
  "EACCES",
  "EPERM",
  "EISDIR",
  "ENOTDIR",
  "ENOENT",
  "EFBIG",
  "EIO",
]);

/** Whether a thrown error is worth another try: broken connections are, a full disk is not. */
export function isWorthRetry(error: unknown): boolean {
  if (error instanceof FetchFailed) return error.again;
  const code = systemCode(error) ?? "";
  if (code === "") return !(error instanceof Failure) && /aborted|socket|connection|close/i.test(String(error));
  return !lastingCodes.has(code) && !/CERT|TLS_|SELF_SIGNED|UNABLE_TO/.test(code);
}

const words: Record<string, string> = {
  ECONNREFUSED: "the connection was refused",
  ECONNRESET: "the connection broke",
  EPIPE: "the connection broke",
  ETIMEDOUT: "the connection timed out",
  ENOTFOUND: "the host is unknown",
  EAI_AGAIN: "the host name cannot be looked up now",
  EHOSTUNREACH: "the host cannot be reached",
  ENETUNREACH: "the network cannot be reached",
  ENOSPC: "no space left on the disk",
  EDQUOT: "the disk quota is used up",
  ENOENT: "there is no such file",
  EACCES: "permission denied",
  ERR_STREAM_PREMATURE_CLOSE: "the connection broke",
};

/** What is wrong with a server's certificate, if that is it. Node gives codes of OpenSSL, Deno words of rustls. */
function aboutCertificate(code = "", message: string, untrusted: string): string | undefined {
  if (code === "CERT_HAS_EXPIRED" || /certificate.*Expired/.test(message))
    return "its certificate has expired; whoever runs it has to renew it";
  if (code === "CERT_NOT_YET_VALID" || /certificate.*NotValidYet/.test(message))
    return "its certificate is not valid yet; check this machine's clock";
  if (code === "ERR_TLS_CERT_ALTNAME_INVALID" || /certificate.*NotValidForName/.test(message))
    return "its certificate is for another name; correct the URL, or have whoever runs it get one for this name";
  if (!/CERT|UNABLE_TO_(?:GET|VERIFY)/.test(code) && !/invalid peer certificate/.test(message)) return undefined;
  return `its certificate is not trusted (${code || message}); ${untrusted}`;
}

const ownAuthority = "if a CA of your own signed it, name that CA's file in NODE_EXTRA_CA_CERTS (DENO_CERT under Deno)";

/**
 * An error of the system in words; others as they are.
 * @param untrusted what to do about a certificate of a private authority
 */
export function reasonOf(error: unknown, untrusted = ownAuthority): string {
  const code = systemCode(error);
  const certificate = aboutCertificate(code, messageOf(error), untrusted);
  if (certificate !== undefined) return certificate;
  if (error instanceof Failure) return error.message;
  if (code !== undefined && words[code]) return `${words[code]} (${code})`;
  return error instanceof Error ? error.message : String(error);
}
