import { mkdir, stat } from "node:fs/promises";
import { messageOf } from "../core/errors.ts";
import { $ } from "../exec/exec.ts";
import { Scopes } from "../exec/scope.ts";
import { findOnPath } from "../exec/scripts.ts";
import { as, isRoot } from "../exec/users.ts";
import { gitAs } from "./runs/checkout.ts";
import { type HookConfig, type RepoConfig, shortSecrets } from "./config/config.ts";
import { describeRuns } from "./runs/isolation.ts";
import { scriptOf } from "./runs/run-command.ts";
import { whichForge } from "./runs/run-news.ts";

/** One thing that a run would need. `fix` is what to do about it; undefined: it is there. */
export interface Finding {
  what: string;
  fix?: string | undefined;
}

/** Try what the server and its runs would need: programs, folders, users, scripts, remotes. Makes the state folder. */
export async function check(config: HookConfig): Promise<Finding[]> {
  const programs = ["git", "flock", ...(isRoot() ? ["setpriv"] : [])];
  const installed = await Promise.all(programs.map(findOnPath));
  const repos = [...config.repos.values()].map((repo) => checkRepo(repo, config));
  return [
    ...programs.map((name, at) => finding(`${name} is installed`, installed[at], `install ${name}`)),
    ...shortSecrets(config).map((what) =>
      finding(
        `${what} has 16 characters or more`,
        false,
        "make a longer one (openssl rand -hex 32), here and at the forge",
      ),
    ),
    await checkState(config.state),
    ...describeRuns(config, (await Scopes.find()) !== undefined),
    ...(await Promise.all(repos)).flat(),
  ];
}

function finding(what: string, ok: unknown, fix: string): Finding {
  return { what, fix: ok ? undefined : fix };
}

async function checkState(state: string): Promise<Finding> {
  const what = `state folder ${state} can be written`;
  try {
    await mkdir(state, { recursive: true, mode: 0o711 });
    const { ok } = await $({ nothrow: true })`test -w ${state}`;
    return finding(what, ok, `give ${state} to the user hook-server runs as`);
  } catch (error) {
    return finding(what, false, messageOf(error));
  }
}

async function checkRepo(repo: RepoConfig, { file, forges }: HookConfig): Promise<Finding[]> {
  const { dir, user } = repo;
  const isThere = await stat(dir).then(
    (found) => found.isDirectory(),
    () => false,
  );
  const found = [finding(`${dir} is a folder`, isThere, `git clone the repository there as ${user.name}`)];
  if (repo.secrets.length === 0) {
    const fix = "anybody who reaches the server can start its builds (insecure: true); add secret_file";
    found.unshift(finding("deliveries are signed", false, fix));
  }
  if (isRoot() && user.uid === 0) found.unshift(finding("is not built as root", false, `name its user: in ${file}`));
  if (forges.length > 1 && repo.forge === undefined && repo.poll !== false) {
    const which = whichForge(forges.map(({ host }) => host));
    const fix = `a push that polling finds has no link to its forge, and shows no status; ${which}`;
    found.push(finding("its forge is known", false, fix));
  }
  if (isThere) found.push(...(await checkCheckout(repo)));
  for (const kind of ["push", "release"] as const)
    if (repo.on[kind] !== false) found.push(...(await checkScript(repo, kind)));
  return found.map(({ what, fix }) => ({ what: `${repo.name}: ${what}`, fix }));
}

/** Whether a repo's user can do what test(1) asks about a path: `-r`, `-w`, `-x`. */
async function can({ user }: RepoConfig, access: string, path: string): Promise<boolean> {
  return (await $(as(user, { nothrow: true, timeout: 30_000 }))`test ${access} ${path}`).ok;
}

async function checkScript(repo: RepoConfig, kind: "push" | "release"): Promise<Finding[]> {
  const { name } = repo.user;
  try {
    const [runtime = "", ...rest] = await scriptOf(repo, kind);
    const file = rest.at(-1) ?? runtime;
    const readable = await can(repo, "-r", file);
    const found = [finding(`${name} can read ${file}`, readable, `let ${name} read ${file} and the folders above it`)];
    if (runtime === file) return found;
    const runs = await can(repo, "-x", runtime);
    const fix = `install the runtime where ${name} can reach it`;
    return [...found, finding(`${name} can run ${runtime}`, runs, fix)];
  } catch (error) {
    return [finding(`the script for ${kind} is there`, false, messageOf(error))];
  }
}

async function checkCheckout(repo: RepoConfig): Promise<Finding[]> {
  const { dir, user } = repo;
  const git = gitAs(repo)({ nothrow: true, timeout: 30_000 });
  const writable = await can(repo, "-w", dir);
  const inside = await git`git rev-parse --git-dir`;
  const clone = lastLine(inside.stderr) || "git clone the repository there";
  const found = [
    finding(`${user.name} can write ${dir}`, writable, `chown -R ${user.name} ${dir}`),
    finding(`${dir} is a checkout`, inside.ok, clone),
  ];
  if (!inside.ok) return found;
  const { exitCode, stderr } = await git`git ls-remote --quiet --exit-code -- origin HEAD`;
  // 2: the remote is there and empty
  const readable = exitCode === 0 || exitCode === 2;
  const why = reason(stderr) || "git ls-remote origin fails";
  const fix = `${why}; give ${user.name} a key or token for it`;
  return [...found, finding("its remote can be read", readable, fix)];
}

/** The line in which git or ssh says why; git's last one is advice. */
function reason(stderr: string): string {
  const why = stderr.split("\n").find((line) => /^(?:fatal|error|ERROR):|denied|not known/.test(line));
  return why?.slice(0, 300) ?? lastLine(stderr);
}

function lastLine(text: string): string {
  return text.trim().split("\n").at(-1)?.slice(0, 300) ?? "";
}
