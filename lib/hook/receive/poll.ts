import { messageOf } from "../../core/errors.ts";
import { isSafeRef, isSha } from "../../core/names.ts";
import { textOf } from "../../git/git.ts";
import { hasEnded, type RunStore } from "../../run-store/run-store.ts";
import { checkoutBranch, gitAs } from "../runs/checkout.ts";
import type { RepoConfig, Settings } from "../config/config.ts";
import { matchesRef } from "../payload/payload.ts";
import type { Problems } from "../telemetry/overview.ts";
import type { Scheduler } from "../runs/scheduler.ts";
import type { ServerLog } from "../telemetry/telemetry.ts";

const lookTimeout = 60_000;
const maxLooks = 4;
const maxDelay = 86_400_000;

interface PollerParts {
  settings: Settings;
  store: RunStore;
  scheduler: Pick<Scheduler, "draining" | "waitingOf">;
  problems: Problems;
  log: ServerLog;
}

/**
 * Makes up for missed pushes: asks each repo's remote for its heads, as the repo's user, and runs what differs
 * from the last good run. A commit that fails again and again is tried at growing intervals.
 */
export class Poller {
  readonly #parts: PollerParts;
  readonly #lastLook = new Map<string, number>();
  readonly #queue: RepoConfig[] = [];
  readonly #looking = new Set<string>();
  #timer: NodeJS.Timeout | undefined;

  constructor(parts: PollerParts) {
    this.#parts = parts;
  }

  /** Look at all repos now, then each at its own interval. */
  start(): void {
    const intervals = [...this.#parts.settings.config.repos.values()].map(({ poll }) =>
      poll === false ? 60_000 : poll,
    );
    const shortest = Math.min(60_000, ...intervals);
    this.#timer = setInterval(() => this.lookAtDue(), Math.max(200, shortest / 2));
    this.lookAtDue();
  }

  /** Look no more. */
  stop(): void {
    clearInterval(this.#timer);
    this.#queue.length = 0;
  }

  private lookAtDue(): void {
    const now = Date.now();
    for (const repo of this.#parts.settings.config.repos.values()) {
      if (repo.poll === false || repo.on.push === false) continue;
      const last = this.#lastLook.get(repo.name);
      if (last !== undefined && now - last < repo.poll) continue;
      // a slow remote is not asked again before it has answered
      if (this.#looking.has(repo.name) || this.#queue.some(({ name }) => name === repo.name)) continue;
      this.#lastLook.set(repo.name, now);
      this.#queue.push(repo);
    }
    this.work();
  }

  private work(): void {
    while (this.#looking.size < maxLooks) {
      const repo = this.#queue.shift();
      if (!repo) return;
      this.#looking.add(repo.name);
      void this.look(repo).finally(() => {
        this.#looking.delete(repo.name);
        this.work();
      });
    }
  }

  private async look(repo: RepoConfig): Promise<void> {
    const begun = new Date().toISOString();
    try {
      const heads = await this.remoteHeads(repo);
      this.#parts.problems.set(`remote ${repo.name}`, undefined);
      for (const [ref, sha] of heads) await this.compare(repo, ref, sha, begun);
    } catch (error) {
      const problem = `cannot look for missed pushes of ${repo.name}: ${messageOf(error)}`;
      this.#parts.problems.set(`remote ${repo.name}`, this.#parts.settings.mask(problem));
      this.#parts.log.warn(problem);
    }
  }

  private async remoteHeads(repo: RepoConfig): Promise<Map<string, string>> {
    const branch = repo.refs ? undefined : await checkoutBranch(repo);
    const patterns = repo.refs ?? (branch === undefined ? [] : [branch]);
    const heads = new Map<string, string>();
    if (patterns.length === 0) return heads;
    const full = patterns.map((pattern) => (pattern.startsWith("refs/") ? pattern : `refs/heads/${pattern}`));
    const git = gitAs(repo)({ timeout: lookTimeout });
    const text = await textOf(git`git ls-remote -- origin ${full}`);
    for (const line of text.split("\n")) {
      const [sha = "", ref = ""] = line.split("\t");
      if (
        isSha(sha) &&
        ref.startsWith("refs/heads/") &&
        isSafeRef(ref) &&
        patterns.some((pattern) => matchesRef(pattern, ref))
      )
        heads.set(ref, sha);
    }
    return heads;
  }

  /** Run a ref's commit, unless it is built, under way, or failed not long ago. */
  private async compare(repo: RepoConfig, ref: string, sha: string, begun: string): Promise<void> {
    const { settings, scheduler, store, log } = this.#parts;
    if (scheduler.draining || !settings.config.repos.has(repo.name)) return;
    // it is found again by the next look
    if (scheduler.waitingOf(repo.name) >= settings.config.maxWaiting) return;
    const before = [...store.runs()].filter((run) => run.repo === repo.name && run.ref === ref);
    if (before.findLast(({ state }) => state === "succeeded")?.sha === sha) return;
    // pushed while the remote was asked: what it said may be older
    if (before.some(({ accepted }) => accepted >= begun)) return;
    const same = before.filter((run) => run.sha === sha);
    if (same.some((run) => !hasEnded(run))) return;
    const tries = same.filter(({ forge }) => forge === "poll");
    const delay = Math.min(maxDelay, (repo.poll || 0) * 2 ** Math.min(tries.length, 20));
    const last = Date.parse(tries.at(-1)?.accepted ?? "");
    if (last + delay > Date.now()) return;
    const payload = { ref, after: sha, repository: { full_name: repo.name }, poll: true };
    const [run] = await store.accept(
      { repo: repo.name, forge: "poll", event: "push" },
      [{ kind: "push", ref, sha }],
      Buffer.from(JSON.stringify(payload)),
    );
    log.info(`${repo.name} ${ref} is at ${sha}, which was not built yet: run ${run?.id}`);
  }
}
