import type { KeyObject } from "node:crypto";
import { checkBusUrl, everybody, keyOfTarget, nameOnBus, targetOfGroup } from "../../bus/address.ts";
import { type Bucket, type Bus, connectBus } from "../../bus/bus.ts";
import { type BusAccess, busSchema, readBusAccess } from "../../bus/settings.ts";
import { readConfig } from "../../config/yaml.ts";
import { Failure, messageOf, UsageError } from "../../core/errors.ts";
import { exists } from "../../files/files.ts";
import { contentOf, digestOf } from "../letter.ts";
import { questionKey, readLetters } from "../on-bus.ts";
import { offAfter, openReport, type OrderState, type Report } from "../report.ts";
import { fromConfig } from "../settings.ts";
import type { Target } from "./list.ts";
import { letterFor, pause, type Transport } from "./rollout.ts";

/**
 * Slaves that connect out to a bus: a letter is put there, for one slave or for many at once, and what became of it is
 * read from the reports that they leave.
 */

/** Read when it is there: where the bus is, and the key that it knows us by. */
const systemBus = "/etc/server-update/bus.yml";

/**
 * Where the bus is.
 * @param via `--via`: a file like the system's, or an address for which that has the key
 * @throws {UsageError}
 */
export async function readBus(via: string | undefined): Promise<BusAccess> {
  const isAddress = via?.includes("://") === true;
  const file = via === undefined || isAddress ? systemBus : via;
  if (isAddress && via !== undefined) checkBusUrl(via, "--via");
  if (!(await exists(file)))
    throw new UsageError(
      `there is no ${file}, which says ${isAddress ? "with which key we may use the bus" : "where the bus is"}; ` +
        "see docs/many-machines.md",
    );
  const { value, where } = await readConfig(file, busSchema);
  const url = isAddress && via !== undefined ? [via] : value.url;
  return await readBusAccess(
    { ...value, url },
    { path: (each) => fromConfig(each, file), where: (key) => where([key]) },
  );
}

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

interface Options {
  via: string | undefined;
  /** The master's key: what a shared secret signs, any slave could have written. */
  key: KeyObject | undefined;
  /** Milliseconds in which an order counts. */
  goodFor: number;
  /** Milliseconds for an answer of the bus. */
  connectTimeout: number;
  /** Milliseconds in which a slave must show that it has seen an order. */
  timeout: number;
  signal: AbortSignal;
  note: (line: string) => void;
}

export function isOnBus({ url }: Target): boolean {
  return url.protocol === "bus:";
}

/** Fewer than these at once are meant to spare something: then each slave gets an order of its own. */
const unlimited = 512;
/** How long the bus may be away while slaves are followed, in ms. */
const maxAway = 60_000;
/** How often is looked whether the time is over, in ms. */
const pollEvery = 2000;

/** The bus is connected to when the first slave of it is asked. */
export function busTransport(options: Options): BusTransport {
  const { key, goodFor, signal, timeout } = options;
  const answerLimit = Math.max(options.connectTimeout, 2000);
  let opened: Promise<{ bus: Bus; orders: Bucket; loaded: Promise<void> }> | undefined;
  let isLoaded = false;
  /** What was put since the connection stands, by its text: a bus that was killed may have forgotten it. */
  const puts = new Map<string, Promise<void>>();
  /** The newest report of each slave, by its key in the bucket. */
  const texts = new Map<string, string>();
  const waiting = new Map<string, Set<() => void>>();

  const connect = () =>
    (opened ??= (async () => {
      const access = await readBus(options.via);
      const bus = await connectBus({ ...access, name: "master", timeout: answerLimit, onStatus: options.note });
      await bus.makeBucket("orders");
      // whoever may write one key could remove all others by a message that rolls the bucket up
      await bus.makeBucket("reports", { rollup: false });
      const loaded = bus.bucket("reports").follow((name, text) => {
        if (text === undefined) texts.delete(name);
        else texts.set(name, text);
        for (const done of waiting.get(name) ?? []) done();
      });
      void loaded.then(() => (isLoaded = true));
      bus.onConnect(() => {
        puts.clear();
        wakeAll();
      });
      return { bus, orders: bus.bucket("orders"), loaded };
    })().catch((error: unknown) => {
      // the next try connects anew
      opened = undefined;
      throw error;
    }));

  /** Resolves once the reports that there are were read. @throws {Failure} */
  async function load(): Promise<void> {
    const { loaded } = await connect();
    if (isLoaded) return;
    const late = new AbortController();
    await Promise.race([loaded, pause(answerLimit, late.signal)]);
    late.abort();
    if (!isLoaded) throw new Failure("the bus does not say what its slaves have reported: timeout");
  }

  /** The newest report of a slave. @throws {Failure} for one that is not its own */
  function reportOf(target: Target): Report | undefined {
    const text = texts.get(nameOnBus(target.slave));
    if (text === undefined) return undefined;
    const report = openReport(text, { name: target.slave, to: everybody, key: target.key });
    if ("refusal" in report) throw new Failure(report.refusal);
    return report;
  }

  /** Put a letter where those find it whom it is for; once a connection, though it follows many. @throws {Failure} */
  async function put(name: string, letter: string): Promise<void> {
    const { orders } = await connect();
    const there = puts.get(letter);
    if (there) return await there;
    const done = write(orders, keyOfTarget(contentOf(letter).to), name, letter);
    puts.set(letter, done);
    await done.catch((error: unknown) => {
      if (puts.get(letter) === done) puts.delete(letter);
      throw error;
    });
  }

  /** Wait until a slave reports or the connection is made again, but not longer than `ms`. */
  async function change(target: Target, ms: number): Promise<void> {
    const name = nameOnBus(target.slave);
    const set = waiting.get(name) ?? new Set();
    waiting.set(name, set);
    await new Promise<void>((resolve) => {
      const end = () => {
        clearTimeout(timer);
        set.delete(end);
        resolve();
      };
      const timer = setTimeout(end, ms);
      set.add(end);
    });
  }

  function wakeAll(): void {
    for (const set of waiting.values()) for (const done of set) done();
  }
  signal.addEventListener("abort", wakeAll);

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
  async function verified(target: Target): Promise<Report> {
    if (key === undefined) throw new Failure("a slave on a bus answers only signed questions; see --key-file");
    const end = performance.now() + timeout;
    const question = letterFor({ key, goodFor }, target, { kind: "question", verify: true });
    await put(questionKey, question);
    for (;;) {
      const report = reportOf(target);
      if (report?.verified === digestOf(question)) return report;
      const left = end - performance.now();
      if (left <= 0 || signal.aborted)
        throw new Failure(`it has not compared its files within ${timeout / 1000} s; give it more by --timeout`);
      await change(target, left + 1);
    }
  }

  return {
    ...{ key, goodFor },
    async report(target, { verify }) {
      await load();
      const report = reportOf(target);
      if (report === undefined) throw new Failure("it has never been seen on the bus");
      if (Date.now() - report.at > offAfter) {
        const refused = report.repos.flatMap(({ order }) => (order?.state === "refused" ? [order.error] : []));
        const words = refused.map((error) => `; it refused its order: ${error}`);
        throw new Failure(`it is off: last seen ${new Date(report.at).toISOString()}${words.join("")}`);
      }
      if (verify) return await verified(target);
      return { ...report, repos: report.repos.map((each) => ({ ...each, written: undefined })) };
    },

    async share(all, { group, jobs }) {
      const targets = all.filter(isOnBus);
      if (targets.length < 2 || jobs < Math.min(unlimited, targets.length)) return undefined;
      try {
        await patiently(load);
      } catch (error) {
        // each of them says so in the end; what is desired is noted for --converge before
        options.note(messageOf(error));
        return undefined;
      }
      const chosen = new Set(targets.map(({ slave }) => nameOnBus(slave)));
      const groupsOf = (name: string) => contentOf(texts.get(name) ?? "")["groups"];
      const reads = (name: string) => group === undefined || [groupsOf(name)].flat().includes(group);
      if ([...texts.keys()].some((name) => !chosen.has(name) && reads(name))) return undefined;
      const members = targets.filter(({ slave }) => reads(nameOnBus(slave)));
      const name = group === undefined ? everybody : targetOfGroup(group);
      return members.length < 2 ? undefined : { name, members: new Set(members) };
    },

    async send(_, repo, order) {
      await patiently(() => put(repo, order));
    },

    async *follow(target, repo, order) {
      let started = performance.now();
      const digest = digestOf(order);
      for (let isTaken = false; ; ) {
        const waited = performance.now() - started;
        let report: Report | undefined;
        try {
          await load();
          report = reportOf(target);
          // a bus that was killed may have forgotten it
          if (!isTaken) await put(repo, order);
        } catch (error) {
          // the bus may be away for a moment
          if (waited > Math.max(timeout, maxAway)) throw error;
        }
        const told: OrderState | undefined = report?.repos.find((each) => each.repo === repo)?.order;
        isTaken ||= told?.digest === digest;
        yield told;
        if (!isTaken && waited > timeout) {
          const last = report ? `last seen ${new Date(report.at).toISOString()}` : "never seen on the bus";
          const silent = `no sign of it for ${Math.round(waited / 1000)} s (${last})`;
          throw new Failure(`${silent}; it takes the order when it is back`);
        }
        const limit = isTaken ? pollEvery : Math.max(1, Math.min(timeout - waited + 1, timeout / 4, pollEvery));
        const asleep = performance.now();
        await change(target, limit);
        // what took longer is time in which we were too busy to read what came: it is not the slave's
        started += Math.max(0, performance.now() - asleep - 2 * limit);
      }
    },

    async close() {
      await (await opened?.catch(() => undefined))?.bus.close();
    },
  };
}

/** How often an order is put beside others that come at the same time. */
const maxRounds = 20;
/** Put a letter beside others under a key; once only, also when the answer to an earlier try was lost. */
async function write(orders: Bucket, key: string, name: string, letter: string): Promise<void> {
  for (let round = 0; round < maxRounds; round++) {
    const entry = await orders.get(key);
    const letters = readLetters(entry?.text ?? "{}") ?? {};
    if (letters[name] === letter) return;
    const next = JSON.stringify({ ...letters, [name]: letter });
    if (await orders.put(key, next, entry?.revision ?? 0)) return;
  }
  throw new Failure("its orders on the bus are changed by somebody else all the time");
}
