import type { IncomingMessage, ServerResponse } from "node:http";
import { clientAddress, HttpError, networkOf } from "../http/server.ts";
import type { Sessions, Tries } from "./sessions.ts";
import type { Credential, PageSource, StatusSettings } from "./source.ts";
import { type Viewer, viewerOf } from "./viewer.ts";

/** A request to the page: where it goes, and whose it is. */
export interface Visit {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly url: URL;
  readonly viewer: Viewer;
  readonly settings: StatusSettings;
}

/** Whose eyes it is about. */
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
/**
 * Answers that go on, of strangers, at once: the server's connections beyond them (lib/http: 800) are left to
 * deliveries, and to those who sign in.
 */
const maxOfStrangers = 600;

interface GateParts {
  source: PageSource;
  sessions: Sessions;
  tries: Tries;
}

/** Who may see and steer what: the one place that is asked, by each request and for as long as an answer goes on. */
export class Gate {
  readonly #parts: GateParts;
  /** The answers that go on for as long as somebody looks. */
  readonly #open = new Map<ServerResponse, { isStranger: boolean; mayGoOn: () => boolean }>();
  #timer: NodeJS.Timeout | undefined;

  constructor(parts: GateParts) {
    this.#parts = parts;
  }

  viewerOf(request: IncomingMessage, settings: StatusSettings): Viewer {
    return viewerOf(request, settings, this.#parts.sessions);
  }

  /** Whether somebody may see a repo's runs; without its name, those of any. */
  canSee({ viewer, settings }: Eyes, repo?: string): boolean {
    if (viewer.right !== undefined || settings.public) return true;
    return [...this.#parts.source.repos()].some((each) => each.public && (repo === undefined || each.name === repo));
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
   * @throws {HttpError} 503 when too many strangers look at something now.
   */
  watch({ request, response, viewer }: Visit, may: (eyes: Eyes) => boolean): void {
    const isStranger = viewer.right === undefined;
    const strangers = [...this.#open.values()].filter((each) => each.isStranger).length;
    if (isStranger && strangers >= maxOfStrangers)
      throw new HttpError(503, "too many look at this server now; try again later, or sign in", {
        "retry-after": "60",
      });
    const mayGoOn = () => {
      const settings = this.#parts.source.settings();
      return settings !== undefined && may({ settings, viewer: this.viewerOf(request, settings) });
    };
    this.#open.set(response, { isStranger, mayGoOn });
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
    for (const [response, { mayGoOn }] of this.#open) if (!mayGoOn()) response.destroy();
  }

  /**
   * Whose secret a program sends (`Authorization: Bearer …`).
   * @throws {HttpError} 401, or 429 after too many wrong tries.
   */
  bearer(request: IncomingMessage, settings: StatusSettings): Credential {
    const network = networkOf(clientAddress(request, settings.proxies));
    const given = /^Bearer +(\S+)$/i.exec(request.headers.authorization ?? "")?.[1];
    const credential = given && this.#parts.tries.credentialFor(given, network, settings.credentials);
    if (!credential) throw new SignInFirst();
    return credential;
  }
}
