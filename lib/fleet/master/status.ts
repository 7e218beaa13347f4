import { mkdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { messageOf } from "../../core/errors.ts";
import { formatDuration, formatSize } from "../../core/units.ts";
import { writeAtomic } from "../../files/files.ts";
import type { Target } from "./list.ts";
import { listsOf, type Master } from "./rollout.ts";
import { wordsOf } from "./send.ts";
import { tellDrift } from "./tell.ts";
import { readWants, stateFolder, type Want, wantedRepos, wantFor } from "./want.ts";

/** `server-update --status`: what every slave serves, and which differ from what should run. */

/** One repo of one slave. */
interface Served {
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
interface Host {
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
type Expected = (
  repo: string,
  target: Target,
) => { sha: string; branch?: string | undefined } | undefined;

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
  const { flags, terminal, signal } = master;
  const label = repo === undefined ? "status" : `status of ${repo}`;
  const progress = terminal.progress({ label, total: targets.length });
  const hosts: Host[] = [];
  let next = 0;
  const worker = async () => {
    while (next < targets.length && !signal.aborted) {
      const index = next++;
      const target = targets[index];
      if (!target) continue;
      hosts[index] = await ask(target, repo, master);
      progress.add(1);
    }
  };
  await Promise.all(Array.from({ length: Math.min(flags.jobs, targets.length) }, worker));
  progress.end();
  // after an interruption some were not asked
  const asked = hosts.filter((each) => each !== undefined);
  const wanted = await wantedOf(repo, master);
  const expected: Expected = (name, target) =>
    flags.sha !== undefined && name === repo
      ? { sha: flags.sha, branch: flags.branch }
      : (wanted.get(name)?.(target) ?? commonest(name, asked));
  for (const host of asked) addMissing(host, wanted);
  const good = asked.filter((host) => isGood(host, expected));
  await keep(repo, asked, expected, master);
  for (const host of asked) terminal.printJson(jsonOf(host, repo, expected));
  if (!terminal.json) {
    const rows = asked.flatMap((host) => rowsOf(host, repo, expected));
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

/** Leave what was found for hook-server's page: in `status/` of the state folder, a file for a repo or for all. */
async function keep(
  repo: string | undefined,
  hosts: readonly Host[],
  expected: Expected,
  { flags, terminal }: Master,
): Promise<void> {
  if (flags.list === "-") return;
  const found = hosts.map(({ target, repos, error }) => ({
    target: target.name,
    error,
    repos: repos.map((each) => ({
      ...each,
      wanted: expected(each.repo, target)?.sha,
      drift: driftOf(each, target, expected),
    })),
  }));
  const value = { time: new Date().toISOString(), list: resolve(flags.list), hosts: found };
  const folder = join(stateFolder(), "status");
  try {
    await mkdir(folder, { recursive: true });
    const text = `${JSON.stringify(value, undefined, 2)}\n`;
    await writeAtomic(join(folder, `${repo ?? "all repos"}.json`), text, { mode: 0o644 });
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
function driftOf(served: Served, target: Target, expected: Expected): string {
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

function isGood({ repos, error, target }: Host, expected: Expected): boolean {
  return error === undefined && repos.every((each) => driftOf(each, target, expected) === "");
}

function jsonOf(host: Host, repo: string | undefined, expected: Expected) {
  const { target, repos, error, about } = host;
  const ok = isGood(host, expected);
  const shown = (each: Served) => ({ ...each, ok: driftOf(each, target, expected) === "" });
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
  const all: (Served | undefined)[] = repos.length > 0 ? repos : [undefined];
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
