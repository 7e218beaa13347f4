import type { Checkout } from "../checkout.ts";
import type { RunOptions, RunResult } from "../exec.ts";

/** What a stage knows when it looks whether there is work for it. */
export interface Site {
  /** The folder that is built. */
  dir: string;
  /** Undefined for a folder that is no git checkout. */
  checkout?: Checkout | undefined;
  /** Where records are kept that are not the repo's business. */
  state: string;
  /** The complete environment of what a stage runs. */
  env: Readonly<Record<string, string>>;
  /** Stages do not skip themselves. */
  force: boolean;
  /** The run's id. */
  run: string;
}

/** How a stage speaks and runs commands while it works. */
export interface Doing {
  /** A line into the log and onto the terminal. */
  readonly say: (line: string) => void;
  /** Run a command whose output goes to the log; the stage's time limit holds. */
  run(
    argv: readonly string[],
    options?: RunOptions & { onLine?: (line: string) => void },
  ): Promise<RunResult>;
  /** Aborted when the stage's time is up, or the build is ended. */
  signal: AbortSignal;
}

/** How a stage's work ended well: a few words for the table; with `stop`, there is nothing for the stages after it. */
export interface Done {
  note?: string;
  /** Why the run ends here without being a failure. */
  stop?: string;
  /** The commit that the checkout stands at. */
  sha?: string;
}

/** What a stage found: nothing to do and why, or what it is going to do. */
export type Finding =
  | { skip: string }
  | {
      /** In words, for --dry-run: `npm ci`. */
      does: string;
      work(doing: Doing): Promise<Done | void>;
    };
