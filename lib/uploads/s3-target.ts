import { setMaxListeners } from "node:events";
import { atEnd } from "../core/at-exit.ts";
import { messageOf } from "../core/errors.ts";
import { explainS3, isTransient, retryAfterOf, S3Failure } from "../s3/errors.ts";
import { openS3, type S3Store } from "../s3/s3.ts";
import type { S3Target } from "./config.ts";
import {
  type Content,
  contentOf,
  hashFile,
  type LocalFile,
  readWhole,
  wholeUpTo,
} from "./folder.ts";
import { headerLine } from "./headers.ts";
import {
  type Change,
  createBudget,
  forEachOf,
  type Job,
  type Outcome,
  withRetries,
} from "./job.ts";
import { abortStaleUploads, type S3Session, type Sent, sendInParts } from "./s3-parts.ts";
import { inOrder, isSame, planTarget, type Send } from "./s3-plan.ts";
import { openPending, openRecord, type S3Record } from "./state.ts";

/** Publish the folder to an S3 bucket: assets, then pages, then deletions, each only after all before went well. */
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

/** Bytes of bodies in memory at once. */
const bodyBytes = 40 * 1024 * 1024;

async function publish(target: S3Target, job: Job, store: S3Store): Promise<Outcome> {
  const { bucket, prefix } = target.address;
  const { state, signal } = job;
  const rules = { isTransient, retryAfter: retryAfterOf, signal, retries: job.retries };
  const session: S3Session = {
    ...{ target, job, store, budget: createBudget(bodyBytes) },
    pending: await openPending(state, target.name),
    async ask(request) {
      try {
        return await withRetries(rules, request);
      } catch (error) {
        if (signal?.aborted) throw error;
        throw explainS3(error, { bucket, endpoint: target.endpoint });
      }
    },
  };
  const place = `s3://${bucket}/${prefix} ${target.endpoint ?? ""}`;
  const record = await openRecord(state, target.name, place);
  const outcome: Outcome = { changes: [], unchanged: 0, bytes: 0, problems: [] };
  try {
    const listing = await session.ask(() => store.list(prefix, { signal }));
    warnOfClock(store, job);
    const plan = planTarget(target, job.files, listing, record);
    const sends = await withoutUnchanged(plan.sends, job, record, outcome);
    if (job.dryRun) {
      outcome.changes.push(...sends.map(changeOf), ...plan.stray.map(deletionOf));
      return outcome;
    }
    await abortStaleUploads(session, new Set(sends.map(({ file }) => file.path)));
    await sendAll(session, sends, record, outcome);
    await removeAll(session, plan.stray, record, outcome);
  } catch (error) {
    if (signal?.aborted) throw error;
    outcome.problems.push(messageOf(error));
  } finally {
    if (!job.dryRun) await record.save();
  }
  return outcome;
}

function warnOfClock(store: S3Store, job: Job): void {
  const minutes = Math.round(Math.abs(store.clockOffset()) / 60_000);
  if (minutes >= 4)
    job.note(`the clock here is ${minutes} minutes off from the server's; set it (timedatectl)`);
}

/** Reads and hashes the files of which only the content can tell whether they changed. */
async function withoutUnchanged(
  sends: readonly Send[],
  job: Job,
  record: S3Record,
  outcome: Outcome,
): Promise<Send[]> {
  const settled = new Set<Send>();
  await forEachOf(sends, 4, async (send) => {
    const { file, headers, compare } = send;
    if (!compare) return;
    try {
      const content = await knownContent(file, job);
      if (!isSame(content, compare, record.get(file.path))) return;
      outcome.unchanged = (outcome.unchanged ?? 0) + 1;
      const { sha256 } = content;
      record.set(file.path, { etag: compare.etag, sha256, headers: headerLine(headers) });
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
        if (session.job.signal?.aborted || (error instanceof S3Failure && error.fatal)) throw error;
        outcome.problems.push(problemOf(send.file, error));
      }
    });
  }
}

async function sendOne(
  session: S3Session,
  { file, headers }: Send,
  record: S3Record,
): Promise<void> {
  const when = Date.now();
  const large = file.size > wholeUpTo ? await sendInParts(session, file, headers) : undefined;
  const { content, stamp, etag } = large ?? (await sendWhole(session, file, headers));
  session.job.state.learn(file.path, stamp, content, when);
  record.set(file.path, { etag, sha256: content.sha256, headers: headerLine(headers) });
}

async function sendWhole(
  { target, job, store, ask, budget }: S3Session,
  file: LocalFile,
  headers: Send["headers"],
): Promise<Sent> {
  return await budget(file.size, async () => {
    const { stamp, ...body } = await readWhole(file);
    const key = target.address.prefix + file.path;
    const etag = await ask(() => store.put(key, body, headers, { signal: job.signal }));
    job.arrived(file.size, file.path);
    return { content: contentOf(body), stamp, etag };
  });
}

async function removeAll(
  { target, job, store, ask }: S3Session,
  stray: readonly string[],
  record: S3Record,
  outcome: Outcome,
): Promise<void> {
  if (outcome.problems.length > 0) {
    if (stray.length > 0)
      outcome.problems.push(`${stray.length} deletions were held back: not all was sent`);
    return;
  }
  await forEachOf(stray, target.jobs, async (path) => {
    await ask(() => store.remove(target.address.prefix + path, { signal: job.signal }));
    record.remove(path);
    outcome.changes.push(deletionOf(path));
  });
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
