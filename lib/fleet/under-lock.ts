import { createHash } from "node:crypto";
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { Failure, messageOf, Refused, systemCode } from "../core/errors.ts";
import { CommandFailed } from "../exec/exec.ts";
import { exists } from "../files/files.ts";
import { acquireLock } from "../files/lock.ts";
import { isShortName } from "../core/names.ts";
import { endTree } from "../exec/process-tree.ts";
import { type Standing, standingAt } from "./link.ts";
import { sweepMirror } from "./mirror-damage.ts";
import { makePlace, type Place, placeOf, readState, type State, type Tree } from "./place.ts";
import { plainWords, RemoteLacks } from "./remote.ts";
import type { RepoSettings } from "./settings.ts";
import { tidyUp } from "./tidy-up.ts";

/** The frame of every change to a repo: its lock, what a killed run left, and the error that a person reads. */

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

/** What is known while the lock is held. */
export interface Job {
  place: Place;
  state: State;
  standing: Standing;
  /** The tree that the link leads to, if it is one of ours. */
  served: Tree | undefined;
  cookie: string;
  shared: { signal?: AbortSignal; cookie: string };
  started: number;
  signal: AbortSignal | undefined;
  note: (line: string) => void;
}

export async function locked(
  repo: string,
  options: ActivateOptions,
  what: string,
  work: (job: Job) => Promise<Activated>,
): Promise<Activated> {
  checkRepo(repo);
  const started = performance.now();
  const { signal, note = () => {} } = options;
  const place = placeOf(options.settings.repos, repo);
  await makeFolders(place);
  const lock = await acquireLock(place.lock, { what, wait: options.wait ?? false, signal });
  try {
    const cookie = cookieOf(place);
    const state = await readState(place);
    if (await exists(place.busy)) {
      note("the last update was cut off; tidying up");
      // its children may still be writing: they do not know that it is gone
      await endTree({ cookie }, { grace: 0 });
      for (const { id, pending } of state.trees) {
        if (pending) await endTree({ cookie: afterCookie(cookie, id) }, { grace: 0 });
      }
      await sweepMirror(place);
      await tidyUp(place, state);
    }
    await writeFile(place.busy, `${process.pid}\n`);
    const standing = await standingAt(place);
    const served = state.trees.find((tree) => standing.kind === "tree" && tree.id === standing.id);
    const shared = { cookie, ...(signal ? { signal } : {}) };
    const job: Job = { place, state, standing, served, cookie, shared, started, signal, note };
    try {
      return await work(job);
    } catch (error) {
      // a git that somebody else killed (no memory, no disk) leaves half a pack in the mirror
      await endTree({ cookie }, { grace: 0 });
      await sweepMirror(place);
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
export function cookieOf(place: Place): string {
  return `activate-${createHash("sha256").update(place.home).digest("hex").slice(0, 20)}`;
}

export async function makeFolders(place: Place): Promise<void> {
  try {
    await makePlace(place);
  } catch (error) {
    throw new Failure(`cannot make ${place.home}: ${systemCode(error) ?? messageOf(error)}`);
  }
}

/** What the user should read: whose fault it is, and that the old tree stays. */
export function explained(error: unknown, { served }: Job): unknown {
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

export function result(job: Job, tree: Tree, changed: boolean): Activated {
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

export function afterCookie(cookie: string, id: string): string {
  return `${cookie}-${id}`;
}
