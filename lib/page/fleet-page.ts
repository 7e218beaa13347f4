import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { shortSha } from "../core/names.ts";
import type { Run } from "../run-store/run-store.ts";
import { html, type Html } from "./html.ts";
import { pill, table } from "./layout.ts";
import { commitLink } from "./run-page.ts";
import { ago, counted } from "./times.ts";

/**
 * Which host serves which commit of which repo, from the files that `server-update` leaves in its folder: the page
 * asks no slave, and has no key.
 */

/** What `server-update --status` or `--converge` found: a file of `status/` for each list and repo, or all repos. */
interface Snapshot {
  readonly time: string;
  readonly list: string;
  readonly hosts: readonly {
    readonly target: string;
    readonly error?: string | undefined;
    readonly repos: readonly ServedRepo[];
  }[];
}

interface ServedRepo {
  readonly repo: string;
  readonly sha?: string | undefined;
  readonly branch?: string | undefined;
  readonly since?: string | undefined;
  readonly error?: string | undefined;
  readonly wanted?: string | undefined;
  /** In which way it is not as it should be; empty when it is. */
  readonly drift: string;
}

/** A host and a repo, as they were seen last. */
interface FleetRow extends ServedRepo {
  readonly host: string;
  readonly seen: string;
  readonly unreachable?: string | undefined;
}

interface FleetSettings {
  readonly list: string;
  readonly state: string;
}

/** After so many ms what was seen says nothing of now. */
const staleAfter = 3_600_000;

/** Of the hosts that have a run's repo how many serve its commit; undefined: none has it. */
export async function servedBy(
  settings: FleetSettings,
  { repo, sha }: Run,
): Promise<{ here: number; of: number } | undefined> {
  const rows = planFleet(await readSnapshots(settings), settings.list);
  const own = rows.filter((row) => row.sha !== undefined && isOf(row, repo));
  const here = own.filter((row) => row.sha === sha).length;
  return here > 0 ? { here, of: own.length } : undefined;
}

/** Slaves name a repo by its folder, forges by owner and name. */
function isOf(row: ServedRepo, repo: string): boolean {
  return row.repo === repo || row.repo === repo.slice(repo.lastIndexOf("/") + 1);
}

/** @param runs all, to name commits by. */
export async function fleetPage(settings: FleetSettings, runs: readonly Run[], now: number): Promise<Html> {
  const rows = planFleet(await readSnapshots(settings), settings.list);
  const hosts = new Set(rows.map(({ host }) => host));
  const bad = rows.filter(isBad).length;
  const wrong = bad === 1 ? "1 is not as it should be" : `${bad} are not as they should be`;
  const columns = ["Host", "Repo", "State", "Serves", "Since", "Should be", "Seen", "Why"];
  const bySha = new Map(runs.map((run) => [run.sha, run]));
  const shown = rows.map((row) => rowOf(row, bySha.get(row.sha ?? "-"), now));
  const none = html`<p class="empty">Nothing is known yet: run <code>server-update --status</code>.</p>`;
  return html`<div class="head"><h1>Fleet</h1>
<p class="sum">${counted(hosts.size, "host")}${bad > 0 && ` · ${wrong}`}</p></div>
<p class="sum">${settings.list}, as <code>server-update --status</code> or <code>--converge</code> saw it last.</p>
${rows.length === 0 ? none : table("fleet", { columns, rows: shown })}`;
}

/** The newest that is known of each host and repo, what is wrong first. Pure. */
function planFleet(snapshots: readonly Snapshot[], list: string): FleetRow[] {
  const known = new Map<string, FleetRow>();
  for (const { time, list: own, hosts } of snapshots) {
    if (own !== list) continue;
    for (const { target, error, repos } of hosts) {
      const rows = repos.length > 0 ? repos : [{ repo: "", drift: "" }];
      for (const each of rows) {
        const key = `${target}\n${each.repo}`;
        const before = known.get(key);
        if (before && before.seen >= time) continue;
        // what could not be asked still serves what it served when it was seen
        known.set(key, { ...each, host: target, seen: time, unreachable: error });
      }
    }
  }
  const rows = [...known.values()];
  const answered = new Map<string, string>();
  for (const { host, repo, seen } of rows)
    if (repo !== "" && seen > (answered.get(host) ?? "")) answered.set(host, seen);
  return rows
    .filter(({ repo, host, seen }) => repo !== "" || seen > (answered.get(host) ?? ""))
    .sort(
      (a, b) => Number(isBad(b)) - Number(isBad(a)) || a.repo.localeCompare(b.repo) || a.host.localeCompare(b.host),
    );
}

function isBad({ drift, unreachable }: FleetRow): boolean {
  return drift !== "" || unreachable !== undefined;
}

async function readSnapshots({ state }: FleetSettings): Promise<Snapshot[]> {
  const folder = join(state, "status");
  const names = await readdir(folder).catch(() => []);
  const files = names.filter((name) => name.endsWith(".json")).map((name) => join(folder, name));
  const read = await Promise.all(files.map(readSnapshot));
  return read.filter((each) => each !== undefined);
}

/** A file is not always whole or ours: what does not fit is left out. */
async function readSnapshot(file: string): Promise<Snapshot | undefined> {
  try {
    const value = JSON.parse(await readFile(file, "utf8")) as Snapshot;
    const { time, list } = value;
    const hosts = value.hosts.filter(
      ({ target, repos }) => areTexts(target) && repos.every(({ repo, drift }) => areTexts(repo, drift)),
    );
    return areTexts(time, list) ? { time, list, hosts } : undefined;
  } catch {
    return undefined;
  }
}

function areTexts(...values: unknown[]): boolean {
  return values.every((value) => typeof value === "string");
}

/** The state stands in a column of its own. */
function whyOf({ drift }: FleetRow): string {
  return drift.replace(/^DIFFERS(?:[:;] )?/, "");
}

function rowOf(row: FleetRow, run: Run | undefined, now: number): Html {
  const isStale = !isBad(row) && now - Date.parse(row.seen) > staleAfter;
  const state =
    row.unreachable !== undefined ? "unreachable" : row.drift !== "" ? "differs" : isStale ? "unknown" : "ok";
  const title = run && html` <a class="title" href="/runs/${run.id}">${run.commit?.title ?? "its run"}</a>`;
  const branch = row.branch !== undefined && html`<span class="ref">${row.branch}</span>`;
  return html`<tr class="${isBad(row) && "drift"}"><th scope="row">${row.host}</th><td class="repo">${row.repo}</td>
<td class="state">${pill(state)}</td>
<td class="serves"><span class="sha">${run ? commitLink(run) : shortSha(row.sha ?? "")}</span> ${branch}${title}</td>
<td class="when" data-is="since">${ago(row.since, now)}</td>
<td class="sha wanted" data-is="should be">${shortSha(row.wanted ?? "")}</td>
<td class="when" data-is="seen">${ago(row.seen, now)}</td>
<td class="why">${row.unreachable ?? (whyOf(row) || row.error)}</td></tr>
`;
}
