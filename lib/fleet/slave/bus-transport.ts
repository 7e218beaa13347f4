import { nameOnBus } from "../../bus/address.ts";
import { connectBus } from "../../bus/bus.ts";
import { nkeyOf } from "../../bus/nkey.ts";
import type { BusAccess } from "../../bus/settings.ts";
import { cleanLine } from "../../core/clean.ts";
import { messageOf } from "../../core/errors.ts";
import { allowedSkew, open, openOrder, questionKey, readLetters, seal, timeRefusal } from "../letter.ts";
import { offAfter, type OrderState, reportEvery, type RepoStatus } from "../report.ts";
import type { Slave } from "./slave.ts";

/**
 * A slave that connects out: it takes its letters from the bus, and leaves its answer there. Orders are signed by the
 * master and rise, so that a bus that is not honest can withhold one, and neither forge it nor turn one back.
 */

export interface BusSettings extends BusAccess {
  /** What the bus and orders call this slave. */
  name: string;
}

/** Milliseconds for an answer of the bus. */
const timeout = 5000;
/** Milliseconds after which letters that could not be read are read again: a master waits ten seconds for a sign. */
const retryAfter = 1000;
/** Milliseconds in which changes share one report: an update that is over by then is told once. */
const settle = 50;

type OpenedOrder = Exclude<ReturnType<typeof openOrder>, { refusal: string }>;

/** Follow the bus until it is closed; also while it cannot be reached. */
export function followBus(slave: Slave, { name, ...access }: BusSettings): { close(): Promise<void> } {
  const { options, desired } = slave;
  const { note, identity } = options;
  const key = nameOnBus(name);
  /** What it was called by before counts, too. */
  const names = [name, ...options.names].map((each) => each.toLowerCase());
  /** What was read, by repo; the order only when it counts. */
  let read = new Map<string, { text: string; order: OpenedOrder | undefined }>();
  /** What was refused, by repo; it is reported until another order comes. */
  const refused = new Map<string, OrderState>();
  /** The last question, and what was found for it. */
  let answered = { at: 0, digest: "" };
  let verified: { digest: string; repos: RepoStatus[] } | undefined;
  /** What a bus makes us say is said once a minute, and no more than a hundred such lines. */
  const said = new Set<string>();
  let closed = false;
  let retry: NodeJS.Timeout | undefined;

  note(`the bus knows this slave as ${key}, with the key ${nkeyOf(access.key)}`);
  const connected = connectBus({ ...access, name: key, timeout, patient: true, onStatus: note });
  const opened = connected.then((bus) => {
    const buckets = { orders: bus.bucket("orders"), reports: bus.bucket("reports") };
    // what comes may be an answer to another slave of the account: it is a hint, and the value is read
    buckets.orders.watch(key, () => attempt(look));
    desired.onChange = () => attempt(report);
    bus.onConnect(() => {
      note(`connected to the bus as ${name}`);
      attempt(look);
    });
    return buckets;
  });
  opened.catch((error: unknown) => note(messageOf(error)));
  // an order that was missed, and a sign of life
  const timer = setInterval(() => {
    said.clear();
    if (Date.now() - answered.at > allowedSkew) verified = undefined;
    attempt(look);
  }, reportEvery);

  function attempt(work: () => Promise<void>): void {
    if (closed) return;
    work().catch((error: unknown) => {
      if (!closed) say(messageOf(error));
    });
  }

  function say(line: string): void {
    if (said.has(line) || said.size >= 100) return;
    said.add(line);
    note(cleanLine(line));
  }

  /** Read what is there for it; soon again when that fails: a new bus has no buckets before the master made them. */
  const look = inTurn(async () => {
    clearTimeout(retry);
    try {
      const text = (await (await opened).orders.get(key))?.text ?? "{}";
      const letters = readLetters(text);
      if (letters) learn(letters);
      else say(`from the bus: the orders at ${key} cannot be read`);
      for (const [repo, { order }] of read) if (order) await takeOne(repo, order);
    } catch (error) {
      retry = setTimeout(() => attempt(look), retryAfter);
      throw error;
    }
    await report();
  });

  function learn(letters: Record<string, string>): void {
    const now: typeof read = new Map();
    for (const [repo, text] of Object.entries(letters)) {
      const known = read.get(repo);
      if (repo === questionKey) answer(text);
      else now.set(repo, known?.text === text ? known : { text, order: check(repo, text) });
    }
    read = now;
  }

  /** What is not an order for this place is not worth a report: anybody could have put it there. */
  function check(repo: string, text: string): OpenedOrder | undefined {
    const opened = openOrder(text, options.keys);
    const why = "refusal" in opened ? `${opened.refusal}; compare master_key of slave.yml` : foreign(opened);
    if (why === undefined) return opened as OpenedOrder;
    say(`from the bus, for ${JSON.stringify(repo.slice(0, 100))}: ${why}`);
    return undefined;

    function foreign({ order, letter: { to } }: OpenedOrder): string | undefined {
      if (order.repo !== repo) return `the order is for ${order.repo}`;
      return names.includes(to.toLowerCase()) ? undefined : `the order is for another, ${to}`;
    }
  }

  async function takeOne(repo: string, { order, key: by }: OpenedOrder): Promise<void> {
    const { digest, at } = order;
    const last = desired.get(repo)?.order;
    if (last?.digest !== digest) {
      try {
        await slave.take(order, by);
      } catch (error) {
        // it is tried again, as a clock may be set right, and said once
        if (refused.get(repo)?.digest === digest) return;
        say(`from the bus, for ${repo}: ${messageOf(error)}`);
        // an old one that is put there again is no news
        if (at > (last?.at ?? -1)) refused.set(repo, { digest, at, state: "refused", error: messageOf(error) });
        return;
      }
    }
    refused.delete(repo);
  }

  /** Compare what is served with its commits; each question once, and none that is old. */
  function answer(text: string): void {
    const question = open(text, "question", options.keys);
    if ("refusal" in question) return say(`from the bus: ${question.refusal}; compare the keys`);
    const { digest, letter } = question;
    // one that was answered stands there until the next one
    if (timeRefusal(letter, Date.now()) !== undefined || !names.includes(letter.to.toLowerCase())) return;
    if (letter.at < answered.at || digest === answered.digest) return;
    answered = { at: letter.at, digest };
    attempt(async () => {
      const { repos } = await slave.report({ verify: true });
      verified = { digest, repos };
      await report();
    });
  }

  /** Write what is now; what changes meanwhile is written after it. */
  const report = inTurn(async () => {
    if (closed) return;
    const now = await slave.report();
    const repos = now.repos.map((each) => {
      const same = verified?.repos.find(({ repo, sha }) => repo === each.repo && sha === each.sha);
      return same ? { ...each, written: same.written } : each;
    });
    for (const [repo, order] of refused) {
      const at = repos.findIndex((each) => each.repo === repo);
      repos.splice(at < 0 ? repos.length : at, 1, { ...repos[at], repo, error: order.error, order });
    }
    const content = { ...now, name, repos, verified: verified?.digest };
    const letter = seal({ ...content, kind: "answer", to: "*", until: now.at + offAfter }, identity);
    await (await opened).reports.put(key, letter);
  }, settle);

  return {
    async close() {
      closed = true;
      clearInterval(timer);
      clearTimeout(retry);
      desired.onChange = () => {};
      // one that was never reached is given up with the process
      const late = new Promise((resolve) => setTimeout(resolve, 1000).unref());
      await Promise.race([connected.then((bus) => bus.close()).catch(() => {}), late]);
    },
  };
}

/**
 * Work that is done once more when it was asked for meanwhile; then only what the last time said counts.
 * @param delay milliseconds in which those who ask share one time
 */
function inTurn(work: () => Promise<void>, delay = 0): () => Promise<void> {
  let [isWorking, isStale] = [false, false];
  return async () => {
    isStale = true;
    if (isWorking) return;
    isWorking = true;
    try {
      while (isStale) {
        await new Promise((resolve) => setTimeout(resolve, delay));
        isStale = false;
        await work().catch((error: unknown) => {
          if (!isStale) throw error;
        });
      }
    } finally {
      isWorking = false;
    }
  };
}
