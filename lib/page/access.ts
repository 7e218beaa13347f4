import { createHash, createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import type { IncomingMessage, ServerResponse } from "node:http";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type Infer, y } from "../config/yaml.ts";
import { StateFile } from "../files/state-file.ts";
import { HttpError, isLocal } from "../http/server.ts";
import type { Credential, PageSource, Right, StatusSettings } from "./source.ts";

/** Who may see and steer what: sign-in, sessions, and the one place that is asked for as long as an answer goes on. */

/** Who looks at the page. */
export interface Viewer {
  /** As it stands in the record of what was done. Undefined: a stranger. */
  readonly name?: string | undefined;
  /** Undefined: public repos only. */
  readonly right?: Right | undefined;
  /** The cookie's value; undefined where a proxy or a token says who it is. */
  readonly session?: string | undefined;
}

/** A request to the page: where it goes, and whose it is. */
export interface Visit {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly url: URL;
  readonly viewer: Viewer;
  readonly settings: StatusSettings;
}

type Eyes = Pick<Visit, "viewer" | "settings">;

/** Whoever wants to see this must sign in: the page of errors turns it into the form. */
export class SignInFirst extends HttpError {
  override name = "SignInFirst";
  constructor() {
    super(401, "a token is needed", { "www-authenticate": "Bearer" });
  }
}

/** How often it is looked whether those who follow still may, in ms; sign-out and new settings are seen at once. */
const lookEvery = 5000;
/** Answers that go on at once, whoever reads. */
const maxOpen = 600;
/** How long the answer to a wrong secret takes, in ms. How many try at once is for the proxy to limit. */
const wrongDelay = 2000;

export class Access {
  readonly #source: PageSource;
  readonly #sessions: Sessions;
  /** The answers that go on for as long as somebody looks, and whether they may. */
  readonly #open = new Map<ServerResponse, () => boolean>();
  #timer: NodeJS.Timeout | undefined;

  private constructor(source: PageSource, sessions: Sessions) {
    this.#source = source;
    this.#sessions = sessions;
  }

  /** @param state the server's state folder, where the sessions are. */
  static async open(state: string, source: PageSource): Promise<Access> {
    return new Access(source, await Sessions.open(state));
  }

  /** Who sends a request: by its token, by what the proxy says that has the Unix socket, or by its session. */
  viewerOf(request: IncomingMessage, settings: StatusSettings): Viewer {
    const { credentials, trusted } = settings;
    const token = /^Bearer +(\S+)$/i.exec(request.headers.authorization ?? "")?.[1];
    if (token !== undefined) return credentialFor(token, credentials) ?? {};
    const told = trusted && isLocal(request) ? request.headers[trusted.header.toLowerCase()] : undefined;
    if (trusted && typeof told === "string" && told !== "") {
      const name = told.replace(/[^\x21-\x7e]/g, "?").slice(0, 100);
      return { name, right: trusted.steer.includes(told) ? "steer" : "see" };
    }
    const session = cookieOf(request, settings);
    const credential = this.#sessions.find(session, credentials);
    return credential ? { name: credential.name, right: credential.right, session } : {};
  }

  /** Whether somebody may see a repo's runs; without its name, those of any. */
  canSee({ viewer, settings }: Eyes, repo?: string): boolean {
    if (viewer.right !== undefined || settings.public) return true;
    return [...this.#source.repos()].some((each) => each.public && (repo === undefined || each.name === repo));
  }

  /** @throws {HttpError} 401 for strangers: whether there is such a page is not for them to know. */
  needRight({ viewer }: Eyes): void {
    if (viewer.right === undefined) throw new SignInFirst();
  }

  /** @throws {HttpError} 401 for strangers, 403 for those who may only see. */
  needSteer(eyes: Eyes): void {
    this.needRight(eyes);
    if (eyes.viewer.right !== "steer") throw new HttpError(403, "you may see this run, not steer it");
  }

  /**
   * Let an answer go on for as long as its viewer may see it.
   * @throws {HttpError} 503 when too many look at something now.
   */
  watch({ request, response }: Pick<Visit, "request" | "response">, may: (eyes: Eyes) => boolean): void {
    if (this.#open.size >= maxOpen)
      throw new HttpError(503, "too many look at this server now; try again later", { "retry-after": "60" });
    this.#open.set(response, () => {
      const settings = this.#source.settings();
      return settings !== undefined && may({ settings, viewer: this.viewerOf(request, settings) });
    });
    response.once("close", () => {
      this.#open.delete(response);
      if (this.#open.size > 0) return;
      clearInterval(this.#timer);
      this.#timer = undefined;
    });
    this.#timer ??= setInterval(() => this.check(), lookEvery).unref();
  }

  /** Rights may have changed: end at once those of the answers that may not go on. */
  check(): void {
    for (const [response, mayGoOn] of this.#open) if (!mayGoOn()) response.destroy();
  }

  /** Sign in with a secret; returns the header that sets the cookie; undefined when the secret is nobody's. */
  async signIn(request: IncomingMessage, secret: string, settings: StatusSettings): Promise<string | undefined> {
    const found = credentialFor(secret, settings.credentials);
    if (found) return setCookie(request, settings, await this.#sessions.begin(found));
    await sleep(wrongDelay);
    return undefined;
  }

  /** End a session and its streams; returns the header that takes the cookie away. */
  async signOut({ request, viewer, settings }: Visit): Promise<string> {
    if (viewer.session !== undefined) await this.#sessions.end(viewer.session);
    this.check();
    return setCookie(request, settings, undefined);
  }
}

/** Behind TLS a browser takes this name only from this host, over TLS, for all paths. */
const cookieNames = { secure: "__Host-boatyard", plain: "boatyard" };

/** Whether browsers come over TLS. The header concerns its own answer alone, whoever sends it. */
function isSecure({ headers }: IncomingMessage, { origin }: StatusSettings): boolean {
  return origin?.startsWith("https:") === true || headers["x-forwarded-proto"] === "https";
}

function cookieOf(request: IncomingMessage, settings: StatusSettings): string | undefined {
  const name = isSecure(request, settings) ? cookieNames.secure : cookieNames.plain;
  const all = (request.headers.cookie ?? "").split(";").map((each) => each.trim().split("=", 2));
  return all.find(([each]) => each === name)?.[1];
}

/** The header that sets the session's cookie; without a value it is taken away. */
function setCookie(request: IncomingMessage, settings: StatusSettings, value: string | undefined): string {
  const secure = isSecure(request, settings);
  return [
    `${secure ? cookieNames.secure : cookieNames.plain}=${value ?? ""}`,
    ...["Path=/", "HttpOnly", "SameSite=Lax"],
    ...(secure ? ["Secure"] : []),
    ...(value === undefined ? ["Max-Age=0"] : []),
  ].join("; ");
}

/**
 * Refuse a request that changes something and does not come from a page of ours: one at the address of `url:`, or at
 * the loopback address it is sent to, of which browsers say by Sec-Fetch-Site whether it is the same. Any other `Host`
 * may have lost its port to a proxy, and another port may be another's.
 * @param own the origin of `url:`, if there is one
 * @throws {HttpError} 403
 */
export function checkOrigin({ headers }: IncomingMessage, own: string | undefined): void {
  const { origin = "", host = "" } = headers;
  const site = headers["sec-fetch-site"];
  const page = URL.canParse(origin) ? new URL(origin) : undefined;
  const isOurs = page && (page.origin === own || (loopback.test(page.hostname) && page.host === host.toLowerCase()));
  if (!isOurs || (site !== undefined && site !== "same-origin"))
    throw new HttpError(
      403,
      own === undefined
        ? "this does not come from this page as far as the server knows; its address is missing in hooks.yml: url"
        : `this does not come from the page at ${own} (url: in hooks.yml); sign in and act there`,
    );
}

const loopback = /^(?:localhost|.+\.localhost|127\..*|\[::1\])$/;

/** Milliseconds that a session lasts, by the server's clock. */
const sessionTime = 12 * 3_600_000;
const maxSessions = 1000;

/**
 * By the SHA-256 of the cookie's value, which only the browser has. `proof` is the secret it was opened with, mixed
 * with that value: a changed secret ends it; none can be guessed. `ends`: milliseconds since 1970.
 */
const schema = y.list(y.object({ key: y.string(), name: y.string(), proof: y.string(), ends: y.number() }));
type Session = Infer<typeof schema>[number];

/** Who is signed in: STATE/sessions.json, which holds no value that a browser sends. */
class Sessions {
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
    const [oldest] = this.#sessions.keys();
    if (this.#sessions.size >= maxSessions && oldest !== undefined) this.#sessions.delete(oldest);
    this.#sessions.set(key, { key, name: credential.name, proof: proofOf(value, credential), ends: now + sessionTime });
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
