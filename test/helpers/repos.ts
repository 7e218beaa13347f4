// Real git repositories, untouched by the configuration of whoever runs the tests.
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { runCommand } from "./run.ts";
import { tempDir } from "./tmp.ts";

/** What git gets in tests: a fixed identity and clock, and nobody's configuration. */
export const gitEnv: Record<string, string> = {
  GIT_CONFIG_GLOBAL: "/dev/null",
  GIT_CONFIG_NOSYSTEM: "1",
  GIT_AUTHOR_NAME: "Ada",
  GIT_AUTHOR_EMAIL: "ada@example.com",
  GIT_AUTHOR_DATE: "2026-01-02T03:04:05Z",
  GIT_COMMITTER_NAME: "Ada",
  GIT_COMMITTER_EMAIL: "ada@example.com",
  GIT_COMMITTER_DATE: "2026-01-02T03:04:05Z",
  GIT_TERMINAL_PROMPT: "0",
};

/** Runs git in a folder and returns its trimmed output; fails with git's words. */
export async function git(dir: string, ...args: string[]): Promise<string> {
  const argv = ["git", "-c", "protocol.file.allow=always", "-C", dir, ...args];
  const { stdout } = await runCommand(argv, { env: gitEnv, expect: 0, timeout: 60_000 });
  return stdout.trim();
}

/** Paths and contents; null removes the file. */
export type Files = Record<string, string | Uint8Array | null>;

export async function writeFiles(dir: string, files: Files): Promise<void> {
  for (const [name, content] of Object.entries(files)) {
    const path = join(dir, name);
    await mkdir(dirname(path), { recursive: true });
    if (content !== null) await writeFile(path, content);
  }
}

/** A bare repository, as a forge has it, and a developer's clone that pushes to it. */
export type TestRepo = {
  /** The bare repository's folder; also its address. */
  bare: string;
  /** The address as file://. */
  url: string;
  /** The developer's clone. */
  work: string;
  /** Writes files, commits and pushes; returns the commit's sha. */
  push: (files: Files, options?: { message?: string; branch?: string }) => Promise<string>;
  /** Writes files and commits without pushing; returns the sha. */
  commit: (files: Files, message?: string) => Promise<string>;
  /** Tags the clone's HEAD, annotated when a message is given, and pushes the tag. */
  tag: (name: string, message?: string) => Promise<string>;
  /** Adds another repository as a submodule, commits and pushes; returns the sha. */
  addSubmodule: (url: string, path: string) => Promise<string>;
  /** Clones the bare repository to a folder: the server's checkout. */
  checkout: (dir: string) => Promise<string>;
  /** git in the developer's clone. */
  git: (...args: string[]) => Promise<string>;
};

/** Makes a bare repository `NAME.git` with a clone; with `files`, they are its first push. */
export async function makeRepo(
  options: { name?: string; files?: Files; branch?: string; dir?: string } = {},
): Promise<TestRepo> {
  const { name = "site", branch = "main", dir = tempDir("repo-") } = options;
  const bare = join(dir, `${name}.git`);
  const work = join(dir, `${name}-work`);
  // As forges do: any commit can be fetched by its sha.
  await init(bare, branch, "bare = true\n[uploadpack]\n\tallowAnySHA1InWant = true");
  const origin = `[remote "origin"]\n\turl = ${JSON.stringify(bare)}\n\tfetch = +refs/heads/*:refs/remotes/origin/*`;
  await init(join(work, ".git"), branch, `bare = false\n\tlogallrefupdates = true\n${origin}`);
  const repo: TestRepo = {
    bare,
    url: `file://${bare}`,
    work,
    git: (...args) => git(work, ...args),
    async commit(files, message = "Change") {
      await writeFiles(work, files);
      const gone = Object.keys(files).filter((path) => files[path] === null);
      if (gone.length) await git(work, "rm", "--quiet", "--force", "--", ...gone);
      await git(work, "add", "--all");
      await git(work, "commit", "--quiet", "--allow-empty", "-m", message);
      return await git(work, "rev-parse", "HEAD");
    },
    async push(files, { message = "Change", branch: to = branch } = {}) {
      const sha = await repo.commit(files, message);
      await git(work, "push", "--quiet", "--force", "origin", `HEAD:refs/heads/${to}`);
      return sha;
    },
    async tag(tag, message) {
      await git(work, "tag", "--force", ...(message ? ["-m", message] : []), tag);
      await git(work, "push", "--quiet", "--force", "origin", `refs/tags/${tag}`);
      return await git(work, "rev-parse", `${tag}^{commit}`);
    },
    async addSubmodule(url, path) {
      await git(work, "submodule", "--quiet", "add", "--", url, path);
      return await repo.push({}, { message: `Add ${path}` });
    },
    async checkout(to) {
      await git(dir, "clone", "--quiet", bare, to);
      return to;
    },
  };
  if (options.files) await repo.push(options.files, { message: "First" });
  return repo;
}

/** What `git init` makes, without its processes: hundreds of tests have a repository of their own. */
async function init(folder: string, branch: string, config: string): Promise<void> {
  for (const name of ["objects", "refs", "hooks", "info"]) await mkdir(join(folder, name), { recursive: true });
  await writeFile(join(folder, "HEAD"), `ref: refs/heads/${branch}\n`);
  await writeFile(join(folder, "config"), `[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\t${config}\n`);
}
