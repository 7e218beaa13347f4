import type { IncomingMessage, ServerResponse } from "node:http";
import { messageOf } from "../../core/errors.ts";
import { isSafeRef, isSha } from "../../core/names.ts";
import { textOf } from "../../git/git.ts";
import { HttpError } from "../../http/server.ts";
import type { RepoConfig } from "../config/config.ts";
import { matchesRef } from "../payload/payload.ts";
import { checkoutBranch, gitAs } from "./checkout.ts";
import { hasEnded, recordOf, type Records, type RunRecord, type RunState } from "./records.ts";
import { readStages } from "./run-stages.ts";
import type { Scheduler } from "./scheduler.ts";
import type { Store } from "../store/store.ts";

/** What the list and the pages show of a run: its record less what only the server needs. */
export type RunView = Omit<RunRecord, "cookie" | "cgroup" | "pid" | "pidStart">;

/** What is known of the runs of other builders, where there are several. */
export interface RunsOfOthers {
  readonly changes: number;
  /** All runs of all builders. */
  views(): Iterable<RunView>;
  view(id: string): RunView | undefined;
  /** A run that is elsewhere, as it is now. */
  whole(id: string): Promise<RunView | undefined>;
  isElsewhere(id: string): boolean;
  endState(id: string): string | undefined;
  cancel(id: string, by: string): Promise<boolean>;
  payload(id: string): Promise<Buffer | undefined>;
  logFile(id: string): string;
  /** Bring the copy of a log up to date that is elsewhere. */
  copyLog(id: string): Promise<void>;
  /** The same for as long as the answer goes on. */
  keepCopying(id: string, request: IncomingMessage, response: ServerResponse): void;
}

interface RunsParts {
  store: Store;
  scheduler: Scheduler;
  records: Records;
  accept: Store["accept"];
  others: RunsOfOthers | undefined;
}

/** All runs that are known, as the socket, the token and the page show and steer them. */
export class Runs {
  readonly #parts: RunsParts;
  /** The list as it was at a revision: many look at the same one. */
  #listed: { readonly revision: string; readonly views: readonly RunView[] } | undefined;

  constructor(parts: RunsParts) {
    this.#parts = parts;
  }

  /** Those that wait, those with a folder, and the superseded ones that are remembered; the newest first. */
  list(): readonly RunView[] {
    const { revision } = this;
    if (this.#listed?.revision === revision) return this.#listed.views;
    const views = new Map<string, RunView>();
    for (const view of this.views()) if (!views.has(view.id)) views.set(view.id, view);
    this.#listed = { revision, views: [...views.values()].sort(newestFirst) };
    return this.#listed.views;
  }

  /** One run; undefined when it is not known. */
  view(id: string): RunView | undefined {
    const shared = this.#parts.others?.view(id);
    if (shared) return shared;
    const record = this.#parts.records.get(id);
    if (record) return viewOf(record);
    for (const view of this.views()) if (view.id === id) return view;
    return undefined;
  }

  /** The same with its stages as they are now. */
  async whole(id: string): Promise<RunView | undefined> {
    const elsewhere = await this.#parts.others?.whole(id);
    if (elsewhere) return elsewhere;
    const view = this.view(id);
    if (!view || view.stages || hasEnded(view.state) || view.started === undefined) return view;
    const stages = await readStages(this.#parts.records.path(id, "stages"));
    return stages.length > 0 ? { ...view, stages } : view;
  }

  /** How a run ended; undefined while more may come. */
  endState(id: string): string | undefined {
    if (this.#parts.others?.isElsewhere(id)) return this.#parts.others.endState(id);
    const state = this.view(id)?.state;
    if (state === undefined) return "gone";
    return hasEnded(state) ? state : undefined;
  }

  /** The file of a run's log, which may not be there yet; `readLog` before it is read. */
  logFile(id: string): string {
    return this.#parts.others?.logFile(id) ?? this.#parts.records.path(id, "log");
  }

  /** Have a run's log in its file, up to now; with a request for as long as that one is answered. */
  async readLog(id: string, answer?: [IncomingMessage, ServerResponse]): Promise<void> {
    await this.#parts.others?.copyLog(id);
    if (answer) this.#parts.others?.keepCopying(id, ...answer);
  }

  /** Changes with whatever the list shows. */
  get revision(): string {
    const { records, scheduler, others } = this.#parts;
    return `${records.changes}.${scheduler.queue.changes}.${others?.changes ?? ""}`;
  }

  /** All that is known of every run, the best view of each first. */
  private *views(): Iterable<RunView> {
    if (this.#parts.others) yield* this.#parts.others.views();
    for (const record of this.#parts.records.all()) yield viewOf(record);
    for (const entry of this.#parts.scheduler.queue.entries()) yield recordOf(entry);
    for (const { entry, state, by } of this.#parts.store.known())
      yield { ...recordOf(entry), state: state as RunState, by };
  }

  /**
   * End a run that waits or is under way.
   * @param by who asks for it.
   * @throws {HttpError} 409 when it has ended.
   */
  async cancel(view: RunView, by: string): Promise<void> {
    const { others, scheduler } = this.#parts;
    const isKnown = others?.view(view.id) !== undefined;
    if (!(await (isKnown ? others : scheduler).cancel(view.id, by)))
      throw new HttpError(409, `the run has ended already: ${view.state}`);
  }

  /**
   * Start a run that no forge asked for, as a push of a branch or the release of a tag would; its id is returned.
   * @param wish without a branch the first of `refs:`, else the checkout's; without a commit the remote's newest.
   * @throws {HttpError} 404 when there is no such branch, tag or commit, 409 when this repo does not build it.
   */
  async begin(
    repo: RepoConfig,
    wish: { branch?: string | undefined; tag?: string | undefined; sha?: string | undefined },
    by: string,
  ): Promise<string> {
    const first = repo.refs?.find((pattern) => !pattern.includes("*") && !pattern.startsWith("refs/tags/"));
    const { tag, branch = tag === undefined ? (first ?? (await checkoutBranch(repo))) : undefined } = wish;
    if (tag === undefined && branch === undefined) throw new HttpError(404, "the checkout has no branch; name one");
    const kind = tag === undefined ? "push" : "release";
    if (repo.on[kind] === false) throw new HttpError(409, `on.${kind} of ${repo.name} is false in hooks.yml`);
    const ref = tag === undefined ? `refs/heads/${branch?.replace(/^refs\/heads\//, "")}` : `refs/tags/${tag}`;
    if (!isSafeRef(ref)) throw new HttpError(404, `${tag ?? branch} is not the name of a branch or tag`);
    if (kind === "push" && repo.refs && !repo.refs.some((pattern) => matchesRef(pattern, ref)))
      throw new HttpError(409, `refs: of ${repo.name} in hooks.yml does not name ${ref}`);
    const sha = wish.sha ?? (await commitOf(repo, ref));
    if (sha === undefined || !isSha(sha))
      throw new HttpError(404, `the remote of ${repo.name} has no ${wish.sha ?? ref}`);
    const release = tag === undefined ? undefined : { tag, name: tag, url: "", prerelease: false };
    const payload = { ref, after: sha, repository: { full_name: repo.name }, by };
    const [entry] = await this.#parts.accept(
      { repo: repo.name, forge: "command", event: kind },
      [{ kind, ref, sha, release }],
      Buffer.from(JSON.stringify(payload)),
    );
    return entry?.id ?? "";
  }

  /**
   * Run an ended run once more, as a new run, whose id is returned.
   * @param by who asks for it.
   * @throws {HttpError} 409 when it has not ended, 410 when what it was made of is gone.
   */
  async rerun(view: RunView, by: string): Promise<string> {
    if (!hasEnded(view.state)) throw new HttpError(409, `the run has not ended yet: ${view.state}`);
    const { records, others } = this.#parts;
    const payload = (await records.payload(view.id)) ?? (await others?.payload(view.id));
    const record = records.get(view.id) ?? (others && view.state !== "superseded" ? view : undefined);
    if (!record || !payload) throw new HttpError(410, whyNoRerun(view));
    const { repo, forge, event, kind, ref, sha, release, commit, onlyIfCheckedOut } = record;
    const change = { kind, ref, sha, release, commit, onlyIfCheckedOut };
    const source = { repo, forge, event, rerun: { of: view.id, by } };
    const [entry] = await this.#parts.accept(source, [change], payload);
    return entry?.id ?? "";
  }
}

/** The commit that a ref of the remote is at, as the repo's user is told; an annotated tag's is what it names. */
async function commitOf(repo: RepoConfig, ref: string): Promise<string | undefined> {
  const git = gitAs(repo)({ timeout: 60_000 });
  const text = await textOf(git`git ls-remote -- origin ${[ref, `${ref}^{}`]}`).catch((error: unknown) => {
    throw new HttpError(502, `the remote of ${repo.name} does not answer: ${messageOf(error)}`);
  });
  return text.split("\n").filter(Boolean).at(-1)?.split("\t")[0];
}

function newestFirst(a: RunView, b: RunView): number {
  return a.accepted < b.accepted || (a.accepted === b.accepted && a.id < b.id) ? 1 : -1;
}

/** A superseded run was never started, so nothing is kept of it: the run that took its place is the one to repeat. */
function whyNoRerun({ state, by }: RunView): string {
  return state === "superseded" && by !== undefined
    ? `the run was never started: ${by} took its place; rerun that one`
    : "what the run was made of is not kept any more; push again";
}

/** What is shown of a run. */
export function viewOf(record: RunRecord): RunView {
  const { cookie: _cookie, cgroup: _cgroup, pid: _pid, pidStart: _start, ...view } = record;
  return view;
}
