import { readdirSync, readlinkSync } from "node:fs";
import { rename, rm, rmdir, writeFile } from "node:fs/promises";
import process from "node:process";
import { Failure, messageOf, Refused, systemCode, UsageError } from "../../core/errors.ts";
import { newRunId } from "../../core/id.ts";
import { isSha } from "../../core/names.ts";
import { cleanEnvironment, ProcessOutput, sh, timedOut } from "../../exec/exec.ts";
import { endTree } from "../../exec/process-tree.ts";
import { exists, makeFolder } from "../../files/files.ts";
import { acquireLock } from "../../files/lock.ts";
import { readSigners } from "../../git/signers.ts";
import {
  askTip,
  FullDisk,
  plainWords,
  type Remote,
  RemoteLacks,
  remoteOf,
  type Shared,
  toFullDisk,
} from "../remote.ts";
import { checkBranch, checkRepo, type RepoSettings } from "../settings.ts";
import { buildTree, type Goal, isUnchanged, syncFolder } from "./clone.ts";
import { Place, readLink, readTrees, sweep, switchTo, type Tree, writeTrees } from "./trees.ts";

/** One update of one repo: a fresh clone beside the served one, `check:`, the link switched, `after:`. */

export interface ActivateOptions {
  settings: RepoSettings;
  /** The commit; without it, the branch's newest. */
  sha?: string | undefined;
  /** The branch that the commit is of, where that is known: then the remote is not asked. */
  branch?: string | undefined;
  /** The commit may be older than what is served, where the settings allow that. */
  back?: boolean | undefined;
  /** How long another update is waited for: not at all, milliseconds, or true for its end. */
  wait?: boolean | number;
  signal?: AbortSignal | undefined;
  note?: (line: string) => void;
}

/** What an update works with, while the lock is held. */
interface Update {
  place: Place;
  settings: RepoSettings;
  trees: Tree[];
  /** The tree that the link leads to, if it is one of ours. */
  served: Tree | undefined;
  /** For each of its processes. */
  shared: Shared;
  note: (line: string) => void;
}

/**
 * Bring a repo to the newest commit, or the one asked for.
 * @throws {Failure} when it cannot be: the tree that was served stays in place.
 * @throws {Busy} when another process updates the same repo.
 */
export async function activate(repo: string, options: ActivateOptions) {
  const { settings, sha, back, signal } = options;
  checkRepo(repo);
  if (sha !== undefined && !isSha(sha)) throw new UsageError(`"${sha}" is not a full commit id`);
  if (settings.branch !== undefined) checkBranch(settings.branch);
  const cookie = new Place(settings.repos, repo).cookie();
  // a token that cannot be read is a mistake in the settings: said before anything is touched
  const remote = await remoteOf(repo, settings, { signal, cookie });
  const signedBy = settings.signers === undefined ? undefined : await readSigners(settings.signers, "signers");
  return await locked(repo, options, `update of ${repo}`, async (update) => {
    // read: what the remote has, and whether what is served is still that
    const { place, served, shared } = update;
    const known = settings.branch === undefined ? served?.branch : undefined;
    const branch = options.branch ?? known;
    // the commit is known, and so is the branch: no need to ask
    const tip = sha && branch ? { sha, branch } : await askTip(remote, settings.branch);
    const isDefault = settings.branch === undefined;
    const commit = { sha: sha ?? tip.sha, branch: tip.branch, pinned: sha !== undefined, isDefault };
    const mayGoBack = settings.allowBack && back === true;
    const above = signedBy && !mayGoBack && !served?.plain ? served?.sha : undefined;
    const goal: Goal = { ...settings, ...commit, signedBy, above };
    const isSame = served?.sha === goal.sha && served.branch === goal.branch;
    // what `check:` and `after:` make in a tree (node_modules, a cache) belongs to it
    const strict = settings.check === undefined && settings.after === undefined;
    if (isSame && (await isUnchanged(place, served, { ...settings, strict }, shared))) {
      // a tree is pending when a run was killed while `after:` was at work
      const isPending = served.pending === true;
      if (isPending) await runAfter(update, served, served);
      return { tree: served, changed: isPending };
    }
    const tree = await makeTree(update, remote, goal);
    try {
      await runCheck(update, tree);
      await putInPlace(update, tree);
    } catch (error) {
      if ((await readLink(place)).id !== tree.id) await discard(update, tree);
      throw error;
    }
    return { tree, changed: true };
  });
}

/**
 * Put the tree before the served one back.
 * @throws {Failure} when none is kept, or somebody wrote into it.
 */
export async function rollBack(repo: string, options: ActivateOptions) {
  checkRepo(repo);
  return await locked(repo, options, `rollback of ${repo}`, async (update) => {
    const { place, trees, served, shared } = update;
    const older = trees[(served ? trees.indexOf(served) : trees.length) - 1];
    if (!older && (await readLink(place)).kind === "folder")
      throw new Failure(`${repo} is a plain folder that no update has replaced yet: there is nothing to go back to`);
    if (!older) throw new Failure(`no older tree of ${repo} is kept; see --keep`);
    if (!older.plain && !(await isUnchanged(place, older, { strict: false }, shared)))
      throw new Failure(
        `the older tree of ${repo} (${older.sha}) was written into or cannot be checked; ` +
          `update with --sha ${older.sha} instead`,
      );
    await putInPlace(update, older);
    return { tree: older, changed: true };
  });
}

/** Do something with a repo under its lock, once what a killed run left is removed. */
async function locked(
  repo: string,
  { settings, wait = false, signal, note = () => {} }: ActivateOptions,
  what: string,
  work: (update: Update) => Promise<{ tree: Tree; changed: boolean }>,
) {
  const started = performance.now();
  const place = new Place(settings.repos, repo);
  const lock = await acquireLock(place.in("lock"), { what, wait, signal });
  try {
    for (const folder of ["trees", "index"]) await makeFolder(place.in(folder));
    const trees = await readTrees(place);
    if (await exists(place.in("busy"))) {
      note("the last update was interrupted; removing what it left");
      // its children may still be writing: they do not know that it is gone
      for (const id of [undefined, ...trees.filter(({ pending }) => pending).map((tree) => tree.id)])
        await endTree({ cookie: place.cookie(id) }, { grace: 0 });
      await sweep(place, trees);
      await writeTrees(place, trees);
    }
    const { kind, id } = await readLink(place);
    if (kind === "file") throw new Failure(`${place.link} is a file; move it away`);
    await writeFile(place.in("busy"), `${process.pid}\n`);
    const served = trees.find((tree) => tree.id === id);
    const shared = { cookie: place.cookie(), signal };
    const update: Update = { place, settings, trees, served, shared, note };
    try {
      const { tree, changed } = await work(update);
      if (changed) await tidyUp(update, tree);
      return {
        repo,
        /** What was served before. */
        before: served?.plain ? undefined : served?.sha,
        /** Undefined for a plain folder that was there before the first update. */
        sha: tree.plain ? undefined : tree.sha,
        branch: tree.branch,
        /** The folder that the link leads to now. */
        tree: place.tree(tree.id),
        changed,
        seconds: Math.round(performance.now() - started) / 1000,
      };
    } catch (cause) {
      const error = await toFullDisk(cause, place.home);
      await endTree({ cookie: place.cookie() }, { grace: 0 });
      throw explained(error, update.served);
    } finally {
      await rm(place.in("building"), { recursive: true, force: true });
      await rm(place.in("busy"), { force: true });
    }
  } finally {
    await forgetIfEmpty(place);
    lock.release();
  }
}

/** Of a repo that could not even be fetched, nothing stays. The lock is held. */
async function forgetIfEmpty(place: Place): Promise<void> {
  try {
    for (const folder of ["trees", "index"]) await rmdir(place.in(folder));
    // whoever waits for it sees that it is gone, and makes another
    for (const name of ["lfs", "lock"]) await rm(place.in(name), { recursive: true, force: true });
    await rmdir(place.home);
  } catch {
    // there is something in it
  }
}

/** What the user should read: whose fault it is, and that the old tree stays. */
function explained(error: unknown, served: Tree | undefined): unknown {
  const name = served?.plain ? "the plain folder" : served?.sha.slice(0, 12);
  const system = systemCode(error);
  const isOurs = error instanceof Failure || error instanceof ProcessOutput || error instanceof Refused;
  if (!isOurs && (system === undefined || system.startsWith("ERR_"))) return error;
  const words = `${plainWords(error)}${name === undefined ? "" : `; ${name} stays in place`}`;
  return error instanceof Refused ? new Refused(words) : new Failure(words);
}

/** Make a tree with the objects of the served one, or without, when these are damaged. */
async function makeTree({ place, served, shared, note }: Update, remote: Remote, goal: Goal): Promise<Tree> {
  const reference = served?.plain ? undefined : served;
  const submodules = await buildTree(place, remote, goal, reference, shared).catch(async (cause: unknown) => {
    // while what was written is still there
    const error = await toFullDisk(cause, place.home);
    // A remote that does not have it will not have it the second time; a time-out is not the tree's fault; and all of
    // it needs more room than a full disk has.
    const isLate = error instanceof ProcessOutput && timedOut(error);
    const isHopeless = isLate || error instanceof RemoteLacks || error instanceof FullDisk || error instanceof Refused;
    if (isHopeless || shared.signal?.aborted || !reference) throw error;
    note(`the new tree cannot be made with what the served one has (${plainWords(error)}); fetching all of it`);
    return await buildTree(place, remote, goal, undefined, shared);
  });
  const now = new Date();
  const tree: Tree = { id: newRunId(now), sha: goal.sha, branch: goal.branch, since: now.toISOString(), submodules };
  if (goal.lfs) tree.lfs = true;
  await rename(place.in("building", "index"), place.index(tree.id));
  await rename(place.in("building", "tree"), place.tree(tree.id));
  return tree;
}

/** Switch the link to a complete tree, and run `after:` in it. */
async function putInPlace(update: Update, tree: Tree): Promise<void> {
  const { place, trees, served, settings } = update;
  const now = new Date().toISOString();
  if (!trees.includes(tree)) trees.push(tree);
  delete tree.left;
  tree.since = now;
  if (settings.after !== undefined) tree.pending = true;
  if (served) served.left = now;
  // written before the switch: whatever the link leads to is known
  await writeTrees(place, trees);
  const plain = await switchTo(place, tree.id);
  if (plain) trees.unshift(plain);
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
  const kept = `commit ${tree.sha} was not put in place`;
  await runIn(update, settings.check, tree, served).catch((error: unknown) => {
    throw new Failure(`check: ${wordsOf(error)}; ${kept}`);
  });
  if (!(await isUnchanged(place, tree, { strict: false }, shared)))
    throw new Failure(`check: it changed files of the repo in the new tree; ${kept}`);
  // what it made there must survive a power cut as well
  await syncFolder(place.tree(tree.id), shared);
}

/**
 * Run `after:` in the tree in place; when it fails, put back what was there before, or the newest of the older ones.
 * @throws {Failure} with what it said last
 */
async function runAfter(update: Update, tree: Tree, before: Tree | undefined): Promise<void> {
  const { place, trees, settings } = update;
  if (settings.after !== undefined)
    await runIn(update, settings.after, tree, before).catch(async (error: unknown) => {
      const back = before && before !== tree ? before : newestOthers(trees, tree)[0];
      if (back) {
        delete back.left;
        await switchTo(place, back.id);
      } else await rm(place.link, { force: true });
      update.served = back;
      await discard(update, tree);
      throw new Failure(`after: ${wordsOf(error)}; commit ${tree.sha} was undone`);
    });
  if (!tree.pending) return;
  delete tree.pending;
  await writeTrees(place, trees);
}

function wordsOf(error: unknown): string {
  return messageOf(error).replace(/^the command /, "");
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
  // by this mark the next update ends what a killed one left; a tree has one of its own while `after:` is at work
  const cookie = place.cookie(tree.pending ? tree.id : undefined);
  await sh(command, { cwd: place.tree(tree.id), env, timeout: settings.timeout, signal: shared.signal, cookie });
}

/** Remove a tree that is not in place. What cannot be written then is no worse: a tree that is gone is not known. */
async function discard({ place, trees }: Update, tree: Tree): Promise<void> {
  if (trees.includes(tree)) trees.splice(trees.indexOf(tree), 1);
  await removeTree(place, tree);
  await writeTrees(place, trees).catch(() => {});
}

/** Not by rm(1): it removes one file at a time, and a file system that discards blocks at once has it wait for each. */
async function removeTree(place: Place, { id }: Tree): Promise<void> {
  await rm(place.tree(id), { recursive: true, force: true });
  await rm(place.index(id), { recursive: true, force: true });
}

/** The trees but one, the one that was left last first. */
function newestOthers(trees: readonly Tree[], served: Tree): Tree[] {
  return trees.filter((tree) => tree !== served).sort((a, b) => ((a.left ?? a.since) < (b.left ?? b.since) ? 1 : -1));
}

/** So long, in ms, a tree beyond the kept ones stays while a program is seen in it. */
const maxInUse = 86_400_000;

/** Once a tree is in place: remove the old ones, record it. A failure is only told. */
async function tidyUp({ place, trees, settings, note }: Update, served: Tree): Promise<void> {
  for (const tree of newestOthers(trees, served).slice(settings.keep)) {
    const path = place.tree(tree.id);
    const isNew = Date.now() - Date.parse(tree.left ?? "") < maxInUse;
    if (isNew && isInUse(path)) continue;
    try {
      await removeTree(place, tree);
      trees.splice(trees.indexOf(tree), 1);
    } catch (error) {
      // the update is done all the same: the next one tries again
      note(`the older tree ${path} cannot be removed: ${messageOf(error)}; remove it by hand`);
    }
  }
  await writeTrees(place, trees).catch((error: unknown) => {
    note(`the update is done, but not all is tidied up: ${plainWords(error)}`);
  });
}

/**
 * Whether any process that we may look at works in a folder or has something in it open. In one go and not by
 * promises: that takes a tenth of the time for thousands of small reads of /proc.
 */
function isInUse(folder: string): boolean {
  const isInside = (path: string) => {
    const target = attempt(() => readlinkSync(path)) ?? "";
    return target === folder || target.startsWith(`${folder}/`);
  };
  return (attempt(() => readdirSync("/proc")) ?? []).some((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    if (isInside(`/proc/${pid}/cwd`) || isInside(`/proc/${pid}/root`)) return true;
    return (attempt(() => readdirSync(`/proc/${pid}/fd`)) ?? []).some((fd) => isInside(`/proc/${pid}/fd/${fd}`));
  });
}

/** Processes end while they are looked at, and others' cannot be looked at. */
function attempt<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
