import type { Terminal } from "../../core/terminal.ts";
import { messageOf } from "../../core/errors.ts";
import { formatDuration, formatSize } from "../../core/units.ts";
import type { RepoStatus } from "../order.ts";
import { atOnce, wordsOf } from "./fan-out.ts";
import type { Target } from "./list.ts";
import { listsOf, type Master } from "./rollout.ts";
import { tellDrift } from "./tell.ts";
import { type Pin, readWants, wantedRepos, wantFor, writeStatus } from "./want.ts";

/** What every slave serves, and should serve: asked, compared, shown by `--status`, kept for hook-server's page. */

/** What a slave said. */
interface Answer {
  target: Target;
  repos: RepoStatus[];
  /** It could not be asked. */
  error?: string | undefined;
  /** What `--status` without a repo shows of the machine. */
  about: Partial<Record<"name" | "boatyard" | "node" | "git", string | undefined>> &
    Partial<Record<"free" | "uptime", number | undefined>>;
}

/** The same beside what it should say. */
interface Host extends Omit<Answer, "repos"> {
  repos: { served: RepoStatus; wanted: string | undefined; drift: string }[];
  /** The commit that it should serve of the repo that was asked for, as far as that is known. */
  wanted: string | undefined;
  isGood: boolean;
}

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
  const hosts = await askFleet(repo, targets, master, () => progress.add(1));
  progress.end();
  // a name that nobody knows is a typing mistake, and none of the page's repos
  const isKnown = repo === undefined || hosts.some(({ wanted }) => wanted !== undefined);
  if (flags.list !== "-" && isKnown) await keepStatus(repo, flags.list, hosts, terminal);
  for (const host of hosts) terminal.printJson(jsonOf(host, repo));
  if (!terminal.json) printStatus(repo, hosts, terminal);
  const bad = hosts.filter(({ isGood }) => !isGood);
  const differing = bad.flatMap((host) => rowsOf(host, repo).map((row) => row.join(" ")));
  await tellDrift(repo, { asked: hosts.length, differing }, master);
  return bad.length === 0 ? 0 : 1;
}

function jsonOf({ target, repos, error, about, isGood: ok }: Host, repo: string | undefined) {
  const shown = repos.map(({ served, drift }) => ({ ...served, ok: drift === "" }));
  if (repo === undefined) return { target: target.name, ok, ...about, error, repos: shown };
  const { repo: _, ok: __, ...one } = shown[0] ?? { repo, ok, error };
  return { target: target.name, ok, ...one, error: error ?? one.error };
}

function printStatus(repo: string | undefined, hosts: readonly Host[], terminal: Terminal): void {
  const machine = ["BOATYARD", "NODE", "GIT", "FREE", "UP"];
  const header = [
    ...["SLAVE", ...(repo === undefined ? ["REPO"] : []), "COMMIT", "BRANCH", "SINCE"],
    ...[...(repo === undefined ? machine : []), ""],
  ];
  const rows = hosts.flatMap((host) => rowsOf(host, repo));
  for (const row of rows) row.push(terminal.paint.red(row.pop() ?? ""));
  for (const line of terminal.table(rows, { header })) terminal.print(line);
  const good = hosts.filter(({ isGood }) => isGood).length;
  const [of, others] = [`${good} of ${hosts.length}`, hosts.length - good];
  if (repo === undefined) return terminal.print(`${of} are as they should be, ${others} are not`);
  const [only, ...more] = new Set(hosts.map(({ wanted }) => wanted));
  const what = more.length > 0 ? "what they should" : (only ?? "anything");
  terminal.print(`${of} serve ${what}, ${others} do not`);
}

/** The last word of each row is what is wrong. */
function rowsOf({ target, repos, error, about }: Host, repo: string | undefined): string[][] {
  if (error !== undefined) {
    const empty = Array.from({ length: repo === undefined ? 9 : 3 }, () => "");
    return [[target.name, ...empty, `FAILED: ${error}`]];
  }
  const { boatyard = "", node = "", git = "", free, uptime } = about;
  const machine = [
    ...[boatyard, node, git],
    free === undefined ? "" : formatSize(free),
    uptime === undefined ? "" : formatDuration(uptime * 1000),
  ];
  // a slave that serves nothing has a row, too
  const all = repos.length > 0 ? repos : [{ served: undefined, drift: "" }];
  return all.map(({ served, drift }) => {
    const commit = [
      served?.sha?.slice(0, 12) ?? "",
      served?.branch ?? "",
      served?.since?.replace(/\.\d+Z$/, "Z") ?? "",
    ];
    return repo === undefined
      ? [target.name, served?.repo ?? "", ...commit, ...machine, drift]
      : [target.name, ...commit, drift];
  });
}

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
): Promise<Host[]> {
  const { flags, signal } = master;
  const set = await readSet(repo, master);
  const found = new Map<Target, Answer>();
  await atOnce(targets, { jobs: flags.jobs, isOver: () => signal.aborted }, async (target) => {
    found.set(target, await ask(target, repo, master));
    onAsked();
  });
  const answers = targets.flatMap((target) => found.get(target) ?? []);
  const most = commonest(answers);
  const wantOf = (name: string, target: Target): Pin | undefined => {
    if (flags.sha !== undefined) return { sha: flags.sha, branch: flags.branch };
    const sha = most.get(name);
    return set.get(name)?.(target) ?? (sha === undefined ? undefined : { sha });
  };
  return answers.map((answer) => {
    const { target, error } = answer;
    const told = new Set(answer.repos.map(({ repo: name }) => name));
    // one that should run there, and of which it says nothing, differs
    const missing = [...set].filter(([name, wantFrom]) => !told.has(name) && wantFrom(target));
    const all = [...answer.repos, ...missing.map(([name]) => ({ repo: name }))];
    const repos = (error === undefined ? all : []).map((served) => {
      const want = wantOf(served.repo, target);
      return { served, wanted: want?.sha, drift: driftOf(served, want) };
    });
    const isGood = error === undefined && repos.every(({ drift }) => drift === "");
    const wanted = repo === undefined ? undefined : wantOf(repo, target)?.sha;
    return { ...answer, repos, wanted, isGood };
  });
}

async function ask(target: Target, repo: string | undefined, { transportFor, flags }: Master): Promise<Answer> {
  try {
    const verify = flags.verify ? "1" : undefined;
    const json = await transportFor(target).status(target, { repo, verify });
    const words = (name: string) => wordsOf(json[name]);
    const number = (name: string) => (typeof json[name] === "number" ? (json[name] as number) : undefined);
    const list = repo === undefined ? json["repos"] : [{ ...json, repo }];
    return {
      target,
      repos: (Array.isArray(list) ? list : []).map(servedOf).filter((each) => each.repo !== ""),
      about: {
        ...{ name: words("name"), boatyard: words("boatyard"), node: words("node") },
        ...{ git: words("git"), free: number("free"), uptime: number("uptime") },
      },
    };
  } catch (error) {
    return { target, repos: [], about: {}, error: messageOf(error) };
  }
}

function servedOf(value: unknown): RepoStatus {
  const json = (value ?? {}) as Record<string, unknown>;
  const { plain, written } = json;
  const words = (name: string) => wordsOf(json[name]);
  return {
    repo: words("repo") ?? "",
    ...{ sha: words("sha"), branch: words("branch"), since: words("since") },
    plain: plain === true || undefined,
    written: typeof written === "boolean" ? written : undefined,
    error: words("error"),
  };
}

/** What the last runs set, by repo, for the slaves of their lists. */
async function readSet(repo: string | undefined, { terminal }: Master) {
  const set = new Map<string, (target: Target) => Pin | undefined>();
  for (const name of repo === undefined ? await wantedRepos() : [repo]) {
    const wants = await readWants(name);
    if (!wants) continue;
    const lists = await listsOf(wants, terminal);
    set.set(name, (target) => wantFor(wants, target, lists));
  }
  return set;
}

/** The commit of each repo that most slaves serve. */
function commonest(answers: readonly Answer[]): Map<string, string> {
  const counts = new Map<string, Map<string, number>>();
  for (const { repo, sha } of answers.flatMap(({ repos }) => repos)) {
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
function driftOf(served: RepoStatus, want: Pin | undefined): string {
  const { sha, branch, plain, written, error } = served;
  const why = error === undefined ? "" : `; its last update failed: ${error}`;
  if (plain) return `DIFFERS: a plain folder that no update made${why}`;
  if (sha === undefined) return `DIFFERS: nothing is served${why}`;
  if (want && sha !== want.sha) return `DIFFERS${why}`;
  if (want?.branch !== undefined && branch !== want.branch) return `DIFFERS: branch ${want.branch} is wanted${why}`;
  return written ? "WRITTEN INTO" : "";
}

/** Leave what was found of the slaves of a list for hook-server's page. */
export async function keepStatus(
  repo: string | undefined,
  list: string,
  hosts: readonly Host[],
  terminal: Terminal,
): Promise<void> {
  const found = hosts.map(({ target, repos, error }) => ({
    ...{ target: target.name, error },
    repos: repos.map(({ served, wanted, drift }) => ({ ...served, wanted, drift })),
  }));
  try {
    await writeStatus(repo, list, found);
  } catch (error) {
    // whoever may only look has no state folder
    terminal.note(`not kept for the page: ${messageOf(error)}`);
  }
}
