import { readdirSync, readlinkSync } from "node:fs";
import { mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Failure, messageOf } from "../../core/errors.ts";
import { cleanEnvironment, sh } from "../../exec/exec.ts";
import { isUnchanged, syncFolder } from "./checkout.ts";
import { packMirror } from "./mirror.ts";
import { plainWords } from "../remote.ts";
import {
  adoptPlain,
  cookieOf,
  indexOf,
  type Place,
  readLinkState,
  type State,
  switchTo,
  type Tree,
  type Update,
  writeState,
} from "./state.ts";

/** From a complete tree to a served one: `check:`, the switch, `after:` with its undoing, and what is pruned. */

/** The trees that are not served, the one that was left last first. */
function others(state: State, served: Tree | undefined): Tree[] {
  return state.trees
    .filter((tree) => tree.id !== served?.id)
    .sort((a, b) => ((a.left ?? a.since) < (b.left ?? b.since) ? 1 : -1));
}

/**
 * Have `check:` look at a new tree, and put it in place.
 * @throws {Failure} when it is not in place then: nothing of it stays
 */
export async function serveNew(update: Update, tree: Tree): Promise<void> {
  try {
    await keepObjects(update.place, tree);
    await runCheck(update, tree);
    await putInPlace(update, tree);
  } catch (error) {
    if ((await readLinkState(update.place)).id !== tree.id) await discard(update, tree);
    throw error;
  }
}

/** Switch the link to a complete tree, and run `after:` in it. */
export async function putInPlace(update: Update, tree: Tree): Promise<void> {
  const { place, state, served, settings } = update;
  const now = new Date().toISOString();
  if (!state.trees.includes(tree)) state.trees.push(tree);
  delete tree.left;
  tree.since = now;
  if (settings.after !== undefined) tree.pending = true;
  if (served) served.left = now;
  // written before the switch: whatever the link leads to is known
  await writeState(place, state);
  const kept = await switchTo(place, tree.id);
  if (kept !== undefined) adoptPlain(state, kept);
  update.served = tree;
  await runAfter(update, tree, served);
}

/**
 * Run `check:` in a tree that is not in place yet.
 * @throws {Failure} with what it said last, or when it changed the repo's own files
 */
async function runCheck(update: Update, tree: Tree): Promise<void> {
  const { place, settings, served, shared } = update;
  if (settings.check === undefined) return;
  const words = await runIn(update, settings.check, tree, served).then(
    () => undefined,
    (error: unknown) => messageOf(error).replace(/^the command /, ""),
  );
  if (words !== undefined) throw new Failure(`check: ${words}; commit ${tree.sha} was not put in place`);
  if (!(await isUnchanged(place, tree, { strict: false }, shared)))
    throw new Failure(`check: it changed files of the repo in the new tree; commit ${tree.sha} was not put in place`);
  // what it made there must survive a power cut as well
  await syncFolder(join(place.trees, tree.id), shared);
}

/** Run a command of slave.yml in a tree. */
async function runIn(
  { place, settings, shared }: Update,
  command: string,
  tree: Tree,
  before: Tree | undefined,
): Promise<void> {
  const env = cleanEnvironment({
    SLAVE_REPO: place.repo,
    SLAVE_SHA: tree.sha,
    SLAVE_BEFORE: before?.plain ? "" : (before?.sha ?? ""),
    SLAVE_BRANCH: tree.branch ?? "",
    SLAVE_DIR: place.link,
  });
  const cwd = join(place.trees, tree.id);
  const { signal } = shared;
  // by this mark the next update ends what a killed one left; a tree has one of its own while `after:` is at work
  const cookie = tree.pending ? cookieOf(place, tree) : cookieOf(place);
  await sh(command, { cwd, env, timeout: settings.timeout, signal, cookie });
}

/**
 * Run `after:` in the tree in place; when it fails, put back what was there before.
 * @throws {Failure} with what it said last
 */
export async function runAfter(update: Update, tree: Tree, before: Tree | undefined): Promise<void> {
  const { place, state, settings } = update;
  if (settings.after !== undefined)
    await runIn(update, settings.after, tree, before).catch(async (error: unknown) => {
      await undo(update, tree, before === tree ? undefined : before);
      const words = messageOf(error).replace(/^the command /, "");
      throw new Failure(`after: ${words}; commit ${tree.sha} was undone`);
    });
  if (!tree.pending) return;
  delete tree.pending;
  await writeState(place, state);
}

/** Put the tree before back, or the newest of the older ones, and remove the one that failed. */
async function undo(update: Update, tree: Tree, before: Tree | undefined): Promise<void> {
  const { place, state } = update;
  const back = before ?? others(state, tree)[0];
  if (back) {
    delete back.left;
    await switchTo(place, back.id);
  } else {
    await rm(place.link, { force: true });
  }
  update.served = back;
  await discard(update, tree);
}

/** Remove a tree that is not in place. What cannot be written then is no worse: a tree that is gone is not known. */
async function discard({ place, state }: Update, tree: Tree): Promise<void> {
  state.trees = state.trees.filter((each) => each !== tree);
  await removeTree(place, tree);
  await forgetObjects(place, state).catch(() => {});
  await writeState(place, state).catch(() => {});
}

function treeRefs({ mirror }: Place): string {
  return join(mirror, "refs", "trees");
}

/** Let a ref of the mirror keep the objects of a tree that was built from it. */
async function keepObjects(place: Place, { id, sha }: Tree): Promise<void> {
  await mkdir(treeRefs(place), { recursive: true });
  await writeFile(join(treeRefs(place), id), `${sha}\n`);
}

/** Keep no longer those of trees that are gone. */
async function forgetObjects(place: Place, state: State): Promise<void> {
  await mkdir(treeRefs(place), { recursive: true });
  const known = new Set(state.trees.map(({ id }) => id));
  for (const name of await readdir(treeRefs(place)))
    if (!known.has(name)) await rm(join(treeRefs(place), name), { force: true });
}

/** So long, in ms, a tree beyond the kept ones stays while a program is seen in it. */
const maxInUse = 86_400_000;

/** Once a tree is in place: remove the old ones, keep the mirror small, record it. A failure is only told. */
export async function tidyUp(update: Update, tree: Tree): Promise<void> {
  const { place, state, settings, shared, note } = update;
  const gone = others(state, tree)
    .slice(settings.keep)
    .filter(({ id, left = "" }) => {
      const age = Date.now() - Date.parse(left);
      return !(age < maxInUse) || !isInUse(join(place.trees, id));
    });
  for (const each of gone) {
    try {
      await removeTree(place, each);
      state.trees = state.trees.filter((other) => other !== each);
    } catch (error) {
      // the update is done all the same: the next one tries again
      const path = join(place.trees, each.id);
      note(`the older tree ${path} cannot be removed: ${messageOf(error)}; remove it by hand`);
    }
  }
  for (const step of [
    () => forgetObjects(place, state),
    () => packMirror(place, state, shared),
    () => writeState(place, state),
  ])
    await step().catch((error: unknown) => {
      note(`the update is done, but not all is tidied up: ${plainWords(error)}`);
    });
}

/** Not by rm(1): it removes one file at a time, and a file system that discards blocks at once has it wait for each. */
async function removeTree(place: Place, { id }: Tree): Promise<void> {
  await rm(join(place.trees, id), { recursive: true, force: true });
  await rm(indexOf(place, id), { force: true });
}

/**
 * Whether any process that we may look at works in a folder or has something in it open. In one go and not by
 * promises: that takes a tenth of the time for thousands of small reads of /proc.
 */
function isInUse(folder: string): boolean {
  const inside = (path: string) => path === folder || path.startsWith(`${folder}/`);
  const target = (path: string) => attempt(() => readlinkSync(path)) ?? "";
  for (const pid of attempt(() => readdirSync("/proc")) ?? []) {
    if (!/^\d+$/.test(pid)) continue;
    if (inside(target(`/proc/${pid}/cwd`)) || inside(target(`/proc/${pid}/root`))) return true;
    const fds = attempt(() => readdirSync(`/proc/${pid}/fd`)) ?? [];
    if (fds.some((fd) => inside(target(`/proc/${pid}/fd/${fd}`)))) return true;
  }
  return false;
}

/** Processes end while they are looked at, and others' cannot be looked at. */
function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
