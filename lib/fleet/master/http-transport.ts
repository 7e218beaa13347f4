import { createPublicKey, type KeyObject } from "node:crypto";
import { Failure, systemCode } from "../../core/errors.ts";
import { type Answer, reasonOf, request } from "../../fetch/fetch.ts";
import { allowedSkew, digestOf, letterHeader, objectIn } from "../letter.ts";
import { openReport, type Report, wordsOf } from "../report.ts";
import { addressesOf, type Target } from "./list.ts";
import { letterFor, pause, type Transport } from "./rollout.ts";

/** Slaves that listen: each letter is a request, sent again where no answer came. */

export interface HttpOptions {
  /** What letters are signed with; undefined: nothing. */
  key: KeyObject | undefined;
  /** The key is that of a secret, which the slaves sign with as well. */
  isShared: boolean;
  /** PEM: the authority that signed the slaves' certificates, instead of the public ones. */
  ca?: string | undefined;
  /** Milliseconds for the connection, TLS included; the look-up of a name is not counted. */
  connectTimeout: number;
  /** Milliseconds for all of it. */
  timeout: number;
  /** How often it is sent again when no answer came or the slave was too busy. */
  retries: number;
  signal: AbortSignal;
}

/** No answer came, or none that could be read. */
class NoAnswer extends Error {
  override name = "NoAnswer";
}

/** How long a slave may delay its answer about an order, in ms; short, so that a lost connection is noticed soon. */
const maxWait = 5000;
const minPause = 250;
/** The statuses of a slave that is too busy, or away behind a proxy that is not. */
const notNow = [429, 502, 503, 504];
/** The answer of a slave with many repos; more is somebody else's server. */
const maxAnswer = 4 * 1024 * 1024;

export function httpTransport({ key, isShared, timeout, retries, ...options }: HttpOptions): Transport {
  const { signal } = options;
  const goodFor = allowedSkew;
  const shared = key && isShared ? createPublicKey(key) : undefined;

  /** Send it, again after growing pauses when no answer came or the slave was too busy. @throws {NoAnswer} */
  async function send(url: URL, letter: string, patience = 0): Promise<Answer> {
    const limits = { timeout: timeout + patience, maxBytes: maxAnswer };
    const headers = { accept: "application/json", [letterHeader]: letter };
    for (let round = 0; ; round++) {
      const answer = await request(url, { ...options, ...limits, headers }).catch((error: unknown) => {
        return new NoAnswer(signal.aborted ? "interrupted" : wordsAbout(error));
      });
      const isGiven = !(answer instanceof Error);
      if (round >= retries || signal.aborted || (isGiven && !notNow.includes(answer.status))) {
        if (!isGiven) throw answer;
        if (answer.truncated) throw new NoAnswer("the answer is too long to be slave-server's");
        return answer;
      }
      const wanted = isGiven ? Number(answer.headers["retry-after"]) || 0 : 0;
      await pause(Math.max(200 * 2 ** round * (0.5 + Math.random()), Math.min(wanted * 1000, 10_000)), signal);
    }
  }

  /** What an answer says. @throws {Failure} for a refusal, and for what is not the slave's own */
  function opened(target: Target, letter: string, { status, text }: Pick<Answer, "status" | "text">): Report {
    if (status < 200 || status >= 300) throw refusalIn({ status, text });
    const expected = { name: target.slave, to: digestOf(letter), key: target.key, shared };
    const { letter: sealed } = objectIn(text);
    return openReport(typeof sealed === "string" ? sealed : "", expected);
  }

  const ask = (target: Target, content: Record<string, unknown>) =>
    letterFor({ key, goodFor }, target, { ...content, kind: "question" });

  return {
    ...{ key, goodFor },
    async report(target, { repo, verify }) {
      const letter = ask(target, { repo, verify });
      return opened(target, letter, await send(addressesOf(target).status, letter));
    },

    async send(target, repo, order) {
      const answer = await send(addressesOf(target).update(repo), order);
      // without any key whoever takes `GET /get/?repo=NAME` is told, and may answer as it likes
      const isAnybody = key === undefined && target.key === undefined;
      if (!isAnybody || answer.status >= 300 || "letter" in objectIn(answer.text)) opened(target, order, answer);
    },

    /** A slave that took an order finishes it, also when it restarts meanwhile: it is asked until it answers. */
    async *follow(target, repo, order) {
      const url = addressesOf(target).status;
      for (;;) {
        const asked = performance.now();
        const letter = ask(target, { repo, wait: maxWait, order: digestOf(order) });
        const answer = await send(url, letter, maxWait).catch((error: unknown) => {
          if (error instanceof NoAnswer) return error;
          throw error;
        });
        if (answer instanceof Error) yield answer;
        else if (notNow.includes(answer.status)) yield refusalIn(answer);
        else yield opened(target, letter, answer).repos.find((each) => each.repo === repo)?.order;
        // one that does not delay its answer must not be asked without end
        const left = minPause - (performance.now() - asked);
        if (left > 0) await pause(left, signal);
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

function refusalIn({ status, text }: Pick<Answer, "status" | "text">): Failure {
  const words = wordsOf(objectIn(text)["error"]) ?? wordsOf(text.trim().split("\n", 1)[0])?.slice(0, 200);
  return new Failure(words === undefined ? `it answers ${status}` : `it answers ${status}: ${words}`);
}
