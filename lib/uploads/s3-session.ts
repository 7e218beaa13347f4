import { setMaxListeners } from "node:events";
import { explainS3, isTransient, retryAfterOf } from "../s3/errors.ts";
import { openS3 } from "../s3/s3.ts";
import type { S3Target } from "./config.ts";
import { type Job, memoryLimit, withRetries } from "./job.ts";
import type { Outcome } from "./outcome.ts";
import { openPending, openRecord } from "./state.ts";

/** What all requests of one upload to S3 share. */
export type S3Session = Awaited<ReturnType<typeof openSession>>;

/** Open the bucket of a target; nothing is sent yet. */
export async function openSession(target: S3Target, job: Job, outcome: Outcome) {
  const { bucket, prefix } = target.address;
  const { endpoint } = target;
  const { state, signal, retries } = job;
  // every request under way listens for the end of the run
  setMaxListeners(0, signal);
  const record = await openRecord(state, target.name, `s3://${bucket}/${prefix} ${endpoint ?? ""}`);
  const store = await openS3({ ...target, bucket, connections: target.jobs + 4 });
  outcome.unchanged = 0;
  return {
    ...{ target, job, store, record, outcome },
    pending: await openPending(state, target.name),
    keyOf: (path: string) => prefix + path,
    /** Holds a request back until there is room in memory for its body. */
    inMemory: memoryLimit(40 * 1024 * 1024),
    /** Runs a request, again where that may help. @throws {S3Failure} */
    async ask<T>(request: (options: { signal: AbortSignal }) => Promise<T>): Promise<T> {
      const rules = { isTransient, retryAfter: retryAfterOf, signal, retries };
      try {
        return await withRetries(rules, () => request({ signal }));
      } catch (error) {
        if (signal.aborted) throw error;
        throw explainS3(error, { bucket, endpoint });
      }
    },
    async close(): Promise<void> {
      if (!job.dryRun) await record.save();
      store.close();
    },
  };
}
