import type { IncomingMessage, ServerResponse } from "node:http";
import { messageOf, systemCode } from "../core/errors.ts";
import { HttpError, readBody, sendJson } from "../http/server.ts";
import type { HookConfig } from "./config.ts";
import type { RepoConfig } from "./config-repo.ts";
import { decide } from "./decide.ts";
import { DeliveryMap } from "./delivery-map.ts";
import type { Entry } from "./entry.ts";
import { type Envelope, isDeliveryId, readEnvelope } from "./forge.ts";
import { contentTypeOf, type Facts, parseBody, readPayload, WrongPayload } from "./payload.ts";
import { type ServerLog, shown } from "./server-log.ts";
import { Knowledge, repoHints } from "./verify.ts";
import type { Yard } from "./yard.ts";

/** GitHub's own limit for a delivery. */
export const largestBody = 25 * 1024 * 1024;
/** Bodies that are being received or on their way to the disk, all together. */
const mostInFlight = 256 * 1024 * 1024;

interface Parts {
  yard: Yard;
  log: ServerLog;
  /** The branch that a repo's checkout is on. */
  checkoutBranch: (repo: RepoConfig) => Promise<string | undefined>;
}

/** An answer to a delivery. `reason` is for the log. */
interface Answer {
  status: number;
  body: Record<string, unknown>;
  reason: () => string;
}

/** The front door: takes a forge's delivery, checks it, and answers once what it asks for is on disk. */
export class Deliveries {
  readonly #yard: Yard;
  readonly #log: ServerLog;
  readonly #checkoutBranch: Parts["checkoutBranch"];
  /** Those that are on their way to the disk. */
  readonly #arriving = new DeliveryMap<Promise<Entry[]>>();
  #inFlight = 0;

  constructor({ yard, log, checkoutBranch }: Parts) {
    this.#yard = yard;
    this.#log = log;
    this.#checkoutBranch = checkoutBranch;
  }

  /** Answer a delivery. @throws {HttpError} for a refusal, which is logged here with its reason. */
  async handle(request: IncomingMessage, response: ServerResponse): Promise<number> {
    const envelope = readEnvelope(request.headers);
    const who = () =>
      `${envelope?.forge ?? "delivery"} ${shown(envelope?.event)} ${shown(envelope?.id)}`;
    try {
      const { status, body, reason } = await this.#answer(request, envelope);
      this.#log.info(() => `${who()}: ${status} ${reason()}`);
      sendJson(response, status, body);
      return status;
    } catch (error) {
      if (error instanceof HttpError) {
        this.#log.info(
          () =>
            `${who()} from ${request.socket.remoteAddress ?? "a socket"}: ${error.status} ${error.message}`,
        );
      }
      throw error;
    }
  }

  async #answer(request: IncomingMessage, envelope: Envelope | undefined): Promise<Answer> {
    if (this.#yard.draining)
      throw new HttpError(503, "the server is about to stop", { "retry-after": "10" });
    const type = contentTypeOf(request.headers["content-type"]);
    if (!type)
      throw new HttpError(415, "send application/json or application/x-www-form-urlencoded");
    if (request.headers["content-encoding"] !== undefined)
      throw new HttpError(415, "send the body unencoded");
    if (!envelope) throw new HttpError(400, "no event header of a known forge");
    if (envelope.id !== undefined && !isDeliveryId(envelope.id))
      throw new HttpError(400, "the delivery id is malformed");
    if (this.#inFlight > mostInFlight)
      throw new HttpError(429, "too many large deliveries at once", { "retry-after": "10" });
    let held = Math.min(Number(request.headers["content-length"] ?? 0) || 0, largestBody);
    this.#inFlight += held;
    try {
      const body = await readBody(request, { max: largestBody });
      this.#inFlight += body.length - held;
      held = body.length;
      return await this.#judge(envelope, body, type);
    } finally {
      this.#inFlight -= held;
    }
  }

  async #judge(envelope: Envelope, body: Buffer, type: "json" | "form"): Promise<Answer> {
    const knowledge = this.#verify(envelope, body);
    const { payload, facts } = readFacts(envelope, body, type);
    const repo = this.#repoOf(knowledge, facts);
    if (!repo) return ignored(facts.reason || "the payload names no repository");
    const { changes, reason } = decide(
      repo,
      facts,
      repo.refs ? undefined : await this.#checkoutBranch(repo),
    );
    if (changes.length === 0) return ignored(reason);
    return await this.#take(envelope, repo, changes, payload);
  }

  /**
   * What the sender proves to know; undefined: nothing, and there are repos that ask for no proof.
   * @throws {HttpError} 401 when it is nothing, and no repo is open: then the body is not even parsed.
   */
  #verify(envelope: Envelope, body: Buffer): Knowledge | undefined {
    const { config } = this.#yard;
    const { proof } = envelope;
    if (proof) {
      const knowledge = new Knowledge(proof, body);
      // the repo that the body seems to be of comes first, so that one hash is enough for an honest delivery
      for (const name of repoHints(body)) {
        const repo = findRepo(config, name);
        if (repo && knowledge.ofAny(repo.secrets)) return knowledge;
      }
      for (const repo of config.repos.values()) {
        if (knowledge.ofAny(repo.secrets)) return knowledge;
      }
    }
    if (hasOpenRepos(config)) return undefined;
    throw new HttpError(401, proof ? "the signature is wrong" : "the signature is missing");
  }

  /** The configured repo that the payload names; undefined when it names none (an organisation's ping). */
  #repoOf(knowledge: Knowledge | undefined, facts: Facts): RepoConfig | undefined {
    if (facts.repo === undefined) {
      if (facts.changes.length > 0) throw new HttpError(400, "the payload names no repository");
      return undefined;
    }
    const repo = findRepo(this.#yard.config, facts.repo);
    if (repo && (knowledge ? knowledge.ofAny(repo.secrets) : repo.secrets.length === 0))
      return repo;
    // whoever knows one repo's secret may learn that this one is not here
    if (!repo && knowledge) throw new HttpError(404, "this repository is not configured");
    // signed with another repo's secret
    throw new HttpError(401, "the signature is wrong");
  }

  async #take(
    envelope: Envelope,
    repo: RepoConfig,
    changes: Facts["changes"],
    payload: Buffer,
  ): Promise<Answer> {
    const yard = this.#yard;
    const { id } = envelope;
    if (id !== undefined) {
      const before = yard.spool.seen.delivery(repo.name, id);
      // one that failed or was lost is sent again on purpose: it runs again
      if (before && !(before.state === "failed" || before.state === "cancelled"))
        return takenBefore(before.run);
      const twin = this.#arriving.get(repo.name, id);
      if (twin) return takenBefore((await twin.catch(notStored))[0]?.id);
    }
    if (yard.queue.waitingOf(repo.name) >= yard.config.maxWaiting) {
      throw new HttpError(429, "too many runs of this repository wait", { "retry-after": "60" });
    }
    const taking = yard.accept(
      { repo: repo.name, forge: envelope.forge, event: envelope.event, delivery: id },
      changes,
      payload,
    );
    if (id !== undefined) this.#arriving.set(repo.name, id, taking);
    try {
      const entries = await taking;
      const ids = entries.map((entry) => entry.id);
      const body = ids.length === 1 ? { run: ids[0] } : { run: ids[0], runs: ids };
      return { status: 202, body, reason: () => `run ${ids.join(", ")} of ${repo.name}` };
    } catch (error) {
      this.#log.warn(`the delivery cannot be stored: ${messageOf(error)}`);
      return notStored(error);
    } finally {
      if (id !== undefined) this.#arriving.delete(repo.name, id);
    }
  }
}

function ignored(reason: string): Answer {
  return { status: 200, body: { run: null, reason }, reason: () => reason };
}

function takenBefore(run: string | undefined): Answer {
  return {
    status: 200,
    body: { run, reason: "this delivery was taken before" },
    reason: () => `taken before as ${run}`,
  };
}

/** @throws {HttpError} 503 for what the file system threw; anything else is a bug, and thrown on. */
function notStored(error: unknown): never {
  if (systemCode(error) === undefined) throw error;
  throw new HttpError(503, "the delivery cannot be stored now", { "retry-after": "30" });
}

/**
 * What a body says, and the JSON that a run gets to see. The parsed value does not leave this function: a
 * large one must not stay in memory while its delivery goes to disk.
 */
function readFacts(
  envelope: Envelope,
  body: Buffer,
  type: "json" | "form",
): { payload: Buffer; facts: Facts } {
  try {
    const value = parseBody(body, type);
    const payload = type === "json" ? body : Buffer.from(JSON.stringify(value));
    return { payload, facts: readPayload(envelope, value) };
  } catch (error) {
    if (error instanceof WrongPayload) throw new HttpError(400, error.message);
    throw new HttpError(400, "the body is not JSON");
  }
}

/** A repo by the name a forge sends; forges do not tell upper from lower case. */
function findRepo(config: HookConfig, name: string): RepoConfig | undefined {
  return config.repos.get(name) ?? lowerCaseNames(config).get(name.toLowerCase());
}

const lowerCase = new WeakMap<HookConfig, Map<string, RepoConfig>>();

function lowerCaseNames(config: HookConfig): Map<string, RepoConfig> {
  let names = lowerCase.get(config);
  if (!names) {
    names = new Map([...config.repos].map(([name, repo]) => [name.toLowerCase(), repo]));
    lowerCase.set(config, names);
  }
  return names;
}

const open = new WeakMap<HookConfig, boolean>();

/** Whether there are repos that take unsigned deliveries. */
function hasOpenRepos(config: HookConfig): boolean {
  let is = open.get(config);
  if (is === undefined) {
    is = [...config.repos.values()].some((repo) => repo.secrets.length === 0);
    open.set(config, is);
  }
  return is;
}
