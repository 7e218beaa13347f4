import { nameOnBus } from "../../bus/address.ts";
import { type BusOptions, connectBus } from "../../bus/bus.ts";
import { nkeyOf } from "../../bus/nkey.ts";
import { cleanLine } from "../../core/clean.ts";
import { messageOf } from "../../core/errors.ts";
import {
  type OrderState,
  readOrder,
  reportEvery,
  type SignedOrder,
  writeReport,
} from "../order.ts";
import { clockAhead } from "../signature.ts";
import type { Slave } from "./slave.ts";

/**
 * A slave that connects out: it takes its orders from the bus, and reports there. Orders are signed by the master and
 * rise, so that a bus that is not honest can withhold one, and neither forge it nor turn one back.
 */

export type BusSettings = Pick<BusOptions, "servers" | "key" | "ca">;

/** Every repo of a slave with its order, as it stands in the bucket `want`. */
type Orders = Record<string, string>;

/** Milliseconds for an answer of the bus. */
const timeout = 5000;

/** Follow the bus until it is closed; also while it cannot be reached. */
export function followBus(slave: Slave, settings: BusSettings): { close(): Promise<void> } {
  const { options, jobs, inventory } = slave;
  const { note, names, identity } = options;
  const name = names[0] ?? "";
  const key = nameOnBus(name);
  /** What was refused, by repo; it is reported until another order comes. */
  const refused = new Map<string, OrderState>();
  /** The last one taken, by repo: it is looked at every minute, and logged once. */
  const taken = new Map<string, string>();
  /** What a bus makes us say is said once a minute, and no more than a hundred such lines. */
  const said = new Set<string>();
  let closed = false;

  note(`the bus knows this slave as ${key}, with the key ${nkeyOf(settings.key)}`);
  const connected = connectBus({
    ...settings,
    ...{ name: key, timeout, patient: true, onStatus: note },
  });
  const opened = connected.then((bus) => {
    const buckets = { want: bus.bucket("want"), state: bus.bucket("state") };
    buckets.want.watch(key, (_, text) => void attempt(() => takeAll(text)));
    jobs.onChange = () => void attempt(report);
    bus.onConnect(() => {
      note(`connected to the bus as ${name}`);
      void attempt(look);
    });
    return buckets;
  });
  opened.catch((error: unknown) => note(messageOf(error)));
  // an order that was missed, and a sign of life
  const timer = setInterval(() => {
    said.clear();
    void attempt(look);
  }, reportEvery);
  const late = setTimeout(() => note("the bus cannot be reached yet"), timeout);
  opened.finally(() => clearTimeout(late)).catch(() => {});

  async function attempt(work: () => Promise<void>): Promise<void> {
    try {
      if (!closed) await work();
    } catch (error) {
      if (!closed) say(messageOf(error));
    }
  }

  function say(line: string): void {
    if (said.has(line) || said.size >= 100) return;
    said.add(line);
    note(cleanLine(line));
  }

  async function look(): Promise<void> {
    const entry = await (await opened).want.get(key);
    if (entry) await takeAll(entry.text);
    await report();
  }

  async function takeAll(text: string): Promise<void> {
    for (const [repo, order] of Object.entries(parseOrders(text))) await takeOne(repo, order);
    await report();
  }

  async function takeOne(repo: string, text: string): Promise<void> {
    const signed = readOrder(text, options.keys);
    // what is not an order for this place is not worth a report: anybody could have put it there
    const foreign = "refusal" in signed ? signed.refusal : foreignWords(signed, repo);
    if ("refusal" in signed || foreign !== undefined)
      return say(`from the bus, for ${JSON.stringify(repo.slice(0, 100))}: ${foreign}`);
    const why = clockAhead(signed.order.at, Date.now());
    try {
      if (why !== undefined) throw new Error(why);
      if (taken.get(repo) === signed.signature) return;
      await slave.take(signed.order, "the bus", signed);
      taken.set(repo, signed.signature);
      refused.delete(repo);
    } catch (error) {
      if (refused.get(repo)?.signature === signed.signature) return;
      say(`from the bus, for ${repo}: ${messageOf(error)}`);
      const { signature, order } = signed;
      refused.set(repo, { signature, at: order.at, state: "refused", error: messageOf(error) });
    }
  }

  function foreignWords({ order }: SignedOrder, repo: string): string | undefined {
    if (order.repo !== repo) return `the order is for ${order.repo}`;
    if (names.some((each) => each.toLowerCase() === order.target.toLowerCase())) return undefined;
    return `the order is for another slave, ${order.target}`;
  }

  let [isReporting, isStale] = [false, false];
  /** Write what is now; what changes meanwhile is written after it. */
  async function report(): Promise<void> {
    isStale = true;
    if (isReporting) return;
    isReporting = true;
    try {
      while (isStale && !closed) {
        isStale = false;
        const orders: Record<string, OrderState> = {};
        for (const { repo, order, state, before, sha, error } of jobs.all())
          if (order)
            orders[repo] = { signature: order.signature, at: order.at, state, before, sha, error };
        for (const [repo, state] of refused) orders[repo] = state;
        const told = { name, time: Date.now(), inventory: await inventory.all(false), orders };
        try {
          await (await opened).state.put(key, writeReport(told, identity));
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
      clearTimeout(late);
      jobs.onChange = () => {};
      // one that was never reached is given up with the process
      await Promise.race([connected.then((bus) => bus.close()).catch(() => {}), pastTick()]);
    },
  };
}

function pastTick(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 1000).unref());
}

function parseOrders(text: string): Orders {
  const value = JSON.parse(text) as unknown;
  const pairs = typeof value === "object" && value !== null ? Object.entries(value) : [];
  return Object.fromEntries(pairs.filter(([, order]) => typeof order === "string")) as Orders;
}
