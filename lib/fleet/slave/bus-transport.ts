import { nameOnBus } from "../../bus/address.ts";
import { connectBus } from "../../bus/bus.ts";
import { nkeyOf } from "../../bus/nkey.ts";
import type { BusAccess } from "../../bus/settings.ts";
import { cleanLine } from "../../core/clean.ts";
import { messageOf, Refused } from "../../core/errors.ts";
import { open, type Opened, openOrder, type Order, questionKey, readLetters, seal } from "../letter.ts";
import { offAfter, type OrderState, reportEvery } from "../report.ts";
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
/** Milliseconds after which what the bus did not do is tried again: a master waits ten seconds for a sign. */
const retryAfter = 1000;
/** Milliseconds in which changes share one report: an update that is over by then is told once. */
const settle = 50;

/** Follow the bus until it is closed; also while it cannot be reached. */
export function followBus(slave: Slave, { name, ...access }: BusSettings): { close(): Promise<void> } {
  const { options } = slave;
  const { note, identity } = options;
  const key = nameOnBus(name);
  /** What it was called by before counts, too. */
  const reader = { keys: options.keys, names: [name, ...options.names] };
  /** What was refused, by repo; it is reported until another order comes. */
  const refused = new Map<string, OrderState>();
  /** The newest question; until it is over, reports answer it. */
  let question: Opened | undefined;
  /** What a bus makes us say is said once a connection, and no more than a hundred such lines a minute. */
  const said = new Set<string>();
  let closed = false;
  let retry: NodeJS.Timeout | undefined;
  let looks = 0;

  note(`the bus knows this slave as ${key}, with the key ${nkeyOf(access.key)}`);
  const connected = connectBus({ ...access, name: key, timeout, patient: true, onStatus: note });
  const opened = connected.then((bus) => {
    const buckets = { orders: bus.bucket("orders"), reports: bus.bucket("reports") };
    // what comes may be an answer to another slave of the account: it is a hint, and the value is read
    buckets.orders.watch(key, () => attempt(look));
    slave.onChange = () => attempt(report);
    bus.onConnect(() => {
      note(`connected to the bus as ${name}`);
      said.clear();
      attempt(look);
    });
    return buckets;
  });
  opened.catch((error: unknown) => note(messageOf(error)));
  // an order that was missed, and a sign of life
  const timer = setInterval(() => {
    if (said.size >= 100) said.clear();
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

  /**
   * Read what is there for it, and report; soon again when that fails: a new bus has no buckets before the master made
   * them. The last read counts: one that was asked for before may wait for its time-out still.
   */
  async function look(): Promise<void> {
    const own = ++looks;
    clearTimeout(retry);
    try {
      const found = await (await opened).orders.get(key);
      const letters = readLetters(found?.text ?? "{}");
      if (!letters) say(`from the bus: the orders at ${key} cannot be read`);
      for (const [repo, text] of Object.entries(letters ?? {})) if (own === looks) await receive(repo, text);
      await report();
    } catch (error) {
      if (own !== looks) return;
      retry = setTimeout(() => attempt(look), retryAfter);
      throw error;
    }
  }

  /** Take a letter that lies there for a repo, or as the question. */
  async function receive(repo: string, text: string): Promise<void> {
    let order: Order | undefined;
    try {
      if (repo === questionKey) {
        const asked = open(text, "question", reader);
        // one that was answered stands there until the next one
        if (asked.letter.at > (question?.letter.at ?? 0)) question = asked;
        return;
      }
      const opened = openOrder(text, reader);
      if (opened.order.repo !== repo) throw new Refused(`the order is for ${opened.order.repo}`);
      ({ order } = opened);
      if (slave.get(repo)?.order.digest !== order.digest) await slave.take(order, opened.key);
      refused.delete(repo);
    } catch (error) {
      // it is tried again, as a clock may be set right, and said once
      if (order && refused.get(repo)?.digest === order.digest) return;
      say(`from the bus${repo === questionKey ? "" : `, for ${repo.slice(0, 100)}`}: ${messageOf(error)}`);
      // what is no order for this place is not worth a report: anybody could have put it there; an old one is no news
      if (!order || order.at <= (slave.get(repo)?.order.at ?? -1)) return;
      refused.set(repo, { digest: order.digest, at: order.at, state: "refused", error: messageOf(error) });
    }
  }

  /** Write what is now; what changes meanwhile is written after it. */
  const report = inTurn(async () => {
    if (closed) return;
    if (question && Date.now() > question.letter.until) question = undefined;
    const asked = question;
    const now = await slave.report({ verify: asked !== undefined });
    const { repos } = now;
    for (const [repo, order] of refused) {
      const at = repos.findIndex((each) => each.repo === repo);
      repos.splice(at < 0 ? repos.length : at, 1, { ...repos[at], repo, error: order.error, order });
    }
    const content = { ...now, name, verified: asked?.digest };
    const letter = seal({ ...content, kind: "answer", to: "*", until: now.at + offAfter }, identity);
    await (await opened).reports.put(key, letter);
  });

  return {
    async close() {
      closed = true;
      clearInterval(timer);
      clearTimeout(retry);
      slave.onChange = () => {};
      // one that was never reached is given up with the process
      const late = new Promise((resolve) => setTimeout(resolve, 1000).unref());
      await Promise.race([connected.then((bus) => bus.close()).catch(() => {}), late]);
    },
  };
}

/** Work that is done once more when it was asked for meanwhile; then only what the last time said counts. */
function inTurn(work: () => Promise<void>): () => Promise<void> {
  let [isWorking, isStale] = [false, false];
  return async () => {
    isStale = true;
    if (isWorking) return;
    isWorking = true;
    try {
      while (isStale) {
        await new Promise((resolve) => setTimeout(resolve, settle));
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
