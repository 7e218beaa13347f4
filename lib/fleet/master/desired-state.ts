import { readdir } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { type Infer, y } from "../../config/yaml.ts";
import { Failure, messageOf, systemCode, UsageError } from "../../core/errors.ts";
import { isSafeRef, isSha, isShortName } from "../../core/names.ts";
import { makeFolder } from "../../files/files.ts";
import { StateFile } from "../../files/state-file.ts";
import { askTip, needBase, plainWords, RemoteLacks } from "../remote.ts";
import type { Target } from "./list.ts";
import { type Commit, letterFor, type Transport } from "./rollout.ts";

/** The commit that a run is about, fixed before any slave is asked: no slave decides it for the others. */

type CommitOptions = Record<"branch" | "base", string | undefined> & { sha?: string | undefined };

/**
 * `--sha`, else the push that hook-server runs us for, else what the remote has now.
 * @throws {Failure} when the remote cannot tell
 * @throws {UsageError} when nobody has said which remote
 */
export async function resolveCommit(
  repo: string,
  { sha, branch, base }: CommitOptions,
  signal: AbortSignal,
): Promise<Commit> {
  if (sha !== undefined) return { sha, branch };
  const pushed = pushedCommit(repo, process.env);
  if (pushed && (branch === undefined || branch === pushed.branch)) return pushed;
  try {
    return await askRemote(repo, { branch, base }, signal);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    const hint =
      error instanceof RemoteLacks
        ? ""
        : "; name the right --base, or, of a repo that slaves serve, the commit by --sha";
    throw new Failure(`the commit of ${repo} is not known: ${messageOf(error)}${hint}`);
  }
}

/**
 * What the remote has now.
 * @throws {RemoteLacks} when it has no such branch
 * @throws {Failure} with its words, and where it was asked
 */
export async function askRemote(repo: string, { branch, base }: CommitOptions, signal: AbortSignal): Promise<Commit> {
  const url = `${needBase(base, "or set SERVER_UPDATE_BASE")}/${repo}.git`;
  try {
    return await askTip({ url, options: { signal, timeout: 60_000 } }, branch);
  } catch (error) {
    if (error instanceof RemoteLacks) throw error;
    throw new Failure(`${plainWords(error)} (asked ${url})`);
  }
}

/** Pure: the commit of the push that hook-server runs a `then:` command for, when it is one of this repo. */
export function pushedCommit(repo: string, env: NodeJS.ProcessEnv): Commit | undefined {
  const { HOOK_REPO = "", HOOK_SHA = "", HOOK_REF = "" } = env;
  if (HOOK_REPO.split("/").at(-1) !== repo || !isSha(HOOK_SHA) || /^0+$/.test(HOOK_SHA)) return undefined;
  const branch = /^refs\/heads\/(.+)$/.exec(HOOK_REF)?.[1];
  return { sha: HOOK_SHA, branch: branch !== undefined && isSafeRef(branch) ? branch : undefined };
}

/** Per repo, what the last runs set for which slaves: in `desired-state/REPO.json` of the state folder. */

const entrySchema = y.object({
  sha: y.string({ match: /^(?:[0-9a-f]{40}|[0-9a-f]{64})$/, what: "a commit" }),
  branch: y.optional(y.string()),
  // it may be older than what a slave serves
  back: y.optional(y.boolean()),
  // the list of slaves that it was for, absolute
  list: y.string(),
  group: y.optional(y.string()),
  run: y.string(),
  // where the commit was asked for, which the next run does again
  base: y.optional(y.string()),
  // it goes in steps and is under way, or was stopped: the slaves that it has not reached are left alone
  stopped: y.optional(y.boolean()),
});

/** `at`: the order's time that no later one may be under. The newest entry is the first. */
const schema = y.object({ at: y.number(), entries: y.list(entrySchema) });

/** What one run set. */
export type Desired = Infer<typeof entrySchema>;
export type DesiredState = Infer<typeof schema>;

/** Where the master keeps its state: systemd's folder for the unit, else root's, else the user's. */
export function stateFolder(): string {
  const { STATE_DIRECTORY, XDG_STATE_HOME } = process.env;
  if (STATE_DIRECTORY) return STATE_DIRECTORY.split(":")[0] ?? STATE_DIRECTORY;
  if (!XDG_STATE_HOME && process.getuid?.() === 0) return "/var/lib/server-update";
  return join(XDG_STATE_HOME || join(homedir(), ".local", "state"), "server-update");
}

/**
 * The desired state of a repo.
 * @throws {Failure} by `read` for a damaged file: it also says which orders are newer than the last
 */
export function desiredState(repo: string): StateFile<DesiredState> {
  const damaged = `correct it, or remove it and run server-update ${repo}`;
  return new StateFile(join(stateFolder(), "desired-state", `${repo}.json`), schema, { damaged, mode: 0o644 });
}

/**
 * The repos of which is known what should run.
 * @throws {Failure} when that cannot be read: to go on would be to say that nothing should
 */
export async function desiredRepos(): Promise<string[]> {
  const folder = join(stateFolder(), "desired-state");
  const names = await readdir(folder).catch((error: unknown) => {
    if (systemCode(error) === "ENOENT") return [];
    throw new Failure(`${folder} cannot be read: ${messageOf(error)}; type the command as its owner, or as root`);
  });
  return names
    .filter((name) => name.endsWith(".json"))
    .map((name) => name.slice(0, -".json".length))
    .filter(isShortName)
    .sort();
}

export async function writeDesired(repo: string, value: DesiredState): Promise<void> {
  const file = desiredState(repo);
  await makeFolder(dirname(file.path));
  await file.write(value);
}

/** Pure: what is set once a run sets something. What it covers goes: the same list, and the same group or all. */
export function withDesired(before: DesiredState | undefined, entry: Desired, at: number): DesiredState {
  const isCovered = (each: Desired) =>
    each.list === entry.list && (entry.group === undefined || each.group === entry.group);
  return { at, entries: [entry, ...(before?.entries ?? []).filter((each) => !isCovered(each))] };
}

/** Pure: what one slave should serve: the newest word of a list and group that it is in. */
export function desiredFor(
  desired: DesiredState,
  target: Target,
  lists: ReadonlyMap<string, readonly Target[]>,
): Desired | undefined {
  return desired.entries.find(({ list, group }) =>
    lists.get(list)?.some((each) => each.url.href === target.url.href && (group === undefined || each.group === group)),
  );
}

/** The orders of one run: each is newer than all before it, also when the clock was set back. */
export function newOrders(
  order: Commit & { repo: string; run: string; back: boolean | undefined },
  before: DesiredState | undefined,
  transportFor: (target: Target) => Transport,
) {
  const orders = {
    /** The time of the newest. */
    last: Math.max(Date.now(), (before?.at ?? 0) + 1),
    orderFor(target: Target): string {
      orders.last = Math.max(Date.now(), orders.last);
      return letterFor(transportFor(target), target, { ...order, kind: "order", at: orders.last });
    },
  };
  return orders;
}
