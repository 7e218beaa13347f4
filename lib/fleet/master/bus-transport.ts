import type { KeyObject } from "node:crypto";
import { checkBusUrl, nameOnBus } from "../../bus/address.ts";
import { type Bucket, connectBus } from "../../bus/bus.ts";
import { type BusAccess, busSchema, readBusAccess } from "../../bus/settings.ts";
import { readConfig } from "../../config/yaml.ts";
import { Failure, UsageError } from "../../core/errors.ts";
import { Changes } from "../../core/changes.ts";
import { exists } from "../../files/files.ts";
import { digestOf, questionKey, readLetters } from "../letter.ts";
import { offAfter, openReport, type Report } from "../report.ts";
import { fromConfig } from "../settings.ts";
import type { Target } from "./list.ts";
import { letterFor, pause, type Transport } from "./rollout.ts";

/** Slaves that connect out to a bus: letters are put there, and what became of them is read from the reports there. */

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

export interface BusOptions {
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

/** How long the bus may be away while slaves are followed, in ms. */
const maxAway = 60_000;
/** How often is looked whether the time is over, in ms. */
const pollEvery = 2000;

/** The bus is connected to when the first slave of it is asked. */
export function busTransport(options: BusOptions): Transport & { close(): Promise<void> } {
  const { key, goodFor, signal, timeout } = options;
  const answerLimit = Math.max(options.connectTimeout, 2000);
  let opened: ReturnType<typeof openBus> | undefined;
  let isLoaded = false;
  /** What was put since the connection stands: a bus that was killed may have forgotten it. */
  const puts = new Set<string>();
  /** The newest report of each slave, by its name there, and who waits for the next one. */
  const texts = new Map<string, string>();
  const changes = new Map<string, Changes>();

  async function openBus() {
    const access = await readBus(options.via);
    const bus = await connectBus({ ...access, name: "master", timeout: answerLimit, onStatus: options.note });
    // whoever may write one key could remove all others by a message that rolls the bucket up
    await bus.makeBucket("reports", { rollup: false });
    // last: a slave that can read its orders can report
    await bus.makeBucket("orders");
    const followed = bus.bucket("reports").follow((name, text) => {
      if (text === undefined) texts.delete(name);
      else texts.set(name, text);
      changes.get(name)?.tell();
    });
    const loaded = followed.then(() => void (isLoaded = true));
    bus.onConnect(() => {
      puts.clear();
      for (const each of changes.values()) each.tell();
    });
    return { bus, orders: bus.bucket("orders"), loaded };
  }

  function connect() {
    return (opened ??= openBus().catch((error: unknown) => {
      // the next try connects anew
      opened = undefined;
      throw error;
    }));
  }

  /** The newest report of a slave. @throws {Failure} for one that is not its own, and where none can be read */
  async function reportOf(target: Target): Promise<Report | undefined> {
    const { loaded } = await connect();
    if (!isLoaded) {
      const late = new AbortController();
      await Promise.race([loaded, pause(answerLimit, late.signal)]);
      late.abort();
      if (!isLoaded) throw new Failure("the bus does not say what its slaves have reported: timeout");
    }
    const text = texts.get(nameOnBus(target.slave));
    return text === undefined ? undefined : openReport(text, { name: target.slave, to: "*", key: target.key });
  }

  /** Put a letter where its slave finds it; once a connection. @throws {Failure} */
  async function put({ slave }: Target, name: string, letter: string): Promise<void> {
    const { orders } = await connect();
    if (puts.has(letter)) return;
    await write(orders, nameOnBus(slave), name, letter);
    puts.add(letter);
  }

  /** Wait until a slave reports or the connection is made again, but not longer than `ms`. */
  async function change({ slave }: Target, ms: number): Promise<void> {
    const name = nameOnBus(slave);
    const ofIt = changes.get(name) ?? new Changes();
    changes.set(name, ofIt);
    await ofIt.next(ms, signal);
  }

  /** Have a slave compare its files with the commits. */
  async function verified(target: Target): Promise<Report> {
    if (key === undefined) throw new Failure("a slave on a bus answers only signed questions; see --key-file");
    const end = performance.now() + timeout;
    const question = letterFor({ key, goodFor }, target, { kind: "question", verify: true });
    await put(target, questionKey, question);
    for (;;) {
      const report = await reportOf(target);
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
      const report = await reportOf(target);
      if (report === undefined) throw new Failure("it has never been seen on the bus");
      if (Date.now() - report.at > offAfter) {
        const refused = report.repos.flatMap(({ order }) => (order?.state === "refused" ? [order.error] : []));
        const words = refused.map((error) => `; it refused its order: ${error}`);
        throw new Failure(`it is off: last seen ${new Date(report.at).toISOString()}${words.join("")}`);
      }
      if (verify) return await verified(target);
      return { ...report, repos: report.repos.map((each) => ({ ...each, written: undefined })) };
    },

    /** Tries until `timeout`: the bus may be away for a moment. */
    async send(target, repo, order) {
      const end = performance.now() + timeout;
      for (;;) {
        try {
          return await put(target, repo, order);
        } catch (error) {
          if (performance.now() > end || signal.aborted) throw error;
          await pause(250, signal);
        }
      }
    },

    async *follow(target, repo, order) {
      let started = performance.now();
      const digest = digestOf(order);
      for (let isTaken = false; ; ) {
        const waited = performance.now() - started;
        let report: Report | undefined;
        try {
          report = await reportOf(target);
          // a bus that was killed may have forgotten it
          if (!isTaken) await put(target, repo, order);
        } catch (error) {
          // the bus may be away for a moment
          if (waited > Math.max(timeout, maxAway)) throw error;
        }
        const told = report?.repos.find((each) => each.repo === repo)?.order;
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
