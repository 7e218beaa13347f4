import type { IncomingMessage, ServerResponse } from "node:http";
import type { Mask } from "../core/mask.ts";
import type { IgnoredDelivery } from "../run-store/ignored.ts";
import type { Run } from "../run-store/run-store.ts";

/** What the page shows and may ask for: hook-server gives it, and the page knows no more of the server than this. */

/** `see`: all runs and logs. `steer`: rerun and cancel as well. */
export type Right = "see" | "steer";

/** A secret by which somebody signs in, or a program sends its requests. */
export interface Credential {
  readonly name: string;
  readonly right: Right;
  readonly secret: string;
}

/** `status:` in hooks.yml, and what else the page is told there. */
export interface StatusSettings {
  readonly credentials: readonly Credential[];
  /** Where browsers find the server (`url:`), as an origin. */
  readonly origin: string | undefined;
  /** Whether anybody may see all repos. */
  readonly public: boolean;
  /** The header by which the proxy that has the Unix socket says who somebody is, and who of these may steer. */
  readonly trusted: { readonly header: string; readonly steer: readonly string[] } | undefined;
  /** Web folders to list. */
  readonly releases: readonly string[];
  /** The list of slaves that the master has, and the state folder of `server-update`. */
  readonly fleet: { readonly list: string; readonly state: string } | undefined;
}

export interface PageSource {
  /** Undefined: there is no page. */
  settings(): StatusSettings | undefined;
  /** All repos of hooks.yml; `public`: anybody may see it. */
  repos(): Iterable<{ readonly name: string; readonly public: boolean }>;
  /** All runs, the newest first. */
  runs(): readonly Run[];
  run(id: string): Run | undefined;
  /** The same with the stages as they are now. */
  whole(id: string): Promise<Run | undefined>;
  /** Changes with whatever `runs` gives. */
  revision(): string;
  ignored(repo: string, limit: number): readonly IgnoredDelivery[];
  /** What is wrong with the machine, a line each. */
  problems(): Promise<readonly string[]>;
  /** The file of a run's log, which may not be there yet. */
  logFile(id: string): string;
  mask(): Mask;
  /** Send a log as it is now. */
  sendLog(response: ServerResponse, run: Run): Promise<void>;
  /** Send a log as it grows, as server-sent events with positions as ids; `about` gives what else there is to say. */
  followLog(
    request: IncomingMessage,
    response: ServerResponse,
    run: Run,
    about?: () => Promise<string | undefined>,
  ): Promise<void>;
  /** @throws {HttpError} when the run has ended. */
  cancel(run: Run, by: string): Promise<void>;
  /** The new run's id; `from`: the stage it starts at. @throws {HttpError} when it cannot be run again. */
  rerun(run: Run, by: string, from?: string): Promise<string>;
}
