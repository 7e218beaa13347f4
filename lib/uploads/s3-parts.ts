import type { FileHandle } from "node:fs/promises";
import type { S3Headers, S3Part, S3Store } from "../s3/s3.ts";
import type { S3Target } from "./config.ts";
import {
  type Content,
  contentOfParts,
  type Hashed,
  type LocalFile,
  partSizeOf,
  readAtRest,
  readPart,
  type Stamp,
  wholeUpTo,
} from "./folder.ts";
import { headerLine } from "./headers.ts";
import { type createBudget, forEachOf, type Job } from "./job.ts";
import type { Pending } from "./state.ts";

/**
 * Large files, in parts side by side. An upload that a crash interrupted is resumed: the parts that are there,
 * by their ETags, are not sent twice. One that fails or is stopped is aborted, so that no store charges for
 * parts that nobody sees.
 */

/** What all requests of one upload to S3 share. */
export interface S3Session {
  target: S3Target;
  job: Job;
  store: S3Store;
  pending: Pending;
  /** Runs a request, again where that may help; throws S3Failure. */
  ask<T>(request: () => Promise<T>): Promise<T>;
  /** Holds a request back until there is room in memory for its body. */
  budget: ReturnType<typeof createBudget>;
}

/** A file that arrived: what it held, and the ETag that it was given. */
export interface Sent {
  content: Content;
  stamp: Stamp;
  etag: string;
}

/** Parts of one file on their way at once. */
const partsAtOnce = 4;

/**
 * Send a large file; undefined when it has become a small one meanwhile.
 * @throws {S3Failure}
 * @throws {Failure} when it keeps changing.
 */
export async function sendInParts(
  session: S3Session,
  file: LocalFile,
  headers: S3Headers,
): Promise<Sent | undefined> {
  const { target, pending } = session;
  const key = target.address.prefix + file.path;
  try {
    // a file that changed is read again: what it has in common with the last time is there already
    const { result, stamp } = await readAtRest(file, async (handle, size) =>
      size > wholeUpTo ? await sendParts(session, file, key, headers, handle, size) : undefined,
    );
    if (!result) return undefined;
    const content = contentOfParts(result.hashes);
    const etag = await complete(session, key, result.id, result.parts, content.etag);
    await pending.remove(file.path);
    return { content, stamp, etag };
  } finally {
    const id = pending.get(file.path)?.id;
    if (id !== undefined) await abort(session, file.path, key, id);
  }
}

async function sendParts(
  session: S3Session,
  file: LocalFile,
  key: string,
  headers: S3Headers,
  handle: FileHandle,
  size: number,
): Promise<{ id: string; parts: S3Part[]; hashes: Omit<Hashed, "bytes">[] }> {
  const { target, job, store, ask, budget } = session;
  const { id, arrived } = await resumeOrCreate(session, file.path, key, headers);
  const length = partSizeOf(size);
  const numbers = Array.from({ length: Math.ceil(size / length) }, (_, index) => index + 1);
  const parts: S3Part[] = [];
  const hashes: Omit<Hashed, "bytes">[] = [];
  await forEachOf(numbers, Math.min(partsAtOnce, target.jobs), (number) =>
    budget(length, async () => {
      const body = await readPart(handle, (number - 1) * length, length);
      const { bytes, md5, sha256 } = body;
      // the file was cut short: it will be read again
      if (bytes.length === 0) return;
      const there = arrived.get(number);
      const isThere = there?.etag === md5 && there.size === bytes.length;
      const etag = isThere
        ? md5
        : await ask(() => store.putPart(key, id, number, body, { signal: job.signal }));
      hashes[number - 1] = { md5, sha256 };
      parts[number - 1] = { number, etag, size: bytes.length };
      job.arrived(bytes.length, file.path);
    }),
  );
  return { id, parts, hashes };
}

/** Resume what an earlier run left, or create an upload: its id is on disk before the first part goes. */
async function resumeOrCreate(
  session: S3Session,
  path: string,
  key: string,
  headers: S3Headers,
): Promise<{ id: string; arrived: Map<number, S3Part> }> {
  const { job, store, ask, pending } = session;
  const { signal } = job;
  const line = headerLine(headers);
  const left = pending.get(path);
  if (left?.id !== undefined) {
    const { id } = left;
    // it may be gone meanwhile, by the store's own rules perhaps
    const parts = await ask(() => store.parts(key, id, { signal })).catch(() => []);
    if (parts.length > 0 && left.headers === line) {
      job.note(`${path}: going on with the ${parts.length} parts that are there`);
      return { id, arrived: new Map(parts.map((part) => [part.number, part])) };
    }
    await abort(session, path, key, id);
  }
  const since = Date.now();
  await pending.set(path, { since });
  const id = await ask(() => store.createUpload(key, headers, { signal }));
  await pending.set(path, { id, since, headers: line });
  return { id, arrived: new Map() };
}

/** Make the object. When the answer to the first try was lost, the upload is gone and the object there. */
async function complete(
  { job, store, ask }: S3Session,
  key: string,
  id: string,
  parts: S3Part[],
  expected: string,
): Promise<string> {
  const { signal } = job;
  let tries = 0;
  return await ask(async () => {
    tries++;
    try {
      return await store.completeUpload(key, id, parts, { signal });
    } catch (error) {
      if (tries === 1 || !isGone(error)) throw error;
      const [object] = (await store.list(key, { signal })).filter((each) => each.key === key);
      if (object?.etag !== expected) throw error;
      return object.etag;
    }
  });
}

const isGone = (error: unknown) => (error as { name?: string }).name === "NoSuchUpload";

/**
 * Abort an upload; what cannot be aborted now stays pending for the next run. Not with the run's signal: this is
 * what is done when that has come.
 */
async function abort(
  { store, pending }: Pick<S3Session, "store" | "pending">,
  path: string,
  key: string,
  id: string,
): Promise<void> {
  for (let attempt = 0; attempt < 3; attempt++) {
    try {
      await store.abortUpload(key, id);
    } catch (error) {
      if (!isGone(error)) continue;
    }
    // a part that was on its way may have come after: then the upload is still there (AbortMultipartUpload)
    const open = await store.uploadsOf(key).catch(() => undefined);
    if (open?.every((upload) => upload.id !== id)) return await pending.remove(path);
  }
}

/** How far the server's clock may be behind ours when we look for an upload that we created, in ms. */
const clockTolerance = 60_000;

/**
 * Abort the uploads that earlier runs of ours left and that will not be resumed. One whose id never reached
 * the disk is known by its key and its time: the lock keeps another run of ours from creating one meanwhile.
 */
export async function abortStaleUploads(
  session: S3Session,
  needed: ReadonlySet<string>,
): Promise<void> {
  const { target, store, job, ask, pending } = session;
  for (const [path, { id, since }] of pending.all()) {
    const key = target.address.prefix + path;
    const open = await ask(() => store.uploadsOf(key, { signal: job.signal }));
    if (id !== undefined) {
      if (!open.some((upload) => upload.id === id)) await pending.remove(path);
      else if (!needed.has(path)) await abort(session, path, key, id);
      continue;
    }
    const earliest = since + store.clockOffset() - clockTolerance;
    for (const upload of open)
      if (upload.started >= earliest) await abort(session, path, key, upload.id);
    await pending.remove(path);
  }
}
