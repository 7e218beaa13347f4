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
import type { Order } from "../letter.ts";
import type { OrderState, Report, RepoStatus } from "../report.ts";
import { isUnchanged } from "../repo/clone.ts";
import { hidden, Place, servedAt } from "../repo/trees.ts";
import { branchOf, isAllowed, settingsFor, type SlaveSettings } from "../settings.ts";
import { DesiredState } from "./desired-state.ts";

/** A slave: what it was asked for and what it serves, however it is asked. */

export interface SlaveOptions extends InventoryOptions {
  /** Where the desired state is kept. */
  state: string;
  /** How many updates run at once. */
  jobs: number;
  /** Public keys of masters. */
  keys: readonly KeyObject[];
  /** Its own key, which signs its answers. */
  identity: KeyObject | undefined;
  /** Do one update; throws with the reason when it fails. */
  run: (order: Order) => Promise<{ before?: string | undefined; sha: string }>;
  note: (line: string) => void;
}

export interface Slave {
  options: SlaveOptions;
  desired: DesiredState;
  inventory: Inventory;
  /**
   * Have an order done, once it is known to be allowed.
   * @param by who asked, for the log
   * @throws {HttpError} with the reason, when it is not taken
   */
  take(order: Order, by: string): Promise<void>;
}

/** Read what an earlier server left; `desired.start` goes on with it. */
export async function openSlave(options: SlaveOptions): Promise<Slave> {
  const { note, settings, allow } = options;
  const desired = new DesiredState({
    folder: join(options.state, "desired-state"),
    ...{ jobs: options.jobs, run: options.run },
    onError: (error) => note(`desired state: ${messageOf(error)}`),
  });
  await desired.open();

  async function take(order: Order, by: string): Promise<void> {
    const { repo, sha, branch } = order;
    if (!isAllowed(repo, allow)) throw new HttpError(403, `repo "${repo}" is not allowed here`);
    const own = branchOf(repo, settings);
    if (branch !== undefined && own !== undefined && branch !== own)
      throw new HttpError(409, `this slave serves ${own} of ${repo}, as its slave.yml says, not ${branch}`);
    const again = (await desired.take(order)) ? "" : ", again";
    note(`${repo}${sha === undefined ? "" : ` ${sha}`} requested by ${by}${again}`);
  }
  return { options, desired, inventory: new Inventory(options, desired), take };
}

/** What runs here: for whoever asks, and for Prometheus. */

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
  readonly #desired: DesiredState;

  constructor(options: InventoryOptions, desired: DesiredState) {
    this.#options = options;
    this.#desired = desired;
  }

  /**
   * What is served of a repo, and what became of the last order for it; undefined when there is nothing of both.
   * @param verify also compare the served tree with its commit, file by file
   */
  private async repo(repo: string, verify: boolean): Promise<RepoStatus | undefined> {
    const place = new Place(this.#options.repos, repo);
    const { tree, plain } = await servedAt(place);
    const order = this.stateOf(repo);
    const { error } = order ?? {};
    if (!tree) return plain || order ? { repo, plain, error, order } : undefined;
    const { sha, branch, since, pending } = tree;
    if (tree.plain) return { repo, plain: true, since, error, order };
    const status: RepoStatus = { repo, sha, branch, since, pending, error, order };
    if (!verify) return status;
    const { after, check } = settingsFor(repo, this.#options.settings, {});
    const strict = after === undefined && check === undefined;
    return { ...status, written: !(await isUnchanged(place, tree, { strict }, {})) };
  }

  private stateOf(repo: string): OrderState | undefined {
    const { order, state, result } = this.#desired.get(repo) ?? {};
    return order && state && { digest: order.digest, at: order.at, state, ...result };
  }

  /** This machine, and its repos; with a name only that one. */
  async report({ repo, verify = false }: { repo?: string | undefined; verify?: boolean } = {}): Promise<Report> {
    const { names, repos, allow } = this.#options;
    const known = repo === undefined ? await this.names() : [repo].filter((each) => isAllowed(each, allow));
    const found = await Promise.all(known.map((each) => this.repo(each, verify)));
    const disk = await statfs(repos).catch(() => undefined);
    return {
      ...{ name: names[0] ?? "", at: Date.now(), boatyard: version },
      node: process.versions["deno"] ? `deno ${process.versions["deno"]}` : process.versions.node,
      git: await (gitVersion ??= readGitVersion()),
      free: disk && disk.bavail * disk.bsize,
      uptime: Math.round(uptime()),
      ...{ allow: [...allow], groups: [] },
      repos: found.filter((each) => each !== undefined),
    };
  }

  /** The repos that are here, and may be asked for. */
  private async names(): Promise<string[]> {
    const { repos, allow } = this.#options;
    const list = (folder: string) => readdir(folder).catch(() => []);
    const names = [...(await list(repos)), ...(await list(join(repos, hidden)))];
    const all = new Set([...names, ...this.#desired.all().map(({ order }) => order.repo)]);
    return [...all].filter((name) => isShortName(name) && isAllowed(name, allow)).sort();
  }

  /** Prometheus' text format 0.0.4. */
  async metrics(): Promise<string> {
    const { repos, free = 0 } = await this.report();
    const { running, queued } = this.#desired.counts;
    const { done, failed, seconds } = this.#desired.finished;
    const label = (text = "") => text.replace(/[\\"\n]/g, (each) => (each === "\n" ? "\\n" : `\\${each}`));
    const ofRepos = (value: (repo: RepoStatus) => string | undefined) => repos.flatMap((each) => value(each) ?? []);
    const metrics: [name: string, type: string, help: string, values: string[]][] = [
      ["updates", "gauge", "Updates that run or wait.", [`{state="running"} ${running}`, `{state="queued"} ${queued}`]],
      [
        ...(["updates_finished_total", "counter", "Updates that ended, by result."] as const),
        [`{result="done"} ${done}`, `{result="failed"} ${failed}`],
      ],
      ["update_seconds_total", "counter", "Seconds that ended updates took.", [` ${seconds}`]],
      [
        ...(["repo_info", "gauge", "What is served."] as const),
        ofRepos(({ repo, sha, branch }) => `{repo="${repo}",sha="${label(sha)}",branch="${label(branch)}"} 1`),
      ],
      [
        ...(["repo_since_seconds", "gauge", "When it was put in place, in seconds since 1970."] as const),
        ofRepos(({ repo, since }) => since && `{repo="${repo}"} ${Date.parse(since) / 1000}`),
      ],
      [
        ...(["repo_failed", "gauge", "1 when the last update failed."] as const),
        ofRepos(({ repo, error }) => `{repo="${repo}"} ${error === undefined ? 0 : 1}`),
      ],
      ["free_bytes", "gauge", "Free space where the repos are.", [` ${free}`]],
    ];
    const lines = metrics.flatMap(([short, type, help, values]) => {
      const name = `boatyard_slave_${short}`;
      return [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`, ...values.map((value) => `${name}${value}`)];
    });
    return `${lines.join("\n")}\n`;
  }
}
