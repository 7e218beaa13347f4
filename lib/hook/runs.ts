import type { IncomingMessage, ServerResponse } from "node:http";
import { Failure, messageOf } from "../core/errors.ts";
import { isSafeRef, isSha } from "../core/names.ts";
import { textOf } from "../git/git.ts";
import { HttpError } from "../http/server.ts";
import { hasEnded, type Run, type RunStore } from "../run-store/run-store.ts";
import type { Builder } from "./builders/builder.ts";
import type { RepoConfig } from "./config/config.ts";
import { matchesRef } from "./payload/payload.ts";
import { checkoutBranch, gitAs } from "./runs/checkout.ts";
import type { RunFolders } from "./runs/folders.ts";
import { readStages } from "./runs/run-stages.ts";
import type { Scheduler } from "./runs/scheduler.ts";

/** What the list and the pages show of a run: all but what only the server needs. */
export type RunView = Omit<Run, "job" | "home" | "cancelAsked">;

interface RunsParts {
  store: RunStore;
  folders: RunFolders;
  scheduler: Pick<Scheduler, "cancel">;
  /** Of several builders: what is elsewhere. */
  builder: Builder | undefined;
}

/** All runs that are known, as the socket, the token and the page show and steer them. */
export class Runs {
  readonly #parts: RunsParts;
  /** The list as it was at a revision: many look at the same one. */
  #listed: { readonly revision: number; readonly views: readonly RunView[] } | undefined;

  constructor(parts: RunsParts) {
    this.#parts = parts;
  }

  /** The newest first. */
  list(): readonly RunView[] {
    const { revision } = this.#parts.store;
    if (this.#listed?.revision !== revision)
      this.#listed = { revision, views: [...this.#parts.store.runs()].reverse().map(viewOf) };
    return this.#listed.views;
  }

  view(id: string): RunView | undefined {
    const run = this.#parts.store.get(id);
    return run && viewOf(run);
  }

  /** The same with its stages as they are now. */
  async whole(id: string): Promise<RunView | undefined> {
    const view = this.view(id);
    if (!view || view.stages || hasEnded(view) || view.started === undefined) return view;
    const elsewhere = this.elsewhere(id);
    const stages = elsewhere
      ? await this.#parts.builder?.stagesOf(elsewhere)
      : await readStages(this.#parts.folders.path(id, "stages"));
    return stages?.length ? { ...view, stages } : view;
  }

  /** How a run ended; undefined while more may come. */
  endState(id: string): string | undefined {
    const run = this.#parts.store.get(id);
    if (!run) return "gone";
    const elsewhere = this.elsewhere(id);
    return hasEnded(run) && !(elsewhere && this.#parts.builder?.isBehind(elsewhere)) ? run.state : undefined;
  }

  /** The run, where it is another builder's. */
  private elsewhere(id: string): Run | undefined {
    const run = this.#parts.store.get(id);
    return run && this.#parts.builder?.isElsewhere(run) ? run : undefined;
  }

  /** The file of a run's log, which may not be there yet; `readLog` before it is read. */
  logFile(id: string): string {
    const elsewhere = this.elsewhere(id);
    return (elsewhere && this.#parts.builder?.logFile(elsewhere)) ?? this.#parts.folders.path(id, "log");
  }

  /** Have a run's log in its file, up to now; with a request for as long as that one is answered. */
  async readLog(id: string, answer?: [IncomingMessage, ServerResponse]): Promise<void> {
    await this.#parts.builder?.copyLog(id);
    if (answer) this.#parts.builder?.keepCopying(id, ...answer);
  }

  get revision(): string {
    return String(this.#parts.store.revision);
  }

  /** End a run that waits or is under way, for `by`. @throws {HttpError} 409 when it has ended, 503 without the bus. */
  async cancel({ id, state }: { id: string; state: string }, by: string): Promise<void> {
    const isStopped = await this.#parts.scheduler.cancel(id, by).catch((error: unknown) => {
      if (!(error instanceof Failure)) throw error;
      throw new HttpError(503, `not cancelled: ${messageOf(error)}`, { "retry-after": "10" });
    });
    if (!isStopped) throw new HttpError(409, `the run has ended already: ${state}`);
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
    const [run] = await this.#parts.store.accept(
      { repo: repo.name, forge: "command", event: kind },
      [{ kind, ref, sha, release }],
      Buffer.from(JSON.stringify(payload)),
    );
    return run?.id ?? "";
  }

  /**
   * Run an ended run once more, as a new run, whose id is returned.
   * @param by who asks for it.
   * @param from the stage it starts at.
   * @throws {HttpError} 404 when it had no such stage, 409 when it has not ended, 410 when what it was made of is gone.
   */
  async rerun(view: RunView, by: string, from?: string): Promise<string> {
    if (from !== undefined && view.stages?.some(({ name }) => name === from) !== true)
      throw new HttpError(404, `the run had no stage ${from}`);
    if (!hasEnded(view)) throw new HttpError(409, `the run has not ended yet: ${view.state}`);
    const { store, folders } = this.#parts;
    const payload = (await store.payload(view.id)) ?? (await folders.payload(view.id));
    if (!payload) throw new HttpError(410, whyNoRerun(view));
    const { repo, forge, event, kind, ref, sha, release, commit, onlyIfCheckedOut } = view;
    const change = { kind, ref, sha, release, commit, onlyIfCheckedOut };
    const [run] = await store.accept({ repo, forge, event, rerun: { of: view.id, by, from } }, [change], payload);
    return run?.id ?? "";
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

function viewOf({ job: _job, home: _home, cancelAsked: _asked, ...view }: Run): RunView {
  return view;
}

function whyNoRerun({ state, by }: RunView): string {
  return state === "superseded" && by !== undefined
    ? `the run was never started: ${by} took its place; rerun that one`
    : "what the run was made of is not kept any more; push again";
}
