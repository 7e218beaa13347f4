import { type KeyObject, randomBytes } from "node:crypto";
import { everybody, nameOnBus, targetOfGroup } from "../../bus/address.ts";
import { Failure, messageOf } from "../../core/errors.ts";
import { contentOf, offAfter, type OrderState, question, type Report } from "../order.ts";
import { signRequest } from "../signature.ts";
import { type BusOptions, masterBus } from "./bus.ts";
import { pause, resultOf, tooLong, type Transport, wordsOf } from "./fan-out.ts";
import type { Target } from "./list.ts";

/**
 * Slaves that connect out to a bus: an order is put there, for one slave or for many at once, and what became of it is
 * read from their reports.
 */

/** Slaves that one order reaches, and whom it must name. */
export interface Shared {
  name: string;
  members: ReadonlySet<Target>;
}

export interface BusTransport extends Transport {
  /**
   * Whether one order may be for those of them that are on the bus: when no other slave would take it, too, and nobody
   * wants them to go one by one.
   * @param group of the list, when it is about that only
   * @param jobs how many may be asked at once
   */
  share(targets: readonly Target[], how: { group: string | undefined; jobs: number }): Promise<Shared | undefined>;
  close(): Promise<void>;
}

interface Options extends BusOptions {
  /** What orders are signed with, and questions. */
  key: KeyObject | undefined;
  /** Milliseconds in which a slave must show that it has seen an order. */
  timeout: number;
}

export function isOnBus({ url }: Target): boolean {
  return url.protocol === "bus:";
}

/** The bus is connected to when the first slave of it is asked. */
export function busTransport(options: Options): BusTransport {
  const { signal, timeout } = options;
  const bus = masterBus(options);
  /** Try until `timeout`: the bus may be away for a moment. */
  async function patiently<T>(work: () => Promise<T>): Promise<T> {
    const end = performance.now() + timeout;
    for (;;) {
      try {
        return await work();
      } catch (error) {
        if (performance.now() > end || signal.aborted) throw error;
        await pause(250, signal);
      }
    }
  }

  /** Have a slave compare its files with the commits. */
  async function verify(target: Target): Promise<Record<string, unknown>> {
    const { key } = options;
    if (key === undefined) throw new Failure("a slave on a bus answers only signed questions; see --key-file");
    const started = performance.now();
    const nonce = randomBytes(16).toString("hex");
    const text = signRequest({ key }, { ...question, target: target.slave }, Date.now(), nonce);
    await bus.put(target.slave, question.key, text);
    for (;;) {
      const report = bus.reportOf(target);
      if (report?.verified?.nonce === nonce) return { ...report.inventory, repos: report.verified.repos };
      const left = timeout - (performance.now() - started);
      if (left <= 0 || signal.aborted)
        throw new Failure(`it has not compared its files within ${timeout / 1000} s; give it more by --timeout`);
      await bus.change(target, left + 1);
    }
  }

  return {
    async status(target, { repo, verify: isVerified }) {
      await bus.load();
      const report = bus.reportOf(target);
      if (report === undefined) throw new Failure("it has never been seen on the bus");
      const refused = refusedIn(report);
      const words = refused.map(({ error }) => `; it refused its order: ${error}`);
      if (Date.now() - report.time > offAfter)
        throw new Failure(`it is off: last seen ${new Date(report.time).toISOString()}${words.join("")}`);
      const { repos, ...inventory } = isVerified === undefined ? report.inventory : await verify(target);
      const all = (Array.isArray(repos) ? repos : []) as Record<string, unknown>[];
      for (const { name, error } of refused) {
        const served = all.findIndex((each) => each?.["repo"] === name);
        all.splice(served < 0 ? all.length : served, 1, { ...all[served], repo: name, error });
      }
      if (repo === undefined) return { ...inventory, repos: all };
      return { ...all.find((each) => each?.["repo"] === repo) };
    },

    async share(all, { group, jobs }) {
      const targets = all.filter(isOnBus);
      if (targets.length < 2 || jobs < Math.min(unlimited, targets.length)) return undefined;
      try {
        await patiently(bus.load);
      } catch (error) {
        // each of them says so in the end; what is wanted is noted for --converge before
        options.note(messageOf(error));
        return undefined;
      }
      const chosen = new Set(targets.map(({ slave }) => nameOnBus(slave)));
      const reads = (key: string) => group === undefined || bus.groupsOf(key).includes(group);
      if (bus.known().some((key) => !chosen.has(key) && reads(key))) return undefined;
      const members = targets.filter(({ slave }) => reads(nameOnBus(slave)));
      const name = group === undefined ? everybody : targetOfGroup(group);
      return members.length < 2 ? undefined : { name, members: new Set(members) };
    },

    async start(_, { repo }, order) {
      if (order === undefined) throw new Failure("a slave on a bus takes only signed orders; see --key-file");
      await patiently(() => bus.put(targetOf(order), repo, order));
      return order;
    },

    async follow(target, order, rollout) {
      let started = performance.now();
      const signature = signatureOf(order);
      let taken: OrderState | undefined;
      for (;;) {
        if (signal.aborted) throw new Failure("interrupted");
        const waited = performance.now() - started;
        let report: Report | undefined;
        try {
          await bus.load();
          report = bus.reportOf(target);
          // a bus that was killed may have forgotten it
          if (taken === undefined) await bus.put(targetOf(order), rollout.repo, order);
        } catch (error) {
          // the bus may be away for a moment
          if (waited > Math.max(timeout, maxAway)) throw error;
        }
        const told = report?.orders[rollout.repo];
        if (told?.signature === signature) {
          taken = told;
          const [before, sha] = [wordsOf(told.before), wordsOf(told.sha)];
          const result = resultOf(told.state, { before, sha, error: wordsOf(told.error) }, rollout);
          if (result) return result;
        } else if (taken && told && told.at > taken.at) throw new Failure("a newer order took its place");
        if (!taken && waited > timeout) throw new Failure(silentWords(report, waited));
        if (waited > rollout.waitLimit) throw tooLong(wordsOf(taken?.state), rollout);
        const left = taken ? rollout.waitLimit - waited : Math.min(timeout - waited, timeout / 4);
        const limit = Math.max(1, Math.min(pollEvery, left + 1));
        const asleep = performance.now();
        await bus.change(target, limit);
        // what took longer is time in which we were too busy to read what came: it is not the slave's
        started += Math.max(0, performance.now() - asleep - 2 * limit);
      }
    },

    close: bus.close,
  };
}

/** The repos for which it has refused what it was told last, such as an order that is too old by its clock. */
function refusedIn({ orders }: Report): { name: string; error: string }[] {
  return Object.entries(orders).flatMap(([name, order]) =>
    order?.state === "refused" ? [{ name, error: wordsOf(order.error) ?? "it refused its order" }] : [],
  );
}

/** Fewer than these at once are meant to spare something: then each slave gets an order of its own. */
const unlimited = 512;
/** How long the bus may be away while slaves are followed, in ms. */
const maxAway = 60_000;
/** How often is looked whether the time is over, in ms. */
const pollEvery = 2000;

function signatureOf(signed: string): string {
  return signed.slice(signed.lastIndexOf(".") + 1);
}

/** Whom an order of ours is for. */
function targetOf(order: string): string {
  return String(contentOf(order)["target"]);
}

function silentWords(report: Report | undefined, waited: number): string {
  const last = report ? `last seen ${new Date(report.time).toISOString()}` : "never seen on the bus";
  return `no sign of it for ${Math.round(waited / 1000)} s (${last}); it takes the order when it is back`;
}
