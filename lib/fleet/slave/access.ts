import { createHash, type KeyObject, timingSafeEqual } from "node:crypto";
import type { IncomingMessage } from "node:http";
import { HttpError } from "../../http/server.ts";
import { readOrder, type SignedOrder } from "../order.ts";
import { clockRefusal, orderHeader, requestHeader, verifyRequest } from "../signature.ts";
import type { Nonces } from "./taken-once.ts";

/** Whose requests a slave answers. */

/** What a slave holds to tell who asks; with neither key nor secret (--insecure), all may who reach it. */
export interface AccessOptions {
  /** Public keys of masters. */
  keys: readonly KeyObject[];
  secrets: readonly string[];
  /** What this slave is called. */
  names: readonly string[];
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

  /**
   * Let a request in that changes nothing. Its nonce is not remembered.
   * @throws {HttpError} 401
   */
  checkRead(request: IncomingMessage): Grant {
    if (this.isOpen) return openGrant(request);
    const signed = headerOf(request, requestHeader);
    if (signed !== undefined) return this.checkSigned(request, signed, this.#options).grant;
    throw this.notSigned();
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
    if (!byHmac) throw this.notSigned();
    const checked = this.checkSigned(request, signed, { keys: [], secrets });
    if (!(await nonces.take(checked.nonce, checked.time)))
      throw new HttpError(401, "this request was sent before; sign each one anew");
    return checked.grant;
  }

  private checkSigned(request: IncomingMessage, header: string, trusted: Pick<AccessOptions, "keys" | "secrets">) {
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
      `refused: a request for "${target}" came here, and this slave is called ${names.join(", ")}; see name: ` +
        "in slave.yml",
    );
    throw new HttpError(
      401,
      "the request is for another slave; the name in the master's list must be one of name: in slave.yml here",
    );
  }

  private notSigned(): HttpError {
    const { keys, secrets } = this.#options;
    const known = keys.length > 0 ? " with a key that this slave knows" : "";
    const flag = secrets.length > 0 ? "secret" : "key";
    return new HttpError(401, `the request is not signed${known}; send it with server-update --${flag}-file`);
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
