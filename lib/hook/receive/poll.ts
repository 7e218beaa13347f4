import { mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { messageOf } from "../../core/errors.ts";
import { isSafeRef, isSha } from "../../core/names.ts";
import { readIfThere, writeAtomic } from "../../files/files.ts";
import { textOf } from "../../git/git.ts";
import { checkoutBranch, gitAs } from "../runs/checkout.ts";
import type { RepoConfig, Settings } from "../config/config.ts";
import { matchesRef } from "../payload/payload.ts";
import type { RunRecord } from "../runs/records.ts";
import type { Problems } from "../telemetry/overview.ts";
import type { Entry } from "../store/entry.ts";
import type { Queue } from "../store/queue.ts";
import type { Store } from "../store/store.ts";
import type { ServerLog } from "../telemetry/telemetry.ts";

/** What is known of a ref: the commit of its last good run, and how often another one failed since. */
interface RefStatus {
  good?: string;
  /** The last commit that a look at the remote started a run for. */
  tried?: string;
  tries?: number;
  /** ISO time before which `tried` is not tried again. */
  notBefore?: string;
}

type RepoStatus = Record<string, RefStatus>;

/** What is known of each repo's refs: STATE/heads, with the status of every ref. */
export class Heads {
  readonly #folder: string;
  readonly #log: ServerLog;
  readonly #repos = new Map<string, Promise<RepoStatus>>();

  constructor(state: string, log: ServerLog) {
    this.#folder = join(state, "heads");
    this.#log = log;
  }

  /** A run succeeded: its commit is its ref's last good one. */
  async succeeded(record: Pick<RunRecord, "repo" | "ref" | "sha">): Promise<void> {
    // only branches are polled
    if (record.sha === undefined || !record.ref.startsWith("refs/heads/")) return;
    try {
      const status = await this.of(record.repo);
      status[record.ref] = { good: record.sha };
      await this.save(record.repo, status);
    } catch (error) {
      // at worst the commit is built once more
      this.#log.warn(`the last good commit of ${record.repo} cannot be written: ${messageOf(error)}`);
    }
  }

  /** The status of a repo's refs; what is changed in it is to be saved. */
  of(repo: string): Promise<RepoStatus> {
    let status = this.#repos.get(repo);
    if (!status) {
      status = readIfThere(this.file(repo)).then(parseStatus);
      this.#repos.set(repo, status);
    }
    return status;
  }

  async save(repo: string, status: RepoStatus): Promise<void> {
    const file = this.file(repo);
    await mkdir(dirname(file), { recursive: true, mode: 0o700 });
    // not worth an fsync a run: at worst a commit is built once more after a power cut
    const text = `${JSON.stringify(status, null, 2)}\n`;
    await writeAtomic(file, text, { mode: 0o600, durable: false });
  }

  private file(repo: string): string {
    return join(this.#folder, `${encodeURIComponent(repo)}.json`);
  }
}

function parseStatus(text: string | undefined): RepoStatus {
  const status: RepoStatus = Object.create(null);
  try {
    return Object.assign(status, JSON.parse(text ?? "{}"));
  } catch {
    return status;
  }
}

const lookTimeout = 60_000;
const maxLooks = 4;
const maxDelay = 86_400_000;

interface PollerParts {
  settings: Settings;
  heads: Heads;
  scheduler: {
    readonly draining: boolean;
    readonly queue: Pick<Queue<Entry>, "entries" | "waitingOf">;
  };
  accept: Store["accept"];
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
  #looking = 0;
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
      this.#lastLook.set(repo.name, now);
      this.#queue.push(repo);
    }
    this.work();
  }

  private work(): void {
    while (this.#looking < maxLooks) {
      const repo = this.#queue.shift();
      if (!repo) return;
      this.#looking += 1;
      void this.look(repo).finally(() => {
        this.#looking -= 1;
        this.work();
      });
    }
  }

  private async look(repo: RepoConfig): Promise<void> {
    try {
      const heads = await this.remoteHeads(repo);
      this.#parts.problems.set(`remote ${repo.name}`, undefined);
      for (const [ref, sha] of heads) await this.compare(repo, ref, sha);
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
  private async compare(repo: RepoConfig, ref: string, sha: string): Promise<void> {
    const { settings, scheduler } = this.#parts;
    if (scheduler.draining || !settings.config.repos.has(repo.name)) return;
    // it is found again by the next look
    if (scheduler.queue.waitingOf(repo.name) >= settings.config.maxWaiting) return;
    const statuses = await this.#parts.heads.of(repo.name);
    const status = statuses[ref] ?? {};
    if (status.good === sha) return;
    const isUnderWay = [...scheduler.queue.entries()].some(
      (entry) => entry.repo === repo.name && entry.ref === ref && entry.sha === sha,
    );
    if (isUnderWay) return;
    const sameAsBefore = status.tried === sha;
    if (sameAsBefore && status.notBefore !== undefined && Date.parse(status.notBefore) > Date.now()) return;
    const tries = sameAsBefore ? (status.tries ?? 0) + 1 : 1;
    const delay = Math.min(maxDelay, (repo.poll || 0) * 2 ** Math.min(tries, 20));
    statuses[ref] = {
      ...status,
      tried: sha,
      tries,
      notBefore: new Date(Date.now() + delay).toISOString(),
    };
    const payload = { ref, after: sha, repository: { full_name: repo.name }, poll: true };
    const [entry] = await this.#parts.accept(
      { repo: repo.name, forge: "poll", event: "push" },
      [{ kind: "push", ref, sha }],
      Buffer.from(JSON.stringify(payload)),
    );
    this.#parts.log.info(`${repo.name} ${ref} is at ${sha}, which was not built yet: run ${entry?.id}`);
    await this.#parts.heads.save(repo.name, statuses);
  }
}
