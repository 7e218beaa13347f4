import type { S3Store } from "../s3/s3.ts";
import type { S3Target } from "./config.ts";
import type { Job } from "./job.ts";
import type { createBudget } from "./pool.ts";
import type { Pending } from "./state.ts";

/** What all parts of one upload to S3 share. */
export interface S3Session {
  target: S3Target;
  job: Job;
  store: S3Store;
  pending: Pending;
  /** Runs a request, again where that may help; throws S3Failure. */
  ask<T>(request: () => Promise<T>): Promise<T>;
  /** Holds a request back until there is room in memory for its body. */
  budget: ReturnType<typeof createBudget>;
  /** Buffers for parts that are free to be used again. */
  buffers: Buffer[];
}
