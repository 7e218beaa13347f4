import { createHash, type KeyObject, timingSafeEqual } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { isIP } from "node:net";
import { hostname } from "node:os";
import { HttpError } from "../../http/server.ts";
import { readOrder, type SignedOrder } from "../order.ts";
import {
  clockRefusal,
  orderHeader,
  requestHeader,
  type SignatureCheck,
  unboundHeader,
  verifyRequest,
  verifyUnbound,
} from "../signature.ts";
import type { Nonces } from "./taken-once.ts";

/** Whose requests a slave answers. */

/** The headers and the connection of a request, as `refusalOfPage` looks at them. */
export interface Caller {
  headers: IncomingMessage["headers"];
  /** The address that the connection came in on. */
  localAddress: string | undefined;
  /** Only this machine can connect. */
  loopback: boolean;
}

/**
 * Without a secret, every program on this machine may ask, but no web page: not one that a browser shows here, nor
 * one whose name was pointed at this address (DNS rebinding). Pure: the reason for a refusal, if there is one.
 */
export function refusalOfPage(caller: Caller, hosts: readonly string[]): string | undefined {
  const { headers } = caller;
  const host = nameIn(headers.host);
  if (host === undefined) return "the request has no Host header";
  if (!isOurs(host, caller, hosts)) {
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

function isOurs(
  host: string,
  { localAddress = "", loopback }: Caller,
  hosts: readonly string[],
): boolean {
  const address = host.replace(/^\[|\]$/g, "");
  const named = hosts.some((each) => each.toLowerCase() === address);
  if (isIP(address) && !named) {
    // Browsers say where a page came from only to addresses that they hold to be this machine's own. Others that lead
    // here, such as 0.0.0.0 and ::ffff:127.0.0.1, are for pages alone.
    if (loopback && (address.startsWith("127.") || address === "::1")) return true;
    return address === localAddress.replace(/^::ffff:(?=[\d.]+$)/, "");
  }
  return named || host === "localhost" || host === hostname().toLowerCase();
}

/** What a slave holds to tell who asks; with neither key nor secret, all programs of the machine may. */
export interface AccessOptions {
  /** Public keys of masters. */
  keys: readonly KeyObject[];
  secrets: readonly string[];
  /** Take the signatures of Boatyard 0.1, which do not say which slave is meant. */
  acceptUnbound: boolean;
  /** What this slave is called. */
  names: readonly string[];
  /** Names that a Host header may carry when there is neither key nor secret. */
  hosts: readonly string[];
  nonces: Nonces;
  note: (line: string) => void;
}

/** How a request was let in. */
export interface Grant {
  /** The header that it was let in by: the answer is bound to it. */
  credential?: string | undefined;
  /** The shared secret that it was signed with. */
  secret?: string | undefined;
  order?: SignedOrder | undefined;
}

export class Access {
  readonly #options: AccessOptions;
  constructor(options: AccessOptions) {
    this.#options = options;
  }

  /** Whether nobody has to sign. */
  private get isOpen(): boolean {
    return this.#options.keys.length === 0 && this.#options.secrets.length === 0;
  }

  /** @throws {HttpError} 403 for a web page, where nobody has to sign */
  checkPage(request: IncomingMessage, loopback: boolean): void {
    if (!this.isOpen) return;
    const { headers, socket } = request;
    const caller = { headers, localAddress: socket.localAddress, loopback };
    const reason = refusalOfPage(caller, this.#options.hosts);
    if (reason !== undefined) throw new HttpError(403, reason);
  }

  /**
   * Let a request in that changes nothing. Its nonce is not remembered.
   * @throws {HttpError} 401
   */
  checkRead(request: IncomingMessage): Grant {
    if (this.isOpen) return openGrant(request);
    const signed = headerOf(request, requestHeader);
    if (signed !== undefined) return this.checkSigned(request, signed, this.#options).grant;
    return this.checkUnbound(request).grant;
  }

  /**
   * Let a request for an update in: by an order of a master, else by a shared secret, and then once only. Whether an
   * order is a new one, the caller must check.
   * @throws {HttpError} 401
   */
  async checkUpdate(request: IncomingMessage): Promise<Grant> {
    if (this.isOpen) return openGrant(request);
    const { keys, secrets, nonces } = this.#options;
    const text = headerOf(request, orderHeader);
    const signed = headerOf(request, requestHeader);
    const byHmac = secrets.length > 0 && signed !== undefined && /, hmac=/.test(signed);
    if (text !== undefined && keys.length > 0) {
      const order = readOrder(text, keys);
      if (!("refusal" in order)) {
        const late = clockRefusal(order.order.at, Date.now());
        if (late !== undefined) throw new HttpError(401, late);
        this.checkTarget(order.order.target);
        return { credential: text, order };
      }
      if (!byHmac) throw new HttpError(401, order.refusal);
    }
    const checked = byHmac
      ? this.checkSigned(request, signed, { keys: [], secrets })
      : this.checkUnbound(request);
    if (!(await nonces.take(checked.nonce, checked.time)))
      throw new HttpError(401, "this request was sent before; sign each one anew");
    return checked.grant;
  }

  private checkSigned(
    request: IncomingMessage,
    header: string,
    trusted: Pick<AccessOptions, "keys" | "secrets">,
  ) {
    const { method = "", url = "" } = request;
    const check = verifyRequest(trusted, { method, path: url }, header);
    if (!check.ok) throw new HttpError(401, check.reason);
    this.checkTarget(check.target ?? "");
    return { ...check, grant: { credential: header, secret: check.secret } };
  }

  private checkTarget(target: string): void {
    const { names, note } = this.#options;
    if (names.some((name) => name.toLowerCase() === target.toLowerCase())) return;
    note(
      `refused: a request for "${target}" came here, and this slave is called ${names.join(", ")}; see name: in slave.yml`,
    );
    throw new HttpError(
      401,
      "the request is for another slave; the name in the master's list must be one of name: in slave.yml here",
    );
  }

  /** As 0.1 signed, which is valid at every slave with the secret. */
  private checkUnbound(
    request: IncomingMessage,
  ): Extract<SignatureCheck, { ok: true }> & { grant: Grant } {
    const { keys, secrets, acceptUnbound } = this.#options;
    const header = headerOf(request, unboundHeader);
    const { method = "", url = "" } = request;
    if (header === undefined || secrets.length === 0)
      throw new HttpError(
        401,
        `the request is not signed${keys.length > 0 ? " with a key that this slave knows" : ""}; send it with server-update --${secrets.length > 0 ? "secret" : "key"}-file`,
      );
    const check: SignatureCheck = acceptUnbound
      ? verifyUnbound(secrets, { method, path: url }, header)
      : {
          ok: false,
          reason:
            "the master's server-update is of 0.1; update it, or see accept_unbound: in slave.yml",
        };
    if (!check.ok) throw new HttpError(401, check.reason);
    return { ...check, grant: {} };
  }
}

/** Whether a request carries the token for Prometheus. */
export function hasToken(request: IncomingMessage, token: string | undefined): boolean {
  const given = /^Bearer (.+)$/.exec(request.headers.authorization ?? "")?.[1];
  if (token === undefined || given === undefined) return false;
  const digest = (text: string) => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(given), digest(token));
}

/** Of a slave that lets all in: its answer still says what it is for. */
function openGrant(request: IncomingMessage): Grant {
  return { credential: headerOf(request, orderHeader) ?? headerOf(request, requestHeader) };
}

function headerOf(request: IncomingMessage, name: string): string | undefined {
  const value = request.headers[name];
  return typeof value === "string" ? value : undefined;
}
