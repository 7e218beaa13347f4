import { messageOf } from "../core/errors.ts";
import { forEachOf } from "../core/pool.ts";
import { S3Failure } from "../s3/errors.ts";
import type { S3Object } from "../s3/s3.ts";
import { type Content, contentOf, hashFile, readWhole, wholeUpTo } from "./content.ts";
import type { LocalFile } from "./folder.ts";
import { headerLine } from "./headers.ts";
import { type Change, isExpected } from "./outcome.ts";
import { type Sent, sendInParts } from "./s3-parts.ts";
import { isSame, type Send } from "./s3-plan.ts";
import type { S3Session } from "./s3-session.ts";

/** The steps of an upload to S3: what is there, what differs, sending, deleting. */

/** What is under the target's prefix. @throws {S3Failure} */
export async function listTarget({ target, job, store, ask }: S3Session): Promise<S3Object[]> {
  const listing = await ask((options) => store.list(target.address.prefix, options));
  const minutes = Math.round(Math.abs(store.clockOffset()) / 60_000);
  if (minutes >= 4) job.note(`the clock here is ${minutes} minutes off from the server's; set it (timedatectl)`);
  return listing;
}

/** What has to be sent; files of which only the content can tell whether they changed are read. */
export async function withoutUnchanged(session: S3Session, sends: readonly Send[]): Promise<Send[]> {
  const { job, record, outcome } = session;
  const settled = new Set<Send>();
  await forEachOf(sends, 4, async (send) => {
    const { file, compare } = send;
    if (!compare) return;
    try {
      const content = await knownContent(file, session);
      if (!isSame(content, compare, record.entries.get(file.path))) return;
      outcome.unchanged = (outcome.unchanged ?? 0) + 1;
      remember(session, send, content, compare.etag);
    } catch (error) {
      if (job.signal.aborted || !isExpected(error)) throw error;
      outcome.problems.push(problemOf(file, error));
    }
    settled.add(send);
  });
  return sends.filter((send) => !settled.has(send));
}

async function knownContent(file: LocalFile, { job }: S3Session): Promise<Content> {
  const known = job.state.known(file);
  if (known) return known;
  const { result: content, stamp } = await hashFile(file, job.signal);
  job.state.learn(file.path, content, stamp);
  return content;
}

/** Send files. What fails for one of them is a problem of the outcome. @throws {S3Failure} what would fail for each. */
export async function sendAll(session: S3Session, sends: readonly Send[]): Promise<void> {
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
      const isFatal = error instanceof S3Failure && error.fatal;
      if (job.signal.aborted || isFatal || !isExpected(error)) throw error;
      outcome.problems.push(problemOf(file, error));
    }
  });
}

async function sendWhole(session: S3Session, { file, headers }: Send): Promise<Sent> {
  const { job, store, ask, keyOf } = session;
  return await session.inMemory(file.size, async () => {
    const { result: body, stamp } = await readWhole(file);
    const etag = await ask((options) => store.put(keyOf(file.path), body, headers, options));
    job.arrived(file.size, file.path);
    return { content: contentOf(body), stamp, etag };
  });
}

/** Delete objects. @throws {S3Failure} */
export async function removeAll(session: S3Session, stray: readonly string[]): Promise<void> {
  const { target, store, record, outcome, ask, keyOf } = session;
  await forEachOf(stray, target.jobs, async (path) => {
    await ask((options) => store.remove(keyOf(path), options));
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

export function changeOf({ action, file }: Send): Change {
  return { action, path: file.path, size: file.size };
}

export function deletionOf(path: string): Change {
  return { action: "delete", path, size: 0 };
}
