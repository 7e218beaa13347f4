import type { FileHandle } from "node:fs/promises";
import { forEachOf } from "../core/pool.ts";
import type { S3Part } from "../s3/s3.ts";
import { type Content, contentOfParts, type Hashes, partSizeOf, readAtRest, readPart, wholeUpTo } from "./content.ts";
import type { Stamp } from "./folder.ts";
import { headerLine } from "./headers.ts";
import type { Send } from "./s3-plan.ts";
import type { S3Session } from "./s3-session.ts";

/**
 * Large files, in parts side by side. An upload that a crash interrupted is resumed: the parts that are there,
 * by their ETags, are not sent twice. One that fails or is stopped is aborted, so that no store charges for
 * parts that nobody sees.
 */

/** A file that arrived: its content, and the ETag that it was given. */
export interface Sent {
  content: Content;
  stamp: Stamp | undefined;
  etag: string;
}

/** Parts of one file on their way at once. */
const partsAtOnce = 4;

/**
 * Send a large file; undefined when it has become a small one meanwhile.
 * @throws {S3Failure}
 * @throws {Failure} when it keeps changing.
 */
export async function sendInParts(session: S3Session, send: Send): Promise<Sent | undefined> {
  const { file } = send;
  const { pending } = session;
  try {
    // a file that changed is read again: what it has in common with the last time is there already
    const { result, stamp } = await readAtRest(file, async (handle, size) =>
      size > wholeUpTo ? await sendParts(session, send, handle, size) : undefined,
    );
    if (!result) return undefined;
    const content = contentOfParts(result.hashes);
    const etag = await complete(session, send, result.id, result.parts, content.etag);
    await pending.set(file.path, undefined);
    return { content, stamp, etag };
  } finally {
    const id = pending.uploads.get(file.path)?.id;
    if (id !== undefined) await abort(session, file.path, id);
  }
}

async function sendParts(session: S3Session, send: Send, handle: FileHandle, size: number) {
  const { target, job, store, ask, keyOf } = session;
  const { path } = send.file;
  const { id, arrived } = await resumeOrCreate(session, send);
  const length = partSizeOf(size);
  const numbers = Array.from({ length: Math.ceil(size / length) }, (_, index) => index + 1);
  const parts: S3Part[] = [];
  const hashes: Hashes[] = [];
  await forEachOf(numbers, Math.min(partsAtOnce, target.jobs), (number) =>
    session.inMemory(length, async () => {
      const body = await readPart(handle, (number - 1) * length, length);
      const { bytes, md5, sha256 } = body;
      // the file was cut short: it will be read again
      if (bytes.length === 0) return;
      const there = arrived.get(number);
      const isThere = there?.etag === md5 && there.size === bytes.length;
      const etag = isThere ? md5 : await ask((options) => store.putPart(keyOf(path), id, number, body, options));
      hashes[number - 1] = { md5, sha256 };
      parts[number - 1] = { number, etag, size: bytes.length };
      job.arrived(bytes.length, path);
    }),
  );
  return { id, parts, hashes };
}

/** Resume what an earlier run left, or create an upload: its id is on disk before the first part goes. */
async function resumeOrCreate(session: S3Session, { file: { path }, headers }: Send) {
  const { job, store, ask, pending, keyOf } = session;
  const key = keyOf(path);
  const line = headerLine(headers);
  const left = pending.uploads.get(path);
  if (left?.id !== undefined) {
    const { id } = left;
    // it may be gone meanwhile, by the store's own rules perhaps
    const parts = await ask((options) => store.parts(key, id, options)).catch(() => []);
    if (parts.length > 0 && left.headers === line) {
      job.note(`${path}: going on with the ${parts.length} parts that are there`);
      return { id, arrived: new Map(parts.map((part) => [part.number, part])) };
    }
    await abort(session, path, id);
  }
  const since = Date.now();
  await pending.set(path, { id: undefined, since, headers: undefined });
  const id = await ask((options) => store.createUpload(key, headers, options));
  await pending.set(path, { id, since, headers: line });
  return { id, arrived: new Map<number, S3Part>() };
}

/** Make the object. When the answer to the first try was lost, the upload is gone and the object there. */
async function complete(
  session: S3Session,
  { file }: Send,
  id: string,
  parts: S3Part[],
  expected: string,
): Promise<string> {
  const { store, ask, keyOf } = session;
  const key = keyOf(file.path);
  let tries = 0;
  return await ask(async (options) => {
    tries++;
    try {
      return await store.completeUpload(key, id, parts, options);
    } catch (error) {
      if (tries === 1 || !isGone(error)) throw error;
      const [object] = (await store.list(key, options)).filter((each) => each.key === key);
      if (object?.etag !== expected) throw error;
      return object.etag;
    }
  });
}

/**
 * Abort an upload; what cannot be aborted now stays pending for the next run. Not with the run's signal: this is
 * what is done when that has come.
 */
async function abort(session: S3Session, path: string, id: string): Promise<void> {
  const { store, pending, keyOf } = session;
  const key = keyOf(path);
  for (let attempt = 0; attempt < 3; attempt++) {
    try {
      await store.abortUpload(key, id);
    } catch (error) {
      if (!isGone(error)) continue;
    }
    // a part that was on its way may have come after: then the upload is still there (AbortMultipartUpload)
    const open = await store.uploadsOf(key).catch(() => undefined);
    if (open?.every((upload) => upload.id !== id)) return await pending.set(path, undefined);
  }
}

/** How far the server's clock may be behind ours when we look for an upload that we created, in ms. */
const clockTolerance = 60_000;

/**
 * Abort the uploads that earlier runs of ours left and that will not be resumed. One whose id never reached
 * the disk is known by its key and its time: the lock keeps another run of ours from creating one meanwhile.
 */
export async function abortStaleUploads(session: S3Session, sends: readonly Send[]): Promise<void> {
  const needed = new Set(sends.map(({ file }) => file.path));
  const { store, ask, pending, keyOf } = session;
  for (const [path, { id, since }] of [...pending.uploads]) {
    const open = await ask((options) => store.uploadsOf(keyOf(path), options));
    const earliest = since + store.clockOffset() - clockTolerance;
    const ours = open.filter((upload) => (id === undefined ? upload.started >= earliest : upload.id === id));
    const isResumed = id !== undefined && needed.has(path);
    if (!isResumed) for (const upload of ours) await abort(session, path, upload.id);
    if (id === undefined || ours.length === 0) await pending.set(path, undefined);
  }
}

function isGone(error: unknown): boolean {
  return (error as { name?: string }).name === "NoSuchUpload";
}
