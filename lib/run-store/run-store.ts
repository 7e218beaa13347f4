import type { Result } from "../log/format.ts";

/** What is known of runs, and the one place that knows it. */

export type RunState = "waiting" | "starting" | "running" | "succeeded" | "failed" | "cancelled" | "superseded";

/** Where a change comes from: a forge's delivery, `poll`, or `rerun`. */
export interface Source {
  readonly repo: string;
  readonly forge: string;
  readonly event: string;
  readonly delivery?: string | undefined;
  /** The run that was run again, who asked for it, and the stage it starts at. */
  readonly rerun?: { readonly of: string; readonly by: string; readonly from?: string | undefined } | undefined;
}

/** One thing that a delivery reports and that a run can be made of. */
export interface Change {
  readonly kind: "push" | "release";
  /** The full ref: `refs/heads/main`, `refs/tags/v1.2.3`. */
  readonly ref: string;
  /** The commit; undefined for a release whose forge does not tell it. */
  readonly sha: string | undefined;
  readonly release?: ReleaseFacts | undefined;
  readonly commit?: CommitFacts | undefined;
  /** It came when the checkout had no branch: it runs if the checkout is on this ref's branch when its turn comes. */
  readonly onlyIfCheckedOut?: boolean | undefined;
}

export interface ReleaseFacts {
  readonly tag: string;
  readonly name: string;
  readonly url: string;
  readonly prerelease: boolean;
}

/** What a forge tells of a commit. All of it is others' text, and says nothing about who may do what. */
export interface CommitFacts {
  /** The first line of its message. */
  readonly title?: string | undefined;
  readonly author?: string | undefined;
  /** Who pushed it, or published the release. */
  readonly pusher?: string | undefined;
  /** Its page at the forge: http or https. */
  readonly url?: string | undefined;
}

/** Who is still to be told of a run's end: its forge, people, the commands of the configuration. */
export type Telling = "status" | "message" | "commands";

/** A stage of a run. */
export interface RunStage {
  readonly name: string;
  /** Undefined while it is under way. */
  result?: Result | undefined;
  /** ISO. */
  readonly started: string;
  seconds?: number | undefined;
  /** Why it was skipped or failed, in a few words. */
  why?: string | undefined;
  /** Where in the log it begins and ends, in bytes. */
  from?: number | undefined;
  to?: number | undefined;
}

/** All that is known of a run. Times are ISO. A changed run is a new object. */
export interface Run extends Source, Change {
  readonly id: string;
  readonly accepted: string;
  readonly state: RunState;
  /** Why it failed, waits again, or was cancelled. */
  readonly reason?: string | undefined;
  /** The run that superseded it. */
  readonly by?: string | undefined;
  /** How many times it was started. */
  readonly attempt: number;
  /** When an earlier attempt was interrupted by the server's end. */
  readonly interrupted?: readonly string[] | undefined;
  readonly user?: string | undefined;
  readonly argv?: readonly string[] | undefined;
  readonly started?: string | undefined;
  readonly ended?: string | undefined;
  readonly seconds?: number | undefined;
  readonly exit?: number | undefined;
  /** Which of its commands is under way: 0 is the script, 1 the first of `on_success`. */
  readonly step?: number | undefined;
  /** By what a later server finds that command: its scope, the mark in its environment, its process. */
  readonly job?: JobMarks | undefined;
  /** Its stages, once the script has ended; while it runs its file in the run's folder knows more. */
  readonly stages?: readonly RunStage[] | undefined;
  readonly cancelledBy?: string | undefined;
  /** The commit of a released tag, where the forge did not tell it. */
  readonly built?: string | undefined;
  readonly tell?: readonly Telling[] | undefined;
  /** What its end means: the first failure after good, or the first good after a failure. */
  readonly change?: "broken" | "fixed" | undefined;
  /** Who asked for its end where it was not known whether it is under way here. */
  readonly cancelAsked?: string | undefined;
  /** Of several builders the one that ran it, and the fencing number of its claim. */
  readonly builder?: string | undefined;
  readonly fence?: number | undefined;
  /** The state folder of the builder that has its log, and tells of its end. */
  readonly home?: string | undefined;
}

export interface JobMarks {
  readonly scope?: string | undefined;
  readonly cookie?: string | undefined;
  readonly pid?: number | undefined;
  /** Its start in clock ticks since boot: with the pid it names one process. */
  readonly pidStart?: number | undefined;
}

/** What a run becomes; undefined: it stays as it is. Called when its turn to be written has come. */
export type Plan = (run: Run) => Run | undefined;

/** Told of each run that is known anew or has changed, once that is safe; `now`: undefined for one that was removed. */
export type Listener = (now: Run | undefined, before: Run | undefined) => void;

/**
 * The only place of facts about runs. What it gives is safe already: a crash takes nothing of it back. What a promise
 * rejects with left nothing behind.
 */
export interface RunStore {
  /** Accept a delivery's changes, all or none, as runs that wait. @throws what kept them from being kept */
  accept(source: Source, changes: readonly Change[], payload: Buffer): Promise<Run[]>;
  /** Change a run; resolves with what it is then, or undefined when `plan` left it as it was. */
  change(id: string, plan: Plan): Promise<Run | undefined>;
  /** Forget runs that have ended. */
  remove(ids: readonly string[]): Promise<void>;
  /** All runs, in the order in which they were accepted. */
  runs(): Iterable<Run>;
  /** Those that have not ended, in the same order. */
  open(): Iterable<Run>;
  get(id: string): Run | undefined;
  /** The run of a forge's delivery, which comes again when the forge has seen no answer. */
  runOf(repo: string, delivery: string): Run | undefined;
  /** What a run was made of; undefined when it is not kept any more. */
  payload(id: string): Promise<Buffer | undefined>;
  watch(listener: Listener): void;
  /** Changes with whatever `runs` gives. */
  readonly revision: number;
  close(): Promise<void>;
}

/** Whether nothing more comes of a run. */
export function hasEnded({ state }: Pick<Run, "state">): boolean {
  return state !== "waiting" && state !== "starting" && state !== "running";
}

/** Whether a run has ended and says something of its repo: one that was superseded does not. */
export function hasResult(run: Pick<Run, "state">): boolean {
  return hasEnded(run) && run.state !== "superseded";
}

/** Whether a run is being worked on. */
export function isUnderWay({ state }: Pick<Run, "state">): boolean {
  return state === "starting" || state === "running";
}

/** Whether a newer push to the same ref takes a run's place. */
export function isBranchPush({ kind, ref }: Pick<Run, "kind" | "ref">): boolean {
  return kind === "push" && ref.startsWith("refs/heads/");
}
