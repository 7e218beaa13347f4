import type { KeyObject } from "node:crypto";
import { readdir, statfs } from "node:fs/promises";
import { uptime } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { messageOf } from "../../core/errors.ts";
import { isShortName } from "../../core/names.ts";
import { version } from "../../core/version.ts";
import { gitIn, textOf } from "../../git/git.ts";
import { HttpError } from "../../http/server.ts";
import type { RepoStatus, SignedOrder } from "../order.ts";
import { expiredWords } from "../signature.ts";
import { isUnchanged } from "../repo/checkout.ts";
import { hidden, placeOf, servedAt } from "../repo/state.ts";
import { branchOf, isAllowed, settingsFor, type SlaveSettings } from "../settings.ts";
import { type Job, Jobs, type Wanted } from "./jobs.ts";
import { Orders } from "./taken-once.ts";

/** A slave: what it was asked for and what it serves, however it is asked. */

export interface SlaveOptions extends InventoryOptions {
  /** Jobs, orders and nonces. */
  state: string;
  jobs: number;
  queue: number;
  /** Public keys of masters. */
  keys: readonly KeyObject[];
  /** Its own key, which signs its answers. */
  identity: KeyObject | undefined;
  /** Do one update; throws with the reason when it fails. */
  run: (job: Job) => Promise<{ before?: string | undefined; sha: string }>;
  note: (line: string) => void;
}

export interface Slave {
  options: SlaveOptions;
  jobs: Jobs;
  inventory: Inventory;
  /** @throws {HttpError} 403 for a repo that must not be asked for */
  checkAllowed(repo: string): void;
  /**
   * Start or join a job, once what was asked for is known to be allowed.
   * @param by who asked, for the log
   * @returns its id
   * @throws {HttpError} with the reason, when it is not taken
   */
  take(wanted: Omit<Wanted, "order">, by: string, order?: SignedOrder): Promise<string>;
}

/** Read what an earlier server left, and go on with it. */
export async function openSlave(options: SlaveOptions): Promise<Slave> {
  const { note, settings, allow } = options;
  const jobs = new Jobs({
    dir: join(options.state, "jobs"),
    jobs: options.jobs,
    queue: options.queue,
    run: options.run,
    onError: (error) => note(`job: ${messageOf(error)}`),
  });
  const orders = new Orders(join(options.state, "orders"));
  await jobs.open();
  await orders.open(jobs.all().flatMap(({ repo, job, order }) => (order ? [{ repo, job, ...order }] : [])));

  function checkAllowed(repo: string): void {
    if (!isAllowed(repo, allow)) throw new HttpError(403, `repo "${repo}" is not allowed here`);
  }

  async function take(wanted: Omit<Wanted, "order">, by: string, signed?: SignedOrder): Promise<string> {
    const { repo, sha, branch } = wanted;
    checkAllowed(repo);
    const own = branchOf(repo, settings);
    if (branch !== undefined && own !== undefined && branch !== own)
      throw new HttpError(409, `this slave serves ${own} of ${repo}, as its slave.yml says, not ${branch}`);
    let isNew = signed === undefined;
    const start = async (order?: Wanted["order"]) => {
      isNew = true;
      return await jobs.request({ ...wanted, order });
    };
    const job = signed
      ? await orders.take(signed, async () => {
          const late = expiredWords(signed.order.until, Date.now());
          if (late !== undefined) throw new HttpError(401, late);
          return await start({ at: signed.order.at, signature: signed.signature });
        })
      : (await start()).job;
    const who = signed ? `run ${signed.order.run} of the master with key ${signed.key}` : by;
    const again = isNew ? "" : ", again";
    note(`${job} ${repo}${sha === undefined ? "" : ` ${sha}`} requested by ${who}${again}`);
    return job;
  }
  return { options, jobs, inventory: new Inventory(options, jobs), checkAllowed, take };
}

/** What runs here: for `GET /status` and for Prometheus. */

export interface InventoryOptions {
  settings: SlaveSettings;
  repos: string;
  /** Patterns of repos that may be asked for; none: all. */
  allow: readonly string[];
  names: readonly string[];
}

let gitVersion: Promise<string | undefined> | undefined;

function readGitVersion(): Promise<string | undefined> {
  return textOf(gitIn("/")`git --version`).then(
    (text) => text.replace("git version ", ""),
    () => undefined,
  );
}

export class Inventory {
  readonly #options: InventoryOptions;
  readonly #jobs: Jobs;
  readonly #started = new Date();

  constructor(options: InventoryOptions, jobs: Jobs) {
    this.#options = options;
    this.#jobs = jobs;
  }

  /**
   * What is served of a repo; undefined when nothing is.
   * @param verify also compare the served tree with its commit, file by file
   */
  async repo(repo: string, verify: boolean): Promise<RepoStatus | undefined> {
    const place = placeOf(this.#options.repos, repo);
    const { tree, plain } = await servedAt(place);
    const error = this.lastError(repo);
    if (!tree) return plain || error !== undefined ? { repo, plain, error } : undefined;
    const { sha, branch, since, pending } = tree;
    if (tree.plain) return { repo, plain: true, since, error };
    const status: RepoStatus = { repo, sha, branch, since, pending, error };
    if (!verify) return status;
    const { after, check } = settingsFor(repo, this.#options.settings, {});
    const strict = after === undefined && check === undefined;
    return { ...status, written: !(await isUnchanged(place, tree, { strict }, {})) };
  }

  /** All repos, and the machine they are on. */
  async all(verify: boolean): Promise<Record<string, unknown>> {
    const { names, repos } = this.#options;
    const found = await Promise.all((await this.names()).map((each) => this.repo(each, verify)));
    const disk = await statfs(repos).catch(() => undefined);
    return {
      name: names[0],
      boatyard: version,
      node: process.versions["deno"] ? `deno ${process.versions["deno"]}` : process.versions.node,
      git: await (gitVersion ??= readGitVersion()),
      free: disk && disk.bavail * disk.bsize,
      uptime: Math.round(uptime()),
      started: this.#started.toISOString(),
      repos: found.filter((each) => each !== undefined),
    };
  }

  /** The repos that are here, and may be asked for. */
  private async names(): Promise<string[]> {
    const { repos, allow } = this.#options;
    const list = (folder: string) => readdir(folder).catch(() => []);
    const names = [...(await list(repos)), ...(await list(join(repos, hidden)))];
    const all = new Set([...names, ...this.#jobs.all().map(({ repo }) => repo)]);
    return [...all].filter((name) => isShortName(name) && isAllowed(name, allow)).sort();
  }

  private lastError(repo: string): string | undefined {
    const last = this.#jobs
      .all()
      .findLast((job) => job.repo === repo && (job.state === "done" || job.state === "failed"));
    return last?.error;
  }

  /** Prometheus' text format 0.0.4. */
  async metrics(): Promise<string> {
    const { repos, free } = (await this.all(false)) as { repos: RepoStatus[]; free?: number };
    const { running, queued } = this.#jobs.counts;
    const { done, failed, seconds } = this.#jobs.finished;
    const label = (text = "") => text.replace(/[\\"\n]/g, (each) => (each === "\n" ? "\\n" : `\\${each}`));
    const of = (repo: string) => `{repo="${label(repo)}"}`;
    return [
      ...metric("jobs", "gauge", "Updates that run or wait.", [
        [`{state="running"}`, running],
        [`{state="queued"}`, queued],
      ]),
      ...metric("jobs_finished_total", "counter", "Updates that ended, by result.", [
        [`{result="done"}`, done],
        [`{result="failed"}`, failed],
      ]),
      ...metric("job_seconds_total", "counter", "Seconds that ended updates took.", [["", seconds]]),
      ...metric(
        "repo_info",
        "gauge",
        "What is served.",
        repos.map(({ repo, sha, branch }) => [
          `{repo="${label(repo)}",sha="${label(sha)}",branch="${label(branch)}"}`,
          1,
        ]),
      ),
      ...metric(
        "repo_since_seconds",
        "gauge",
        "When it was put in place, in seconds since 1970.",
        repos.flatMap(({ repo, since }) =>
          since === undefined ? [] : [[of(repo), Date.parse(since) / 1000] as const],
        ),
      ),
      ...metric(
        "repo_failed",
        "gauge",
        "1 when the last update failed.",
        repos.map(({ repo, error }) => [of(repo), error === undefined ? 0 : 1]),
      ),
      ...metric("free_bytes", "gauge", "Free space where the repos are.", [["", free ?? 0]]),
      "",
    ].join("\n");
  }
}

function metric(
  name: string,
  type: "counter" | "gauge",
  help: string,
  values: readonly (readonly [labels: string, value: number])[],
): string[] {
  const full = `boatyard_slave_${name}`;
  return [
    `# HELP ${full} ${help}`,
    `# TYPE ${full} ${type}`,
    ...values.map(([labels, value]) => `${full}${labels} ${value}`),
  ];
}
