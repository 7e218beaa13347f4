import { stat } from "node:fs/promises";
import { join, resolve } from "node:path";
import process from "node:process";
import { defineCommand, runScript } from "../lib/cli/command.ts";
import { Failure, messageOf, UsageError } from "../lib/core/errors.ts";
import { didYouMean, isSafeRef, shortSha } from "../lib/core/names.ts";
import { findScript } from "../lib/exec/scripts.ts";
import { existsAny } from "../lib/files/files.ts";
import { excludeFromGit, findCheckout } from "../lib/git/checkout.ts";
import { gitIn, textOf } from "../lib/git/git.ts";
import { checkSigned, readSigners } from "../lib/git/signers.ts";
import { addWorktree, treeBeside } from "../lib/git/worktree.ts";
import { defaultOut } from "../lib/release/folder.ts";
import { explainFetch, linkWebFolder, packNames, releaseVariables } from "../lib/release/tag.ts";
import { askToken } from "../lib/run/lease.ts";
import { runJson, runTable } from "../lib/run/report.ts";
import { buildIn, openRun, type RunPlace, type StageContext } from "../lib/run/run.ts";
import {
  keygenCommand,
  keysCommand,
  listCommand,
  packCommand,
  refreshCommand,
  verifyCommand,
  withdrawCommand,
} from "./release-commands.ts";

const subcommands = {
  pack: packCommand,
  keygen: keygenCommand,
  keys: keysCommand,
  refresh: refreshCommand,
  withdraw: withdrawCommand,
  list: listCommand,
  verify: verifyCommand,
};

const command = defineCommand({
  usage: `
release: build a tag in a separate worktree and run the repo's release.sh

Usage
  release [DIR] --tag TAG [flags]
  release pack|keygen|keys|refresh|withdraw|list|verify … (each has --help)

Operands
  [DIR]  the checkout; default: the current folder

Flags
  --tag TAG       the tag to release [$RELEASE_TAG]
  --sha SHA       the commit that the event named; if the tag is at another one, this is reported and the tag is built
                  [$RELEASE_SHA]
  --signers FILE  release only a commit that a key of FILE has signed [$HOOK_SIGNERS]
  --wait          wait for a build or another release of the repo, instead of exit 3

Environment
  RELEASE_NAME, RELEASE_URL, RELEASE_PRERELEASE, HOOK_*  passed on to the build and to release.sh

Examples
  release --tag v1.2.3                in the checkout; what hook-server does on a release event
  release /home/site/site --tag v1.2.3 --json  the result as JSON

Exit codes
  1  a step failed
  3  a build or another release of the repo is in progress
  4  refused for safety: also a commit that none of --signers signed
`,
  complete: {
    tag: async ({ args: [dir = "."] }) =>
      (await textOf(gitIn(dir)`git tag --list --sort=-creatordate`)).split("\n").slice(0, 100),
  },
  subcommands,
  async run({ flags, args: [dir = "."], terminal, signal }) {
    const { tag, sha: named, wait } = flags;
    if (tag === undefined)
      throw new UsageError(`which release? name its tag with --tag${didYouMean(dir, Object.keys(subcommands))}`);
    if (!isSafeRef(tag)) throw new UsageError(`--tag: "${tag}" is not the name of a tag`);
    const checkout = await findCheckout(resolve(dir));
    if (!checkout) throw new UsageError(`${resolve(dir)} is not a git checkout; clone the repository there`);
    const release = await findScript("release");
    const webFolder = join(checkout.dir, defaultOut);
    let sha: string | undefined;

    const place: RunPlace = { dir: checkout.dir };
    const isPrerelease = process.env["RELEASE_PRERELEASE"] === "true";
    const pack = async (s: StageContext, flags: readonly string[] = []) => {
      const { app, version, name } = await packNames(tree.dir, checkout.dir, tag, process.env["RELEASE_NAME"]);
      const called = name === undefined ? [] : ["--name", name];
      // the worktree goes with the release, the web folder stays: other platforms and older versions stand in it
      await s.$`${release} pack --app ${app} --version ${version} --out ${webFolder} ${called} ${flags}`;
      return `${app} ${version}`;
    };

    const run = await openRun(() => `release ${tag}`, place, { wait, signal, terminal });
    await excludeFromGit(checkout, ["/logs.txt", "/logs.txt.*"]);
    await run.begin({ event: "release", ref: `tag ${tag}`, sha: named });
    const tree = await treeBeside(checkout.dir);
    place.work = tree.dir;

    await run.stage("checkout", async (s) => {
      const git = gitIn(checkout.dir, { signal: s.signal });
      const tryGit = git({ nothrow: true });
      const remotes = (await textOf(git`git remote`)).split("\n");
      const remote = remotes.includes("origin") ? "origin" : remotes[0];
      if (remote) {
        const lines: string[] = [];
        const loud = tryGit({ onLine: (line) => s.say(lines[lines.push(line) - 1] ?? "") });
        const refspec = `+refs/tags/${tag}:refs/tags/${tag}`;
        const fetched = await loud`git fetch --no-auto-gc --no-recurse-submodules -- ${remote} ${refspec}`;
        s.signal.throwIfAborted();
        if (!fetched.ok) throw new Failure(explainFetch(tag, remote, lines));
      }
      const found = await tryGit`git rev-parse --verify --quiet ${`refs/tags/${tag}^{commit}`}`;
      if (!found.ok) throw new Failure(`there is no tag ${tag}; make it: git tag ${tag}`);
      sha = found.stdout.trim();
      if (flags.signers !== undefined)
        await checkSigned(checkout.dir, sha, await readSigners(flags.signers, "--signers"), { signal: s.signal });
      if (named && !sha.startsWith(named))
        s.say(`the event named commit ${shortSha(named)}, but tag ${tag} is at ${shortSha(sha)}; the tag is built`);

      await addWorktree(checkout, tree.dir, { ...{ sha, remote }, say: s.say, signal: s.signal });
      run.use({ env: releaseVariables(tag, sha) });
      // what would be wrong after the build is found before it
      if (!(await existsAny(tree.dir, ["release.sh"])) && !isPrerelease) await pack(s, ["--check"]);
      return `${tag} at ${shortSha(sha)}`;
    });

    await run.stage("build", async (s) => {
      // what a tag holds must not replace what a push has published
      await buildIn(tree.dir, run, s);
    });

    if (await existsAny(tree.dir, ["release.sh"]))
      await run.stage("release.sh", async (s) => {
        const file = join(tree.dir, "release.sh");
        const { mode } = await stat(file);
        await askToken();
        await s.$`${mode & 0o100 ? [file] : ["/bin/sh", file]}`;
      });
    else if (isPrerelease) await run.stage("pack", async () => "a prerelease: built, not published");
    else {
      await run.stage("pack", async (s) => {
        await excludeFromGit(checkout, [`/${defaultOut}/`]);
        return await pack(s);
      });
      if (await existsAny(tree.dir, ["uploads.yml"]))
        await run.stage("uploads", async (s) => {
          // the tag's own uploads.yml publishes all of it
          await linkWebFolder(webFolder, join(tree.dir, defaultOut));
          await s.$`${await findScript("uploads")} ${tree.dir}`;
        });
    }
    await tree.remove().catch((error: unknown) => terminal.warn(`${tree.dir} cannot be removed: ${messageOf(error)}`));

    const { run: id, ...rest } = await run.end();
    const result = { run: id, tag, sha, ...rest };
    terminal.printJson(runJson(result));
    if (!terminal.quiet || result.code !== 0) for (const line of runTable(result, terminal)) terminal.print(line);
    return result.code;
  },
});

void runScript(command);
