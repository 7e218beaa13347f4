import { Buffer } from "node:buffer";
import type { KeyObject } from "node:crypto";
import {
  checkBusUrl,
  everybody,
  keyOfTarget,
  nameOnBus,
  targetOfGroup,
} from "../../bus/address.ts";
import { type Bucket, type Bus, connectBus } from "../../bus/bus.ts";
import { type BusAccess, busSchema, readBusAccess } from "../../bus/settings.ts";
import { readConfig } from "../../config/yaml.ts";
import { Failure, messageOf, UsageError } from "../../core/errors.ts";
import { exists } from "../../files/files.ts";
import {
  groupsOfReport,
  offAfter,
  type OrderState,
  questionKey,
  readReport,
  type Report,
  signQuestion,
} from "../order.ts";
import { fromConfig } from "../settings.ts";
import { pause, resultOf, tooLong, type Transport, wordsOf } from "./fan-out.ts";
import type { Target } from "./list.ts";

/**
 * Slaves that connect out to a bus: an order is put there, for one slave or for many at once, and what became of it is
 * read from their reports.
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
  if (!(await exists(file)))
    throw new UsageError(
      `there is no ${file}, which says where the bus is; see docs/many-machines.md`,
    );
  if (isAddress && via !== undefined) checkBusUrl(via, "--via");
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
   * Whether one order may be for all of these: when no other slave would take it, too.
   * @param group of the list, when it is about that only
   */
  share(targets: readonly Target[], group: string | undefined): Promise<Shared | undefined>;
  close(): Promise<void>;
}

interface Options {
  via: string | undefined;
  /** What orders are signed with, and questions. */
  key: KeyObject | undefined;
  /** Milliseconds for an answer of the bus. */
  connectTimeout: number;
  /** Milliseconds in which a slave must show that it has seen an order. */
  timeout: number;
  signal: AbortSignal;
  note: (line: string) => void;
}

/** The bus is connected to when the first slave of it is asked. */
export function busTransport(options: Options): BusTransport {
  const { signal, timeout, note } = options;
  let opened: Promise<{ bus: Bus; want: Bucket; state: Bucket }> | undefined;
  /** Counts the connections to the bus: what came while there was none has to be read, and orders be put again. */
  let connection = 0;
  let loaded: { connection: number; done: Promise<void> } | undefined;
  /** What was put since the connection stands, by its text. */
  const puts = new Map<string, Promise<void>>();
  /** The newest report of each slave, by its key in the bucket. */
  const texts = new Map<string, string>();
  const waiting = new Map<string, Set<() => void>>();

  const open = () =>
    (opened ??= (async () => {
      const access = await readBus(options.via);
      const name = "master";
      const more = { name, timeout: Math.max(options.connectTimeout, 2000), onStatus: note };
      const bus = await connectBus({ ...access, ...more });
      await bus.makeBucket("want");
      await bus.makeBucket("state");
      const state = bus.bucket("state");
      state.watch("*", (key, text) => {
        texts.set(key, text);
        for (const done of waiting.get(key) ?? []) done();
      });
      bus.onConnect(() => {
        connection += 1;
        puts.clear();
        wakeAll();
      });
      return { bus, want: bus.bucket("want"), state };
    })().catch((error: unknown) => {
      // the next try connects anew
      opened = undefined;
      throw error;
    }));

  /** Read the reports that there are, once a connection; those that come are told. */
  async function load(): Promise<void> {
    const { state } = await open();
    if (loaded?.connection === connection) return await loaded.done;
    const now = { connection, done: read() };
    loaded = now;
    await now.done.catch((error: unknown) => {
      if (loaded === now) loaded = undefined;
      throw error;
    });

    async function read(): Promise<void> {
      const before = new Map(texts);
      // one that came meanwhile is newer
      for (const [key, text] of await state.all())
        if (texts.get(key) === before.get(key)) texts.set(key, text);
    }
  }

  /** @throws {Failure} for a report that is not the slave's own */
  function reportOf(target: Target): Report | undefined {
    const text = texts.get(nameOnBus(target.slave));
    if (text === undefined) return undefined;
    const report = readReport(text, { name: target.slave, key: target.key });
    if ("refusal" in report) throw new Failure(report.refusal);
    return report;
  }

  /** Put a text where those find it whom it is for; once a connection, though many are followed by it. */
  async function put(target: string, name: string, text: string): Promise<void> {
    const { want } = await open();
    const there = puts.get(text);
    if (there) return await there;
    const done = write(want, keyOfTarget(target), name, text);
    puts.set(text, done);
    await done.catch((error: unknown) => {
      if (puts.get(text) === done) puts.delete(text);
      throw error;
    });
  }

  /** Wait until a slave reports or the connection is made again, but not longer than `ms`. */
  async function change(target: Target, ms: number): Promise<void> {
    const key = nameOnBus(target.slave);
    const set = waiting.get(key) ?? new Set();
    waiting.set(key, set);
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

  /** Have a slave compare its files; all of them by one question, when many are asked. */
  async function verify(target: Target): Promise<Record<string, unknown>> {
    const { key } = options;
    if (key === undefined)
      throw new Failure("a slave on a bus answers only signed questions; see --key-file");
    const started = performance.now();
    const question = signQuestion({ target: target.slave, at: Date.now() }, key);
    const signature = signatureOf(question);
    await put(target.slave, questionKey, question);
    for (;;) {
      const report = reportOf(target);
      if (report?.verified?.signature === signature)
        return { ...report.inventory, repos: report.verified.repos };
      const left = timeout - (performance.now() - started);
      if (left <= 0 || signal.aborted)
        throw new Failure(
          `it has not compared its files within ${timeout / 1000} s; give it more by --timeout`,
        );
      await change(target, left + 1);
    }
  }

  return {
    async status(target, { repo, verify: isVerified }) {
      await load();
      const report = reportOf(target);
      if (report === undefined) throw new Failure("it has never been seen on the bus");
      if (Date.now() - report.time > offAfter)
        throw new Failure(`it is off: last seen ${new Date(report.time).toISOString()}`);
      const inventory = isVerified === undefined ? report.inventory : await verify(target);
      if (repo === undefined) return inventory;
      const { repos, accept_unbound } = inventory;
      const all = (Array.isArray(repos) ? repos : []) as Record<string, unknown>[];
      return { ...all.find((each) => each?.["repo"] === repo), accept_unbound };
    },

    async share(targets, group) {
      await patiently(load);
      const chosen = new Set(targets.map(({ slave }) => nameOnBus(slave)));
      const reads = (key: string) =>
        group === undefined || groupsOfReport(texts.get(key) ?? "").includes(group);
      if (targets.length < 2 || [...texts.keys()].some((key) => !chosen.has(key) && reads(key)))
        return undefined;
      const members = targets.filter(({ slave }) => reads(nameOnBus(slave)));
      const name = group === undefined ? everybody : targetOfGroup(group);
      return members.length < 2 ? undefined : { name, members: new Set(members) };
    },

    async start(_, { repo }, order) {
      if (order === undefined)
        throw new Failure("a slave on a bus takes only signed orders; see --key-file");
      await patiently(() => put(targetOf(order), repo, order));
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
          await load();
          report = reportOf(target);
          // a bus that was killed may have forgotten it
          if (taken === undefined) await put(targetOf(order), rollout.repo, order);
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
        } else if (taken && told && told.at > taken.at)
          throw new Failure("a newer order took its place");
        if (!taken && waited > timeout) throw new Failure(silentWords(report, waited));
        if (waited > rollout.waitLimit) throw tooLong(wordsOf(taken?.state), rollout);
        const left = taken ? rollout.waitLimit - waited : Math.min(timeout - waited, timeout / 4);
        const limit = Math.max(1, Math.min(pollEvery, left + 1));
        const asleep = performance.now();
        await change(target, limit);
        // what took longer is time in which we were too busy to read what came: it is not the slave's
        started += Math.max(0, performance.now() - asleep - 2 * limit);
      }
    },

    async close() {
      const there = await opened?.catch(() => undefined);
      await there?.bus.close();
    },
  };
}

/** How often an order is put beside others that come at the same time. */
const maxRounds = 20;
/** How long the bus may be away while slaves are followed, in ms. */
const maxAway = 60_000;
/** How often is looked whether the time is over, in ms. */
const pollEvery = 2000;

/** Put a text beside others under a key; once only, also when the answer to an earlier try was lost. */
async function write(want: Bucket, key: string, name: string, text: string): Promise<void> {
  for (let round = 0; round < maxRounds; round++) {
    const entry = await want.get(key);
    const orders = parseOrders(entry?.text);
    if (orders[name] === text) return;
    const next = JSON.stringify({ ...orders, [name]: text });
    if (await want.put(key, next, entry?.revision ?? 0)) return;
  }
  throw new Failure("its orders on the bus are changed by somebody else all the time");
}

function signatureOf(signed: string): string {
  return signed.slice(signed.lastIndexOf(".") + 1);
}

/** Whom an order of ours is for. */
function targetOf(order: string): string {
  const json = Buffer.from(order.split(".")[1] ?? "", "base64url").toString("utf8");
  return (JSON.parse(json) as { target: string }).target;
}

function silentWords(report: Report | undefined, waited: number): string {
  const last = report
    ? `last seen ${new Date(report.time).toISOString()}`
    : "never seen on the bus";
  return `no sign of it for ${Math.round(waited / 1000)} s (${last}); it takes the order when it is back`;
}

function parseOrders(text: string | undefined): Record<string, string> {
  try {
    const value = JSON.parse(text ?? "{}") as unknown;
    return typeof value === "object" && value !== null && !Array.isArray(value)
      ? (value as Record<string, string>)
      : {};
  } catch (error) {
    throw new Failure(`the orders on the bus cannot be read: ${messageOf(error)}`);
  }
}
