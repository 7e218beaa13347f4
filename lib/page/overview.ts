import { shortRef } from "../core/names.ts";
import { hasResult, isUnderWay, type Run } from "./source.ts";

/** What the overview says: of each repo its last run, and what runs and waits. Pure; the page and the terminal show it. */

export interface RepoSummary {
  readonly name: string;
  /** The newest run that has ended, superseded ones left out. */
  readonly last: Run | undefined;
  /** What is under way. */
  readonly running: Run | undefined;
  /** How many wait. */
  readonly waiting: number;
  /** All runs of it, the newest first. */
  readonly runs: readonly Run[];
}

/** A run that waits, and what for. */
export interface Waiting {
  readonly run: Run;
  /** The run of its repo that is under way; undefined: it waits for room, or for its time. */
  readonly behind: Run | undefined;
}

export interface Overview {
  /** The worst first. */
  readonly repos: readonly RepoSummary[];
  readonly running: readonly Run[];
  /** The oldest first. */
  readonly waiting: readonly Waiting[];
}

/**
 * @param names the repos to be shown.
 * @param runs all runs, the newest first.
 */
export function planOverview(names: Iterable<string>, runs: readonly Run[]): Overview {
  const byRepo = new Map<string, Run[]>();
  for (const name of names) byRepo.set(name, []);
  for (const run of runs) byRepo.get(run.repo)?.push(run);
  const repos = [...byRepo].map(
    ([name, own]): RepoSummary => ({
      name,
      last: own.find(hasResult),
      running: own.find(isUnderWay),
      waiting: own.filter(({ state }) => state === "waiting").length,
      runs: own,
    }),
  );
  const running = repos.flatMap((repo) => repo.runs.filter(isUnderWay));
  const waiting = repos
    .flatMap((repo) => repo.runs.filter(({ state }) => state === "waiting"))
    .map((run) => ({ run, behind: byRepo.get(run.repo)?.find(isUnderWay) }))
    .sort((a, b) => (a.run.accepted < b.run.accepted ? -1 : 1));
  return { repos: repos.sort(worstFirst), running, waiting };
}

function badness({ last, running, waiting }: RepoSummary): number {
  if (last?.state === "failed") return 0;
  if (running) return 1;
  if (waiting > 0) return 2;
  if (last?.state === "cancelled") return 3;
  return last ? 4 : 5;
}

function worstFirst(a: RepoSummary, b: RepoSummary): number {
  const when = ({ runs }: RepoSummary) => runs[0]?.accepted ?? "";
  return badness(a) - badness(b) || when(b).localeCompare(when(a)) || a.name.localeCompare(b.name);
}

/** The run that the table shows of a repo. */
export function shownOf({ last, running, runs }: RepoSummary): Run | undefined {
  return running ?? last ?? runs[0];
}

/** What the filter looks for a text in, the server's and the script's: in lower case. */
export function wordsOf(repo: RepoSummary): string {
  const { ref = "", commit } = shownOf(repo) ?? {};
  const words = [repo.name, repo.last?.state, shortRef(ref), commit?.title, commit?.pusher];
  return words.join(" ").toLowerCase();
}
