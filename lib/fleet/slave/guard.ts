import { appendFile, mkdir } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { isIP } from "node:net";
import { hostname } from "node:os";
import { dirname } from "node:path";
import { readIfThere, writeAtomic } from "../../files/files.ts";
import { HttpError } from "../../http/server.ts";
import { allowedSkew, signatureHeader, verifyRequest } from "../sign.ts";

/** Whose requests a slave answers. */

/**
 * Without a secret, every program on this machine may ask, but no web page: not one that a browser shows here, nor
 * one whose name was pointed at this address (DNS rebinding). Pure: the reason for a refusal, if there is one.
 */
export function refusalOfPage(
  headers: IncomingMessage["headers"],
  hosts: readonly string[],
): string | undefined {
  const host = nameIn(headers.host);
  if (host === undefined) return "the request has no Host header";
  if (!isOurs(host, hosts)) {
    return `this slave is not called ${JSON.stringify(host)}; add it to hosts: in slave.yml, or use a secret`;
  }
  const site = headers["sec-fetch-site"];
  if (site !== undefined && site !== "none" && site !== "same-origin") {
    return "a web page may not ask for this";
  }
  for (const from of [headers.origin, headers.referer]) {
    if (from === undefined) continue;
    // the whole origin, port too: another server on this machine is another site
    const origin = URL.canParse(from) ? new URL(from).host : "";
    if (origin !== (headers.host ?? "").toLowerCase()) return "a web page may not ask for this";
  }
  return undefined;
}

/** The name in a Host header, without its port. */
function nameIn(host: string | undefined): string | undefined {
  return /^(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(?::\d{1,5})?$/.exec(host ?? "")?.[1]?.toLowerCase();
}

function isOurs(host: string, hosts: readonly string[]): boolean {
  // an address cannot be rebound: only names can
  if (isIP(host.replace(/^\[|\]$/g, ""))) return true;
  return [
    "localhost",
    hostname().toLowerCase(),
    ...hosts.map((each) => each.toLowerCase()),
  ].includes(host);
}

/** The nonces of signed requests, remembered for as long as their time is valid; also across a restart. */
export class Nonces {
  readonly #file: string;
  /** nonce → seconds since 1970 after which its request is too old anyway. */
  readonly #until = new Map<string, number>();
  #lines = 0;
  #writing: Promise<unknown> = Promise.resolve();

  constructor(file: string) {
    this.#file = file;
  }

  async open(): Promise<void> {
    await mkdir(dirname(this.#file), { recursive: true, mode: 0o700 });
    for (const line of ((await readIfThere(this.#file)) ?? "").split("\n")) {
      const [until = "", nonce] = line.split(" ");
      if (nonce?.length === 32) this.#until.set(nonce, Number(until));
    }
    await this.#compact();
  }

  /**
   * Take a nonce; false when it was taken before. It is on disk when this resolves.
   * @throws {HttpError} 429 when more came than can be remembered
   */
  async take(nonce: string, time: number): Promise<boolean> {
    if (this.#until.has(nonce)) return false;
    if (this.#until.size >= maxNonces) this.#forget();
    if (this.#until.size >= maxNonces) {
      throw new HttpError(429, "too many requests", { "retry-after": "60" });
    }
    const until = time + 2 * allowedSkew;
    this.#until.set(nonce, until);
    this.#lines += 1;
    const write = this.#writing.then(async () => {
      if (this.#lines > 1000 && this.#lines > 2 * this.#until.size) return await this.#compact();
      return await appendFile(this.#file, `${until} ${nonce}\n`, { mode: 0o600 });
    });
    this.#writing = write.catch(() => {});
    try {
      await write;
    } catch {
      throw new HttpError(503, "the request could not be recorded: is the disk full?");
    }
    return true;
  }

  #forget(): void {
    const now = Date.now() / 1000;
    for (const [nonce, until] of this.#until) if (until < now) this.#until.delete(nonce);
  }

  async #compact(): Promise<void> {
    this.#forget();
    const lines = [...this.#until].map(([nonce, until]) => `${until} ${nonce}\n`);
    this.#lines = lines.length;
    await writeAtomic(this.#file, lines.join(""), { mode: 0o600 });
  }
}

const maxNonces = 200_000;

/**
 * Check a signed request, and take its nonce.
 * @throws {HttpError} 401
 */
export async function requireSignature(
  request: IncomingMessage,
  secrets: readonly string[],
  nonces: Nonces,
): Promise<void> {
  const header = request.headers[signatureHeader];
  const check = verifyRequest(
    secrets,
    request.method ?? "",
    request.url ?? "",
    typeof header === "string" ? header : undefined,
  );
  if (!check.ok) throw new HttpError(401, check.reason);
  if (!(await nonces.take(check.nonce, check.time))) {
    throw new HttpError(401, "this request was sent before; sign each one anew");
  }
}
