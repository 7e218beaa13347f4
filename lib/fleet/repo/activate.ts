import { rename, rm, rmdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { Failure, systemCode, UsageError } from "../../core/errors.ts";
import { newRunId } from "../../core/id.ts";
import { isSafeRef, isSha } from "../../core/names.ts";
import { ProcessOutput } from "../../exec/exec.ts";
import { endTree } from "../../exec/process-tree.ts";
import { exists, makeFolder } from "../../files/files.ts";
import { acquireLock } from "../../files/lock.ts";
import { checkRepo, type RepoSettings } from "../settings.ts";
import { buildTree, isUnchanged } from "./checkout.ts";
import { type FetchGoal, replaceMirror, sweepMirror, updateMirror } from "./mirror.ts";
import { putInPlace, runAfter, serveNew, tidyUp } from "./put-in-place.ts";
import { askTip, FullDisk, plainWords, type Remote, remoteOf, type Tip, toFullDisk } from "../remote.ts";
import {
  cookieOf,
  indexOf,
  type Place,
  placeOf,
  readLinkState,
  readState,
  removeLeftovers,
  type Tree,
  type Update,
  writeState,
} from "./state.ts";

/** One update of one repo: fetch, build a tree beside the served one, run `check:`, switch the link, run `after:`. */

export interface ActivateOptions {
  settings: RepoSettings;
  /** The commit; without it, the branch's newest. */
  sha?: string | undefined;
  /** The branch that the commit is of, where that is known: then the remote is not asked. */
  branch?: string | undefined;
  /** How long another update is waited for: not at all, milliseconds, or true for its end. */
  wait?: boolean | number;
  signal?: AbortSignal | undefined;
  note?: (line: string) => void;
}

export interface Activated {
  repo: string;
  /** What was served before. */
  before: string | undefined;
  /** Undefined for a plain folder that was there before the first update. */
  sha: string | undefined;
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
    // read: what the remote has, and whether what is served is still that
    const { place, served, shared } = update;
    const tip = await tipFor(remote, update, options);
    const isSame = served?.sha === tip.sha && served.branch === tip.branch;
    // what `check:` and `after:` make in a tree (node_modules, a cache) belongs to it
    const strict = settings.check === undefined && settings.after === undefined;
    const isSound = isSame && (await isUnchanged(place, served, { strict, ...settings }, shared));

    // plan; a tree is pending when a run was killed while `after:` was at work
    const plan = !isSound ? "build" : served?.pending ? "finish" : "keep";
    const goal = { ...tip, depth: settings.depth, pinned: sha !== undefined };

    // do
    let tree = served;
    if (tree === undefined || plan === "build") {
      await updateMirror(place, remote, goal, update.note);
      tree = await makeTree(update, remote, goal);
      await serveNew(update, tree);
    }
    if (plan === "finish") await runAfter(update, tree, tree);

    // record
    if (plan !== "keep") await tidyUp(update, tree);
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
    if (!older && (await readLinkState(place)).kind === "folder")
      throw new Failure(`${repo} is a plain folder that no update has replaced yet: there is nothing to go back to`);
    if (!older) throw new Failure(`no older tree of ${repo} is kept; see --keep`);
    if (!older.plain && !(await isUnchanged(place, older, { strict: false }, shared))) {
      throw new Failure(
        `the older tree of ${repo} (${older.sha}) was written into or cannot be checked; ` +
          `update with --sha ${older.sha} instead`,
      );
    }
    await putInPlace(update, older);
    await tidyUp(update, older);
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
  const lock = await acquireLock(place.lock, { what, wait, signal });
  try {
    for (const folder of [place.trees, join(place.home, "index")]) await makeFolder(folder);
    const state = await readState(place);
    if (await exists(place.busy)) {
      note("the last update was interrupted; removing what it left");
      // its children may still be writing: they do not know that it is gone
      await endTree({ cookie: cookieOf(place) }, { grace: 0 });
      for (const tree of state.trees) if (tree.pending) await endTree({ cookie: cookieOf(place, tree) }, { grace: 0 });
      await sweepMirror(place);
      await removeLeftovers(place, state);
      await writeState(place, state);
    }
    const { kind, id } = await readLinkState(place);
    if (kind === "file") throw new Failure(`${place.link} is a file; move it away`);
    await writeFile(place.busy, `${process.pid}\n`);
    const served = state.trees.find((tree) => tree.id === id);
    const shared = { cookie: cookieOf(place), signal };
    const update: Update = { place, settings, state, served, shared, note };
    try {
      const { tree, changed } = await work(update);
      return {
        repo,
        before: served?.plain ? undefined : served?.sha,
        sha: tree.plain ? undefined : tree.sha,
        branch: tree.branch,
        tree: join(place.trees, tree.id),
        changed,
        seconds: Math.round(performance.now() - started) / 1000,
      };
    } catch (cause) {
      const error = await toFullDisk(cause, place.home);
      // a git that somebody else killed (no memory, no disk) leaves half a pack in the mirror
      await endTree({ cookie: cookieOf(place) }, { grace: 0 });
      await sweepMirror(place);
      throw explained(error, update);
    } finally {
      await rm(place.building, { recursive: true, force: true });
      await rm(place.busy, { force: true });
    }
  } finally {
    await forgetIfEmpty(place);
    lock.release();
  }
}

/** Of a repo that could not even be fetched, nothing stays. The lock is held. */
async function forgetIfEmpty({ home, trees, lock }: Place): Promise<void> {
  try {
    for (const folder of [trees, join(home, "index")]) await rmdir(folder);
    // whoever waits for it sees that it is gone, and makes another
    await rm(lock);
    await rmdir(home);
  } catch {
    // there is something in it
  }
}

/** What the user should read: whose fault it is, and that the old tree stays. */
function explained(error: unknown, { served }: Update): unknown {
  const name = served?.plain ? "the plain folder" : served?.sha.slice(0, 12);
  const stays = name === undefined ? "" : `; ${name} stays in place`;
  const system = systemCode(error);
  const isOurs = error instanceof Failure || error instanceof ProcessOutput;
  if (!isOurs && (system === undefined || system.startsWith("ERR_"))) return error;
  return new Failure(`${plainWords(error)}${stays}`);
}

async function tipFor(
  remote: Remote,
  { settings, served }: Update,
  { sha, branch }: Pick<ActivateOptions, "sha" | "branch">,
): Promise<Tip> {
  // the commit is known, and so is the branch: no need to ask
  if (sha !== undefined && branch !== undefined) return { sha, branch };
  if (sha !== undefined && settings.branch === undefined && served?.branch !== undefined)
    return { sha, branch: served.branch };
  const tip = await askTip(remote, settings.branch);
  return sha === undefined ? tip : { sha, branch: tip.branch };
}

/** Build a tree out of the mirror, if need be a second time from a new mirror. */
async function makeTree(update: Update, remote: Remote, goal: FetchGoal): Promise<Tree> {
  const { place, settings, shared, note } = update;
  const { sha, branch, depth } = goal;
  const { submodules, lfs } = settings;
  const isDefault = settings.branch === undefined;
  const plan = { sha, branch, depth, remote, isDefault, submodules, lfs };
  let made: string | undefined;
  try {
    made = await buildTree(place, plan, shared);
  } catch (cause) {
    // while what was written is still there
    const error = await toFullDisk(cause, place.home);
    if (shared.signal?.aborted || error instanceof FullDisk) throw error;
    // the mirror may be damaged: all of it can be had again
    note(`the tree could not be built (${plainWords(error)}); trying with a new mirror`);
    await replaceMirror(place, remote, goal);
    made = await buildTree(place, plan, shared);
  }
  const now = new Date();
  const tree: Tree = { id: newRunId(now), sha, branch, since: now.toISOString() };
  if (made !== undefined) tree.submodules = made;
  if (lfs) tree.lfs = true;
  await rename(join(place.building, "index"), indexOf(place, tree.id));
  await rename(join(place.building, "tree"), join(place.trees, tree.id));
  return tree;
}
