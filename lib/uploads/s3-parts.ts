import { open } from "node:fs/promises";
import type { S3Headers, S3Part } from "../s3/s3.ts";
import {
  changedWhileRead,
  type Content,
  contentOfParts,
  hashBytes,
  partSizeOf,
  pastTick,
  readTries,
  readWhole,
  wholeUpTo,
} from "./content.ts";
import { type LocalFile, type Stamp, stampOf } from "./folder.ts";
import { forEachOf } from "./pool.ts";
import { headerLine } from "./s3-plan.ts";
import type { S3Session } from "./s3-session.ts";

/**
 * Large files, in parts side by side. An upload that a crash interrupted is taken up again: the parts that
 * are there, by their ETags, are not sent twice. One that fails or is stopped is ended, so that no store
 * charges for parts that nobody sees.
 */

/** Parts of one file on their way at once. */
const partsAtOnce = 4;

/** Send a large file. @throws {S3Failure} {@link changedWhileRead} */
export async function sendInParts(
  session: S3Session,
  file: LocalFile,
  headers: S3Headers,
): Promise<{ content: Content; stamp: Stamp; etag: string }> {
  for (let attempt = 0; attempt < readTries; attempt++) {
    const sent = await tryInParts(session, file, headers);
    if (sent !== "changed") return sent;
  }
  throw changedWhileRead(file.path);
}

async function tryInParts(session: S3Session, file: LocalFile, headers: S3Headers) {
  const { target, job, store, ask, pending } = session;
  const key = target.place.prefix + file.path;
  const options = { signal: job.signal };
  const handle = await open(file.file, "r");
  let uploadId: string | undefined;
  try {
    const stat = await pastTick(handle);
    const stamp = stampOf(stat);
    const size = Number(stat.size);
    if (size <= wholeUpTo) {
      // it has shrunk since it was listed
      const { bytes, md5, content, stamp: now } = await readWhole(file);
      const body = { bytes, md5, sha256: content.sha256 };
      return { content, stamp: now, etag: await ask(() => store.put(key, body, headers, options)) };
    }
    const begun = await begin(session, file, key, headers);
    const id = begun.id;
    uploadId = id;
    const length = partSizeOf(size);
    const numbers = Array.from({ length: Math.ceil(size / length) }, (_, index) => index + 1);
    const hashes: { md5: string; sha256: string }[] = [];
    const parts: S3Part[] = [];
    await forEachOf(numbers, Math.min(partsAtOnce, target.jobs), (number) =>
      session.budget(length, async () => {
        const free = session.buffers.pop();
        const buffer = free?.length === length ? free : Buffer.allocUnsafeSlow(length);
        const at = (number - 1) * length;
        const bytes = buffer.subarray(0, Math.min(length, size - at));
        const { bytesRead } = await handle.read(bytes, 0, bytes.length, at);
        // cut short: the look at the stamp below will tell
        if (bytesRead !== bytes.length) return;
        const hash = hashBytes(bytes);
        hashes[number - 1] = hash;
        const there = begun.parts.get(number);
        const isThere = there?.etag === hash.md5 && there.size === bytes.length;
        const etag = isThere
          ? hash.md5
          : await ask(() => store.putPart(key, id, number, { bytes, ...hash }, options));
        parts[number - 1] = { number, etag, size: bytes.length };
        session.buffers.push(buffer);
        job.arrived(bytes.length, file.path);
      }),
    );
    if (stampOf(await handle.stat({ bigint: true })) !== stamp) {
      await end(session, file, key, id);
      uploadId = undefined;
      job.arrived(-size, file.path);
      return "changed";
    }
    const content = contentOfParts(hashes);
    const etag = await complete(session, key, id, parts, content.etag);
    uploadId = undefined;
    await pending.remove(file.path);
    return { content, stamp, etag };
  } catch (error) {
    if (uploadId !== undefined) await end(session, file, key, uploadId).catch(() => {});
    throw error;
  } finally {
    await handle.close();
  }
}

/** Take up what an earlier run left, or begin. Its id is on disk before the first part goes. */
async function begin(session: S3Session, file: LocalFile, key: string, headers: S3Headers) {
  const { job, store, ask, pending } = session;
  const options = { signal: job.signal };
  const left = pending.get(file.path);
  const line = headerLine(headers);
  if (left?.id !== undefined && left.headers !== line) await end(session, file, key, left.id);
  else if (left?.id !== undefined) {
    const { id } = left;
    try {
      const parts = await store.parts(key, id, options);
      if (parts.length > 0)
        job.note(`${file.path}: going on with the ${parts.length} parts that are there`);
      return { id, parts: new Map(parts.map((part) => [part.number, part])) };
    } catch {
      // ended meanwhile, by the store's own rules perhaps: begin anew
    }
  }
  const since = Date.now();
  await pending.set(file.path, { since });
  const id = await ask(() => store.createUpload(key, headers, options));
  await pending.set(file.path, { id, since, headers: line });
  return { id, parts: new Map<number, S3Part>() };
}

/** Make the object. When the answer to the first try was lost, the upload is gone and the object there. */
async function complete(
  { job, store, ask }: S3Session,
  key: string,
  id: string,
  parts: S3Part[],
  expected: string,
): Promise<string> {
  let tries = 0;
  return await ask(async () => {
    tries++;
    try {
      return await store.completeUpload(key, id, parts, { signal: job.signal });
    } catch (error) {
      if (tries === 1 || (error as { name?: string }).name !== "NoSuchUpload") throw error;
      const [object] = (await store.list(key)).filter((each) => each.key === key);
      if (object?.etag !== expected) throw error;
      return object.etag;
    }
  });
}

/** End an upload and its parts. Not with the run's signal: this is what is done when that has come. */
async function end(session: S3Session, file: { path: string }, key: string, id: string) {
  const { store, pending } = session;
  for (let attempt = 0; attempt < 3; attempt++) {
    try {
      await store.abortUpload(key, id);
    } catch (error) {
      if ((error as { name?: string }).name !== "NoSuchUpload") continue;
    }
    // a part that was on its way may have come after: then the upload is still there (AbortMultipartUpload)
    if ((await store.uploadsOf(key)).some((upload) => upload.id === id)) continue;
    await pending.remove(file.path);
    return;
  }
}

/** How far the server's clock may be behind ours when we look for an upload that we began. */
const clockTolerance = 60_000;

/**
 * End the uploads that earlier runs of ours left and that will not be taken up. One whose id never reached
 * the disk is known by its key and its time: the lock keeps another run of ours from beginning one meanwhile.
 */
export async function endStaleUploads(session: S3Session, needed: ReadonlySet<string>) {
  const { target, store, job, ask, pending } = session;
  for (const [path, { id, since }] of pending.all()) {
    const key = target.place.prefix + path;
    const offset = store.clockOffset() - clockTolerance;
    const found = await ask(() => store.uploadsOf(key, { signal: job.signal }));
    if (id !== undefined) {
      if (!found.some((upload) => upload.id === id)) await pending.remove(path);
      else if (!needed.has(path)) await end(session, { path }, key, id);
      continue;
    }
    for (const upload of found)
      if (upload.started >= since + offset) await end(session, { path }, key, upload.id);
    await pending.remove(path);
  }
}
