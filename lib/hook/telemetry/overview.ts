import { statfs } from "node:fs/promises";
import { messageOf } from "../../core/errors.ts";
import { formatSize } from "../../core/units.ts";
import type { Overview } from "../../page/page.ts";
import { hasResult, type Run } from "../../run-store/run-store.ts";

/** The overview as `GET /overview` tells it: what the page shows at `/`. */

/** So many of each repo's last runs are told. */
export const shownRuns = 30;

export interface OverviewAnswer {
  /** What is wrong with the machine, a line each. */
  readonly problems: readonly string[];
  /** The worst first. */
  readonly repos: readonly RepoState[];
  readonly running: readonly ShortRun[];
  /** The oldest first; `behind`: the run of the same repo that is under way. */
  readonly waiting: readonly (ShortRun & { readonly behind?: string | undefined })[];
}

export interface RepoState {
  readonly repo: string;
  /** The last run that ended, superseded ones left out. */
  readonly last?: ShortRun | undefined;
  readonly running?: ShortRun | undefined;
  readonly waiting: number;
  /** The last runs that ended, the newest first. */
  readonly recent: readonly Pick<Run, "id" | "state" | "seconds">[];
}

/** A run without its stages and what only its own page tells. */
export type ShortRun = ReturnType<typeof short>;

/** Pure. */
export function overviewOf(overview: Overview, problems: readonly string[]): OverviewAnswer {
  return {
    problems,
    repos: overview.repos.map(({ name, last, running, waiting, runs }) => ({
      repo: name,
      last: last && short(last),
      running: running && short(running),
      waiting,
      recent: runs
        .filter(hasResult)
        .slice(0, shownRuns)
        .map(({ id, state, seconds }) => ({ id, state, seconds })),
    })),
    running: overview.running.map(short),
    waiting: overview.waiting.map(({ run, behind }) => ({ ...short(run), behind: behind?.id })),
  };
}

function short(run: Run) {
  const { id, repo, forge, ref, sha, state, reason, accepted, started, ended, seconds, commit } = run;
  return { id, repo, forge, ref, sha, state, reason, accepted, started, ended, seconds, commit };
}

/** What is wrong with the machine, for those who look at the page: what was told, and what the disk is like now. */
export class Problems {
  readonly #told = new Map<string, string>();

  /** Note a problem under a name, or that there is none any more. */
  set(name: string, problem: string | undefined): void {
    if (problem === undefined) this.#told.delete(name);
    else this.#told.set(name, problem);
  }

  /** @param state the folder whose disk is looked at. */
  async list(state: string): Promise<string[]> {
    return [...(await diskProblem(state)), ...this.#told.values()];
  }
}

async function diskProblem(state: string): Promise<string[]> {
  try {
    const { bavail, blocks, bsize } = await statfs(state);
    const [free, share] = [bavail * bsize, bavail / Math.max(1, blocks)];
    return share < 0.05 || free < 256 * 1024 * 1024
      ? [`The disk of ${state} is nearly full: ${formatSize(free)} are free`]
      : [];
  } catch (error) {
    return [`The disk of ${state} cannot be looked at: ${messageOf(error)}`];
  }
}
