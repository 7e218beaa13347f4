import { setMaxListeners } from "node:events";
import { atEnd } from "../core/at-exit.ts";
import { messageOf } from "../core/errors.ts";
import { openS3, type S3Headers, type S3Object, type S3Store } from "../s3/s3.ts";
import { explainS3, isTransient, retryAfterOf } from "../s3/errors.ts";
import type { S3Target } from "./config.ts";
import { type Content, hashFile, readWhole, wholeUpTo } from "./content.ts";
import type { LocalFile, Stamp } from "./folder.ts";
import type { Change, Job, Outcome } from "./job.ts";
import { createBudget, forEachOf, withRetries } from "./pool.ts";
import { endStaleUploads, sendInParts } from "./s3-parts.ts";
import { firstLook, headerLine, headersFor, inOrder, isSame, strayKeys } from "./s3-plan.ts";
import type { S3Session } from "./s3-session.ts";
import { openPending, openRecord, type S3Record } from "./state.ts";

/** Publish the folder to an S3 place: assets, then pages, then deletions, each only after all before went well. */
export async function uploadToS3(target: S3Target, job: Job): Promise<Outcome> {
  // every request under way listens for the end of the run
  if (job.signal) setMaxListeners(0, job.signal);
  const store = await openS3({ ...target, ...target.place, connections: target.jobs + 4 });
  const work = publish(target, job, store);
  // on a signal the script waits for this: open multipart uploads are ended before it goes
  const forget = atEnd(() => work.then(() => {}).catch(() => {}));
  try {
    return await work;
  } finally {
    forget();
    store.close();
  }
}

/** Bytes of bodies in memory at once. */
const bodyBytes = 40 * 1024 * 1024;

interface Send {
  file: LocalFile;
  headers: S3Headers;
  action: Change["action"];
}

async function publish(target: S3Target, job: Job, store: S3Store): Promise<Outcome> {
  const { place } = target;
  const { state, signal } = job;
  const asked = { bucket: place.bucket, endpoint: target.endpoint };
  const rules = { isPassing: isTransient, retryAfter: retryAfterOf, signal, retries: job.retries };
  const session: S3Session = {
    ...{ target, job, store, budget: createBudget(bodyBytes), buffers: [] },
    pending: await openPending(state, target.name),
    async ask(request) {
      try {
        return await withRetries(rules, request);
      } catch (error) {
        if (signal?.aborted) throw error;
        throw explainS3(error, asked);
      }
    },
  };
  const outcome: Outcome = { changes: [], unchanged: 0, bytes: 0, problems: [] };
  const where = `s3://${place.bucket}/${place.prefix} ${target.endpoint ?? ""}`;
  const asking = session.ask(() => store.list(place.prefix, { signal }));
  asking.catch(() => {}); // it is awaited below
  const record = await openRecord(state, target.name, where);
  try {
    const listing = await asking;
    warnOfClock(store, job);
    const plan = await makePlan(session, listing, record, outcome);
    if (job.dryRun) {
      outcome.changes.push(...plan.sends.map(changeOf), ...plan.stray.map(deletionOf));
      return outcome;
    }
    await endStaleUploads(session, new Set(plan.sends.map(({ file }) => file.path)));
    await sendAll(session, plan.sends, record, outcome);
    if (outcome.problems.length === 0) await removeAll(session, plan.stray, record, outcome);
    else if (plan.stray.length > 0)
      outcome.problems.push(`${plan.stray.length} deletions were held back: not all was sent`);
  } catch (error) {
    if (signal?.aborted) throw error;
    outcome.problems.push(messageOf(explainS3OrItself(error, asked)));
  } finally {
    if (!job.dryRun) await record.save();
  }
  return outcome;
}

function explainS3OrItself(error: unknown, asked: Parameters<typeof explainS3>[1]): unknown {
  const isRequest = typeof error === "object" && error !== null && "$metadata" in error;
  if (isRequest) return explainS3(error, asked);
  return error;
}

function warnOfClock(store: S3Store, job: Job): void {
  const minutes = Math.round(Math.abs(store.clockOffset()) / 60_000);
  if (minutes >= 4)
    job.note(`the clock here is ${minutes} minutes off from the server's; set it (timedatectl)`);
}

async function makePlan(
  session: S3Session,
  listing: readonly S3Object[],
  record: S3Record,
  outcome: Outcome,
): Promise<{ sends: Send[]; stray: string[] }> {
  const { target, job } = session;
  const { prefix } = target.place;
  const remote = new Map(listing.map((object) => [object.key, object]));
  const headersOf = headersFor(target);
  const sends: Send[] = [];
  await forEachOf(job.files, 4, async (file) => {
    const headers = headersOf(file.path);
    const line = headerLine(headers);
    const there = remote.get(prefix + file.path);
    const recorded = record.get(file.path);
    const look = firstLook(file, there, recorded, line);
    if (look !== "compare" || !there) {
      sends.push({ file, headers, action: look === "compare" ? "new" : look });
      return;
    }
    try {
      const content = await contentOf(file, job);
      if (!isSame(content, there, recorded)) {
        sends.push({ file, headers, action: "replace" });
        return;
      }
      outcome.unchanged = (outcome.unchanged ?? 0) + 1;
      record.set(file.path, { etag: there.etag, sha256: content.sha256, headers: line });
    } catch (error) {
      if (job.signal?.aborted) throw error;
      outcome.problems.push(readProblem(file, error));
    }
  });
  const wanted = target.delete ? strayKeys(listing, prefix, new Set(job.files.map(pathOf))) : [];
  return { sends, stray: wanted.sort() };
}

const pathOf = ({ path }: LocalFile) => path;

async function contentOf(file: LocalFile, job: Job): Promise<Content> {
  const known = job.state.known(file);
  if (known) return known;
  const when = Date.now();
  const { content, stamp } = await hashFile(file, job.signal);
  job.state.learn(file.path, stamp, content, when);
  return content;
}

async function sendAll(
  session: S3Session,
  sends: readonly Send[],
  record: S3Record,
  outcome: Outcome,
): Promise<void> {
  const { assets, pages } = inOrder(sends);
  session.job.expect(sends.reduce((sum, { file }) => sum + file.size, 0));
  for (const group of [assets, pages]) {
    if (group === pages && pages.length > 0 && outcome.problems.length > 0) {
      outcome.problems.push(
        `${pages.length} pages were held back: what they need is not all there`,
      );
      return;
    }
    await forEachOf(group, session.target.jobs, async (send) => {
      try {
        await sendOne(session, send, record);
        outcome.changes.push(changeOf(send));
        outcome.bytes += send.file.size;
      } catch (error) {
        // a failure that every other request would share ends the target at once
        if (session.job.signal?.aborted || isFatal(error)) throw error;
        outcome.problems.push(readProblem(send.file, error));
      }
    });
  }
}

function isFatal(error: unknown): boolean {
  return (error as { fatal?: boolean } | null)?.fatal === true;
}

function readProblem(file: LocalFile, error: unknown): string {
  const text = messageOf(error);
  const shown = JSON.stringify(file.path);
  return text.startsWith(shown) ? text : `${shown}: ${text}`;
}

async function sendOne(session: S3Session, send: Send, record: S3Record): Promise<void> {
  const { file, headers } = send;
  const { job, budget } = session;
  const when = Date.now();
  const sent: { content: Content; stamp: Stamp; etag: string } =
    file.size > wholeUpTo
      ? await sendInParts(session, file, headers)
      : await budget(Math.max(file.size, 1), () => sendWhole(session, file, headers));
  job.state.learn(file.path, sent.stamp, sent.content, when);
  const line = headerLine(headers);
  record.set(file.path, { etag: sent.etag, sha256: sent.content.sha256, headers: line });
}

async function sendWhole(session: S3Session, file: LocalFile, headers: S3Headers) {
  const { target, job, store, ask } = session;
  const { bytes, md5, content, stamp } = await readWhole(file);
  const key = target.place.prefix + file.path;
  const etag = await ask(() =>
    store.put(key, { bytes, md5, sha256: content.sha256 }, headers, { signal: job.signal }),
  );
  job.arrived(file.size, file.path);
  return { content, stamp, etag };
}

async function removeAll(
  { target, job, store, ask }: S3Session,
  stray: readonly string[],
  record: S3Record,
  outcome: Outcome,
): Promise<void> {
  await forEachOf(stray, target.jobs, async (path) => {
    await ask(() => store.remove(target.place.prefix + path, { signal: job.signal }));
    record.remove(path);
    outcome.changes.push(deletionOf(path));
  });
}

function changeOf({ action, file }: Send): Change {
  return { action, path: file.path, size: file.size };
}

function deletionOf(path: string): Change {
  return { action: "delete", path, size: 0 };
}
