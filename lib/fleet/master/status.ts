import { createHash } from "node:crypto";
import { join, resolve } from "node:path";
import process from "node:process";
import type { Terminal } from "../../core/terminal.ts";
import { Failure, messageOf } from "../../core/errors.ts";
import { forEachOf } from "../../core/pool.ts";
import { makeFolder, writeAtomic } from "../../files/files.ts";
import type { Report, RepoStatus } from "../report.ts";
import { isAllowed } from "../settings.ts";
import { askRemote, desiredFor, desiredRepos, desiredState, pushedCommit, stateFolder } from "./desired-state.ts";
import type { Target } from "./list.ts";
import { listsOf, type Master } from "./master.ts";
import type { Commit } from "./rollout.ts";

/** What every slave serves, and should serve: asked, compared, shown by `--status`, kept for hook-server's page. */

/** What a slave said, beside what it should say. */
export interface Host {
  target: Target;
  /** Undefined: it could not be asked. */
  report: Report | undefined;
  error?: string | undefined;
  repos: { served: RepoStatus; wanted: string | undefined; drift: string }[];
  /** The commit that it should serve of the repo that was asked for, as far as that is known. */
  wanted: string | undefined;
  isGood: boolean;
}

/** What is asked, and what is compared with. */
export interface Question {
  verify?: boolean;
  /** Instead of what the last run set. */
  commit?: Commit | undefined;
}

/**
 * Ask all slaves, and compare: with the commit of the question, else with what the last run set, else with what most
 * serve. What a slave does not take it need not have.
 * @param repo undefined: all repos, and the machines
 * @returns those that were asked; after an interruption that may be some only
 */
export async function askFleet(
  repo: string | undefined,
  targets: readonly Target[],
  { verify = false, commit }: Question,
  master: Master,
  onAsked: () => void = () => {},
): Promise<Host[]> {
  const { flags, signal, transportFor } = master;
  const set = await readSet(repo, master);
  const found = new Map<Target, Pick<Host, "target" | "report" | "error">>();
  await forEachOf(targets, flags.jobs, async (target) => {
    if (signal.aborted) return;
    const report = await transportFor(target)
      .report(target, { repo, verify })
      .catch((error: unknown) => messageOf(error));
    found.set(target, typeof report === "string" ? { target, report: undefined, error: report } : { target, report });
    onAsked();
  });
  const answers = targets.flatMap((target) => found.get(target) ?? []);
  const most = commonest(answers.flatMap(({ report }) => report?.repos ?? []));
  const desiredOf = (name: string, target: Target): Commit | undefined => {
    const sha = most.get(name);
    return commit ?? set.get(name)?.(target) ?? (sha === undefined ? undefined : { sha });
  };
  return answers.map((answer) => {
    const { target, report, error } = answer;
    const told = (report?.repos ?? []).filter((each) => repo === undefined || each.repo === repo);
    const names = new Set(told.map(({ repo: name }) => name));
    // one that should run there, and of which it says nothing, differs
    const due = repo === undefined ? [...set].filter(([, of]) => of(target)).map(([name]) => name) : [repo];
    const all = [...told, ...due.filter((name) => !names.has(name)).map((name): RepoStatus => ({ repo: name }))].filter(
      (each) => report && (isAllowed(each.repo, report.allow) || each.sha !== undefined),
    );
    const repos = all.map((served) => {
      const desired = desiredOf(served.repo, target);
      return { served, wanted: desired?.sha, drift: driftOf(served, desired) };
    });
    const isGood = error === undefined && repos.every(({ drift }) => drift === "");
    const wanted = repo === undefined ? undefined : desiredOf(repo, target)?.sha;
    return { ...answer, repos, wanted, isGood };
  });
}

/** What the last runs set, by repo, for the slaves of their lists. */
async function readSet(repo: string | undefined, { terminal }: Master) {
  const set = new Map<string, (target: Target) => Commit | undefined>();
  for (const name of repo === undefined ? await desiredRepos() : [repo]) {
    const desired = await desiredState(name).read();
    if (!desired) continue;
    const lists = await listsOf(desired, terminal);
    set.set(name, (target) => desiredFor(desired, target, lists));
  }
  return set;
}

/** The commit of each repo that most slaves serve. */
function commonest(repos: readonly RepoStatus[]): Map<string, string> {
  const counts = new Map<string, Map<string, number>>();
  for (const { repo, sha } of repos) {
    if (sha === undefined) continue;
    const ofRepo = counts.get(repo) ?? new Map<string, number>();
    counts.set(repo, ofRepo.set(sha, (ofRepo.get(sha) ?? 0) + 1));
  }
  const most = new Map<string, string>();
  for (const [repo, ofRepo] of counts)
    most.set(repo, [...ofRepo].reduce((one, next) => (next[1] > one[1] ? next : one))[0]);
  return most;
}

/** Pure: in which way a repo is not as it should be; "" when it is. */
function driftOf(served: RepoStatus, desired: Commit | undefined): string {
  const { sha, branch, plain, written, error } = served;
  const why = error === undefined ? "" : `; its last update failed: ${error}`;
  if (plain) return `DIFFERS: a plain folder that no update made${why}`;
  if (sha === undefined) return `DIFFERS: nothing is served${why}`;
  if (desired && sha !== desired.sha) return `DIFFERS${why}`;
  if (desired?.branch !== undefined && branch !== desired.branch)
    return `DIFFERS: branch ${desired.branch} is wanted${why}`;
  return written ? "WRITTEN INTO" : "";
}

/** Leave what was found of a list's slaves for hook-server's page: in `status/`, a file a list and repo, or all. */
export async function keepStatus(
  repo: string | undefined,
  list: string,
  hosts: readonly Host[],
  terminal: Terminal,
): Promise<void> {
  const path = resolve(list);
  const folder = join(stateFolder(), "status");
  const ofList = createHash("sha256").update(path).digest("hex").slice(0, 8);
  const found = hosts.map(({ target, repos, error }) => ({
    ...{ target: target.name, error },
    repos: repos.map(({ served, wanted, drift }) => ({ ...served, order: undefined, wanted, drift })),
  }));
  const value = { time: new Date().toISOString(), list: path, hosts: found };
  try {
    await makeFolder(folder);
    const text = `${JSON.stringify(value, undefined, 2)}\n`;
    await writeAtomic(join(folder, `${repo ?? "all repos"}.${ofList}.json`), text, { mode: 0o644 });
  } catch (error) {
    // whoever may only look has no state folder
    terminal.note(`not kept for the page: ${messageOf(error)}`);
  }
}

/**
 * With --sha nothing tells a mistyped repo from a new one: before it is set, the remote or a slave has to know it.
 * @throws {Failure}
 */
export async function checkKnown(
  repo: string,
  base: string | undefined,
  targets: readonly Target[],
  master: Master,
): Promise<void> {
  if (pushedCommit(repo, process.env)) return;
  let why = "no base is known where it could be asked for";
  try {
    if (base !== undefined) return void (await askRemote(repo, { branch: undefined, base }, master.signal));
  } catch (error) {
    why = messageOf(error);
  }
  // a master may be without the right to read it
  const hosts = await askFleet(repo, targets, {}, master);
  if (hosts.some(({ repos }) => repos.some(({ served }) => served.sha !== undefined))) return;
  throw new Failure(
    `${repo} is not known: ${why}, nothing was set for it before, and no slave serves it; ` +
      `correct its name, or say where it is: --base URL, such as https://github.com/me/`,
  );
}
