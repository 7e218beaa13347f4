import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { atEnd } from "../core/at-exit.ts";
import { Failure } from "../core/errors.ts";
import { CommandFailed } from "../exec/exec.ts";
import { exists } from "../files/files.ts";
import { git, type OldGitOptions, gitText } from "../git/git.ts";
import type { GitTarget } from "./config.ts";
import { changedWhileRead, readTries } from "./content.ts";
import { changedSince, type LocalFile, scanFolder } from "./folder.ts";
import type { Change, Job, Outcome } from "./job.ts";
import { withRetries } from "./pool.ts";
import { explainSsh, sshForShell } from "./ssh.ts";

/**
 * Publish the folder as one commit on a branch: bytes as they are (no filter, no line end conversion, no
 * ignore file has a say), on top of what is there, never forced.
 */
export async function uploadToGit(target: GitTarget, job: Job): Promise<Outcome> {
  const outcome: Outcome = { changes: [], bytes: 0, problems: [] };
  refuseNames(job.files);
  // what was fetched and made is kept for the next time: only what is new travels
  const repo = join(job.state.folder, `${target.name}.git`);
  const scratch = await makeScratch(job.state.folder);
  const options: OldGitOptions = {
    dir: repo,
    env: {
      GIT_SSH_COMMAND: sshForShell(target.ssh),
      GIT_INDEX_FILE: join(scratch.folder, "index"),
    },
    config: { "gc.auto": "500", "core.hooksPath": "/dev/null" },
    signal: job.signal,
  };
  try {
    await openCache(repo, options);
    const { files, tree } = await wholeTree(job, options);
    const isPassing = (error: unknown) => error instanceof TryAgain;
    await withRetries({ isPassing, signal: job.signal, retries: job.retries }, async () => {
      const parent = await fetchBranch(target, options);
      const changes = await difference(parent, tree, files, options);
      outcome.changes = changes;
      outcome.unchanged = files.length - changes.filter((each) => each.action !== "delete").length;
      outcome.bytes = changes.reduce((sum, { size }) => sum + size, 0);
      const isSame = parent !== undefined && changes.length === 0;
      if (job.dryRun || isSame || (parent === undefined && files.length === 0)) return;
      const commit = await makeCommit(tree, parent, job, options);
      await push(commit, target, options);
    });
    if (!job.dryRun) {
      job.expect(outcome.bytes);
      job.arrived(outcome.bytes, target.branch);
    }
    return outcome;
  } finally {
    await scratch.remove();
  }
}

/** Somebody else pushed first, or the line dropped: fetch, and try on top of that. */
class TryAgain extends Failure {
  override name = "TryAgain";
}

async function makeScratch(folder: string) {
  const scratch = await mkdtemp(join(folder, ".index-"));
  const remove = () => rm(scratch, { recursive: true, force: true });
  const forget = atEnd(remove);
  return {
    folder: scratch,
    async remove() {
      forget();
      await remove();
    },
  };
}

/** Names that git itself would refuse, said in our words and before anything is sent. */
function refuseNames(files: readonly LocalFile[]): void {
  const bad = files.find(({ path }) => path.split("/").some((part) => /^\.git$/i.test(part)));
  if (bad) throw new Failure(`${JSON.stringify(bad.path)} cannot be in a git commit; move it away`);
}

async function openCache(repo: string, options: OldGitOptions): Promise<void> {
  const { dir: _, ...elsewhere } = options;
  if (await exists(join(repo, "HEAD"))) {
    // a lock file that a killed run left: our own lock says that nobody holds it
    for (const name of ["shallow.lock", "packed-refs.lock"])
      await rm(join(repo, name), { force: true });
    return;
  }
  await mkdir(repo, { recursive: true });
  await git(["init", "--quiet", "--bare", "--template=", "--", repo], elsewhere);
}

/** The branch's newest commit there, fetched; undefined when there is no such branch yet. */
async function fetchBranch(target: GitTarget, options: OldGitOptions): Promise<string | undefined> {
  const ref = `refs/heads/${target.branch}`;
  const ours = "refs/boatyard/there";
  try {
    const listed = await gitText(["ls-remote", "--", target.url, ref], options);
    const found = listed.split("\n").find((line) => line.endsWith(`\t${ref}`));
    if (found === undefined) return undefined;
    const args = ["--quiet", "--no-tags", "--no-write-fetch-head", "--depth=1"];
    await git(["fetch", ...args, "--", target.url, `+${ref}:${ours}`], options);
    return await gitText(["rev-parse", "--verify", `${ours}^{commit}`], options);
  } catch (error) {
    throw explain(error, target);
  }
}

/** The tree of the folder at one moment: when a file changes while git reads, all is read again. */
async function wholeTree(job: Job, options: OldGitOptions) {
  let { files } = job;
  for (let attempt = 0; ; attempt++) {
    const tree = await writeTree(files, options);
    const [changed] = changedSince(files);
    if (changed === undefined) return { files, tree };
    if (attempt === readTries) throw changedWhileRead(changed);
    await sleep(50 * 4 ** attempt);
    files = scanFolder(job.root);
  }
}

/** Put every file into the object store as it is, and make the tree of them. */
async function writeTree(files: readonly LocalFile[], options: OldGitOptions): Promise<string> {
  // one name a line: those with line ends in them go one by one
  const plain = files.filter(({ file }) => !/[\r\n]/.test(file) && !file.startsWith('"'));
  const odd = files.filter((file) => !plain.includes(file));
  const ids = new Map<string, string>();
  const hash = ["hash-object", "-w", "--no-filters"];
  if (plain.length > 0) {
    const input = `${plain.map(({ file }) => file).join("\n")}\n`;
    const lines = (await gitText([...hash, "--stdin-paths"], { ...options, input })).split("\n");
    for (const [index, { path }] of plain.entries()) ids.set(path, lines[index] ?? "");
  }
  for (const { path, file } of odd) ids.set(path, await gitText([...hash, "--", file], options));
  const entries = files.map(
    ({ path, executable }) => `${executable ? "100755" : "100644"} ${ids.get(path)}\t${path}\0`,
  );
  await git(["read-tree", "--empty"], options);
  await git(["update-index", "-z", "--index-info"], { ...options, input: entries.join("") });
  return await gitText(["write-tree"], options);
}

/** What the new tree changes against the parent's. */
async function difference(
  parent: string | undefined,
  tree: string,
  files: readonly LocalFile[],
  options: OldGitOptions,
): Promise<Change[]> {
  if (parent === undefined)
    return files.map(({ path, size }) => ({ action: "new" as const, path, size }));
  const sizes = new Map(files.map(({ path, size }) => [path, size]));
  const args = ["diff-tree", "-r", "-z", "--name-status", "--no-renames", parent, tree];
  const words = (await git(args, options)).stdout.split("\0");
  const changes: Change[] = [];
  for (let index = 0; index + 1 < words.length; index += 2) {
    const [status = "", path = ""] = [words[index], words[index + 1]];
    const action = status === "D" ? "delete" : status === "A" ? "new" : "replace";
    changes.push({ action, path, size: action === "delete" ? 0 : (sizes.get(path) ?? 0) });
  }
  return changes;
}

async function makeCommit(
  tree: string,
  parent: string | undefined,
  job: Job,
  options: OldGitOptions,
): Promise<string> {
  const { name, email, message } = await sourceOf(job.dir, options.signal);
  const env = {
    ...options.env,
    ...{ GIT_AUTHOR_NAME: name, GIT_AUTHOR_EMAIL: email },
    ...{ GIT_COMMITTER_NAME: name, GIT_COMMITTER_EMAIL: email },
  };
  const parents = parent === undefined ? [] : ["-p", parent];
  const args = ["commit-tree", ...parents, tree];
  return await gitText(args, { ...options, env, input: message });
}

/** Who the author is (the checkout's user.name and user.email, else the source commit's), and the message. */
async function sourceOf(dir: string, signal: AbortSignal | undefined) {
  const quiet: OldGitOptions = { dir, check: false, signal };
  // not git's environment for identities: HOOK_ runs have none, and a server's own says nothing of the repo
  const [name, email, log] = await Promise.all([
    gitText(["config", "--get", "user.name"], quiet),
    gitText(["config", "--get", "user.email"], quiet),
    gitText(["log", "-1", "--format=%an%x00%ae%x00%H%x00%s"], quiet),
  ]);
  const [authorName = "", authorEmail = "", sha = "", subject = ""] = log.split("\0");
  const user = process.env["USER"] ?? "boatyard";
  return {
    name: name || authorName || user,
    email: email || authorEmail || `${user}@localhost`,
    message: sha
      ? `Publish ${sha.slice(0, 12)}: ${subject}\n\nSource: ${sha}\n`
      : "Publish the folder as it is\n",
  };
}

async function push(commit: string, target: GitTarget, options: OldGitOptions): Promise<void> {
  const refspec = `${commit}:refs/heads/${target.branch}`;
  try {
    await git(["push", "--quiet", "--no-verify", "--", target.url, refspec], options);
  } catch (error) {
    throw explain(error, target);
  }
}

/** git's words in one sentence; TryAgain where another try may help. */
function explain(error: unknown, target: GitTarget): unknown {
  if (!(error instanceof CommandFailed)) return error;
  const words = error.result.stderr;
  const host = /^(?:ssh:\/\/)?(?:[^@/]*@)?([^:/]+)/.exec(target.url)?.[1] ?? target.url;
  const login = explainSsh(words, host, target.ssh);
  if (login) return login;
  // a race is lost in several ways, by how far the other push had come
  if (
    /\[rejected\]|fetch first|non-fast-forward|failed to update ref|cannot lock ref|incorrect old value/i.test(
      words,
    )
  )
    return /protected|denied|declined|hook/i.test(words)
      ? new Failure(`${target.url} refused the push to ${target.branch}: ${lastLine(words)}`)
      : new TryAgain(`others push to ${target.branch} all the time; run this again`);
  if (/remote rejected/.test(words))
    return new Failure(`${target.url} refused the push to ${target.branch}: ${lastLine(words)}`);
  if (/Authentication failed|could not read (?:Username|Password)|\b403\b|\b401\b/.test(words))
    return new Failure(
      `${target.url} does not let us in; use ssh with key:, or a credential helper`,
    );
  if (/not found|does not exist|does not appear to be a git repository/i.test(words))
    return new Failure(`there is no repository at ${target.url}, or this key may not see it`);
  if (
    /Connection (?:reset|timed out|closed|refused)|early EOF|hung up|unexpected disconnect/i.test(
      words,
    )
  )
    return new TryAgain(`the connection to ${host} broke off: ${lastLine(words)}`);
  return error;
}

function lastLine(words: string): string {
  const lines = words.split("\n").filter((line) => /remote:|rejected|error|fatal/.test(line));
  return (lines[0] ?? words).trim().slice(0, 300);
}
