import { checkBusUrl, nameOnBus } from "../../bus/address.ts";
import {
  type Bucket,
  type Bus,
  type BusOptions,
  connectBus,
  readAuthority,
} from "../../bus/bus.ts";
import { readConfig } from "../../config/yaml.ts";
import { Failure, messageOf, UsageError } from "../../core/errors.ts";
import { exists } from "../../files/files.ts";
import { offAfter, type OrderState, readPrivateKey, readReport, type Report } from "../order.ts";
import { busSchema, fromConfig } from "../settings.ts";
import { pause, resultOf, tooLong, type Transport, wordsOf } from "./fan-out.ts";
import type { Target } from "./list.ts";

/** Slaves that connect out to a bus: an order is put there, and what became of it is read from their reports. */

/** Read when it is there: where the bus is, and the key that it knows us by. */
const systemBus = "/etc/server-update/bus.yml";

/**
 * Where the bus is.
 * @param via `--via`: a file like the system's, or an address for which that has the key
 * @throws {UsageError}
 */
export async function readBus(
  via: string | undefined,
): Promise<Pick<BusOptions, "servers" | "key" | "ca">> {
  const isAddress = via?.includes("://") === true;
  const file = via === undefined || isAddress ? systemBus : via;
  if (!(await exists(file)))
    throw new UsageError(
      `there is no ${file}, which says where the bus is; see docs/many-machines.md`,
    );
  const { value, where } = await readConfig(file, busSchema);
  const { url, key_file: key, ca_file: ca } = value;
  const servers = isAddress && via !== undefined ? [via] : url;
  for (const each of servers) checkBusUrl(each);
  return {
    servers,
    key: await readPrivateKey(fromConfig(key, file), where(["key_file"])),
    ca:
      ca === undefined
        ? undefined
        : await readAuthority(fromConfig(ca, file), `${where(["ca_file"])}: `),
  };
}

export interface BusTransport extends Transport {
  close(): Promise<void>;
}

interface Options {
  via: string | undefined;
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
  /** The newest report of each slave, by its key in the bucket. */
  const texts = new Map<string, string>();
  const waiting = new Map<string, Set<() => void>>();

  const open = () =>
    (opened ??= (async () => {
      const settings = await readBus(options.via);
      const name = "master";
      const more = { name, timeout: Math.max(options.connectTimeout, 2000), onStatus: note };
      const bus = await connectBus({ ...settings, ...more });
      await bus.makeBucket("want");
      await bus.makeBucket("state");
      const state = bus.bucket("state");
      state.watch("*", (key, text) => {
        texts.set(key, text);
        for (const done of waiting.get(key) ?? []) done();
      });
      return { bus, want: bus.bucket("want"), state };
    })().catch((error: unknown) => {
      // the next try connects anew
      opened = undefined;
      throw error;
    }));

  /** @throws {Failure} for a report that is not the slave's own */
  async function reportOf(target: Target, fresh: boolean): Promise<Report | undefined> {
    const { state } = await open();
    const key = nameOnBus(target.slave);
    const known = read(texts.get(key));
    if (known !== undefined && !fresh) return known;
    const text = (await state.get(key))?.text;
    const report = read(text);
    // a bus that was killed may have forgotten the last one
    if (text === undefined || (known && report && report.time < known.time)) return known;
    texts.set(key, text);
    return report;

    function read(there: string | undefined): Report | undefined {
      if (there === undefined) return undefined;
      const report = readReport(there, { name: target.slave, key: target.key });
      if ("refusal" in report) throw new Failure(report.refusal);
      return report;
    }
  }

  /** Put an order where its slave finds it; once only, also when the answer to an earlier try was lost. */
  async function put(target: Target, repo: string, order: string): Promise<void> {
    const { want } = await open();
    const key = nameOnBus(target.slave);
    for (let round = 0; round < maxRounds; round++) {
      const entry = await want.get(key);
      const orders = parseOrders(entry?.text);
      if (orders[repo] === order) return;
      const text = JSON.stringify({ ...orders, [repo]: order });
      if (await want.put(key, text, entry?.revision ?? 0)) return;
    }
    throw new Failure("its orders on the bus are changed by somebody else all the time");
  }

  /** Until a slave reports, but not longer than `ms`. */
  async function change(target: Target, ms: number): Promise<void> {
    const key = nameOnBus(target.slave);
    const set = waiting.get(key) ?? new Set();
    waiting.set(key, set);
    const over = new AbortController();
    const end = () => over.abort();
    set.add(end);
    signal.addEventListener("abort", end);
    await pause(ms, over.signal);
    signal.removeEventListener("abort", end);
    set.delete(end);
  }

  return {
    async status(target, { repo, verify }) {
      if (verify !== undefined)
        throw new Failure("its files are not compared over a bus; leave --verify out for it");
      const report = await reportOf(target, true);
      if (report === undefined) throw new Failure("it has never been seen on the bus");
      if (Date.now() - report.time > offAfter)
        throw new Failure(`it is off: last seen ${new Date(report.time).toISOString()}`);
      if (repo === undefined) return report.inventory;
      const { repos, accept_unbound } = report.inventory;
      const all = (Array.isArray(repos) ? repos : []) as Record<string, unknown>[];
      return { ...all.find((each) => each?.["repo"] === repo), accept_unbound };
    },

    async start(target, { repo }, order) {
      if (order === undefined)
        throw new Failure("a slave on a bus takes only signed orders; see --key-file");
      const end = performance.now() + timeout;
      for (;;) {
        try {
          await put(target, repo, order);
          return order;
        } catch (error) {
          if (performance.now() > end || signal.aborted) throw error;
          await pause(250, signal);
        }
      }
    },

    async follow(target, order, rollout) {
      const started = performance.now();
      const { repo } = rollout;
      const signature = order.slice(order.lastIndexOf(".") + 1);
      let taken: OrderState | undefined;
      for (let fresh = true; ; ) {
        if (signal.aborted) throw new Failure("interrupted");
        const waited = performance.now() - started;
        let report: Report | undefined;
        try {
          report = await reportOf(target, fresh);
          // a bus that was killed may have forgotten it
          if (fresh && taken === undefined) await put(target, repo, order);
        } catch (error) {
          // the bus may be away for a moment
          if (waited > Math.max(timeout, maxAway)) throw error;
        }
        const told = report?.orders[repo];
        if (told?.signature === signature) {
          taken = told;
          const [before, sha] = [wordsOf(told.before), wordsOf(told.sha)];
          const result = resultOf(told.state, { before, sha, error: wordsOf(told.error) }, rollout);
          if (result) return result;
        } else if (taken && told && told.at > taken.at)
          throw new Failure("a newer order took its place");
        if (!taken && waited > timeout) throw new Failure(silentWords(report, waited));
        if (waited > rollout.waitLimit) throw tooLong(wordsOf(taken?.state), rollout);
        const asked = performance.now();
        const ms = taken ? pollEvery : Math.max(1, Math.min(pollEvery, timeout - waited + 1));
        await change(target, ms);
        // nothing came: a report may have been missed while the connection was lost
        fresh = performance.now() - asked >= ms - 1;
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
/** How often a report is read although none came, in ms. */
const pollEvery = 2000;

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
