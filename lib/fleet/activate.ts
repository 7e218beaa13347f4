import { mkdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { Failure, systemCode, UsageError } from "../core/errors.ts";
import { exists } from "../files/files.ts";
import { isSafeRef, isSha } from "../core/names.ts";
import { newRunId } from "../core/id.ts";
import { isHeld } from "./held.ts";
import { remakeMirror, updateMirror, type Wanted, wish } from "./mirror.ts";
import { findDamage, noteFetched } from "./mirror-damage.ts";
import { indexOf, type Place, placeOf, type Tree, writeState } from "./place.ts";
import { others, putInPlace, runAfter } from "./put-in-place.ts";
import { askTip, plainWords, type Remote, remoteOf, type Tip } from "./remote.ts";
import type { RepoSettings } from "./settings.ts";
import { buildTree, cleanTree, isUnchanged } from "./tree.ts";
import {
  type Activated,
  type ActivateOptions,
  checkRepo,
  cookieOf,
  type Job,
  locked,
  result,
} from "./under-lock.ts";

/** One update of one repo: fetch, build a tree beside the served one, switch the link, run `after:`. */

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
  const cookie = cookieOf(placeOf(settings.repos, repo));
  const remote = await remoteOf(repo, settings, { signal, cookie });
  return await locked(repo, options, `update of ${repo}`, async (job) => {
    const known = JSON.stringify(job.state.checked);
    // looked at while the remote is asked; what comes of it matters only if nothing is new
    const damage = findDamage(job.place, job.state);
    const sound = isSound(job, settings, damage);
    for (const each of [damage, sound]) each.catch(() => {});
    const tip = await theTip(remote, settings, sha, job.served);
    const { served } = job;
    const same = served?.sha === tip.sha && served.branch === tip.branch;
    if (served && same && (await sound)) {
      if (!served.pending) {
        // packs that were read once more today are not read again by the next question
        if (JSON.stringify(job.state.checked) !== known) await writeState(job.place, job.state);
        return result(job, served, false);
      }
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
  await noteFetched(place, state);
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
  await rename(join(place.building, "index"), indexOf(place, tree.id));
  await rename(join(place.building, "tree"), join(place.trees, tree.id));
  return tree;
}

function isFullDisk(error: unknown): boolean {
  if (["ENOSPC", "EDQUOT"].includes(systemCode(error) ?? "")) return true;
  return /No space left on device|Disk quota exceeded/i.test(
    (error as { result?: { stderr?: string } }).result?.stderr ?? "",
  );
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
  const index = indexOf(place, spare.id);
  if (!(await exists(index))) return;
  const [from, to] = [join(place.trees, spare.id), join(place.building, "tree")];
  // out of everybody's way first: who comes by its path finds nothing, who is in it is seen
  await rename(from, to);
  if (isHeld(to)) return await rename(to, from);
  state.trees = state.trees.filter((tree) => tree !== spare);
  await rename(index, join(place.building, "index"));
  await cleanTree(place, shared);
}
