import { mkdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { Failure, messageOf, systemCode, UsageError } from "../../core/errors.ts";
import { newRunId } from "../../core/id.ts";
import { isSafeRef, isSha } from "../../core/names.ts";
import { ProcessOutput } from "../../exec/exec.ts";
import { endTree } from "../../exec/process-tree.ts";
import { exists } from "../../files/files.ts";
import { acquireLock } from "../../files/lock.ts";
import { checkRepo, type RepoSettings } from "../settings.ts";
import { buildTree, cleanTree, isUnchanged } from "./checkout.ts";
import { readLinkState, removeLeftovers } from "./link.ts";
import { type FetchGoal, findDamage, replaceMirror, sweepMirror, updateMirror } from "./mirror.ts";
import { isInUse, others, prune, putInPlace, runAfter } from "./put-in-place.ts";
import { askTip, plainWords, type Remote, RemoteLacks, remoteOf, type Tip } from "./remote.ts";
import {
  cookieOf,
  indexOf,
  type Place,
  placeOf,
  readState,
  type Tree,
  type Update,
  writeState,
} from "./state.ts";

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

/**
 * Bring a repo to the newest commit, or the one asked for.
 * @throws {Failure} when it cannot be: the tree that was served stays in place.
 * @throws {Busy} when another process updates the same repo.
 */
export async function activate(repo: string, options: ActivateOptions): Promise<Activated> {
  const { settings, sha, signal } = options;
  checkRepo(repo);
  if (sha !== undefined && !isSha(sha)) throw new UsageError(`"${sha}" is not a full commit id`);
  if (settings.branch !== undefined && !isSafeRef(settings.branch))
    throw new UsageError(`"${settings.branch}" is not a branch or tag name`);
  const cookie = cookieOf(placeOf(settings.repos, repo));
  // a token that cannot be read is a mistake in the settings: said before anything is touched
  const remote = await remoteOf(repo, settings, { signal, cookie });
  return await locked(repo, options, `update of ${repo}`, async (update) => {
    // read: what the remote has, and whether what is here can be trusted
    const { place, state, served, shared } = update;
    const known = JSON.stringify(state);
    const tip = await tipFor(remote, update, sha);
    const damage = await findDamage(place, state);
    const isSame = served?.sha === tip.sha && served.branch === tip.branch;
    // what `after:` makes in a tree (node_modules, a cache) belongs to it
    const strict = settings.after === undefined;
    const isSound =
      isSame && damage === undefined && (await isUnchanged(place, served, strict, shared));

    // plan; a tree is pending when a run was killed while `after:` was at work
    const plan = !isSound ? "build" : served?.pending ? "finish" : "keep";
    const goal = { ...tip, depth: settings.depth, pinned: sha !== undefined };

    // do
    let tree = served;
    if (tree === undefined || plan === "build") {
      await updateMirror(place, remote, goal, damage, update.note);
      tree = await makeTree(update, remote, goal);
      await putInPlace(update, tree);
      await prune(update, tree);
    }
    if (plan === "finish") await runAfter(update, tree, tree);

    // record; the packs that were fetched are known to the next update
    if (plan === "build") await findDamage(place, state);
    if (JSON.stringify(state) !== known) await writeState(place, state);
    return { tree, changed: plan !== "keep" };
  });
}

/**
 * Put the tree before the served one back.
 * @throws {Failure} when none is kept, or somebody wrote into it.
 */
export async function rollBack(repo: string, options: ActivateOptions): Promise<Activated> {
  checkRepo(repo);
  return await locked(repo, options, `rollback of ${repo}`, async (update) => {
    const { place, state, served, shared } = update;
    // the state lists them in the order in which they were built
    const position = served ? state.trees.indexOf(served) : state.trees.length;
    const older = state.trees[position - 1];
    if (!older) throw new Failure(`no older tree of ${repo} is kept; see --keep`);
    if (!older.plain && !(await isUnchanged(place, older, false, shared))) {
      throw new Failure(
        `the older tree of ${repo} (${older.sha}) was written into or cannot be checked; update with --sha ${older.sha} instead`,
      );
    }
    await putInPlace(update, older);
    await prune(update, older);
    await writeState(place, state);
    return { tree: older, changed: true };
  });
}

/** Do something with a repo under its lock, once what a killed run left is removed. */
async function locked(
  repo: string,
  { settings, wait = false, signal, note = () => {} }: ActivateOptions,
  what: string,
  work: (update: Update) => Promise<{ tree: Tree; changed: boolean }>,
): Promise<Activated> {
  const started = performance.now();
  const place = placeOf(settings.repos, repo);
  await makeFolders(place);
  const lock = await acquireLock(place.lock, { what, wait, signal });
  try {
    const state = await readState(place);
    if (await exists(place.busy)) {
      note("the last update was interrupted; removing what it left");
      // its children may still be writing: they do not know that it is gone
      await endTree({ cookie: cookieOf(place) }, { grace: 0 });
      for (const tree of state.trees)
        if (tree.pending) await endTree({ cookie: cookieOf(place, tree) }, { grace: 0 });
      await sweepMirror(place);
      await removeLeftovers(place, state);
    }
    await writeFile(place.busy, `${process.pid}\n`);
    const { id } = await readLinkState(place);
    const served = state.trees.find((tree) => tree.id === id);
    const shared = { cookie: cookieOf(place), signal };
    const update: Update = { place, settings, state, served, shared, note };
    try {
      const { tree, changed } = await work(update);
      return {
        repo,
        before: served?.sha,
        sha: tree.sha,
        branch: tree.branch,
        tree: join(place.trees, tree.id),
        changed,
        seconds: (performance.now() - started) / 1000,
      };
    } catch (error) {
      // a git that somebody else killed (no memory, no disk) leaves half a pack in the mirror
      await endTree({ cookie: cookieOf(place) }, { grace: 0 });
      await sweepMirror(place);
      throw explained(error, update);
    } finally {
      await rm(place.building, { recursive: true, force: true });
      await rm(place.busy, { force: true });
    }
  } finally {
    lock.release();
  }
}

async function makeFolders({ home, trees }: Place): Promise<void> {
  try {
    await mkdir(trees, { recursive: true });
    await mkdir(join(home, "index"), { recursive: true });
  } catch (error) {
    throw new Failure(`cannot make ${home}: ${systemCode(error) ?? messageOf(error)}`);
  }
}

/** What the user should read: whose fault it is, and that the old tree stays. */
function explained(error: unknown, { served }: Update): unknown {
  const stays = served ? `; ${served.sha.slice(0, 12)} stays in place` : "";
  const system = systemCode(error);
  if (error instanceof ProcessOutput || error instanceof RemoteLacks)
    return new Failure(`${plainWords(error)}${stays}`);
  if (system === "ENOSPC" || system === "EDQUOT") return new Failure(`the disk is full${stays}`);
  if (error instanceof Failure || (system !== undefined && !system.startsWith("ERR_")))
    return new Failure(`${messageOf(error)}${stays}`);
  return error;
}

async function tipFor(remote: Remote, update: Update, sha: string | undefined): Promise<Tip> {
  const { settings, served } = update;
  // the commit is known, and so is the branch: no need to ask
  if (sha !== undefined && settings.branch === undefined && served?.branch !== undefined)
    return { sha, branch: served.branch };
  const tip = await askTip(remote, settings.branch);
  return sha === undefined ? tip : { sha, branch: tip.branch };
}

/** Build a tree out of the mirror, if need be a second time from a new mirror and an empty folder. */
async function makeTree(update: Update, remote: Remote, goal: FetchGoal): Promise<Tree> {
  const { place, state, settings, shared, note } = update;
  const { sha, branch, depth } = goal;
  const plan = { sha, branch, depth, url: remote.url, isDefault: settings.branch === undefined };
  // what is of no use as material goes: then the tree is built from nothing
  await reuseTree(update).catch(() => emptyBuilding(place));
  try {
    await buildTree(place, plan, shared);
  } catch (error) {
    if (shared.signal?.aborted || isFullDisk(error)) throw error;
    // damage that no sum shows
    note(`the tree could not be built (${plainWords(error)}); trying with a new mirror`);
    await emptyBuilding(place);
    await replaceMirror(place, remote, goal);
    state.packed = 0;
    await buildTree(place, plan, shared);
  }
  const now = new Date();
  const tree: Tree = { id: newRunId(now), sha, branch, since: now.toISOString() };
  await rename(join(place.building, "index"), indexOf(place, tree.id));
  await rename(join(place.building, "tree"), join(place.trees, tree.id));
  return tree;
}

function isFullDisk(error: unknown): boolean {
  if (["ENOSPC", "EDQUOT"].includes(systemCode(error) ?? "")) return true;
  const words = error instanceof ProcessOutput ? error.stderr : "";
  return /No space left on device|Disk quota exceeded/i.test(words);
}

async function emptyBuilding({ building }: Place): Promise<void> {
  await rm(building, { recursive: true, force: true });
  await mkdir(building, { recursive: true });
}

/** Make the oldest tree beyond those to keep the raw material of the new one, unless somebody still looks at it. */
async function reuseTree({ place, settings, state, served, shared }: Update): Promise<void> {
  await emptyBuilding(place);
  const beyond = others(state, served).slice(settings.keep);
  const spare = beyond.findLast(({ plain }) => !plain);
  if (!spare) return;
  const index = indexOf(place, spare.id);
  if (!(await exists(index))) return;
  const [from, to] = [join(place.trees, spare.id), join(place.building, "tree")];
  // moved first: its path finds nothing from now on, and a process that is in it is seen
  await rename(from, to);
  if (isInUse(to)) return await rename(to, from);
  state.trees = state.trees.filter((tree) => tree !== spare);
  await rename(index, join(place.building, "index"));
  await cleanTree(place, shared);
}
