import { Buffer } from "node:buffer";
import type { Objm } from "@nats-io/obj";
import { failure } from "./dial.ts";

type JetStream = ConstructorParameters<typeof Objm>[0];

/** A bucket of objects: what is too large for one value. All throw a `Failure` when the bus does not do it. */
export type Objects = Awaited<ReturnType<typeof openObjects>>;

/** Open a bucket of objects, which is made where there is none, with room for so many bytes (-1: as the bus has). */
export async function openObjects(
  js: JetStream,
  name: string,
  { maxBytes, timeout, replicas }: { maxBytes: number; timeout: number; replicas: number },
) {
  const { Objm } = await import("@nats-io/obj");
  const objm = new Objm(js);
  const refused = (what: string) => (error: unknown) => {
    throw failure(`bucket ${name} ${what}`, error);
  };
  const store = await objm
    .create(name, { max_bytes: maxBytes, replicas })
    // it may have been made with another size
    .catch((error: unknown) => objm.open(name).catch(() => Promise.reject(error)))
    .catch(refused("cannot be made on the bus"));
  const tell = refused("of the bus");
  return {
    /** Keep an object, in place of one of that name. */
    async put(key: string, data: Uint8Array): Promise<void> {
      await store.putBlob({ name: key }, data, { timeout }).catch(tell);
    },
    async get(key: string): Promise<Buffer | undefined> {
      const data = await store.getBlob(key).catch(tell);
      return data === null ? undefined : Buffer.from(data);
    },
    async remove(key: string): Promise<void> {
      await store.delete(key).catch(tell);
    },
    /** The names of all, or of those that were kept before a time (ms), the oldest first. */
    async names(before = Number.POSITIVE_INFINITY): Promise<string[]> {
      const all = await store.list().catch(tell);
      return all
        .filter(({ deleted, mtime }) => !deleted && Date.parse(mtime) < before)
        .sort((a, b) => a.mtime.localeCompare(b.mtime))
        .map((each) => each.name);
    },
  };
}
