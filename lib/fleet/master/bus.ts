import { checkBusUrl, keyOfTarget, nameOnBus } from "../../bus/address.ts";
import { type Bucket, type Bus, connectBus } from "../../bus/bus.ts";
import { type BusAccess, busSchema, readBusAccess } from "../../bus/settings.ts";
import { readConfig } from "../../config/yaml.ts";
import { Failure, UsageError } from "../../core/errors.ts";
import { exists } from "../../files/files.ts";
import { groupsOfReport, readReport, readTexts, type Report } from "../order.ts";
import { fromConfig } from "../settings.ts";
import type { Target } from "./list.ts";

/** The bus as the master sees it: the newest report of each slave, and what is put there for them. */

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
  /** Milliseconds for an answer of the bus. */
  connectTimeout: number;
  signal: AbortSignal;
  note: (line: string) => void;
}

export interface MasterBus {
  /** Read the reports that there are, once a connection; those that come are told. @throws {Failure} */
  load(): Promise<void>;
  /** The slaves that have reported, as the bus calls them. */
  known(): string[];
  /** The groups whose orders one of these reads. */
  groupsOf(name: string): string[];
  /** The newest report of a slave. @throws {Failure} for one that is not its own */
  reportOf(target: Target): Report | undefined;
  /** Put a text where those find it whom it is for; once a connection, though it follows many. @throws {Failure} */
  put(target: string, name: string, text: string): Promise<void>;
  /** Wait until a slave reports or the connection is made again, but not longer than `ms`. */
  change(target: Target, ms: number): Promise<void>;
  close(): Promise<void>;
}

/** It is connected to when it is first asked for something. */
export function masterBus(options: BusOptions): MasterBus {
  const { signal, note } = options;
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
      // whoever may write one key could remove all others by a message that rolls the bucket up
      await bus.makeBucket("state", { rollup: false });
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
      for (const [key, text] of await state.all()) if (texts.get(key) === before.get(key)) texts.set(key, text);
    }
  }

  function reportOf(target: Target): Report | undefined {
    const text = texts.get(nameOnBus(target.slave));
    if (text === undefined) return undefined;
    const report = readReport(text, { name: target.slave, key: target.key });
    if ("refusal" in report) throw new Failure(report.refusal);
    return report;
  }

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

  return {
    ...{ load, reportOf, put, change },
    known: () => [...texts.keys()],
    groupsOf: (name) => groupsOfReport(texts.get(name) ?? ""),
    async close() {
      const there = await opened?.catch(() => undefined);
      await there?.bus.close();
    },
  };
}

/** How often an order is put beside others that come at the same time. */
const maxRounds = 20;
/** Put a text beside others under a key; once only, also when the answer to an earlier try was lost. */
async function write(want: Bucket, key: string, name: string, text: string): Promise<void> {
  for (let round = 0; round < maxRounds; round++) {
    const entry = await want.get(key);
    const orders = readTexts(entry?.text ?? "{}") ?? {};
    if (orders[name] === text) return;
    const next = JSON.stringify({ ...orders, [name]: text });
    if (await want.put(key, next, entry?.revision ?? 0)) return;
  }
  throw new Failure("its orders on the bus are changed by somebody else all the time");
}
