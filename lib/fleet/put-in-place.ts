import { rm } from "node:fs/promises";
import { join } from "node:path";
import { Failure, messageOf } from "../core/errors.ts";
import { CommandFailed, cleanEnvironment, shell } from "../exec/exec.ts";
import { isHeld } from "./held.ts";
import { removeLink, standingAt, switchTo } from "./link.ts";
import { renewStamps } from "./mirror-damage.ts";
import { keepTrees, packMirror } from "./mirror-size.ts";
import { adoptPlain, indexOf, type State, type Tree, writeState } from "./place.ts";
import { plainWords } from "./remote.ts";
import type { RepoSettings } from "./settings.ts";
import { afterCookie, type Job } from "./under-lock.ts";

/** From a complete tree to a served one: the switch, `after:`, its undoing, and what is pruned. */

/** The trees that are not served, the one that was left last first. */
export function others(state: State, served: Tree | undefined): Tree[] {
  return state.trees
    .filter((tree) => tree.id !== served?.id)
    .sort((a, b) => ((a.left ?? a.since) < (b.left ?? b.since) ? 1 : -1));
}

/** Switch the link to a complete tree, run `after:` in it, and prune. */
export async function putInPlace(job: Job, tree: Tree, settings: RepoSettings): Promise<void> {
  const { place, state, served, standing } = job;
  const now = new Date().toISOString();
  if (!state.trees.includes(tree)) state.trees.push(tree);
  const pending = settings.after !== undefined;
  delete tree.left;
  tree.since = now;
  if (pending) tree.pending = true;
  if (served) served.left = now;
  // written before the switch: whatever the link leads to is known
  await writeState(place, state);
  const kept = await switchTo(place, tree.id, standing);
  if (kept !== undefined) adoptPlain(state, kept);
  if (pending) await runAfter(job, tree, served, settings);
  await prune(job, tree, settings.keep);
}

async function prune(job: Job, tree: Tree, keep: number): Promise<void> {
  const { place, state } = job;
  // one more than is kept: the next tree is made out of it; what somebody still looks at gets some time
  const beyond = others(state, tree).slice(keep + 1);
  const gone: Tree[] = [];
  for (const [position, old] of beyond.entries()) {
    if (position < mostHeld && isHeld(join(place.trees, old.id))) continue;
    gone.push(old);
  }
  state.trees = state.trees.filter((each) => !gone.includes(each));
  for (const { id } of gone) {
    await rm(join(place.trees, id), { recursive: true, force: true });
    await rm(indexOf(place, id), { force: true });
  }
  await keepTrees(place, state, tree.plain ? undefined : tree);
  await packMirror(place, state, job.shared).catch((error: unknown) => {
    job.note(`the mirror could not be packed: ${plainWords(error)}`);
  });
  await renewStamps(place, state);
  await writeState(place, state);
}

/** So many trees beyond the kept ones may wait for their readers. */
const mostHeld = 4;

/** Run `after:` in the tree in place; when it fails, put back what was there before. */
export async function runAfter(
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
  await writeState(place, state);
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
  const standing = await standingAt(place);
  const back = before && before !== tree ? before : others(state, tree)[0];
  if (back) {
    delete back.left;
    await switchTo(place, back.id, standing);
  } else {
    await removeLink(place);
  }
  state.trees = state.trees.filter((each) => each !== tree);
  await writeState(place, state);
  await rm(join(place.trees, tree.id), { recursive: true, force: true });
  await rm(indexOf(place, tree.id), { force: true });
  await keepTrees(place, state);
  job.served = back;
  return new Failure(`after: ${words}; commit ${tree.sha} was undone`);
}
