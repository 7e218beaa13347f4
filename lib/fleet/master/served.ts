import { createHash } from "node:crypto";
import { join, resolve } from "node:path";
import type { Terminal } from "../../core/terminal.ts";
import { messageOf } from "../../core/errors.ts";
import { makeFolder, writeAtomic } from "../../files/files.ts";
import { wordsOf } from "./fan-out.ts";
import type { Target } from "./list.ts";
import { listsOf, type Master } from "./rollout.ts";
import { readWants, stateFolder, type Want, wantedRepos, wantFor } from "./want.ts";

/** What every slave serves, beside what it should serve: asked, compared, and kept for hook-server's page. */

/** One repo of one slave. */
export interface Served {
  repo: string;
  sha?: string | undefined;
  branch?: string | undefined;
  since?: string | undefined;
  plain?: boolean | undefined;
  written?: boolean | undefined;
  /** Why its last update failed. */
  error?: string | undefined;
}

/** One slave, and what it is. */
export interface Host {
  target: Target;
  repos: Served[];
  /** It could not be asked. */
  error?: string | undefined;
  about: {
    name?: string | undefined;
    boatyard?: string | undefined;
    node?: string | undefined;
    git?: string | undefined;
    free?: number | undefined;
    uptime?: number | undefined;
  };
  acceptsUnbound: boolean;
}

/** What a slave should serve of a repo, as far as that is known. */
export type Expected = (
  repo: string,
  target: Target,
) => { sha: string; branch?: string | undefined } | undefined;

/**
 * Ask all slaves, and compare: with `--sha`, else with what the last run set, else with what most serve.
 * @param repo undefined: all repos, and the machines
 * @returns those that were asked; after an interruption that may be some only
 */
export async function askFleet(
  repo: string | undefined,
  targets: readonly Target[],
  master: Master,
  onAsked: () => void = () => {},
): Promise<{ hosts: Host[]; expected: Expected }> {
  const { flags, signal } = master;
  const found: Host[] = [];
  let next = 0;
  const worker = async () => {
    while (next < targets.length && !signal.aborted) {
      const index = next++;
      const target = targets[index];
      if (!target) continue;
      found[index] = await ask(target, repo, master);
      onAsked();
    }
  };
  await Promise.all(Array.from({ length: Math.min(flags.jobs, targets.length) }, worker));
  const hosts = found.filter((each) => each !== undefined);
  const wanted = await wantedOf(repo, master);
  const expected: Expected = (name, target) =>
    flags.sha !== undefined && name === repo
      ? { sha: flags.sha, branch: flags.branch }
      : (wanted.get(name)?.(target) ?? commonest(name, hosts));
  for (const host of hosts) addMissing(host, wanted);
  return { hosts, expected };
}

/** What was found of the slaves of a list. */
interface Found {
  list: string;
  hosts: readonly Host[];
  expected: Expected;
}

/** Leave what was found for hook-server's page: in `status/` of the state folder, a file for each list and repo, or all. */
export async function keepStatus(
  repo: string | undefined,
  { list, hosts, expected }: Found,
  terminal: Terminal,
): Promise<void> {
  const path = resolve(list);
  const found = hosts.map(({ target, repos, error }) => ({
    target: target.name,
    error,
    repos: repos.map((each) => ({
      ...each,
      wanted: expected(each.repo, target)?.sha,
      drift: driftOf(each, target, expected),
    })),
  }));
  const value = { time: new Date().toISOString(), list: path, hosts: found };
  const folder = join(stateFolder(), "status");
  const ofList = createHash("sha256").update(path).digest("hex").slice(0, 8);
  const name = `${repo ?? "all repos"}.${ofList}.json`;
  try {
    await makeFolder(folder);
    const text = `${JSON.stringify(value, undefined, 2)}\n`;
    await writeAtomic(join(folder, name), text, { mode: 0o644 });
  } catch (error) {
    // whoever may only look has no state folder
    terminal.note(`not kept for the page: ${messageOf(error)}`);
  }
}

async function ask(
  target: Target,
  repo: string | undefined,
  { transportFor, flags }: Master,
): Promise<Host> {
  const none = { target, repos: [], about: {}, acceptsUnbound: false };
  try {
    const verify = flags.verify ? "1" : undefined;
    const json = await transportFor(target).status(target, { repo, verify });
    const number = (value: unknown) => (typeof value === "number" ? value : undefined);
    const list = repo === undefined ? json["repos"] : [{ ...json, repo }];
    return {
      target,
      repos: (Array.isArray(list) ? list : [])
        .map(servedOf)
        .filter(({ repo: name }) => name !== ""),
      about: {
        name: wordsOf(json["name"]),
        boatyard: wordsOf(json["boatyard"]),
        node: wordsOf(json["node"]),
        git: wordsOf(json["git"]),
        free: number(json["free"]),
        uptime: number(json["uptime"]),
      },
      acceptsUnbound: json["accept_unbound"] === true,
    };
  } catch (error) {
    return { ...none, error: messageOf(error) };
  }
}

function servedOf(value: unknown): Served {
  const { repo, sha, branch, since, plain, written, error } = (value ?? {}) as Record<
    string,
    unknown
  >;
  return {
    repo: wordsOf(repo) ?? "",
    sha: wordsOf(sha),
    branch: wordsOf(branch),
    since: wordsOf(since),
    plain: plain === true || undefined,
    written: typeof written === "boolean" ? written : undefined,
    error: wordsOf(error),
  };
}

/** What the last runs set, by repo, for the slaves of their lists. */
type Wanted = ReadonlyMap<string, (target: Target) => Want | undefined>;

async function wantedOf(repo: string | undefined, { terminal }: Master): Promise<Wanted> {
  const lookUp = new Map<string, (target: Target) => Want | undefined>();
  for (const name of repo === undefined ? await wantedRepos() : [repo]) {
    const wants = await readWants(name);
    if (!wants) continue;
    const lists = await listsOf(wants, terminal);
    lookUp.set(name, (target) => wantFor(wants, target, lists));
  }
  return lookUp;
}

/** A repo that should run on a slave, and of which it says nothing, is one that differs. */
function addMissing(host: Host, wanted: Wanted): void {
  if (host.error !== undefined) return;
  for (const [name, wantOf] of wanted)
    if (!host.repos.some((each) => each.repo === name) && wantOf(host.target))
      host.repos.push({ repo: name });
}

/** The commit of a repo that most slaves serve. */
function commonest(repo: string, hosts: readonly Host[]): { sha: string } | undefined {
  const counts = new Map<string, number>();
  for (const { repos } of hosts)
    for (const { repo: name, sha } of repos)
      if (name === repo && sha !== undefined) counts.set(sha, (counts.get(sha) ?? 0) + 1);
  const sha = [...counts].sort((a, b) => b[1] - a[1])[0]?.[0];
  return sha === undefined ? undefined : { sha };
}

/** Pure: in which way a repo is not as it should be; "" when it is. */
export function driftOf(served: Served, target: Target, expected: Expected): string {
  const { repo, sha, branch, plain, written, error } = served;
  const want = expected(repo, target);
  const why = error === undefined ? "" : `; its last update failed: ${error}`;
  if (plain) return `DIFFERS: a plain folder that no update made${why}`;
  if (sha === undefined) return `DIFFERS: nothing is served${why}`;
  if (want && sha !== want.sha) return `DIFFERS${why}`;
  if (want?.branch !== undefined && branch !== want.branch)
    return `DIFFERS: branch ${want.branch} is wanted${why}`;
  if (written) return "WRITTEN INTO";
  return "";
}

export function isGood({ repos, error, target }: Host, expected: Expected): boolean {
  return error === undefined && repos.every((each) => driftOf(each, target, expected) === "");
}
