import { isRunId } from "../../core/id.ts";
import type { Change } from "../payload/payload.ts";
import type { Waiting } from "./queue.ts";

/** Where a change comes from: a forge's delivery, `poll`, or `rerun`. */
export interface Source {
  readonly repo: string;
  readonly forge: string;
  readonly event: string;
  readonly delivery?: string | undefined;
  /** The run that was run again, and who asked for it. */
  readonly rerun?: { readonly of: string; readonly by: string } | undefined;
}

/** An accepted change that is to become a run. */
export interface Entry extends Waiting, Source, Change {
  /** ISO time. */
  readonly accepted: string;
  /** What several builders know of it: see the record of a run. */
  readonly builder?: string | undefined;
  readonly fence?: number | undefined;
  readonly attempts?: number | undefined;
  readonly interrupted?: string[] | undefined;
}

/** What is known of an accepted run, also after it has ended. */
export interface KnownRun {
  readonly entry: Entry;
  /** `waiting` while it has no end; else how it ended. */
  state: string;
  /** The run that superseded it. */
  by?: string | undefined;
}

/** Whether a value has what a run is made of: a person may have edited it. */
export function isEntry(value: unknown): value is Entry {
  const { id, repo, ref, kind, order, accepted } = Object(value) as Partial<Entry>;
  const isText = [id, repo, ref, accepted].every((text) => typeof text === "string");
  return (
    isText &&
    isRunId(id ?? "") &&
    Number.isFinite(Date.parse(accepted ?? "")) &&
    ["push", "release"].includes(kind ?? "") &&
    Number.isFinite(order)
  );
}
