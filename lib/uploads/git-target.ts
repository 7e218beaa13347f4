import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { Failure } from "../core/errors.ts";
import { ProcessOutput, type Shell } from "../exec/exec.ts";
import { gitIn, textOf } from "../git/git.ts";
import type { GitTarget } from "./config.ts";
import type { LocalFile } from "./folder.ts";
import { isDiskFull, TryAgain } from "./job.ts";
import type { Change } from "./outcome.ts";
import { explainSsh, sshForShell } from "./ssh.ts";

/** The folder as one commit: bytes as they are (no filter, no line end conversion, no ignore file has a say). */

/** Where the branch's newest commit there is noted. */
export const there = "refs/boatyard/there";

/**
 * git in a repository of the target's own, which is made, or completed. What was fetched and made is kept for the next
 * time: only what is new travels.
 * @throws {Failure} for names that git itself would refuse.
 */
export async function openRepo(
  { name, ssh }: GitTarget,
  folder: string,
  { files, signal }: { files: readonly LocalFile[]; signal: AbortSignal },
): Promise<Shell> {
  const bad = files.find(({ path }) => path.split("/").some((part) => /^\.git$/i.test(part)));
  if (bad) throw new Failure(`${JSON.stringify(bad.path)} cannot be in a git commit; move it away`);
  const repo = join(folder, `${name}.git`);
  await mkdir(repo, { recursive: true });
  // lock files that a killed run left: our own lock says that nobody holds them
  for (const file of ["config", "HEAD", "index", "shallow", "packed-refs", there])
    await rm(join(repo, `${file}.lock`), { force: true });
  const git = gitIn(repo, {
    env: {
      GIT_SSH_COMMAND: sshForShell(ssh),
      // never a repository above it, which is the checkout's own
      GIT_CEILING_DIRECTORIES: folder,
    },
    config: { "gc.auto": "500", "core.hooksPath": "/dev/null" },
    signal,
  });
  await git`git init --quiet --bare --template=`;
  return git;
}

/** Whether what `git ls-remote` printed names a ref; it also prints those that end like it. */
export function isListed(listed: string, ref: string): boolean {
  return listed.split("\n").some((line) => line.endsWith(`\t${ref}`));
}

/** Put every file into the object store as it is, and make the tree of them. */
export async function writeTree(git: Shell, files: readonly LocalFile[]): Promise<string> {
  // one name a line: those with line ends in them go one by one
  const isOdd = ({ file }: LocalFile) => /[\r\n]/.test(file) || file.startsWith('"');
  const odd = files.filter(isOdd);
  const plain = files.filter((file) => !isOdd(file));
  const ids = new Map<string, string>();
  if (plain.length > 0) {
    const input = `${plain.map(({ file }) => file).join("\n")}\n`;
    const hash = git({ input })`git hash-object -w --no-filters --stdin-paths`;
    const lines = (await textOf(hash)).split("\n");
    for (const [index, { path }] of plain.entries()) ids.set(path, lines[index] ?? "");
  }
  for (const { path, file } of odd) ids.set(path, await textOf(git`git hash-object -w --no-filters -- ${file}`));
  const entries = files.map(
    ({ path, executable }) => `${executable ? "100755" : "100644"} ${ids.get(path)}\t${path}\0`,
  );
  await git`git read-tree --empty`;
  await git({ input: entries.join("") })`git update-index -z --index-info`;
  return await textOf(git`git write-tree`);
}

/** What the new tree changes against the parent's. */
export async function difference(
  git: Shell,
  parent: string | undefined,
  tree: string,
  files: readonly LocalFile[],
): Promise<Change[]> {
  if (parent === undefined) return files.map(({ path, size }) => ({ action: "new" as const, path, size }));
  const sizes = new Map(files.map(({ path, size }) => [path, size]));
  const diff = await git`git diff-tree -r -z --name-status --no-renames ${parent} ${tree}`;
  const fields = diff.stdout.split("\0");
  const changes: Change[] = [];
  for (let index = 0; index + 1 < fields.length; index += 2) {
    const [status = "", path = ""] = [fields[index], fields[index + 1]];
    const action = status === "D" ? "delete" : status === "A" ? "new" : "replace";
    changes.push({ action, path, size: action === "delete" ? 0 : (sizes.get(path) ?? 0) });
  }
  return changes;
}

/** A commit of the tree, in the name of the checkout `dir`. */
export async function makeCommit(git: Shell, parent: string | undefined, tree: string, dir: string): Promise<string> {
  const { name, email, message } = await sourceOf(dir);
  const identity = ["author", "committer"].flatMap((who) => [
    ...["-c", `${who}.name=${name}`, "-c", `${who}.email=${email}`],
  ]);
  const parents = parent === undefined ? [] : ["-p", parent];
  return await textOf(git({ input: message })`git ${identity} commit-tree ${parents} ${tree}`);
}

/** Who the author is (the checkout's user.name and user.email, else the source commit's), and the message. */
async function sourceOf(dir: string) {
  const git = gitIn(dir, { nothrow: true });
  // not git's environment for identities: HOOK_ runs have none, and a server's own says nothing of the repo
  const name = await textOf(git`git config --get user.name`);
  const email = await textOf(git`git config --get user.email`);
  const log = await textOf(git`git log -1 ${"--format=%an%x00%ae%x00%H%x00%s"}`);
  const [authorName = "", authorEmail = "", sha = "", subject = ""] = log.split("\0");
  const user = process.env["USER"] ?? "boatyard";
  return {
    name: name || authorName || user,
    email: email || authorEmail || `${user}@localhost`,
    message: sha ? `Publish ${sha.slice(0, 12)}: ${subject}\n\nSource: ${sha}\n` : "Publish the folder as it is\n",
  };
}

/** What git said of the target in one sentence, a {@link TryAgain} where another may help; else the error itself. */
export function explainGit(error: unknown, target: GitTarget): unknown {
  if (!(error instanceof ProcessOutput)) return error;
  const { stderr } = error;
  const host = /^(?:ssh:\/\/)?(?:[^@/]*@)?([^:/]+)/.exec(target.url)?.[1] ?? target.url;
  const login = explainSsh(stderr, host, target.ssh);
  if (login) return login;
  if (isDiskFull(stderr)) {
    const where = target.url.startsWith("file:") ? "this machine" : host;
    return new Failure(`the disk of ${where} is full (${target.url}); free some room there`);
  }
  // a race is lost in several ways, by how far the other push had come
  if (
    /\[rejected\]|fetch first|non-fast-forward|failed to update ref|cannot lock ref|incorrect old value/i.test(stderr)
  )
    return /protected|denied|declined|hook/i.test(stderr)
      ? new Failure(`${target.url} refused the push to ${target.branch}: ${lastLine(stderr)}`)
      : new TryAgain(`others push to ${target.branch} all the time; run this again`);
  if (/remote rejected/.test(stderr))
    return new Failure(`${target.url} refused the push to ${target.branch}: ${lastLine(stderr)}`);
  if (/Authentication failed|could not read (?:Username|Password)|\b403\b|\b401\b/.test(stderr))
    return new Failure(`${target.url} does not let us in; use ssh with key:, or a credential helper`);
  if (/not found|does not exist|does not appear to be a git repository/i.test(stderr))
    return new Failure(`there is no repository at ${target.url}, or this key may not see it`);
  if (/Connection (?:reset|timed out|closed|refused)|early EOF|hung up|unexpected disconnect/i.test(stderr))
    return new TryAgain(`the connection to ${host} broke off: ${lastLine(stderr)}`);
  return error;
}

function lastLine(stderr: string): string {
  const lines = stderr.split("\n").filter((line) => /remote:|rejected|error|fatal/.test(line));
  return (lines[0] ?? stderr).trim().slice(0, 300);
}
