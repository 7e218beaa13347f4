import { mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { userEnvironment } from "../exec/as-user.ts";
import { messageOf } from "../core/errors.ts";
import { readIfThere, writeAtomic } from "../files/files.ts";
import { git, gitText } from "../git/git.ts";
import { isSafeRef, isSha } from "../core/names.ts";
import type { RepoConfig } from "./config-repo.ts";
import { matchesRef } from "./decide.ts";
import type { RunRecord } from "./records.ts";
import type { ServerLog } from "./server-log.ts";
import type { Yard } from "./yard.ts";

/** What is known of a ref: the commit of its last good run, and how often another one failed since. */
interface Standing {
  good?: string;
  /** The last commit that a look at the remote started a run for. */
  tried?: string;
  tries?: number;
  /** ISO time before which `tried` is not tried again. */
  notBefore?: string;
}

const lookTimeout = 60_000;
const looksAtOnce = 4;
const longestWait = 86_400_000;

/**
 * Makes up for missed pushes: asks each repo's remote for its heads, as the repo's user, and runs what differs
 * from the last good run. A commit that fails again and again is tried at growing intervals.
 */
export class Reconciler {
  readonly #yard: () => Yard;
  readonly #log: ServerLog;
  readonly #standings = new Map<string, Promise<Record<string, Standing>>>();
  readonly #branches = new Map<string, Promise<string | undefined>>();
  readonly #lastLook = new Map<string, number>();
  readonly #queue: (() => Promise<void>)[] = [];
  #looking = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(yard: () => Yard, log: ServerLog) {
    this.#yard = yard;
    this.#log = log;
  }

  /** Look at all repos now, then each at its own interval. */
  start(): void {
    const tick = () => {
      const now = Date.now();
      for (const repo of this.#yard().config.repos.values()) {
        if (repo.poll === false || repo.on.push === false) continue;
        const last = this.#lastLook.get(repo.name);
        if (last !== undefined && now - last < repo.poll) continue;
        this.#lastLook.set(repo.name, now);
        this.#queue.push(() => this.#look(repo));
      }
      this.#work();
    };
    const shortest = Math.min(
      60_000,
      ...[...this.#yard().config.repos.values()].map((repo) =>
        repo.poll === false ? 60_000 : repo.poll,
      ),
    );
    this.#timer = setInterval(tick, Math.max(200, shortest / 2));
    tick();
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#queue.length = 0;
  }

  restart(): void {
    this.stop();
    this.#branches.clear();
    this.start();
  }

  #work(): void {
    while (this.#looking < looksAtOnce) {
      const look = this.#queue.shift();
      if (!look) return;
      this.#looking += 1;
      void look().finally(() => {
        this.#looking -= 1;
        this.#work();
      });
    }
  }

  async #look(repo: RepoConfig): Promise<void> {
    try {
      const heads = await this.#heads(repo);
      for (const [ref, sha] of heads) await this.#compare(repo, ref, sha);
    } catch (error) {
      this.#log.warn(`cannot look for missed pushes of ${repo.name}: ${messageOf(error)}`);
    }
  }

  async #heads(repo: RepoConfig): Promise<Map<string, string>> {
    const branch = repo.refs ? undefined : await this.checkoutBranch(repo);
    const patterns = repo.refs ?? (branch === undefined ? [] : [branch]);
    const heads = new Map<string, string>();
    if (patterns.length === 0) return heads;
    const full = patterns.map((pattern) =>
      pattern.startsWith("refs/") ? pattern : `refs/heads/${pattern}`,
    );
    const text = await gitText(["ls-remote", "--", "origin", ...full], this.#asRepo(repo));
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

  #asRepo(repo: RepoConfig) {
    return {
      dir: repo.dir,
      user: repo.user,
      env: userEnvironment(repo.user),
      timeout: lookTimeout,
    };
  }

  async #compare(repo: RepoConfig, ref: string, sha: string): Promise<void> {
    const yard = this.#yard();
    if (yard.draining || !yard.config.repos.has(repo.name)) return;
    const standings = await this.#standingsOf(repo.name);
    const standing = standings[ref] ?? {};
    if (standing.good === sha) return;
    const underWay = [...yard.queue.entries()].some(
      (entry) => entry.repo === repo.name && entry.ref === ref && entry.sha === sha,
    );
    if (underWay) return;
    const sameAsBefore = standing.tried === sha;
    if (
      sameAsBefore &&
      standing.notBefore !== undefined &&
      Date.parse(standing.notBefore) > Date.now()
    )
      return;
    const tries = sameAsBefore ? (standing.tries ?? 0) + 1 : 1;
    const wait = Math.min(
      longestWait,
      (repo.poll === false ? 0 : repo.poll) * 2 ** Math.min(tries, 20),
    );
    standings[ref] = {
      ...standing,
      tried: sha,
      tries,
      notBefore: new Date(Date.now() + wait).toISOString(),
    };
    const payload = Buffer.from(
      JSON.stringify({ ref, after: sha, repository: { full_name: repo.name }, poll: true }),
    );
    const [entry] = await yard.accept(
      { repo: repo.name, forge: "poll", event: "push" },
      [{ kind: "push", ref, sha }],
      payload,
    );
    this.#log.info(`${repo.name} ${ref} is at ${sha}, which was not built yet: run ${entry?.id}`);
    await this.#write(repo.name, standings);
  }

  /** A run ended well: its commit is what the ref stands at. */
  async good(record: RunRecord): Promise<void> {
    // only branches are looked after
    if (record.sha === undefined || !record.ref.startsWith("refs/heads/")) return;
    try {
      const standings = await this.#standingsOf(record.repo);
      standings[record.ref] = { good: record.sha };
      await this.#write(record.repo, standings);
    } catch (error) {
      // at worst the commit is built once more
      this.#log.warn(`what ${record.repo} stands at cannot be written: ${messageOf(error)}`);
    }
  }

  #file(repo: string): string {
    return join(this.#yard().config.state, "heads", `${encodeURIComponent(repo)}.json`);
  }

  #standingsOf(repo: string): Promise<Record<string, Standing>> {
    let standings = this.#standings.get(repo);
    if (!standings) {
      standings = readIfThere(this.#file(repo)).then((text) => {
        const read: Record<string, Standing> = Object.create(null);
        try {
          return Object.assign(read, JSON.parse(text ?? "{}"));
        } catch {
          return read;
        }
      });
      this.#standings.set(repo, standings);
    }
    return standings;
  }

  async #write(repo: string, standings: Record<string, Standing>): Promise<void> {
    const file = this.#file(repo);
    await mkdir(dirname(file), { recursive: true, mode: 0o700 });
    // not worth an fsync a run: at worst a commit is built once more after a power cut
    const text = `${JSON.stringify(standings, null, 2)}\n`;
    await writeAtomic(file, text, { mode: 0o600, durable: false });
  }

  /** The branch that a repo's checkout is on, as git tells its user; remembered until the next reload or run. */
  checkoutBranch(repo: RepoConfig): Promise<string | undefined> {
    let branch = this.#branches.get(repo.name);
    if (!branch) {
      branch = git(["symbolic-ref", "--quiet", "--short", "HEAD"], {
        ...this.#asRepo(repo),
        timeout: 5000,
        check: false,
      }).then(
        ({ code, stdout }) => (code === 0 ? stdout.trim() : undefined),
        () => undefined,
      );
      this.#branches.set(repo.name, branch);
    }
    return branch;
  }

  /** The next question after the checkout's branch asks git again. */
  forgetBranch(repo: string): void {
    this.#branches.delete(repo);
  }
}
