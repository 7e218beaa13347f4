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
import { keyId } from "../keys.ts";
import type { Order } from "../letter.ts";
import type { OrderState, Report, RepoStatus } from "../report.ts";
import { isUnchanged } from "../repo/clone.ts";
import { hidden, Place, servedAt } from "../repo/trees.ts";
import { isAllowed, settingsFor, type SlaveSettings } from "../settings.ts";
import { DesiredState, type DesiredStateOptions } from "./desired-state.ts";

export interface SlaveOptions extends Pick<DesiredStateOptions, "jobs" | "run"> {
  settings: SlaveSettings;
  repos: string;
  /** Where the desired state is kept. */
  state: string;
  names: readonly string[];
  /** Patterns of repos that may be asked for; none: all. */
  allow: readonly string[];
  /** Public keys of masters. */
  keys: readonly KeyObject[];
  /** Its own key, which signs its answers. */
  identity: KeyObject | undefined;
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
  readonly desired: DesiredState;

  /** `desired.open` reads what an earlier server left, `desired.start` goes on with it. */
  constructor(options: SlaveOptions) {
    this.options = options;
    this.desired = new DesiredState({
      ...options,
      folder: join(options.state, "desired-state"),
      onError: (error) => options.note(`desired state: ${messageOf(error)}`),
    });
  }

  /**
   * Have an order done, once it is known to be allowed.
   * @param by the key that signed it, or who asked, for the log
   * @throws {HttpError} with the reason, when it is not taken
   */
  async take(order: Order, by: KeyObject | string | undefined): Promise<void> {
    const { repo, sha, branch, run } = order;
    const { allow, settings, note } = this.options;
    if (!isAllowed(repo, allow)) throw new HttpError(403, `repo "${repo}" is not allowed here`);
    const { branch: own } = settingsFor(repo, settings, {});
    if (branch !== undefined && own !== undefined && branch !== own)
      throw new HttpError(409, `this slave serves ${own} of ${repo}, as its slave.yml says, not ${branch}`);
    const again = (await this.desired.take(order)) ? "" : ", again";
    const who = typeof by === "string" ? by : `run ${run} of the master${by ? ` with key ${keyId(by)}` : ""}`;
    note(`${repo}${sha === undefined ? "" : ` ${sha}`} requested by ${who}${again}`);
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
    const desired = this.desired.get(repo);
    if (!desired) return undefined;
    const { order, ms, ...state } = desired;
    return { digest: order.digest, at: order.at, ...state, seconds: ms === undefined ? undefined : ms / 1000 };
  }

  /** The repos that are here, and may be asked for. */
  private async repos(): Promise<string[]> {
    const { repos, allow } = this.options;
    const list = (folder: string) => readdir(folder).catch(() => []);
    const names = [...(await list(repos)), ...(await list(join(repos, hidden)))];
    const all = new Set([...names, ...this.desired.all().map(({ order }) => order.repo)]);
    return [...all].filter((name) => isShortName(name) && isAllowed(name, allow)).sort();
  }

  /** Prometheus' text format 0.0.4. */
  async metrics(): Promise<string> {
    const { repos, free = 0 } = await this.report();
    const { running, queued } = this.desired.counts;
    const { done, failed, ms } = this.desired.finished;
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
