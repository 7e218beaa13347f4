import { formatDuration, formatSize } from "../../core/units.ts";
import type { Target } from "./list.ts";
import type { Master } from "./rollout.ts";
import {
  askFleet,
  driftOf,
  type Expected,
  type Host,
  isGood,
  keepStatus,
  type Served,
} from "./served.ts";
import { tellDrift } from "./tell.ts";

/** `server-update --status`: what every slave serves, and which differ from what should run. */

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
