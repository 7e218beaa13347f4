import { setTimeout as sleep } from "node:timers/promises";
import type { KV } from "@nats-io/kv";
import { cleanLine } from "../core/clean.ts";
import { messageOf } from "../core/errors.ts";
import { type BusOptions, dial, failure, type Msg } from "./dial.ts";
import { openObjects } from "./objects.ts";

export type { BusOptions } from "./dial.ts";
export type { Objects } from "./objects.ts";

/** The bus: a NATS server with JetStream, in whose key-value buckets one side writes and the other reads. */

/** A key-value bucket. What is asked of it throws a `Failure` when the bus does not answer, or does not permit it. */
export type Bucket = ReturnType<Bus["bucket"]>;
export type Bus = Awaited<ReturnType<typeof connectBus>>;

/** How often all values are read anew, in ms: a server that was killed may have forgotten that we listen. */
const followAnew = 60_000;

/**
 * Connect.
 * @throws {Failure} when the bus cannot be reached, or does not let us in
 */
export async function connectBus(options: BusOptions) {
  const { timeout, onStatus = () => {} } = options;
  const { jetstream } = await import("@nats-io/jetstream");
  const { Kvm } = await import("@nats-io/kv");
  const connection = await dial(options);
  const calls: (() => void)[] = [];
  const told = (error: unknown) => onStatus(cleanLine(`the bus: ${messageOf(error)}`));
  void (async () => {
    for await (const status of connection.status()) {
      if (connection.isClosed()) return;
      if (status.type === "disconnect") onStatus("the connection to the bus is lost");
      else if (status.type === "error") told(status.error);
      else if (status.type === "reconnect") {
        onStatus("connected to the bus again");
        for (const call of calls) call();
      }
    }
  })();
  const js = jetstream(connection, { timeout, checkAPI: false });
  // a cluster keeps each value on three of its servers
  const replicas = () => (connection.info?.cluster === undefined ? 1 : 3);

  const subscribe = (subject: string, work: (message: Msg) => void) =>
    connection.subscribe(subject, { callback: (error, message) => (error ? told(error) : work(message)) });

  function bucket(bucketName: string) {
    const opened: Promise<KV> = new Kvm(js).open(bucketName, { allow_direct: true });
    const about = `bucket ${bucketName} of the bus`;
    const cannot = (be: string) => (error: unknown) => {
      throw failure(`${about} cannot be ${be}`, error);
    };
    return {
      /** One value, and its revision, which rises with each change of any key of the bucket. */
      async get(key: string): Promise<{ text: string; revision: number } | undefined> {
        const entry = await opened.then((kv) => kv.get(key)).catch(cannot("read"));
        return entry?.operation === "PUT" ? { text: entry.string(), revision: entry.revision } : undefined;
      },
      /**
       * Write a value; with a revision, only when that is still the key's own (0: there is none).
       * @returns its new revision; undefined when somebody else was faster
       * @throws {Failure} also of one that is written all the same, or later
       */
      async put(key: string, text: string, revision?: number): Promise<number | undefined> {
        try {
          const kv = await opened;
          if (revision === undefined) return await kv.put(key, text);
          if (revision === 0) return await kv.create(key, text);
          return await kv.update(key, text, revision);
        } catch (error) {
          // changed by somebody else: JetStream's "wrong last sequence"
          if (revision !== undefined && (error as { code?: unknown }).code === 10071) return undefined;
          return cannot("written")(error);
        }
      },
      /** Remove a value; the revisions of those that follow under its key go on. */
      async remove(key: string): Promise<void> {
        await opened.then((kv) => kv.purge(key)).catch(cannot("written"));
      },
      /** See changes from now on; `key` may be `>` for all. What comes while the connection is lost is not seen. */
      watch(key: string, onChange: (key: string, text: string) => void): void {
        const prefix = `$KV.${bucketName}.`;
        subscribe(`${prefix}${key}`, (message) => onChange(message.subject.slice(prefix.length), message.string()));
      },
      /**
       * Hear of all values, those that are there and then each change; after the connection was lost of all once more.
       * An undefined value was removed, or went with the bus's disk. Resolves when those that are there now were told.
       */
      follow(onValue: (key: string, text: string | undefined) => void): Promise<void> {
        const known = new Set<string>();
        let stop = () => {};
        let connections = 0;
        // what the server knew of us is gone with the connection
        calls.push(() => {
          connections += 1;
          stop();
        });
        const tell = (key: string, text: string | undefined) => {
          if (text === undefined) known.delete(key);
          else known.add(key);
          onValue(key, text);
        };
        const followOnce = async (onWhole: () => void) => {
          const connection = connections;
          const kv = await opened;
          const { values } = await kv.status();
          const entries = await kv.watch();
          stop = () => entries.stop();
          // asked for over a connection that is gone
          if (connection !== connections) stop();
          const timer = setTimeout(stop, followAnew);
          timer.unref();
          const gone = new Set(known);
          const whole = () => {
            // a bus that has lost its disk does not say what it had
            for (const key of gone) tell(key, undefined);
            gone.clear();
            onWhole();
          };
          if (values === 0) whole();
          for await (const entry of entries) {
            gone.delete(entry.key);
            tell(entry.key, entry.operation === "PUT" ? entry.string() : undefined);
            if (entry.delta === 0) whole();
          }
          clearTimeout(timer);
        };
        return new Promise((resolve) => {
          void (async () => {
            while (!connection.isClosed()) {
              const refused = (error: unknown) => onStatus(failure(`${about} cannot be followed`, error).message);
              await followOnce(resolve).catch(refused);
              await sleep(200, undefined, { ref: false });
            }
          })();
        });
      },
    };
  }

  return {
    bucket,
    /**
     * Make a bucket that is not there yet: on the bus's disk (in a cluster on those of three servers), with the last
     * value of each key.
     * @param options `rollup` false: no message may take the place of all others, which `remove` needs; `ttl`:
     *   milliseconds after which the bus removes a value that was not written again
     * @throws {Failure}
     */
    async makeBucket(bucketName: string, { rollup = true, ttl }: { rollup?: boolean; ttl?: number } = {}) {
      try {
        const kept = {
          ...{ history: 1, allow_direct: true, replicas: replicas() },
          ...(ttl === undefined ? {} : { ttl }),
        };
        if (rollup) await new Kvm(js).create(bucketName, kept);
        else {
          // as Kvm makes it (ADR-8), but for the rollup
          const manager = await js.jetstreamManager(false);
          await manager.streams.add({
            ...{ name: `KV_${bucketName}`, subjects: [`$KV.${bucketName}.>`], num_replicas: replicas() },
            ...{ max_msgs_per_subject: 1, discard: "new", deny_delete: true, allow_direct: true },
            allow_rollup_hdrs: false,
          });
        }
      } catch (error) {
        throw failure(`bucket ${bucketName} cannot be made on the bus`, error);
      }
    },
    /** A bucket of objects, with room for so many bytes, or all there is; made if there is none. @throws {Failure} */
    async objects(bucketName: string, { maxBytes = -1 } = {}) {
      return await openObjects(js, bucketName, { maxBytes, timeout, replicas: replicas() });
    },
    /** Ask whoever serves a subject. @throws {Failure} when nobody does, or no answer comes in time */
    async request(subject: string, text: string): Promise<string> {
      try {
        return (await connection.request(subject, text, { timeout })).string();
      } catch (error) {
        throw failure("nobody answers on the bus", error);
      }
    },
    /** Answer what is asked under a subject; an `answer` that throws gives none. */
    serve(subject: string, answer: (text: string) => Promise<string>): void {
      subscribe(subject, (message) => {
        answer(message.string()).then((text) => message.respond(text), told);
      });
    },
    /** Called whenever the connection stands (again): then values have to be read anew. */
    onConnect(call: () => void): void {
      calls.push(call);
      call();
    },
    async close(): Promise<void> {
      await connection.close().catch(() => {});
    },
  };
}
