import { mkdir, stat } from "node:fs/promises";
import process from "node:process";
import { messageOf } from "../core/errors.ts";
import { $ } from "../exec/exec.ts";
import { findOnPath } from "../exec/scripts.ts";
import { as, isRoot } from "../exec/users.ts";
import { gitAs } from "./poll.ts";
import type { HookConfig, RepoConfig } from "./config.ts";
import { scriptOf } from "./runner.ts";

/** One thing that a run would need. `mend` is what to do about it; undefined: it is there. */
export interface Finding {
  what: string;
  mend?: string | undefined;
}

/** Try what the server and its runs would need: programs, folders, users, scripts, remotes. Changes nothing but makes the state folder. */
export async function check(config: HookConfig): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const program of ["git", "flock", ...(isRoot() ? ["setpriv"] : [])]) {
    const path = await findOnPath(program);
    findings.push({
      what: `${program} is installed`,
      mend: path ? undefined : `install ${program}`,
    });
  }
  findings.push(await stateFinding(config.state));
  const repos = await Promise.all(
    [...config.repos.values()].map((repo) => checkRepo(repo, config)),
  );
  return [...findings, ...repos.flat()];
}

async function stateFinding(state: string): Promise<Finding> {
  const what = `state folder ${state} can be written`;
  try {
    await mkdir(state, { recursive: true, mode: 0o711 });
    const { ok } = await $({ nothrow: true })`test -w ${state}`;
    return { what, mend: ok ? undefined : `give ${state} to the user hook-server runs as` };
  } catch (error) {
    return { what, mend: messageOf(error) };
  }
}

async function checkRepo(repo: RepoConfig, config: HookConfig): Promise<Finding[]> {
  const findings: Finding[] = [];
  const add = (what: string, mend: string | undefined) =>
    findings.push({ what: `${repo.name}: ${what}`, mend });
  const user = $(as(repo.user, { nothrow: true, timeout: 30_000 }));
  if (isRoot() && repo.user.uid === 0)
    add("is not built as root", `name its user: in ${config.file}`);
  if (repo.secrets.length === 0)
    add(
      "deliveries are signed",
      "anybody who reaches the server can start its builds (insecure: true); add secret_file",
    );
  const there = await stat(repo.dir).then(
    (found) => found.isDirectory(),
    () => false,
  );
  add(
    `${repo.dir} is a folder`,
    there ? undefined : `git clone the repository there as ${repo.user.name}`,
  );
  if (there) {
    const writable = await user`test -w ${repo.dir}`;
    add(
      `${repo.user.name} can write ${repo.dir}`,
      writable.ok ? undefined : `chown -R ${repo.user.name} ${repo.dir}`,
    );
    await checkRemote(repo, add);
  }
  for (const kind of ["push", "release"] as const) {
    if (repo.on[kind] === false) continue;
    try {
      const script = await scriptOf(repo, kind);
      const file = script.at(-1) ?? "";
      add(
        `${repo.user.name} can read ${file}`,
        (await user`test -r ${file}`).ok
          ? undefined
          : `let ${repo.user.name} read ${file} and the folders above it`,
      );
      const runtime = script[0] ?? process.execPath;
      if (runtime !== file)
        add(
          `${repo.user.name} can run ${runtime}`,
          (await user`test -x ${runtime}`).ok
            ? undefined
            : `install the runtime where ${repo.user.name} can reach it`,
        );
    } catch (error) {
      add(`the script for ${kind} is there`, messageOf(error));
    }
  }
  return findings;
}

async function checkRemote(
  repo: RepoConfig,
  add: (what: string, mend: string | undefined) => void,
): Promise<void> {
  const git = gitAs(repo)({ nothrow: true, timeout: 30_000 });
  const inside = await git`git rev-parse --git-dir`;
  add(
    `${repo.dir} is a checkout`,
    inside.ok ? undefined : lastLine(inside.stderr) || "git clone the repository there",
  );
  if (!inside.ok) return;
  const remote = await git`git ls-remote --quiet --exit-code -- origin HEAD`;
  // 2: the remote is there and empty
  const readable = remote.exitCode === 0 || remote.exitCode === 2;
  add(
    "its remote can be read",
    readable
      ? undefined
      : `${reason(remote.stderr) || "git ls-remote origin fails"}; give ${repo.user.name} a key or token for it`,
  );
}

/** The line in which git or ssh says why; git's last one is advice. */
function reason(stderr: string): string {
  const why = stderr
    .split("\n")
    .find((line) => /^(?:fatal|error|ERROR):|denied|not known/.test(line));
  return why?.slice(0, 300) ?? lastLine(stderr);
}

function lastLine(text: string): string {
  return text.trim().split("\n").at(-1)?.slice(0, 300) ?? "";
}
