import { shortRef } from "../../core/names.ts";
import type { Notice } from "../../notify/notify.ts";
import type { CommitStatus, StatusState } from "../../statuses/statuses.ts";
import type { Run, RunState } from "../../run-store/run-store.ts";
import { failedStage } from "./run-stages.ts";

/** What is said of a run: beside its commit, in messages, and to the commands that are told of it. Pure. */

/** The page of a run; undefined when the server has no address. */
export function runUrl(base: string | undefined, id: string): string | undefined {
  return base === undefined ? undefined : `${base.replace(/\/+$/, "")}/runs/${id}`;
}

const states: Readonly<Record<RunState, StatusState>> = {
  waiting: "waiting",
  starting: "running",
  running: "running",
  succeeded: "ok",
  failed: "failed",
  cancelled: "cancelled",
  superseded: "superseded",
};

/** The stage in which a run failed. */
export function stageOf({ stages, state, step = 0 }: Run): string | undefined {
  if (state !== "failed") return undefined;
  return failedStage(stages)?.name ?? (step > 0 ? "on_success" : undefined);
}

/** The commit that a run is about: as the forge told it, else what the released tag was. */
export function commitOf({ sha, built }: Run): string | undefined {
  return sha ?? built;
}

/** The status of a run's commit; undefined when its commit is not known. */
export function statusOf(
  record: Run,
  { url, context }: { url: string | undefined; context: string },
): CommitStatus | undefined {
  const { repo, ref, kind } = record;
  const sha = commitOf(record);
  if (sha === undefined) return undefined;
  return {
    ...{ repo, sha, ref, context: `${context}/${kind}`, state: states[record.state] },
    description: descriptionOf(record),
    url: runUrl(url, record.id),
  };
}

function descriptionOf(record: Run): string {
  const { state, seconds, reason, cancelledBy } = record;
  const took = seconds === undefined ? "" : ` after ${seconds.toFixed(1)} s`;
  switch (state) {
    case "waiting":
      return "waits for its turn";
    case "starting":
    case "running":
      return "is running";
    case "succeeded":
      return `succeeded${took}`;
    case "failed":
      return `failed${took}${reason ? `: ${reason}` : ""}`;
    case "cancelled":
      return cancelledBy === undefined ? `cancelled: ${reason ?? ""}` : `cancelled by ${cancelledBy}`;
    case "superseded":
      return "superseded by a newer push";
  }
}

/** What people are told of a run that succeeded or failed. */
export function noticeOf(record: Run, { url, lines }: { url: string | undefined; lines: readonly string[] }): Notice {
  const { id, repo, kind, ref, release, commit, state, reason, seconds } = record;
  const branch = shortRef(ref);
  return {
    ...{ id, by: "hook-server", repo, reason, seconds, sha: commitOf(record), lines },
    subject: kind === "release" ? `${repo} releases` : `${repo} ${branch}`,
    outcome: state === "failed" ? "failed" : "ok",
    what: `${kind === "release" ? `release ${release?.tag ?? branch}` : "push"} ${state}`,
    at: record.ended ?? record.accepted,
    stage: stageOf(record),
    ref,
    title: commit?.title,
    author: commit?.author,
    pusher: commit?.pusher,
    url: runUrl(url, id),
  };
}

/** RUN_*: what the commands that are told of a run get beside HOOK_*. */
export function endVariables(
  record: Run,
  { url, logFile, now = Date.now() }: { url: string | undefined; logFile: string; now?: number },
): Record<string, string> {
  const since = Date.parse(record.started ?? record.accepted);
  const seconds = record.seconds ?? Math.max(0, now - since) / 1000;
  return {
    // the commands of on_success are a part of the run, which is good so far
    RUN_RESULT: record.state === "failed" ? "failed" : "succeeded",
    RUN_STAGE: stageOf(record) ?? "",
    RUN_SECONDS: seconds.toFixed(1),
    RUN_URL: runUrl(url, record.id) ?? "",
    RUN_LOG: logFile,
  };
}

/**
 * Which of the configured forges gets the status of a run: the one its repo names (`given`), else the one its commit's
 * link leads to, else the only one. `problem` says why none of them does.
 */
export function forgeOf(
  { commit, release }: Run,
  hosts: readonly string[],
  given: string | undefined,
): { host?: string | undefined; problem?: string } {
  if (hosts.length === 0) return {};
  if (given !== undefined) return { host: hosts.find((each) => each === given) };
  const link = [commit?.url, release?.url].find((each) => each !== undefined && URL.canParse(each));
  if (link === undefined)
    return hosts.length === 1
      ? { host: hosts[0] }
      : { problem: `its delivery has no link to the commit; ${whichForge(hosts)}` };
  const { host } = new URL(link);
  return hosts.includes(host) ? { host } : { problem: `its commit's link leads to ${host}, which is not under forge:` };
}

/** What to do where nothing says which of several forges a repo is at. */
export function whichForge(hosts: readonly string[]): string {
  return `set forge: at the repo, to ${hosts.join(" or ")}`;
}
