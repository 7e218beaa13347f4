import type { LocalFile } from "./folder.ts";
import type { State } from "./state.ts";

/** What every target is given to work on. */
export interface Job {
  /** The checkout, absolute. */
  dir: string;
  /** The folder that is published, absolute. */
  root: string;
  files: readonly LocalFile[];
  state: State;
  dryRun: boolean;
  /** How often a request or transfer is tried again where that may help. */
  retries: number;
  signal?: AbortSignal | undefined;
  /** More bytes are on their way, or have arrived. */
  expect(bytes: number): void;
  arrived(bytes: number, path: string): void;
  /** A word for the user, with the target's name in front. */
  note(text: string): void;
}

/** One thing that is done there, or would be. */
export interface Change {
  action: "new" | "replace" | "headers" | "delete";
  path: string;
  /** Bytes; 0 for a deletion. */
  size: number;
}

/** What became of a target. */
export interface Outcome {
  changes: Change[];
  /** Files that were the same already; undefined where the other side does not tell. */
  unchanged?: number | undefined;
  /** Bytes of file content that were sent. */
  bytes: number;
  /** What failed, a line each; empty when all is well. */
  problems: string[];
}
