import { setMaxListeners } from "node:events";
import { atEnd } from "../core/at-exit.ts";
import { messageOf } from "../core/errors.ts";
import { explainS3, isTransient, retryAfterOf, S3Failure } from "../s3/errors.ts";
import { openS3, type S3Store } from "../s3/s3.ts";
import type { S3Target } from "./config.ts";
import { type Content, contentOf, hashFile, readWhole, wholeUpTo } from "./content.ts";
import type { LocalFile } from "./folder.ts";
import { headerLine } from "./headers.ts";
import { type Change, forEachOf, type Job, memoryLimit, type Outcome, withRetries } from "./job.ts";
import { abortStaleUploads, type S3Session, type Sent, sendInParts } from "./s3-parts.ts";
import { inOrder, isSame, planTarget, type Send } from "./s3-plan.ts";
import { openPending, openRecord } from "./state.ts";

/** Publish the folder to an S3 bucket: assets, then pages, then deletions, each only when everything before it succeeded. */
export async function uploadToS3(target: S3Target, job: Job): Promise<Outcome> {
  // every request under way listens for the end of the run
  if (job.signal) setMaxListeners(0, job.signal);
  const store = await openS3({ ...target, ...target.address, connections: target.jobs + 4 });
  const work = publish(target, job, store);
  // on a signal the script waits for this: open multipart uploads are aborted before it ends
  const forget = atEnd(() => work.then(() => {}).catch(() => {}));
  try {
    return await work;
  } finally {
    forget();
    store.close();
  }
}

async function publish(target: S3Target, job: Job, store: S3Store): Promise<Outcome> {
  const session = await openSession(target, job, store);
  const { record, outcome } = session;
  try {
    const listing = await session.ask((options) => store.list(target.address.prefix, options));
    warnOfClock(store, job);
    const plan = planTarget(target, job.files, listing, record.entries);
    const sends = await withoutUnchanged(session, plan.sends);
    if (job.dryRun) {
      outcome.changes.push(...sends.map(changeOf), ...plan.stray.map(deletionOf));
      return outcome;
    }
    await abortStaleUploads(session, new Set(sends.map(({ file }) => file.path)));
    const { assets, pages } = inOrder(sends);
    job.expect(sends.reduce((sum, { file }) => sum + file.size, 0));
    await job.checkClaim();
    await sendAll(session, assets);
    await job.checkClaim();
    if (outcome.problems.length === 0) await sendAll(session, pages);
    else holdBack(pages, "pages were held back: what they need is not all there");
    await job.checkClaim();
    if (outcome.problems.length === 0) await removeAll(session, plan.stray);
    else holdBack(plan.stray, "deletions were held back: not everything was sent");
  } catch (error) {
    if (job.signal?.aborted) throw error;
    outcome.problems.push(messageOf(error));
  } finally {
    if (!job.dryRun) await record.save();
  }
  return outcome;

  function holdBack({ length }: { length: number }, why: string): void {
    if (length > 0) outcome.problems.push(`${length} ${why}`);
  }
}

async function openSession(target: S3Target, job: Job, store: S3Store): Promise<S3Session> {
  const { bucket, prefix } = target.address;
  const { endpoint } = target;
  const { state, signal, retries } = job;
  return {
    ...{ target, job, store },
    record: await openRecord(state, target.name, `s3://${bucket}/${prefix} ${endpoint ?? ""}`),
    pending: await openPending(state, target.name),
    outcome: { changes: [], unchanged: 0, bytes: 0, problems: [] },
    inMemory: memoryLimit(40 * 1024 * 1024),
    async ask(request) {
      const rules = { isTransient, retryAfter: retryAfterOf, signal, retries };
      try {
        return await withRetries(rules, () => request({ signal }));
      } catch (error) {
        if (signal?.aborted) throw error;
        throw explainS3(error, { bucket, endpoint });
      }
    },
  };
}

function warnOfClock(store: S3Store, job: Job): void {
  const minutes = Math.round(Math.abs(store.clockOffset()) / 60_000);
  if (minutes >= 4)
    job.note(`the clock here is ${minutes} minutes off from the server's; set it (timedatectl)`);
}

/** Reads and hashes the files of which only the content can tell whether they changed. */
async function withoutUnchanged(session: S3Session, sends: readonly Send[]): Promise<Send[]> {
  const { job, record, outcome } = session;
  const settled = new Set<Send>();
  await forEachOf(sends, 4, async (send) => {
    const { file, compare } = send;
    if (!compare) return;
    try {
      const content = await knownContent(file, job);
      if (!isSame(content, compare, record.entries.get(file.path))) return;
      outcome.unchanged = (outcome.unchanged ?? 0) + 1;
      remember(session, send, content, compare.etag);
    } catch (error) {
      if (job.signal?.aborted) throw error;
      outcome.problems.push(problemOf(file, error));
    }
    settled.add(send);
  });
  return sends.filter((send) => !settled.has(send));
}

async function knownContent(file: LocalFile, job: Job): Promise<Content> {
  const known = job.state.known(file);
  if (known) return known;
  const { result: content, stamp } = await hashFile(file, job.signal);
  job.state.learn(file.path, content, stamp);
  return content;
}

async function sendAll(session: S3Session, sends: readonly Send[]): Promise<void> {
  const { job, outcome } = session;
  await forEachOf(sends, session.target.jobs, async (send) => {
    const { file } = send;
    try {
      const large = file.size > wholeUpTo ? await sendInParts(session, send) : undefined;
      const { content, stamp, etag } = large ?? (await sendWhole(session, send));
      job.state.learn(file.path, content, stamp);
      remember(session, send, content, etag);
      outcome.changes.push(changeOf(send));
      outcome.bytes += file.size;
    } catch (error) {
      // a failure that every other request would share ends the target at once
      if (job.signal?.aborted || (error instanceof S3Failure && error.fatal)) throw error;
      outcome.problems.push(problemOf(file, error));
    }
  });
}

async function sendWhole(session: S3Session, { file, headers }: Send): Promise<Sent> {
  const { target, job, store, ask } = session;
  return await session.inMemory(file.size, async () => {
    const { result: body, stamp } = await readWhole(file);
    const key = target.address.prefix + file.path;
    const etag = await ask((options) => store.put(key, body, headers, options));
    job.arrived(file.size, file.path);
    return { content: contentOf(body), stamp, etag };
  });
}

async function removeAll(session: S3Session, stray: readonly string[]): Promise<void> {
  const { target, store, record, outcome } = session;
  await forEachOf(stray, target.jobs, async (path) => {
    await session.ask((options) => store.remove(target.address.prefix + path, options));
    record.entries.delete(path);
    outcome.changes.push(deletionOf(path));
  });
}

function remember({ record }: S3Session, { file, headers }: Send, content: Content, etag: string) {
  const { sha256 } = content;
  record.entries.set(file.path, { etag, sha256, headers: headerLine(headers) });
}

function problemOf(file: LocalFile, error: unknown): string {
  const text = messageOf(error);
  const shown = JSON.stringify(file.path);
  return text.startsWith(shown) ? text : `${shown}: ${text}`;
}

function changeOf({ action, file }: Send): Change {
  return { action, path: file.path, size: file.size };
}

function deletionOf(path: string): Change {
  return { action: "delete", path, size: 0 };
}
