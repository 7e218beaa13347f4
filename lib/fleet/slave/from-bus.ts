import { everybody, keyOfTarget, nameOnBus, targetOfGroup } from "../../bus/address.ts";
import { connectBus } from "../../bus/bus.ts";
import { nkeyOf } from "../../bus/nkey.ts";
import type { BusAccess } from "../../bus/settings.ts";
import { cleanLine } from "../../core/clean.ts";
import { messageOf } from "../../core/errors.ts";
import {
  type OrderState,
  question,
  readOrder,
  readTexts,
  type Report,
  reportEvery,
  type SignedOrder,
  writeReport,
} from "../order.ts";
import { allowedSkew, clockAhead, verifyRequest } from "../signature.ts";
import type { Slave } from "./slave.ts";

/**
 * A slave that connects out: it takes its orders from the bus, and reports there. Orders are signed by the master and
 * rise, so that a bus that is not honest can withhold one, and neither forge it nor turn one back.
 */

export interface BusSettings extends BusAccess {
  /** What the bus and orders call this slave. */
  name: string;
  /** Whose orders it takes beside its own and everybody's. */
  groups: readonly string[];
}

/** Milliseconds for an answer of the bus. */
const timeout = 5000;

/** Milliseconds after which keys that could not be read are read again: a master waits ten seconds for a sign. */
const retryAfter = 1000;
/** Milliseconds in which changes share one report: an update that is over by then is told once. */
const settle = 50;

/** Follow the bus until it is closed; also while it cannot be reached. */
export function followBus(slave: Slave, settings: BusSettings): { close(): Promise<void> } {
  const { options, jobs, inventory } = slave;
  const { note, identity } = options;
  const { name, groups } = settings;
  const key = nameOnBus(name);
  /** What it was called by before has orders too. */
  const names = [name, ...options.names].map((each) => each.toLowerCase());
  const targets = [everybody, ...groups.map(targetOfGroup), name];
  /** What was read under each of its keys, by target and repo; the order only when it counts. */
  const read = new Map<string, Map<string, { text: string; signed: SignedOrder | undefined }>>();
  /** What was refused, by repo; it is reported until another order comes. */
  const refused = new Map<string, OrderState>();
  /** The last one taken, by repo: it is looked at every minute, and logged once. */
  const taken = new Map<string, string>();
  /** The last question, in seconds since 1970. */
  let answered = { time: 0, nonce: "" };
  let verified: Report["verified"];
  /** What a bus makes us say is said once a minute, and no more than a hundred such lines. */
  const said = new Set<string>();
  let closed = false;

  note(`the bus knows this slave as ${key}, with the key ${nkeyOf(settings.key)}`);
  const { servers, ca } = settings;
  const connected = connectBus({
    ...{ servers, key: settings.key, ca },
    ...{ name: key, timeout, patient: true, onStatus: note },
  });
  const opened = connected.then((bus) => {
    const buckets = { want: bus.bucket("want"), state: bus.bucket("state") };
    for (const target of targets)
      buckets.want.watch(keyOfTarget(target), (_, text) =>
        attempt(async () => {
          learn(target, text);
          await takeNewest();
        }),
      );
    jobs.onChange = () => attempt(report);
    bus.onConnect(() => {
      note(`connected to the bus as ${name}`);
      attempt(lookAgain);
    });
    return buckets;
  });
  opened.catch((error: unknown) => note(messageOf(error)));
  // an order that was missed, and a sign of life
  const timer = setInterval(() => {
    said.clear();
    if (Date.now() / 1000 - answered.time > allowedSkew) verified = undefined;
    attempt(lookAgain);
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

  let retry: NodeJS.Timeout | undefined;
  /** Look, soon again when that fails: a new bus has no buckets before the master has made them. */
  async function lookAgain(): Promise<void> {
    clearTimeout(retry);
    retry = undefined;
    try {
      await look();
    } catch (error) {
      retry ??= setTimeout(() => attempt(lookAgain), retryAfter);
      throw error;
    }
  }

  /** Read all of its keys, as a watch tells only what changes. */
  async function look(): Promise<void> {
    const { want } = await opened;
    const entries = await Promise.all(targets.map((target) => want.get(keyOfTarget(target))));
    for (const [index, target] of targets.entries()) {
      const text = entries[index]?.text;
      if (text !== undefined) attempt(async () => learn(target, text));
    }
    await takeNewest();
  }

  function learn(target: string, text: string): void {
    const before = read.get(target);
    const now = new Map<string, { text: string; signed: SignedOrder | undefined }>();
    const texts = readTexts(text);
    if (!texts) return say(`from the bus: the orders at ${keyOfTarget(target)} cannot be read`);
    for (const [repo, order] of Object.entries(texts)) {
      const known = before?.get(repo);
      if (repo === question.key) answer(target, order);
      else now.set(repo, known?.text === order ? known : { text: order, signed: check() });

      /** What is not an order for this place is not worth a report: anybody could have put it there. */
      function check(): SignedOrder | undefined {
        const signed = readOrder(order, options.keys);
        const why = "refusal" in signed ? signed.refusal : foreignWords(signed, target, repo);
        if (why === undefined) return signed as SignedOrder;
        say(`from the bus, for ${JSON.stringify(repo.slice(0, 100))}: ${why}`);
        return undefined;
      }
    }
    read.set(target, now);
  }

  function foreignWords({ order }: SignedOrder, place: string, repo: string): string | undefined {
    if (order.repo !== repo) return `the order is for ${order.repo}`;
    return isFor(order.target, place) ? undefined : `the order is for another, ${order.target}`;
  }

  function isFor(target: string, place: string): boolean {
    return place === name ? names.includes(target.toLowerCase()) : target === place;
  }

  /** Of all orders for a repo the newest counts. */
  async function takeNewest(): Promise<void> {
    const newest = new Map<string, SignedOrder>();
    for (const orders of read.values())
      for (const [repo, { signed }] of orders)
        if (signed && signed.order.at > (newest.get(repo)?.order.at ?? -1)) newest.set(repo, signed);
    for (const [repo, signed] of newest) await takeOne(repo, signed);
    await report();
  }

  async function takeOne(repo: string, signed: SignedOrder): Promise<void> {
    const { signature, order } = signed;
    const why = clockAhead(order.at, Date.now());
    try {
      if (why !== undefined) throw new Error(why);
      if (taken.get(repo) !== signature) await slave.take(order, "the bus", signed);
      taken.set(repo, signature);
      refused.delete(repo);
    } catch (error) {
      if (refused.get(repo)?.signature === signature) return;
      say(`from the bus, for ${repo}: ${messageOf(error)}`);
      refused.set(repo, { signature, at: order.at, state: "refused", error: messageOf(error) });
    }
  }

  /** Compare what is served with its commits; each question once, and none that is old. */
  function answer(target: string, text: string): void {
    const check = verifyRequest({ keys: options.keys, secrets: [] }, question, text);
    // one that was answered stands there until the next one
    if (!check.ok && !check.isLate) say(`from the bus: a question: ${check.reason}`);
    if (!check.ok || !isFor(check.target ?? "", target)) return;
    const { time, nonce } = check;
    if (time < answered.time || nonce === answered.nonce) return;
    answered = { time, nonce };
    attempt(async () => {
      const { repos } = await inventory.all(true);
      verified = { nonce, repos };
      await report();
    });
  }

  let [isReporting, isStale] = [false, false];
  /** Write what is now; what changes meanwhile is written after it. */
  async function report(): Promise<void> {
    isStale = true;
    if (isReporting) return;
    isReporting = true;
    try {
      while (isStale && !closed) {
        await new Promise((resolve) => setTimeout(resolve, settle));
        isStale = false;
        const orders: Record<string, OrderState> = {};
        for (const { repo, order, state, before, sha, error } of jobs.all())
          if (order) orders[repo] = { signature: order.signature, at: order.at, state, before, sha, error };
        for (const [repo, state] of refused) orders[repo] = state;
        const told = { name, time: Date.now(), inventory: await inventory.all(false), orders };
        const text = writeReport({ ...told, groups: [...groups], verified }, identity);
        try {
          await (await opened).state.put(key, text);
        } catch (error) {
          // one that was lost with the connection: since then it was made again, or there is more to tell
          if (!isStale) throw error;
        }
      }
    } finally {
      isReporting = false;
    }
  }

  return {
    async close() {
      closed = true;
      clearInterval(timer);
      clearTimeout(retry);
      jobs.onChange = () => {};
      // one that was never reached is given up with the process
      await Promise.race([connected.then((bus) => bus.close()).catch(() => {}), pastTick()]);
    },
  };
}

function pastTick(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 1000).unref());
}
