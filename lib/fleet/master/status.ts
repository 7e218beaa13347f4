import type { Terminal } from "../../core/terminal.ts";
import { messageOf } from "../../core/errors.ts";
import { formatDuration, formatSize } from "../../core/units.ts";
import type { RepoStatus } from "../order.ts";
import { wordsOf } from "./fan-out.ts";
import type { Target } from "./list.ts";
import { listsOf, type Master } from "./rollout.ts";
import { tellDrift } from "./tell.ts";
import { readWants, type Want, wantedRepos, wantFor, writeStatus } from "./want.ts";

/** What every slave serves, beside what it should serve: asked, compared, shown by `--status`, and kept for hook-server's page. */

/**
 * Ask all, and show which differ: from `--sha`, else from what the last run set, else from what most serve.
 * @param repo undefined: all repos, and the machines
 * @returns 0, or 1 when one differs or cannot be asked
 */
export async function showStatus(
  repo: string | undefined,
  targets: readonly Target[],
  master: Master,
): Promise<number> {
  const { flags, terminal } = master;
  const label = repo === undefined ? "status" : `status of ${repo}`;
  const progress = terminal.progress({ label, total: targets.length });
  const { hosts: asked, expected } = await askFleet(repo, targets, master, () => progress.add(1));
  progress.end();
  const good = asked.filter((host) => isGood(host, expected));
  // a name that nobody knows is a typing mistake, and none of the page's repos
  const isKnown = repo === undefined || asked.some(({ target }) => expected(repo, target));
  if (flags.list !== "-" && isKnown)
    await keepStatus(repo, { list: flags.list, hosts: asked, expected }, terminal);
  for (const host of asked) terminal.printJson(jsonOf(host, repo, expected));
  if (!terminal.json) {
    const rows = asked.flatMap((host) => rowsOf(host, repo, expected));
    for (const row of rows) row.push(terminal.paint.red(row.pop() ?? ""));
    const header =
      repo === undefined ? inventoryHeader : ["SLAVE", "COMMIT", "BRANCH", "SINCE", ""];
    for (const line of terminal.table(rows, { header })) terminal.print(line);
    terminal.print(totals(repo, asked, good.length, expected));
  }
  const unbound = asked.filter(({ acceptsUnbound }) => acceptsUnbound);
  if (unbound.length > 0)
    terminal.warn(
      `accept_unbound is set on ${unbound.map(({ target }) => target.name).join(", ")}: a request that was signed for another slave works there; remove it once the master is updated`,
    );
  const bad = asked.filter((host) => !good.includes(host));
  const differing = bad.map((host) => rowsOf(host, repo, expected).map((row) => row.join(" ")));
  await tellDrift(repo, { asked: asked.length, differing: differing.flat() }, master);
  return good.length === asked.length ? 0 : 1;
}

function jsonOf(host: Host, repo: string | undefined, expected: Expected) {
  const { target, repos, error, about } = host;
  const ok = isGood(host, expected);
  const shown = (each: RepoStatus) => ({ ...each, ok: driftOf(each, target, expected) === "" });
  if (repo === undefined)
    return { target: target.name, ok, ...about, error, repos: repos.map(shown) };
  const { repo: _, ok: __, ...one } = shown(repos[0] ?? { repo });
  return { target: target.name, ok, ...one, error: error ?? one.error };
}

const inventoryHeader = [
  ...["SLAVE", "REPO", "COMMIT", "BRANCH", "SINCE"],
  ...["BOATYARD", "NODE", "GIT", "FREE", "UP", ""],
];

function rowsOf(host: Host, repo: string | undefined, expected: Expected): string[][] {
  const { target, repos, error, about } = host;
  if (error !== undefined) {
    const empty = Array.from({ length: repo === undefined ? 9 : 3 }, () => "");
    return [[target.name, ...empty, `FAILED: ${error}`]];
  }
  const { boatyard, node, git, free, uptime } = about;
  const machine = [
    ...[boatyard ?? "", node ?? "", git ?? ""],
    free === undefined ? "" : formatSize(free),
    uptime === undefined ? "" : formatDuration(uptime * 1000),
  ];
  // a slave that serves nothing has a row, too
  const all: (RepoStatus | undefined)[] = repos.length > 0 ? repos : [undefined];
  return all.map((served) => {
    const commit = [
      served?.sha?.slice(0, 12) ?? "",
      served?.branch ?? "",
      served?.since?.replace(/\.\d+Z$/, "Z") ?? "",
    ];
    const drift = served ? driftOf(served, target, expected) : "";
    return repo === undefined
      ? [target.name, served?.repo ?? "", ...commit, ...machine, drift]
      : [target.name, ...commit, drift];
  });
}

function totals(
  repo: string | undefined,
  hosts: readonly Host[],
  good: number,
  expected: Expected,
): string {
  const others = hosts.length - good;
  if (repo === undefined)
    return `${good} of ${hosts.length} are as they should be, ${others} are not`;
  const shas = new Set(hosts.map(({ target }) => expected(repo, target)?.sha));
  const [only] = shas.size === 1 ? shas : [];
  const what = shas.size > 1 ? "what they should" : (only ?? "anything");
  return `${good} of ${hosts.length} serve ${what}, ${others} do not`;
}

/** One slave, and what it is. */
export interface Host {
  target: Target;
  repos: RepoStatus[];
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
  const wanted = await wantedOf(repo, master);
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
  const most = commonest(hosts);
  const expected: Expected = (name, target) => {
    if (flags.sha !== undefined) return { sha: flags.sha, branch: flags.branch };
    const sha = most.get(name);
    return wanted.get(name)?.(target) ?? (sha === undefined ? undefined : { sha });
  };
  for (const host of hosts) addMissing(host, wanted);
  return { hosts, expected };
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

function servedOf(value: unknown): RepoStatus {
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

/** The commit of each repo that most slaves serve. */
function commonest(hosts: readonly Host[]): Map<string, string> {
  const counts = new Map<string, Map<string, number>>();
  for (const { repo, sha } of hosts.flatMap(({ repos }) => repos)) {
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
export function driftOf(served: RepoStatus, target: Target, expected: Expected): string {
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

/** Leave what was found of the slaves of a list for hook-server's page. */
export async function keepStatus(
  repo: string | undefined,
  { list, hosts, expected }: { list: string; hosts: readonly Host[]; expected: Expected },
  terminal: Terminal,
): Promise<void> {
  const found = hosts.map(({ target, repos, error }) => ({
    target: target.name,
    error,
    repos: repos.map((each) => ({
      ...each,
      wanted: expected(each.repo, target)?.sha,
      drift: driftOf(each, target, expected),
    })),
  }));
  try {
    await writeStatus(repo, list, found);
  } catch (error) {
    // whoever may only look has no state folder
    terminal.note(`not kept for the page: ${messageOf(error)}`);
  }
}
