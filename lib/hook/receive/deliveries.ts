import type { IncomingMessage, ServerResponse } from "node:http";
import { messageOf, systemCode } from "../../core/errors.ts";
import { clientAddress, HttpError, readBody, sendJson } from "../../http/server.ts";
import type { Change, Run, RunStore } from "../../run-store/run-store.ts";
import type { Ignored } from "../../run-store/ignored.ts";
import type { RepoConfig, Settings } from "../config/config.ts";
import { type Envelope, isDeliveryId, readEnvelope } from "../payload/forge.ts";
import { contentTypeOf, type Facts, jsonOf, readPayload, selectChanges, WrongPayload } from "../payload/payload.ts";
import { checkoutBranch } from "../runs/checkout.ts";
import type { Scheduler } from "../runs/scheduler.ts";
import { type Metrics, printable, type ServerLog } from "../telemetry/telemetry.ts";
import { repoOf, verify, verifyHeaders } from "./verify.ts";

/** GitHub's own limit for a delivery; a large one, and how many of those are in memory at once. */
const [maxBody, largeBody, maxLarge] = [25 * 1024 * 1024, 256 * 1024, 8];

interface DeliveriesParts {
  settings: Settings;
  store: Pick<RunStore, "runOf" | "accept">;
  scheduler: Pick<Scheduler, "draining" | "waitingOf">;
  ignored: Ignored;
  log: ServerLog;
  metrics: Metrics;
}

/** A delivery, as far as it has been read. */
interface Delivery {
  readonly request: IncomingMessage;
  readonly envelope: Envelope | undefined;
  /** Whether the sender has shown that he knows a secret. */
  isProved: boolean;
}

/** An answer to a delivery. `reason` is for the log. */
interface Answer {
  readonly status: number;
  readonly body: Record<string, unknown>;
  readonly reason: string;
}

/** Takes a forge's deliveries: each is verified, parsed, accepted, and answered once what it asks for is on disk. */
export class Deliveries {
  readonly #parts: DeliveriesParts;
  /** Deliveries on their way to the disk, by repo and delivery id. */
  readonly #arriving = new Map<string, Promise<Run[]>>();
  /** Checkouts whose branch git is asked for at this moment. */
  readonly #askedBranches = new Map<RepoConfig, Promise<string | undefined>>();
  /** Large deliveries that are on their way to the disk. */
  #large = 0;

  constructor(parts: DeliveriesParts) {
    this.#parts = parts;
  }

  /** Answer a delivery. @throws {HttpError} for a refusal, which is logged here with its reason. */
  async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { log, metrics } = this.#parts;
    const envelope = readEnvelope(request.headers);
    const what = `${envelope?.forge ?? "delivery"} ${printable(envelope?.event)} ${printable(envelope?.id)}`;
    const delivery: Delivery = { request, envelope, isProved: false };
    try {
      const { status, body, reason } = await this.answer(delivery);
      log.info(`${what}: ${status} ${reason}`);
      metrics.delivery(status);
      sendJson(response, status, body);
    } catch (error) {
      metrics.delivery(error instanceof HttpError ? error.status : 500);
      if (error instanceof HttpError)
        log.info(`${what} from ${clientAddress(request)}: ${error.status} ${error.message}`);
      throw error;
    }
  }

  /** The way of a delivery: look at its headers, read it, verify, parse, select what runs, accept. */
  private async answer(delivery: Delivery): Promise<Answer> {
    const { request, envelope } = delivery;
    if (request.method !== "POST") throw new HttpError(405, "use POST", { allow: "POST" });
    if (this.#parts.scheduler.draining)
      throw new HttpError(503, "the server is about to stop", { "retry-after": "10" });
    const type = contentTypeOf(request.headers["content-type"]);
    if (!type) throw new HttpError(415, "send application/json or application/x-www-form-urlencoded");
    if (request.headers["content-encoding"] !== undefined) throw new HttpError(415, "send the body unencoded");
    if (!envelope) throw new HttpError(400, "no event header of a known forge");
    if (envelope.id !== undefined && !isDeliveryId(envelope.id))
      throw new HttpError(400, "the delivery id is malformed");
    verifyHeaders(this.#parts.settings.config, envelope);
    const isLarge = Number(request.headers["content-length"]) > largeBody;
    if (isLarge && this.#large >= maxLarge)
      throw new HttpError(429, "too many large deliveries at once", { "retry-after": "10" });
    if (isLarge) this.#large += 1;
    try {
      return await this.accept(delivery, envelope, await readBody(request, maxBody), type);
    } finally {
      if (isLarge) this.#large -= 1;
    }
  }

  /** What a body that was read comes to. */
  private async accept(delivery: Delivery, envelope: Envelope, body: Buffer, type: "json" | "form"): Promise<Answer> {
    // it may have been replaced meanwhile
    const { config } = this.#parts.settings;
    const check = verify(config, envelope, body);
    delivery.isProved = check !== undefined;
    const { payload, facts } = parse(envelope, body, type);
    const repo = repoOf(config, check, facts);
    if (!repo) {
      const why = facts.reason || "the payload names no repository";
      this.note(delivery, facts, why);
      return withoutRun(why);
    }
    const branch = repo.refs ? undefined : await this.branchOf(repo);
    const { changes, reason } = selectChanges(repo, facts, branch);
    if (facts.changes.length === 0) this.note(delivery, facts, reason);
    for (const change of facts.changes) if (!changes.includes(change)) this.note(delivery, facts, reason, change.ref);
    if (changes.length === 0) return withoutRun(reason);
    const answer = await this.store(envelope, repo, changes, payload);
    if (answer.status === 200) this.note(delivery, facts, answer.reason, changes[0]?.ref);
    return answer;
  }

  /** Remember why nothing runs. */
  private note({ envelope, isProved }: Delivery, facts: Facts, reason: string, ref = facts.ref) {
    // whoever reaches a server may send to a repo without a secret: these must not push out the others
    if (!isProved || !envelope) return;
    const { forge, event, id: delivery } = envelope;
    this.#parts.ignored.add({ reason, repo: facts.repo, forge, event, ref, delivery });
  }

  /** The branch that a repo's checkout is on; those that ask at the same time share one start of git. */
  private branchOf(repo: RepoConfig): Promise<string | undefined> {
    let asking = this.#askedBranches.get(repo);
    if (!asking) {
      asking = checkoutBranch(repo).finally(() => this.#askedBranches.delete(repo));
      this.#askedBranches.set(repo, asking);
    }
    return asking;
  }

  /** Accept a delivery's changes, unless it came before. */
  private async store(
    { forge, event, id }: Envelope,
    repo: RepoConfig,
    changes: readonly Change[],
    payload: Buffer,
  ): Promise<Answer> {
    const key = `${repo.name} ${id}`;
    // of twins that come at once one is accepted: nothing is awaited between these two looks and the note below
    const before = id === undefined ? undefined : this.#parts.store.runOf(repo.name, id);
    // one that failed or was lost is sent again on purpose: it runs again
    if (before && before.state !== "failed" && before.state !== "cancelled") return repeated(before.id);
    const twin = id === undefined ? undefined : this.#arriving.get(key);
    if (twin) return repeated((await twin.catch(notStored))[0]?.id);
    if (this.#parts.scheduler.waitingOf(repo.name) >= this.#parts.settings.config.maxWaiting) {
      throw new HttpError(429, "too many runs of this repository wait", { "retry-after": "60" });
    }
    const source = { repo: repo.name, forge, event, delivery: id };
    const accepting = this.#parts.store.accept(source, changes, payload);
    if (id !== undefined) this.#arriving.set(key, accepting);
    try {
      const ids = (await accepting).map((run) => run.id);
      const body = ids.length === 1 ? { run: ids[0] } : { run: ids[0], runs: ids };
      return { status: 202, body, reason: `run ${ids.join(", ")} of ${repo.name}` };
    } catch (error) {
      this.#parts.log.warn(`the delivery cannot be stored: ${messageOf(error)}`);
      return notStored(error);
    } finally {
      if (id !== undefined) this.#arriving.delete(key);
    }
  }
}

/** The answer to a genuine delivery of which no run comes. */
function withoutRun(reason: string): Answer {
  return { status: 200, body: { run: null, reason }, reason };
}

function repeated(run: string | undefined): Answer {
  return {
    status: 200,
    body: { run, reason: "this delivery was accepted before" },
    reason: `accepted before as ${run}`,
  };
}

/** @throws {HttpError} 503 for what the file system threw; anything else is a bug, and thrown on. */
function notStored(error: unknown): never {
  if (systemCode(error) === undefined) throw error;
  throw new HttpError(503, "the delivery cannot be stored now", { "retry-after": "30" });
}

/**
 * What a body says, and the JSON that a run gets to see. Pure. The parsed value does not leave this function: a
 * large one must not stay in memory while its delivery goes to disk.
 * @throws {HttpError} 400 when the body is not what its event says it is.
 */
function parse(envelope: Envelope, body: Buffer, type: "json" | "form"): { payload: Buffer; facts: Facts } {
  try {
    const payload = jsonOf(body, type);
    return { payload, facts: readPayload(envelope, JSON.parse(payload.toString())) };
  } catch (error) {
    if (error instanceof WrongPayload) throw new HttpError(400, error.message);
    throw new HttpError(400, "the body is not JSON");
  }
}
