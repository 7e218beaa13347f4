import { createHash } from "node:crypto";
import { mkdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { Failure, messageOf, Refused, systemCode, UsageError } from "../errors.ts";
import { CommandFailed, cleanEnvironment, shell } from "../exec.ts";
import { exists } from "../files.ts";
import { acquireLock } from "../lock.ts";
import { isSafeRef, isSha, isShortName } from "../names.ts";
import { endTree } from "../process-tree.ts";
import { newRunId } from "../run-id.ts";
import {
  findDamage,
  keepTrees,
  packMirror,
  renewStamps,
  sweepMirror,
  updateMirror,
  type Wanted,
  remakeMirror,
  wish,
} from "./mirror.ts";
import * as placing from "./place.ts";
import type { Place, State, Tree } from "./place.ts";
import { askTip, plainWords, remoteOf, type Remote, RemoteLacks, type Tip } from "./remote.ts";
import type { RepoSettings } from "./settings.ts";
import { buildTree, cleanTree, flush, isUnchanged } from "./tree.ts";

/** One update of one repo: fetch, build a tree beside the served one, switch the link, run `after:`. */

export interface ActivateOptions {
  settings: RepoSettings;
  /** The commit; without it, the branch's newest. */
  sha?: string | undefined;
  /** How long another update is waited for: not at all, milliseconds, or true for its end. */
  wait?: boolean | number;
  signal?: AbortSignal | undefined;
  note?: (line: string) => void;
}

export interface Activated {
  repo: string;
  /** What was served before. */
  before: string | undefined;
  sha: string;
  branch: string | undefined;
  /** The folder that the link leads to now. */
  tree: string;
  changed: boolean;
  seconds: number;
}

/** @throws {Refused} for a name that could be more than a name */
export function checkRepo(repo: string): void {
  if (!isShortName(repo)) {
    throw new Refused(
      `${JSON.stringify(repo.slice(0, 200))} is no name of a repo; letters, digits, ".", "_" and "-" make one, at most 100, not ending in .git or .lock`,
    );
  }
}

/**
 * Bring a repo to the newest commit, or the one asked for.
 * @throws {Failure} when it cannot be: the tree that was served stays in place.
 * @throws {Busy} when another process updates the same repo.
 */
export async function activate(repo: string, options: ActivateOptions): Promise<Activated> {
  const { settings, sha, signal } = options;
  if (sha !== undefined && !isSha(sha)) throw new UsageError(`"${sha}" is no full commit id`);
  if (settings.branch !== undefined && !isSafeRef(settings.branch)) {
    throw new UsageError(`"${settings.branch}" is no name of a branch or tag`);
  }
  checkRepo(repo);
  // before anything is touched: a token that cannot be read is a mistake in the settings
  const cookie = cookieOf(placing.placeOf(settings.repos, repo));
  const remote = await remoteOf(repo, settings, { signal, cookie });
  return await locked(repo, options, `update of ${repo}`, async (job) => {
    // looked at while the remote is asked; what comes of it matters only if nothing is new
    const damage = findDamage(job.place, job.state);
    const sound = isSound(job, settings, damage);
    for (const each of [damage, sound]) each.catch(() => {});
    const tip = await theTip(remote, settings, sha, job.served);
    const { served } = job;
    const same = served?.sha === tip.sha && served.branch === tip.branch;
    if (served && same && (await sound)) {
      if (!served.pending) return result(job, served, false);
      // a run was killed while `after:` was at work
      await runAfter(job, served, served, settings);
      return result(job, served, true);
    }
    const wanted = wish(tip, settings.depth, sha !== undefined);
    const tree = await makeTree(job, remote, wanted, await damage, settings);
    await putInPlace(job, tree, settings);
    return result(job, tree, true);
  });
}

/**
 * Put the tree before the served one back.
 * @throws {Failure} when none is kept.
 */
export async function rollBack(repo: string, options: ActivateOptions): Promise<Activated> {
  return await locked(repo, options, `rollback of ${repo}`, async (job) => {
    const { state, served } = job;
    // the state lists them in the order in which they were built
    const position = served ? state.trees.indexOf(served) : state.trees.length;
    const older = state.trees[position - 1];
    if (!older) throw new Failure(`no older tree of ${repo} is kept; see --keep`);
    if (!older.plain && !(await isUnchanged(job.place, older, false, job.shared))) {
      throw new Failure(
        `the older tree of ${repo} (${older.sha}) was written into or cannot be checked; update with --sha ${older.sha} instead`,
      );
    }
    await putInPlace(job, older, options.settings);
    return result(job, older, true);
  });
}

/** What is known while the lock is held. */
interface Job {
  place: Place;
  state: State;
  standing: placing.Standing;
  /** The tree that the link leads to, if it is one of ours. */
  served: Tree | undefined;
  cookie: string;
  shared: { signal?: AbortSignal; cookie: string };
  started: number;
  signal: AbortSignal | undefined;
  note: (line: string) => void;
}

async function locked(
  repo: string,
  options: ActivateOptions,
  what: string,
  work: (job: Job) => Promise<Activated>,
): Promise<Activated> {
  checkRepo(repo);
  const started = performance.now();
  const { signal, note = () => {} } = options;
  const place = placing.placeOf(options.settings.repos, repo);
  await makeFolders(place);
  const lock = await acquireLock(place.lock, { what, wait: options.wait ?? false, signal });
  try {
    const cookie = cookieOf(place);
    const state = await placing.readState(place);
    if (await exists(place.busy)) {
      note("the last update was cut off; tidying up");
      // its children may still be writing: they do not know that it is gone
      await endTree({ cookie }, { grace: 0 });
      for (const { id, pending } of state.trees) {
        if (pending) await endTree({ cookie: afterCookie(cookie, id) }, { grace: 0 });
      }
      await sweepMirror(place);
      await placing.tidyUp(place, state);
    }
    await writeFile(place.busy, `${process.pid}\n`);
    const standing = await placing.standingAt(place);
    const served = state.trees.find((tree) => standing.kind === "tree" && tree.id === standing.id);
    const shared = { cookie, ...(signal ? { signal } : {}) };
    const job: Job = { place, state, standing, served, cookie, shared, started, signal, note };
    try {
      return await work(job);
    } catch (error) {
      throw explained(error, job);
    } finally {
      await rm(place.building, { recursive: true, force: true });
      await rm(place.busy, { force: true });
    }
  } finally {
    lock.release();
  }
}

/** The mark that everything an update of this repo starts carries, so that the next one can end what a killed one left. */
function cookieOf(place: Place): string {
  return `activate-${createHash("sha256").update(place.home).digest("hex").slice(0, 20)}`;
}

async function makeFolders(place: Place): Promise<void> {
  try {
    await placing.makePlace(place);
  } catch (error) {
    throw new Failure(`cannot make ${place.home}: ${systemCode(error) ?? messageOf(error)}`);
  }
}

/** What the user should read: whose fault it is, and that the old tree stays. */
function explained(error: unknown, { served }: Job): unknown {
  const stays = served ? `; ${served.sha.slice(0, 12)} stays in place` : "";
  const system = systemCode(error);
  if (error instanceof CommandFailed || error instanceof RemoteLacks) {
    return new Failure(`${plainWords(error)}${stays}`);
  }
  if (error instanceof Failure) return new Failure(`${error.message}${stays}`);
  if (system === "ENOSPC" || system === "EDQUOT") return new Failure(`the disk is full${stays}`);
  if (system !== undefined && !system.startsWith("ERR_")) {
    return new Failure(`${messageOf(error)}${stays}`);
  }
  return error;
}

async function theTip(
  remote: Remote,
  settings: RepoSettings,
  sha: string | undefined,
  served: Tree | undefined,
): Promise<Tip> {
  // the commit is known, and so is the branch: no need to ask
  if (sha !== undefined && settings.branch === undefined && served?.branch !== undefined) {
    return { sha, branch: served.branch };
  }
  const tip = await askTip(remote, settings.branch);
  return sha === undefined ? tip : { sha, branch: tip.branch };
}

/** Whether the served tree can stay as it is, and the mirror with it. */
async function isSound(
  { place, served, shared }: Job,
  settings: RepoSettings,
  damage: Promise<string | undefined>,
): Promise<boolean> {
  if (!served || served.plain) return false;
  // what `after:` makes in a tree (node_modules, a cache) belongs to it
  const strict = settings.after === undefined;
  const unchanged = isUnchanged(place, served, strict, shared);
  return (await unchanged) && (await damage) === undefined;
}

async function makeTree(
  job: Job,
  remote: Remote,
  wanted: Wanted,
  damage: string | undefined,
  settings: RepoSettings,
): Promise<Tree> {
  const { place, state, note } = job;
  const fetching = updateMirror(place, remote, wanted, damage, note);
  // while git waits for the network, the material for the new tree is made ready
  const preparing = prepareSpare(job, settings.keep);
  const [fetched, prepared] = await Promise.allSettled([fetching, preparing]);
  if (fetched.status === "rejected") throw fetched.reason;
  // material of no use: the tree is built from nothing
  if (prepared.status === "rejected") await emptyBuilding(place);
  const plan = {
    sha: wanted.sha,
    branch: wanted.branch,
    url: remote.url,
    depth: settings.depth,
    isDefault: settings.branch === undefined,
  };
  try {
    await buildTree(place, plan, job.shared);
  } catch (error) {
    if (job.signal?.aborted || isFullDisk(error)) throw error;
    // damage that no sum shows: once more, from a mirror and a folder made anew
    note(`the tree could not be built (${plainWords(error)}); trying with a new mirror`);
    await emptyBuilding(place);
    await remakeMirror(place, remote, wanted);
    state.checked = {};
    state.packed = 0;
    await buildTree(place, plan, job.shared);
  }
  const now = new Date();
  const tree: Tree = {
    id: newRunId(now),
    sha: wanted.sha,
    branch: wanted.branch,
    since: now.toISOString(),
  };
  if (settings.after !== undefined) tree.pending = true;
  await flush(place.building);
  await rename(join(place.building, "index"), placing.indexOf(place, tree.id));
  await rename(join(place.building, "tree"), join(place.trees, tree.id));
  return tree;
}

function isFullDisk(error: unknown): boolean {
  if (["ENOSPC", "EDQUOT"].includes(systemCode(error) ?? "")) return true;
  return /No space left on device|Disk quota exceeded/i.test(
    (error as { result?: { stderr?: string } }).result?.stderr ?? "",
  );
}

/** The trees that are not served, the one that was left last first. */
function others(state: State, served: Tree | undefined): Tree[] {
  return state.trees
    .filter((tree) => tree.id !== served?.id)
    .sort((a, b) => ((a.left ?? a.since) < (b.left ?? b.since) ? 1 : -1));
}

async function emptyBuilding(place: Place): Promise<void> {
  await rm(place.building, { recursive: true, force: true });
  await mkdir(place.building, { recursive: true });
}

/** Make the oldest tree beyond those to keep the raw material of the new one, unless somebody still looks at it. */
async function prepareSpare({ place, state, served, shared }: Job, keep: number): Promise<void> {
  await emptyBuilding(place);
  const spare = others(state, served)
    .slice(keep)
    .findLast(({ plain }) => !plain);
  if (!spare) return;
  const index = placing.indexOf(place, spare.id);
  if (!(await exists(index))) return;
  const [from, to] = [join(place.trees, spare.id), join(place.building, "tree")];
  // out of everybody's way first: who comes by its path finds nothing, who is in it is seen
  await rename(from, to);
  if (placing.isHeld(to)) return await rename(to, from);
  state.trees = state.trees.filter((tree) => tree !== spare);
  await rename(index, join(place.building, "index"));
  await cleanTree(place, shared);
}

/** Switch the link to a complete tree, run `after:` in it, and prune. */
async function putInPlace(job: Job, tree: Tree, settings: RepoSettings): Promise<void> {
  const { place, state, served, standing } = job;
  const now = new Date().toISOString();
  if (!state.trees.includes(tree)) state.trees.push(tree);
  const pending = settings.after !== undefined;
  delete tree.left;
  tree.since = now;
  if (pending) tree.pending = true;
  if (served) served.left = now;
  // written before the switch: whatever the link leads to is known
  await placing.writeState(place, state);
  const kept = await placing.switchTo(place, tree.id, standing);
  if (kept !== undefined) placing.adoptPlain(state, kept);
  if (pending) await runAfter(job, tree, served, settings);
  await prune(job, tree, settings.keep);
}

async function prune(job: Job, tree: Tree, keep: number): Promise<void> {
  const { place, state } = job;
  // one more than is kept: the next tree is made out of it; what somebody still looks at gets some time
  const beyond = others(state, tree).slice(keep + 1);
  const gone: Tree[] = [];
  for (const [position, old] of beyond.entries()) {
    if (position < mostHeld && placing.isHeld(join(place.trees, old.id))) continue;
    gone.push(old);
  }
  state.trees = state.trees.filter((each) => !gone.includes(each));
  for (const { id } of gone) {
    await rm(join(place.trees, id), { recursive: true, force: true });
    await rm(placing.indexOf(place, id), { force: true });
  }
  await keepTrees(place, state, tree.plain ? undefined : tree);
  await packMirror(place, state, job.shared).catch((error: unknown) => {
    job.note(`the mirror could not be packed: ${plainWords(error)}`);
  });
  await renewStamps(place, state);
  await placing.writeState(place, state);
}

/** So many trees beyond the kept ones may wait for their readers. */
const mostHeld = 4;

function afterCookie(cookie: string, id: string): string {
  return `${cookie}-${id}`;
}

/** Run `after:` in the tree in place; when it fails, put back what was there before. */
async function runAfter(
  job: Job,
  tree: Tree,
  before: Tree | undefined,
  settings: RepoSettings,
): Promise<void> {
  const { place, state } = job;
  if (settings.after !== undefined) {
    try {
      await shell(settings.after, {
        cwd: join(place.trees, tree.id),
        env: cleanEnvironment({
          SLAVE_REPO: place.repo,
          SLAVE_SHA: tree.sha,
          SLAVE_BEFORE: before?.sha ?? "",
          SLAVE_BRANCH: tree.branch ?? "",
          SLAVE_DIR: place.link,
        }),
        timeout: settings.timeout,
        signal: job.signal,
        cookie: afterCookie(job.cookie, tree.id),
      });
    } catch (error) {
      throw await undone(job, tree, before, error);
    }
  }
  delete tree.pending;
  await placing.writeState(place, state);
}

async function undone(
  job: Job,
  tree: Tree,
  before: Tree | undefined,
  error: unknown,
): Promise<unknown> {
  const { place, state } = job;
  const words =
    error instanceof CommandFailed ? error.message.replace(/^the command /, "") : messageOf(error);
  const standing = await placing.standingAt(place);
  const back = before && before !== tree ? before : others(state, tree)[0];
  if (back) {
    delete back.left;
    await placing.switchTo(place, back.id, standing);
  } else {
    await placing.removeLink(place);
  }
  state.trees = state.trees.filter((each) => each !== tree);
  await placing.writeState(place, state);
  await rm(join(place.trees, tree.id), { recursive: true, force: true });
  await rm(placing.indexOf(place, tree.id), { force: true });
  await keepTrees(place, state);
  job.served = back;
  return new Failure(`after: ${words}; commit ${tree.sha} was undone`);
}

function result(job: Job, tree: Tree, changed: boolean): Activated {
  return {
    repo: job.place.repo,
    before: job.served?.sha,
    sha: tree.sha,
    branch: tree.branch,
    tree: join(job.place.trees, tree.id),
    changed,
    seconds: (performance.now() - job.started) / 1000,
  };
}
