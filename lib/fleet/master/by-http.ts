import { Failure, systemCode } from "../../core/errors.ts";
import { type Answer, reasonOf, request } from "../../fetch/fetch.ts";
import { answerHeader, answerRefusal, type Keys, orderHeader, requestHeader, signRequest } from "../signature.ts";
import { pause, resultOf, servesCommit, tooLong, type Transport, wordsOf } from "./fan-out.ts";
import { addressesOf, type Target } from "./list.ts";

/** Slaves that listen: requests, sent again without an answer, what the answers say, and jobs that are followed. */

export interface HttpOptions {
  /** What the requests are signed with; with neither, they are plain. */
  keys: Keys;
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

/** What one request carries besides its address. */
interface SendOptions {
  /** Milliseconds added to the time limit, for answers that the slave delays. */
  patience?: number;
  /** The signed order, for an update: the same text at every try, so that the slave starts one job. */
  order?: string | undefined;
}

/** No answer came, or none that could be read. */
class NoAnswer extends Error {
  override name = "NoAnswer";
}

/** How long a slave may delay its answer about a job, in ms; short, so that a lost connection is noticed soon. */
const maxWait = 5000;
const minPause = 250;
/** The statuses of a slave that is too busy, or away behind a proxy that is not. */
const notNow = [429, 502, 503, 504];
/** Answers here are a line of JSON; more is somebody else's server. */
const maxAnswer = 64 * 1024;
/** The status of a slave with many repos. */
const maxStatus = 4 * 1024 * 1024;

export function httpTransport({ keys, timeout, retries, ...options }: HttpOptions): Transport {
  const { signal } = options;
  const isSigning = keys.key !== undefined || keys.secret !== undefined;

  async function sendOnce(target: Target, url: URL, { patience = 0, order }: SendOptions): Promise<Answer> {
    const path = url.pathname + url.search;
    const headers: Record<string, string> = { accept: "application/json" };
    const sent: string[] = [];
    if (order !== undefined) sent.push((headers[orderHeader] = order));
    // an update is asked for with the order alone, unless there is a shared secret
    if (isSigning && (order === undefined || keys.secret !== undefined)) {
      const request = { method: "GET", path, target: target.slave };
      sent.push((headers[requestHeader] = signRequest(keys, request)));
    }
    const maxBytes = url.pathname.endsWith("/status") ? maxStatus : maxAnswer;
    const limits = { timeout: timeout + patience, maxBytes };
    let answer: Answer;
    try {
      answer = await request(url, { ...options, ...limits, headers });
      if (answer.truncated) throw new Error("the answer is too long to be slave-server's");
    } catch (error) {
      throw new NoAnswer(signal?.aborted ? "interrupted" : wordsAbout(error));
    }
    const { status, text } = answer;
    if (sent.length > 0 && status >= 200 && status < 300) {
      const bound = answer.headers[answerHeader];
      const refusal = answerRefusal(bound, { sent, own: keys, slaveKey: target.key }, status, text);
      if (refusal !== undefined) return { ...answer, status: 0, text: refusal };
    }
    return answer;
  }

  /** Send it, again after growing pauses when no answer came or the slave was too busy. @throws {NoAnswer} */
  async function send(target: Target, url: URL, sendOptions: SendOptions = {}): Promise<Answer> {
    for (let round = 0; ; round++) {
      let wait = 200 * 2 ** round * (0.5 + Math.random());
      try {
        const answer = await sendOnce(target, url, sendOptions);
        if (!notNow.includes(answer.status) || round >= retries) return answer;
        const wanted = Number(answer.headers["retry-after"]) || 0;
        wait = Math.max(wait, Math.min(wanted * 1000, 10_000));
      } catch (error) {
        if (!(error instanceof NoAnswer) || round >= retries || signal?.aborted) throw error;
      }
      await pause(wait, signal);
    }
  }

  /** One that does not delay its answer must not be asked without end. */
  async function rest(asked: number): Promise<void> {
    const left = minPause - (performance.now() - asked);
    if (left > 0) await pause(left, signal);
  }

  /** Ask until there is an answer: a slave that accepted a job finishes it, also when it restarts meanwhile. */
  async function askJob(target: Target, job: string, end: number): Promise<Answer> {
    const url = addressesOf(target).job(job, { wait: `${maxWait / 1000}s` });
    const isOver = () => performance.now() > end || signal?.aborted === true;
    for (;;) {
      const asked = performance.now();
      try {
        const answer = await send(target, url, { patience: maxWait });
        if (!notNow.includes(answer.status) || isOver()) return answer;
      } catch (error) {
        if (!(error instanceof NoAnswer) || isOver()) throw error;
      }
      await rest(asked);
    }
  }

  return {
    async status(target, query) {
      return taken(await send(target, addressesOf(target).status(query)));
    },

    async start(target, { repo, sha, branch }, order) {
      const url = addressesOf(target).update({ repo, sha, branch });
      const { job } = taken(await send(target, url, { order }));
      return typeof job === "string" ? job : undefined;
    },

    async follow(target, job, rollout) {
      const end = performance.now() + rollout.waitLimit;
      for (;;) {
        const asked = performance.now();
        const answer = await askJob(target, job, end);
        // it was followed for longer than the slave remembers jobs
        if (answer.status === 404 && (await servesCommit(this, target, rollout)))
          return { ok: true, answer: "done", sha: rollout.sha };
        const { state, before, sha, error } = taken(answer);
        const told = { before: wordsOf(before), sha: wordsOf(sha), error: wordsOf(error) };
        const result = resultOf(wordsOf(state), told, rollout);
        if (result) return result;
        if (performance.now() > end) throw tooLong(wordsOf(state), rollout);
        await rest(asked);
      }
    },
  };
}

/** What is worth other words than those of any request. */
const plainWords: Record<string, string> = {
  ECONNREFUSED: "connection refused: no slave-server listens there",
  ECONNRESET: "the connection was reset",
  EMFILE: "too many open files here; raise ulimit -n or lower --jobs",
};

function wordsAbout(error: unknown): string {
  const code = systemCode(error) ?? "";
  // the parser of Node's http client
  if (code.startsWith("HPE_")) return "it does not speak HTTP: no slave-server listens there";
  return plainWords[code] ?? reasonOf(error, "see --ca");
}

/** What an answer says, as far as it is JSON. @throws {Failure} for a refusal, and for what is not the slave's own */
function taken({ status, text }: Answer): Record<string, unknown> {
  const json = objectIn(text);
  if (status >= 200 && status < 300) return json;
  if (status === 0) throw new Failure(text);
  const words = wordsOf(json["error"]) ?? wordsOf(text.trim().split("\n", 1)[0])?.slice(0, 200);
  throw new Failure(words === undefined ? `it answers ${status}` : `it answers ${status}: ${words}`);
}

function objectIn(text: string): Record<string, unknown> {
  try {
    return Object(JSON.parse(text)) as Record<string, unknown>;
  } catch {
    return {};
  }
}
