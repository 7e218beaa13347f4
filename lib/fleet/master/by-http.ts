import { Failure } from "../../core/errors.ts";
import { addressesOf, type Target } from "./list.ts";
import { type Answer, NoAnswer, pause, refusalOf, type Sender, wordsOf } from "./send.ts";
import { resultOf, servesCommit, tooLong, type Transport } from "./transport.ts";

/** Slaves that listen: each is asked, and its job is asked after until it ends. */
export function httpTransport(sender: Sender): Transport {
  async function send(...sent: Parameters<Sender["send"]>): Promise<Answer> {
    const answer = await sender.send(...sent);
    const refusal = refusalOf(answer);
    if (refusal !== undefined) throw new Failure(refusal);
    return answer;
  }

  return {
    async status(target, query) {
      const url = addressesOf(target).status(query);
      return (await send(target, url)).json ?? {};
    },

    async start(target, { repo, sha, branch }, order) {
      const url = addressesOf(target).update({ repo, sha, branch });
      const job = (await send(target, url, { order })).json?.["job"];
      return typeof job === "string" ? job : undefined;
    },

    async follow(target, job, rollout) {
      const end = performance.now() + rollout.waitLimit;
      for (;;) {
        const asked = performance.now();
        const answer = await askJob(sender, target, job, { end, signal: rollout.signal });
        // it was followed for longer than the slave remembers jobs
        if (answer.status === 404 && (await servesCommit(this, target, rollout)))
          return { ok: true, answer: "done", sha: rollout.sha };
        const refusal = refusalOf(answer);
        if (refusal !== undefined) throw new Failure(refusal);
        const { state, before, sha, error } = answer.json ?? {};
        const told = { before: wordsOf(before), sha: wordsOf(sha), error: wordsOf(error) };
        const result = resultOf(wordsOf(state), told, rollout);
        if (result) return result;
        if (performance.now() > end) throw tooLong(wordsOf(state), rollout);
        await rest(asked, rollout.signal);
      }
    },
  };
}

/** Ask until there is an answer: a slave that accepted a job finishes it, also when it restarts meanwhile. */
async function askJob(
  sender: Sender,
  target: Target,
  job: string,
  { end, signal }: { end: number; signal: AbortSignal | undefined },
): Promise<Answer> {
  for (;;) {
    const asked = performance.now();
    const url = addressesOf(target).job(job, { wait: `${maxWait / 1000}s` });
    try {
      return await sender.send(target, url, { patience: maxWait });
    } catch (error) {
      const over = performance.now() > end || signal?.aborted;
      if (!(error instanceof NoAnswer) || over) throw error;
    }
    await rest(asked, signal);
  }
}

/** How long a slave is asked to delay its answer about a job, in ms; short, so that a lost connection is noticed soon. */
const maxWait = 5000;
const minPause = 250;

/** One that does not delay its answer must not be asked without end. */
async function rest(asked: number, signal: AbortSignal | undefined): Promise<void> {
  const left = minPause - (performance.now() - asked);
  if (left > 0) await pause(left, signal);
}
