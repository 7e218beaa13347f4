import { everybody, keyOfTarget, nameOnBus, targetOfGroup } from "../../bus/address.ts";
import { connectBus } from "../../bus/bus.ts";
import { nkeyOf } from "../../bus/nkey.ts";
import type { BusAccess } from "../../bus/settings.ts";
import { cleanLine } from "../../core/clean.ts";
import { messageOf } from "../../core/errors.ts";
import { allowedSkew, open, openOrder, seal, timeRefusal } from "../letter.ts";
import { questionKey, readLetters } from "../on-bus.ts";
import { offAfter, type OrderState, reportEvery, type RepoStatus } from "../report.ts";
import { byWords } from "./routes.ts";
import type { Slave } from "./slave.ts";

/**
 * A slave that connects out: it takes its letters from the bus, and leaves its answer there. Orders are signed by the
 * master and rise, so that a bus that is not honest can withhold one, and neither forge it nor turn one back.
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

type OpenedOrder = Exclude<ReturnType<typeof openOrder>, { refusal: string }>;

/** Follow the bus until it is closed; also while it cannot be reached. */
export function followBus(slave: Slave, settings: BusSettings): { close(): Promise<void> } {
  const { options, desired, inventory } = slave;
  const { note, identity } = options;
  const { name, groups } = settings;
  const key = nameOnBus(name);
  /** What it was called by before has orders too. */
  const names = [name, ...options.names].map((each) => each.toLowerCase());
  const targets = [everybody, ...groups.map(targetOfGroup), name];
  /** What was read under each of its keys, by target and repo; the order only when it counts. */
  const read = new Map<string, Map<string, { text: string; opened: OpenedOrder | undefined }>>();
  /** What was refused, by repo; it is reported until another order comes. */
  const refused = new Map<string, OrderState>();
  /** The last question, and what was found for it. */
  let answered = { at: 0, digest: "" };
  let verified: { digest: string; repos: RepoStatus[] } | undefined;
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
    const buckets = { orders: bus.bucket("orders"), reports: bus.bucket("reports") };
    for (const target of targets) {
      // what comes may be an answer to another slave of the account: it is a hint, and the value is read
      const look = inTurn(() => lookAt([target]));
      buckets.orders.watch(keyOfTarget(target), () => attempt(look));
    }
    desired.onChange = () => attempt(report);
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
    if (Date.now() - answered.at > allowedSkew) verified = undefined;
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
      await lookAt(targets);
    } catch (error) {
      retry ??= setTimeout(() => attempt(lookAgain), retryAfter);
      throw error;
    }
  }

  /** Read what stands under some of its keys; of all orders for a repo the newest counts. */
  async function lookAt(some: readonly string[]): Promise<void> {
    const { orders } = await opened;
    const entries = await Promise.all(some.map((target) => orders.get(keyOfTarget(target))));
    for (const [index, target] of some.entries()) {
      const text = entries[index]?.text;
      if (text !== undefined) learn(target, text);
    }
    const newest = new Map<string, OpenedOrder>();
    for (const letters of read.values())
      for (const [repo, { opened: each }] of letters)
        if (each && each.order.at > (newest.get(repo)?.order.at ?? -1)) newest.set(repo, each);
    for (const [repo, each] of newest) await takeOne(repo, each);
    await report();
  }

  function learn(target: string, text: string): void {
    const before = read.get(target);
    const letters = readLetters(text);
    if (!letters) return say(`from the bus: the orders at ${keyOfTarget(target)} cannot be read`);
    const now = new Map<string, { text: string; opened: OpenedOrder | undefined }>();
    for (const [repo, letter] of Object.entries(letters)) {
      const known = before?.get(repo);
      if (repo === questionKey) answer(target, letter);
      else now.set(repo, known?.text === letter ? known : { text: letter, opened: check(target, repo, letter) });
    }
    read.set(target, now);
  }

  /** What is not an order for this place is not worth a report: anybody could have put it there. */
  function check(target: string, repo: string, text: string): OpenedOrder | undefined {
    const order = openOrder(text, options.keys);
    const why = "refusal" in order ? `${order.refusal}; compare master_key of slave.yml` : foreign(order);
    if (why === undefined) return order as OpenedOrder;
    say(`from the bus, for ${JSON.stringify(repo.slice(0, 100))}: ${why}`);
    return undefined;

    function foreign({ order: { repo: own }, letter }: OpenedOrder): string | undefined {
      if (own !== repo) return `the order is for ${own}`;
      return isFor(letter.to, target) ? undefined : `the order is for another, ${letter.to}`;
    }
  }

  function isFor(to: string, place: string): boolean {
    return place === name ? names.includes(to.toLowerCase()) : to === place;
  }

  async function takeOne(repo: string, { order, key: by }: OpenedOrder): Promise<void> {
    const { digest, at } = order;
    const last = desired.get(repo)?.order;
    if (last?.digest !== digest) {
      try {
        await slave.take(order, byWords(order, by));
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
  function answer(target: string, text: string): void {
    const question = open(text, "question", options.keys);
    if ("refusal" in question) return say(`from the bus: ${question.refusal}; compare the keys`);
    const { digest, letter } = question;
    // one that was answered stands there until the next one
    if (timeRefusal(letter, Date.now()) !== undefined || !isFor(letter.to, target)) return;
    if (letter.at < answered.at || digest === answered.digest) return;
    answered = { at: letter.at, digest };
    attempt(async () => {
      const { repos } = await inventory.report({ verify: true });
      verified = { digest, repos };
      await report();
    });
  }

  /** Write what is now; what changes meanwhile is written after it. */
  const report = inTurn(async () => {
    if (closed) return;
    const now = await inventory.report();
    const repos = now.repos.map((each) => {
      const same = verified?.repos.find(({ repo, sha }) => repo === each.repo && sha === each.sha);
      return same ? { ...each, written: same.written } : each;
    });
    for (const [repo, order] of refused) {
      const at = repos.findIndex((each) => each.repo === repo);
      repos.splice(at < 0 ? repos.length : at, 1, { ...repos[at], repo, error: order.error, order });
    }
    const content = { ...now, name, repos, groups: [...groups], verified: verified?.digest };
    const times = { at: now.at, until: now.at + offAfter };
    const letter = seal({ ...content, kind: "answer", to: everybody, ...times }, identity);
    await (await opened).reports.put(key, letter);
  }, settle);

  return {
    async close() {
      closed = true;
      clearInterval(timer);
      clearTimeout(retry);
      desired.onChange = () => {};
      // one that was never reached is given up with the process
      await Promise.race([connected.then((bus) => bus.close()).catch(() => {}), pastTick()]);
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

function pastTick(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 1000).unref());
}
