import type { KeyObject } from "node:crypto";
import { readdir, statfs } from "node:fs/promises";
import { uptime } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { type Infer, y } from "../../config/yaml.ts";
import { Changes } from "../../core/changes.ts";
import { messageOf, Refused } from "../../core/errors.ts";
import { Mutex } from "../../core/mutex.ts";
import { isShortName } from "../../core/names.ts";
import { version } from "../../core/version.ts";
import { makeFolder, removeStaleTemporaries } from "../../files/files.ts";
import { StateFile } from "../../files/state-file.ts";
import { gitIn, textOf } from "../../git/git.ts";
import { HttpError } from "../../http/server.ts";
import { keyId } from "../keys.ts";
import { checkTime, type Order, orderSchema } from "../letter.ts";
import type { OrderState, Report, RepoStatus } from "../report.ts";
import { isUnchanged } from "../repo/clone.ts";
import { hidden, Place, servedAt } from "../repo/trees.ts";
import { isAllowed, settingsFor, type SlaveSettings } from "../settings.ts";

/**
 * What should be served here, and what became of it: one file a repo. An order is on disk before it is answered. The
 * newest one counts, whichever of the master's keys signed it: the same again changes nothing, an older one is refused,
 * of several that come at once the last is done, and what a crash has interrupted is done again.
 */
const schema = y.object({
  order: orderSchema,
  // what runs is queued on disk: after a crash it runs again
  state: y.choice(["queued", "running", "done", "failed"]),
  before: y.optional(y.string()),
  sha: y.optional(y.string()),
  error: y.optional(y.string()),
  // how long it took
  ms: y.optional(y.number()),
});
type Desired = Infer<typeof schema>;

export interface SlaveOptions {
  settings: SlaveSettings;
  repos: string;
  /** Where the desired state is kept. */
  state: string;
  names: readonly string[];
  /** Patterns of repos that may be asked for; none: all. */
  allow: readonly string[];
  /** How many updates run at once. */
  jobs: number;
  /** Public keys of masters. */
  keys: readonly KeyObject[];
  /** Its own key, which signs its answers. */
  identity: KeyObject | undefined;
  /** Do an update; throws with the reason when it fails. */
  run: (order: Order) => Promise<{ before?: string | undefined; sha: string }>;
  note: (line: string) => void;
}

let gitVersion: Promise<string | undefined> | undefined;

function readGitVersion(): Promise<string | undefined> {
  return textOf(gitIn("/")`git --version`).then(
    (text) => text.replace("git version ", ""),
    () => undefined,
  );
}

/** A slave: what it was asked for and what it serves, however it is asked. */
export class Slave {
  readonly options: SlaveOptions;
  readonly #desired = new Map<string, Desired>();
  readonly #running = new Set<string>();
  readonly #turns = new Mutex();
  readonly #changes = new Changes();
  closed = false;
  /** Called when something came to be, started or ended. */
  onChange: () => void = () => {};
  /** Since the start: how many updates ended in which way, and the time that they took. */
  readonly finished = { done: 0, failed: 0, ms: 0 };

  /** `open` reads what an earlier server left, `start` goes on with it. */
  constructor(options: SlaveOptions) {
    this.options = options;
  }

  /** Read what an earlier server left. @throws {Failure} for a damaged file: without it old orders would be new */
  async open(): Promise<void> {
    await makeFolder(this.folder);
    await removeStaleTemporaries(this.folder);
    for (const name of await readdir(this.folder)) {
      const repo = name.replace(/\.json$/, "");
      const desired = name.endsWith(".json") && isShortName(repo) ? await this.file(repo).read() : undefined;
      if (desired) this.#desired.set(repo, desired);
    }
  }

  get(repo: string): Desired | undefined {
    return this.#desired.get(repo);
  }

  get counts(): { running: number; queued: number } {
    const queued = [...this.#desired.values()].filter(({ state }) => state === "queued").length;
    return { running: this.#running.size, queued };
  }

  /**
   * Take an order that is known to be allowed; resolves when it is on disk.
   * @param by the key that signed it, or who asked, for the log
   * @throws {Refused} for one that is not newer than the last, or is over
   * @throws {HttpError} with the reason, when it is not taken otherwise
   */
  async take(order: Order, by: KeyObject | string | undefined): Promise<void> {
    const { repo, sha, branch, run } = order;
    const { allow, settings, note } = this.options;
    if (!isAllowed(repo, allow)) throw new HttpError(403, `repo "${repo}" is not allowed here`);
    const { branch: own } = settingsFor(repo, settings, {});
    if (branch !== undefined && own !== undefined && branch !== own)
      throw new HttpError(409, `this slave serves ${own} of ${repo}, as its slave.yml says, not ${branch}`);
    const again = (await this.#turns.run(() => this.record(order))) ? "" : ", again";
    const who = typeof by === "string" ? by : `run ${run} of the master${by ? ` with key ${keyId(by)}` : ""}`;
    note(`${repo}${sha === undefined ? "" : ` ${sha}`} requested by ${who}${again}`);
  }

  /** Record an order, and have it done. @returns whether it is a new one */
  private async record(order: Order): Promise<boolean> {
    const last = this.get(order.repo)?.order;
    if (last?.digest === order.digest) return false;
    const isOld = last !== undefined && order.at <= last.at;
    // a slave of two names gets two orders of one run: what says the same turns nothing back
    if (isOld && order.sha !== undefined && order.sha === last.sha && order.branch === last.branch) return false;
    if (isOld)
      throw new Refused(
        `the order is not newer than the last one taken (${new Date(last.at).toISOString()}); ` +
          "is the master's clock right?",
      );
    checkTime({ kind: "order", ...order });
    if (this.closed) throw new HttpError(503, "shutting down", { "retry-after": "5" });
    const desired: Desired = { order, state: "queued" };
    await this.save(desired).catch((error: unknown) => {
      this.notSaved(error);
      throw new HttpError(503, "the order could not be recorded: is the disk full?");
    });
    this.#desired.set(order.repo, desired);
    this.tell();
    this.start();
    return true;
  }

  /** Wait until something changes, but not longer than `ms`. */
  async change(ms: number, signal: AbortSignal): Promise<void> {
    if (!this.closed) await this.#changes.next(ms, signal);
  }

  /** Take no more; what runs or waits stays on disk for the next start. */
  close(): void {
    this.closed = true;
    this.tell();
  }

  /** Have as many run as may, the oldest first. */
  start(): void {
    for (const desired of [...this.#desired.values()].sort((one, other) => one.order.at - other.order.at)) {
      if (this.closed || this.#running.size >= this.options.jobs) return;
      if (desired.state === "queued" && !this.#running.has(desired.order.repo)) void this.work(desired);
    }
  }

  private async work(desired: Desired): Promise<void> {
    const { repo } = desired.order;
    this.#running.add(repo);
    const started = performance.now();
    desired.state = "running";
    this.tell();
    const [state, end] = await this.options.run(desired.order).then(
      (done) => ["done", done] as const,
      (error: unknown) => ["failed", { error: messageOf(error) }] as const,
    );
    // children that were stopped with us have not failed: they run again
    if (this.closed) return;
    const ms = Math.round(performance.now() - started);
    // a newer order may have come meanwhile: the file is its own
    await this.#turns.run(async () => {
      if (this.get(repo) === desired)
        await this.save({ ...desired, ...end, state, ms }).catch((error: unknown) => this.notSaved(error));
    });
    Object.assign(desired, { ...end, state, ms });
    this.#running.delete(repo);
    this.finished[state] += 1;
    this.finished.ms += ms;
    this.tell();
    this.start();
  }

  private tell(): void {
    this.#changes.tell();
    this.onChange();
  }

  private notSaved(error: unknown): void {
    this.options.note(`desired state: ${messageOf(error)}`);
  }

  private get folder(): string {
    return join(this.options.state, "desired-state");
  }

  private file(repo: string): StateFile<Desired> {
    const damaged = "it says which orders are old: put it back, or remove it and give the master a new key";
    return new StateFile(join(this.folder, `${repo}.json`), schema, { damaged, mode: 0o600 });
  }

  private async save(desired: Desired): Promise<void> {
    await this.file(desired.order.repo).write(desired);
  }

  /** This machine, and its repos; with a name only that one. */
  async report({ repo, verify = false }: { repo?: string | undefined; verify?: boolean } = {}): Promise<Report> {
    const { names, repos, allow } = this.options;
    const known = repo === undefined ? await this.repos() : [repo].filter((each) => isAllowed(each, allow));
    const found = await Promise.all(known.map((each) => this.statusOf(each, verify)));
    const disk = await statfs(repos).catch(() => undefined);
    return {
      ...{ name: names[0] ?? "", at: Date.now(), boatyard: version },
      node: process.versions["deno"] ? `deno ${process.versions["deno"]}` : process.versions.node,
      git: await (gitVersion ??= readGitVersion()),
      free: disk && disk.bavail * disk.bsize,
      uptime: Math.round(uptime()),
      allow: [...allow],
      repos: found.filter((each) => each !== undefined),
    };
  }

  /**
   * What is served of a repo, and what became of the last order for it; undefined when there is nothing of both.
   * @param verify also compare the served tree with its commit, file by file
   */
  private async statusOf(repo: string, verify: boolean): Promise<RepoStatus | undefined> {
    const place = new Place(this.options.repos, repo);
    const { tree, plain } = await servedAt(place);
    const order = this.orderOf(repo);
    const { error } = order ?? {};
    if (!tree) return plain || order ? { repo, plain, error, order } : undefined;
    const { sha, branch, since, pending } = tree;
    if (tree.plain) return { repo, plain: true, since, error, order };
    const status: RepoStatus = { repo, sha, branch, since, pending, error, order };
    if (!verify) return status;
    const { after, check } = settingsFor(repo, this.options.settings, {});
    const strict = after === undefined && check === undefined;
    return { ...status, written: !(await isUnchanged(place, tree, { strict }, {})) };
  }

  private orderOf(repo: string): OrderState | undefined {
    const desired = this.get(repo);
    if (!desired) return undefined;
    const { order, ms, ...state } = desired;
    return { digest: order.digest, at: order.at, ...state, seconds: ms === undefined ? undefined : ms / 1000 };
  }

  /** The repos that are here, and may be asked for. */
  private async repos(): Promise<string[]> {
    const { repos, allow } = this.options;
    const list = (folder: string) => readdir(folder).catch(() => []);
    const names = [...(await list(repos)), ...(await list(join(repos, hidden)))];
    const all = new Set([...names, ...this.#desired.keys()]);
    return [...all].filter((name) => isShortName(name) && isAllowed(name, allow)).sort();
  }

  /** Prometheus' text format 0.0.4. */
  async metrics(): Promise<string> {
    const { repos, free = 0 } = await this.report();
    const { running, queued } = this.counts;
    const { done, failed, ms } = this.finished;
    const label = (text = "") => text.replace(/[\\"\n]/g, (each) => (each === "\n" ? "\\n" : `\\${each}`));
    const ofRepos = (value: (repo: RepoStatus) => string | undefined) => repos.flatMap((each) => value(each) ?? []);
    const metrics: Record<string, string[]> = {
      "updates gauge Updates that run or wait.": [`{state="running"} ${running}`, `{state="queued"} ${queued}`],
      "updates_finished_total counter Updates that ended, by result.": [
        `{result="done"} ${done}`,
        `{result="failed"} ${failed}`,
      ],
      "update_seconds_total counter Seconds that ended updates took.": [` ${ms / 1000}`],
      "repo_info gauge What is served.": ofRepos(
        ({ repo, sha, branch }) => `{repo="${repo}",sha="${label(sha)}",branch="${label(branch)}"} 1`,
      ),
      "repo_since_seconds gauge When it was put in place, in seconds since 1970.": ofRepos(
        ({ repo, since }) => since && `{repo="${repo}"} ${Date.parse(since) / 1000}`,
      ),
      "repo_failed gauge 1 when the last update failed.": ofRepos(
        ({ repo, error }) => `{repo="${repo}"} ${error === undefined ? 0 : 1}`,
      ),
      "free_bytes gauge Free space where the repos are.": [` ${free}`],
    };
    const lines = Object.entries(metrics).flatMap(([about, values]) => {
      const [name = "", type = "", ...help] = `boatyard_slave_${about}`.split(" ");
      return [
        `# HELP ${name} ${help.join(" ")}`,
        `# TYPE ${name} ${type}`,
        ...values.map((value) => `${name}${value}`),
      ];
    });
    return `${lines.join("\n")}\n`;
  }
}
