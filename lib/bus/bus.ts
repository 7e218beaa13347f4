import type { KeyObject } from "node:crypto";
import type { NatsConnection } from "@nats-io/transport-node";
import type { KV } from "@nats-io/kv";
import { cleanLine } from "../core/clean.ts";
import { Failure, messageOf, systemCode } from "../core/errors.ts";
import { checkBusUrl } from "./address.ts";
import { nkeyOf, signNonce } from "./nkey.ts";
import { type Objects, openObjects } from "./objects.ts";

export type { Objects } from "./objects.ts";

/** The bus: a NATS server with JetStream, in whose key-value buckets one side writes and the other reads. */

export interface BusOptions {
  /** `tls://HOST:PORT`, one or several of one cluster; `nats://` on this machine only. */
  servers: readonly string[];
  /** Ed25519; it proves who we are to the bus, and must sign nothing else. */
  key: KeyObject;
  /** PEM: the authority behind the bus, instead of the public ones. */
  ca?: string | undefined;
  /** Our name there: `nameOnBus` of a slave, or "master". Only its owner can read what is answered to it. */
  name: string;
  /** Go on trying when it cannot be reached at first; else that is an error. */
  patient?: boolean;
  /** Milliseconds for the connection and for each answer. */
  timeout: number;
  /** The connection was lost, refused or made again. */
  onStatus?: (words: string) => void;
}

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
   * All values there are, by key, in one answer.
   * @throws {Failure} when the bus does not answer, or does not permit it
   */
  all(): Promise<Map<string, string>>;
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
   * An undefined value was removed. Resolves when those that are there now were told.
   */
  follow(onValue: (key: string, text: string | undefined) => void): Promise<void>;
}

export interface Bus {
  bucket(name: string): Bucket;
  /**
   * Make a bucket that is not there yet: on the bus's disk (in a cluster on those of three servers), with the last
   * value of each key.
   * @throws {Failure}
   */
  makeBucket(name: string): Promise<void>;
  /** A bucket of objects, with room for so many bytes, or as many as the bus has; it is made where there is none. @throws {Failure} */
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
  const { servers, key, ca, name, timeout, patient = false, onStatus = () => {} } = options;
  for (const each of servers) checkBusUrl(each);
  const { connect } = await import("@nats-io/transport-node");
  const { jetstream } = await import("@nats-io/jetstream");
  const { Kvm } = await import("@nats-io/kv");
  const nkey = nkeyOf(key);
  const sign = (nonce = "") => ({ nkey, sig: signNonce(nonce, key) });
  let connection: NatsConnection;
  try {
    connection = await connect({
      name,
      timeout,
      servers: servers.map((each) => each.replace(/^[a-z]+:\/\//, "")),
      inboxPrefix: `_INBOX.${name}`,
      authenticator: sign,
      tls: servers.every((each) => each.startsWith("tls:"))
        ? ca === undefined
          ? {}
          : { ca }
        : null,
      ignoreClusterUpdates: true,
      // a key that is added later, or while the bus reads its users anew
      ignoreAuthErrorAbort: true,
      maxReconnectAttempts: -1,
      // so that a thousand do not come back in one instant
      ...{ reconnectTimeWait: 250, reconnectJitter: 1000, reconnectJitterTLS: 1500 },
      // a line that NAT has forgotten is noticed by this
      ...{ pingInterval: 20_000, maxPingOut: 2 },
      waitOnFirstConnect: patient,
    });
  } catch (error) {
    throw failure(`the bus ${servers.join(", ")} cannot be used`, error);
  }
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
      async all() {
        const found = new Map<string, string>();
        try {
          const entries = await (await opened).history({ key: ">" });
          // a server that was killed meanwhile does not know any more that it was asked
          let [last, isLate] = [performance.now(), false];
          const timer = setInterval(() => {
            isLate = performance.now() - last > timeout;
            if (isLate) entries.stop();
          }, timeout / 2);
          try {
            for await (const entry of entries) {
              last = performance.now();
              if (entry.operation === "PUT") found.set(entry.key, entry.string());
              else found.delete(entry.key);
            }
          } finally {
            clearInterval(timer);
          }
          if (isLate) throw new Error("timeout");
        } catch (error) {
          throw failure(`${about} cannot be read`, error);
        }
        return found;
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
      follow(onValue) {
        return new Promise((resolve) => {
          let stop = () => {};
          let connections = 0;
          const going = async () => {
            while (!connection.isClosed()) {
              const mine = connections;
              let timer: NodeJS.Timeout | undefined;
              try {
                const kv = await opened;
                const { values } = await kv.status();
                const entries = await kv.watch();
                stop = () => entries.stop();
                // asked for over a connection that is gone
                if (mine !== connections) stop();
                // a server that was killed may have forgotten that we listen
                timer = setTimeout(stop, followAnew);
                timer.unref();
                if (values === 0) resolve();
                for await (const entry of entries) {
                  onValue(entry.key, entry.operation === "PUT" ? entry.string() : undefined);
                  if (entry.delta === 0) resolve();
                }
              } catch (error) {
                onStatus(failure(`${about} cannot be followed`, error).message);
              }
              clearTimeout(timer);
              await pause(200);
            }
          };
          void going();
          // what the server knew of us is gone with the connection
          calls.push(() => {
            connections += 1;
            stop();
          });
        });
      },
    };
  }

  return {
    bucket,
    async makeBucket(bucketName) {
      try {
        await new Kvm(js).create(bucketName, {
          ...{ history: 1, allow_direct: true },
          replicas: replicas(),
        });
      } catch (error) {
        throw failure(`bucket ${bucketName} cannot be made on the bus`, error);
      }
    },
    async objects(bucketName, { maxBytes = -1 } = {}) {
      try {
        const objects = await openObjects(js, bucketName, {
          ...{ maxBytes, timeout },
          replicas: replicas(),
        });
        const tell = (error: unknown) => {
          throw failure(`bucket ${bucketName} of the bus`, error);
        };
        return {
          put: (key, data) => objects.put(key, data).catch(tell),
          get: (key) => objects.get(key).catch(tell),
          remove: (key) => objects.remove(key).catch(tell),
          names: () => objects.names().catch(tell),
        };
      } catch (error) {
        throw failure(`bucket ${bucketName} cannot be made on the bus`, error);
      }
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

/** How often all values of a bucket are read anew that is followed, in ms. */
const followAnew = 60_000;

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** A value was changed by somebody else: JetStream's "wrong last sequence". */
function isConflict(error: unknown): boolean {
  return (error as { code?: unknown })?.code === 10071;
}

function failure(what: string, error: unknown): Failure {
  const words = `${systemCode(error) ?? ""} ${messageOf(error)}`.toLowerCase();
  const why = /authoriz|authentic/.test(words)
    ? "it does not let this key in; add it on the bus"
    : /permission/.test(words)
      ? "it does not permit that to this key"
      : /cert|unable_to_verify/.test(words)
        ? `its certificate is not trusted (${systemCode(error) ?? messageOf(error)}); see ca_file`
        : (systemCode(error) ?? messageOf(error));
  return new Failure(`${what}: ${cleanLine(why)}`);
}
