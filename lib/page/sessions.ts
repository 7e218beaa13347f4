import { createHash, createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { join } from "node:path";
import { type Infer, y } from "../config/yaml.ts";
import { StateFile } from "../files/state-file.ts";
import { HttpError } from "../http/server.ts";
import type { Credential } from "./source.ts";

/** Milliseconds that a session lasts, by the server's clock. */
const sessionTime = 12 * 3_600_000;
const maxSessions = 1000;

/**
 * By the SHA-256 of the cookie's value, which only the browser has. `proof` is the secret it was opened with, mixed
 * with that value: a changed secret ends it; none can be guessed. `ends`: milliseconds since 1970.
 */
const schema = y.list(y.object({ key: y.string(), name: y.string(), proof: y.string(), ends: y.number() }));
type Session = Infer<typeof schema>[number];

/**
 * Who is signed in: STATE/sessions.json, which holds no value that a browser sends. They outlive a restart of the
 * server, and end by its clock, by sign-out, and when their credential is taken away or changed.
 */
export class Sessions {
  readonly #file: StateFile<readonly Session[]>;
  readonly #sessions = new Map<string, Session>();

  private constructor(path: string) {
    this.#file = new StateFile(path, schema, { mode: 0o600 });
  }

  static async open(state: string): Promise<Sessions> {
    const sessions = new Sessions(join(state, "sessions.json"));
    // damaged or unreadable: people sign in again
    for (const each of (await sessions.#file.read().catch(() => undefined)) ?? [])
      sessions.#sessions.set(each.key, each);
    return sessions;
  }

  /** Open a session; returns the cookie's value. */
  async begin(credential: Credential): Promise<string> {
    const now = Date.now();
    const value = randomBytes(32).toString("base64url");
    const key = keyOf(value);
    for (const [each, { ends }] of this.#sessions) if (ends <= now) this.#sessions.delete(each);
    for (const oldest of this.#sessions.keys()) {
      if (this.#sessions.size < maxSessions) break;
      this.#sessions.delete(oldest);
    }
    const proof = proofOf(value, credential);
    this.#sessions.set(key, { key, name: credential.name, proof, ends: now + sessionTime });
    await this.save();
    return value;
  }

  /** The credential of a session that goes on; undefined when there is none of that value. */
  find(value: string | undefined, credentials: readonly Credential[]): Credential | undefined {
    if (value === undefined) return undefined;
    const session = this.#sessions.get(keyOf(value));
    if (!session || session.ends <= Date.now()) return undefined;
    const credential = credentials.find(({ name }) => name === session.name);
    return credential && isSame(proofOf(value, credential), session.proof) ? credential : undefined;
  }

  /** End a session, for every browser that has its cookie. */
  async end(value: string): Promise<void> {
    if (this.#sessions.delete(keyOf(value))) await this.save();
  }

  /** On a full disk the session holds until the server ends. */
  private async save(): Promise<void> {
    await this.#file.write([...this.#sessions.values()]).catch(() => {});
  }
}

function keyOf(value: string): string {
  return createHash("sha256").update(value).digest("hex");
}

function proofOf(value: string, { secret, name }: Credential): string {
  return createHmac("sha256", value).update(`${name}\n${secret}`).digest("hex");
}

/** Whether two texts are the same, in a time that does not tell where they differ. */
function isSame(a: string, b: string): boolean {
  const digest = (text: string) => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(a), digest(b));
}

/** Whose secret was given. All are compared: the time does not tell which one was close. */
function credentialFor(secret: string, credentials: readonly Credential[]): Credential | undefined {
  let found: Credential | undefined;
  for (const each of credentials) if (isSame(secret, each.secret)) found = each;
  return found;
}

/** How many wrong tries to sign in there may be within `time` ms: from one network, and from all together. */
const limits = { time: 10 * 60_000, each: 10, all: 200 };
const maxNetworks = 10_000;

/** Counts wrong tries, so that secrets cannot be tried out. */
export class Tries {
  readonly #of = new Map<string, number[]>();
  #all: number[] = [];
  /** Networks from which somebody has signed in: the wrong tries of others do not keep them out. */
  readonly #good = new Set<string>();

  /**
   * Whose secret somebody of a network sends; undefined: nobody's, which counts.
   * @throws {HttpError} 429 after too many wrong tries.
   */
  credentialFor(secret: string, network: string, credentials: readonly Credential[]): Credential | undefined {
    const seconds = this.wait(network);
    if (seconds > 0)
      throw new HttpError(429, "too many wrong tries; wait some minutes", {
        "retry-after": String(seconds),
      });
    const credential = credentialFor(secret, credentials);
    if (credential) {
      if (this.#good.size >= maxNetworks) this.#good.clear();
      this.#good.add(network);
    } else this.failed(network, Date.now());
    return credential;
  }

  /** Seconds that somebody of this network has to wait; 0: another try is allowed. */
  private wait(network: string): number {
    const now = Date.now();
    const recent = (times: readonly number[]) => times.filter((time) => now - time < limits.time);
    this.#all = recent(this.#all);
    const own = recent(this.#of.get(network) ?? []);
    if (own.length === 0) this.#of.delete(network);
    else this.#of.set(network, own);
    const until = (times: readonly number[], most: number) =>
      times.length < most ? 0 : (times.at(-most) ?? now) + limits.time - now;
    const all = this.#good.has(network) ? 0 : until(this.#all, limits.all);
    return Math.ceil(Math.max(until(own, limits.each), all) / 1000);
  }

  private failed(network: string, now: number): void {
    if (this.#of.size >= maxNetworks) this.#of.clear();
    this.#of.set(network, [...(this.#of.get(network) ?? []), now].slice(-limits.each));
    this.#all = [...this.#all, now].slice(-limits.all);
  }
}
