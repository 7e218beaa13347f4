import { version } from "../core/version.ts";
import { reasonOf, request } from "../fetch/fetch.ts";
import { type Item, NotSent, type OutboxTarget } from "../notify/notify.ts";
import { type CommitStatus, type Forge, judgeAnswer, statusRequest } from "./forges.ts";

/** Commit statuses: what is shown beside a commit at its forge, by way of the outbox. */
export type { CommitStatus, Forge, ForgeKind, StatusState } from "./forges.ts";
export { forgeSchema, readForges } from "./settings.ts";

/** Milliseconds for one request, and how long one whose answer never came may still be at work at the forge. */
const [timeout, afterTimeout] = [30_000, 60_000];

/** The target of a forge's statuses: of each commit and context the newest state, four commits at a time. */
export function statusTarget(forge: Forge): OutboxTarget<CommitStatus> {
  // docs.github.com, rate limits: one request after the other, and a second between two
  const isGithub = new URL(forge.api).host === "api.github.com";
  return {
    id: `status ${forge.host}`,
    name: `status: ${forge.host}`,
    atOnce: isGithub ? 1 : 4,
    pace: isGithub ? 1000 : 0,
    send: async ([status], signal) => await sendStatus(forge, status as CommitStatus, signal),
  };
}

/** A status for the outbox: only the newest of a commit and context is sent. */
export function statusItem(status: CommitStatus): Item {
  const { repo, sha, context, state } = status;
  return {
    key: JSON.stringify([repo.toLowerCase(), sha, context]),
    about: `${repo} ${sha.slice(0, 12)} (${state})`,
    repo,
    message: status,
  };
}

async function sendStatus(forge: Forge, status: CommitStatus, signal: AbortSignal): Promise<void> {
  const { url, headers, body } = statusRequest(forge, status);
  const common = { "content-type": "application/json", accept: "application/json" };
  const began = performance.now();
  const answer = await request(url, {
    method: "POST",
    headers: { ...common, "user-agent": `boatyard/${version}`, ...headers },
    body: JSON.stringify(body),
    throughProxy: true,
    timeout,
    maxBytes: 16 * 1024,
    signal,
  }).catch((error: unknown) => {
    // the forge may still be at work on it, and must not do so after the next state
    const keyAfter = performance.now() - began >= timeout ? afterTimeout : undefined;
    throw new NotSent(reasonOf(error), { keyAfter });
  });
  const refusal = judgeAnswer(forge.kind, answer, Date.now());
  if (refusal) throw refusal;
}
