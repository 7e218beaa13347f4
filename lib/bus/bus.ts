import type { KV } from "@nats-io/kv";
import { cleanLine } from "../core/clean.ts";
import { messageOf } from "../core/errors.ts";
import { type BusOptions, dial, failure } from "./dial.ts";
import { followBucket } from "./follow.ts";
import { type Objects, openObjects } from "./objects.ts";

export type { BusOptions } from "./dial.ts";
export type { Objects } from "./objects.ts";

/** The bus: a NATS server with JetStream, in whose key-value buckets one side writes and the other reads. */

/** One value. */
export interface Entry {
  text: string;
  /** Rises with each change of any key of the bucket. */
  revision: number;
}

/** A key-value bucket. */
export interface Bucket {
  /** @throws {Failure} when the bus does not answer, or does not permit it */
  get(key: string): Promise<Entry | undefined>;
  /**
   * Write a value; with a revision, only when that is still the key's own (0: there is none).
   * @returns its new revision; undefined when somebody else was faster
   * @throws {Failure} when the bus does not answer, or does not permit it: it may be written all the same, also later
   */
  put(key: string, text: string, revision?: number): Promise<number | undefined>;
  /** Remove a value; the revisions of those that follow under its key go on. @throws {Failure} */
  remove(key: string): Promise<void>;
  /** See changes from now on; `key` may be `>` for all. What came while the connection was lost is not among them. */
  watch(key: string, onChange: (key: string, text: string) => void): void;
  /**
   * Hear of all values, those that are there and then each change; after the connection was lost of all once more.
   * An undefined value was removed, or went with the bus's disk. Resolves when those that are there now were told.
   */
  follow(onValue: (key: string, text: string | undefined) => void): Promise<void>;
}

export interface Bus {
  bucket(name: string): Bucket;
  /**
   * Make a bucket that is not there yet: on the bus's disk (in a cluster on those of three servers), with the last
   * value of each key.
   * @param options `rollup` false: no message may take the place of all others, which `remove` needs; `ttl`:
   *   milliseconds after which the bus removes a value that was not written again
   * @throws {Failure}
   */
  makeBucket(name: string, options?: { rollup?: boolean; ttl?: number }): Promise<void>;
  /** A bucket of objects, with room for so many bytes, or all there is; made where there is none. @throws {Failure} */
  objects(name: string, options?: { maxBytes?: number }): Promise<Objects>;
  /** Ask whoever serves a subject. @throws {Failure} when nobody does, or no answer comes in time */
  request(subject: string, text: string): Promise<string>;
  /** Answer what is asked under a subject; an `answer` that throws gives none. */
  serve(subject: string, answer: (text: string) => Promise<string>): void;
  /** Called whenever the connection stands (again): then values have to be read anew. */
  onConnect(call: () => void): void;
  close(): Promise<void>;
}

/**
 * Connect.
 * @throws {Failure} when the bus cannot be reached, or does not let us in
 */
export async function connectBus(options: BusOptions): Promise<Bus> {
  const { timeout, onStatus = () => {} } = options;
  const { jetstream } = await import("@nats-io/jetstream");
  const { Kvm } = await import("@nats-io/kv");
  const connection = await dial(options);
  const calls: (() => void)[] = [];
  void (async () => {
    for await (const status of connection.status()) {
      if (connection.isClosed()) return;
      if (status.type === "disconnect") onStatus("the connection to the bus is lost");
      else if (status.type === "error") onStatus(cleanLine(`the bus: ${messageOf(status.error)}`));
      else if (status.type === "reconnect") {
        onStatus("connected to the bus again");
        for (const call of calls) call();
      }
    }
  })();
  const js = jetstream(connection, { timeout, checkAPI: false });
  // a cluster keeps each value on three of its servers
  const replicas = () => (connection.info?.cluster === undefined ? 1 : 3);

  function bucket(bucketName: string): Bucket {
    const opened: Promise<KV> = new Kvm(js).open(bucketName, { allow_direct: true });
    const about = `bucket ${bucketName} of the bus`;
    return {
      async get(key) {
        try {
          const entry = await (await opened).get(key);
          if (!entry || entry.operation !== "PUT") return undefined;
          return { text: entry.string(), revision: entry.revision };
        } catch (error) {
          throw failure(`${about} cannot be read`, error);
        }
      },
      async put(key, text, revision) {
        try {
          const kv = await opened;
          if (revision === undefined) return await kv.put(key, text);
          if (revision === 0) return await kv.create(key, text);
          return await kv.update(key, text, revision);
        } catch (error) {
          if (revision !== undefined && isConflict(error)) return undefined;
          throw failure(`${about} cannot be written`, error);
        }
      },
      async remove(key) {
        try {
          await (await opened).purge(key);
        } catch (error) {
          throw failure(`${about} cannot be written`, error);
        }
      },
      watch(key, onChange) {
        const prefix = `$KV.${bucketName}.`;
        connection.subscribe(`${prefix}${key}`, {
          callback(error, message) {
            if (error) return onStatus(`the bus: ${messageOf(error)}`);
            onChange(message.subject.slice(prefix.length), message.string());
          },
        });
      },
      async follow(onValue) {
        await followBucket(opened, {
          onValue,
          onError: (error) => onStatus(failure(`${about} cannot be followed`, error).message),
          isClosed: () => connection.isClosed(),
          onConnect: (call) => calls.push(call),
        });
      },
    };
  }

  return {
    bucket,
    async makeBucket(bucketName, { rollup = true, ttl } = {}) {
      try {
        if (rollup)
          await new Kvm(js).create(bucketName, {
            ...{ history: 1, allow_direct: true },
            replicas: replicas(),
            ...(ttl !== undefined && { ttl }),
          });
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
    async objects(bucketName, { maxBytes = -1 } = {}) {
      return await openObjects(js, bucketName, { maxBytes, timeout, replicas: replicas() });
    },
    async request(subject, text) {
      try {
        return (await connection.request(subject, text, { timeout })).string();
      } catch (error) {
        throw failure("nobody answers on the bus", error);
      }
    },
    serve(subject, answer) {
      connection.subscribe(subject, {
        callback(error, message) {
          if (error) return onStatus(`the bus: ${messageOf(error)}`);
          answer(message.string()).then(
            (text) => message.respond(text),
            (reason: unknown) => onStatus(`the bus: ${messageOf(reason)}`),
          );
        },
      });
    },
    onConnect(call) {
      calls.push(call);
      call();
    },
    async close() {
      await connection.close().catch(() => {});
    },
  };
}

/** A value was changed by somebody else: JetStream's "wrong last sequence". */
function isConflict(error: unknown): boolean {
  return (error as { code?: unknown })?.code === 10071;
}
