import process from "node:process";
import { readBuildConfig, type StageChoice } from "../lib/builder/config.ts";
import { lastBuildOf, openFolder, readStages, stagesOf } from "../lib/builder/folder.ts";
import {
  asksForWork,
  beginInstall,
  findManager,
  installToCopy,
  isInstalled,
  managerSettings,
  packageManager,
  refuseOtherYarn,
  rememberInstall,
  scriptOf,
  whyNotInstalled,
} from "../lib/builder/install.ts";
import { compileLitpro, needsLitpro, sourceOf } from "../lib/builder/litpro.ts";
import {
  type Branch,
  changedFiles,
  explainFetch,
  findBranch,
  type Head,
  isMissing,
  keepLocalCommits,
  lostCommit,
  readCommits,
  readHead,
  removeStaleLocks,
  stashLocalChanges,
  trackedLog,
} from "../lib/builder/pull.ts";
import { watchFiles } from "../lib/builder/watch.ts";
import { noteOfNothing } from "../lib/builder/nothing.ts";
import { readBuildTargets, tellBuild, testBuildTargets } from "../lib/builder/tell.ts";
import { defineCommand, type Live, runScript } from "../lib/cli/command.ts";
import { cleanLine } from "../lib/core/clean.ts";
import { Failure, messageOf, Refused, UsageError } from "../lib/core/errors.ts";
import { shortRef, shortSha } from "../lib/core/names.ts";
import { $, cleanEnvironment, type ProcessPromise, searchPath } from "../lib/exec/exec.ts";
import { findScript } from "../lib/exec/scripts.ts";
import { existsAny } from "../lib/files/files.ts";
import { type Checkout, excludeFromGit } from "../lib/git/checkout.ts";
import { gitIn, textOf, updateSubmodules, usesLfs } from "../lib/git/git.ts";
import { checkSigned, readSigners } from "../lib/git/signers.ts";
import { addWorktree, treeBeside } from "../lib/git/worktree.ts";
import { askToken } from "../lib/run/lease.ts";
import { runJson, runTable } from "../lib/run/report.ts";
import {
  buildIn,
  checkStage,
  openRun,
  previewStage,
  type RunPlace,
  type Stage,
  type StageContext,
  stageEnvironment,
} from "../lib/run/run.ts";

const stageNames: Live = async ({ args }) => (await readBuildConfig(args[0] ?? ".")).stages;

const command = defineCommand({
  usage: `
build: bring a checkout up to date and build it

Usage
  build [DIR] [flags]

Operands
  [DIR]  the checkout; default: the current folder

Flags
  --only A,B      run only these stages
  --skip A,B      skip these stages
  --from STAGE    start at this stage; where a commit is asked for, after the pull [$HOOK_FROM]
  --ref REF       the branch or tag to build; default: the checkout's branch [$HOOK_REF]
  --sha SHA       the commit to build; default: the newest of the branch [$HOOK_SHA]
  --apart         build --ref in a worktree of its own, without uploads; the checkout stays as it is [$HOOK_APART]
  --signers FILE  build only a commit that a key of FILE has signed, with the present one in its history [$HOOK_SIGNERS]
  --allow-back    with --signers: also one that has not the present commit in its history [$HOOK_ALLOW_BACK]
  --if-changed    do nothing if the last successful build was of the same commit (for cron)
  --force         run every stage, and let litpro write every file again
  --wait          wait if another build of DIR is in progress, instead of exit 3
  --check         check build.yml, the files of the stages and what they need; run nothing
  --dry-run       show what each stage would do; fetch and run nothing
  --watch         build without a pull, and again whenever a file changes that git does not ignore, until Ctrl-C
  --notify-test   send a sample to each target in ~/.config/boatyard/notify.yml; build nothing

Environment
  HOOK_*, RELEASE_*  passed on to every stage; HOOK_RUN is the run's id

Examples
  build /home/site/site              pull, downloads, install, litpro, build, uploads
  build --only install,litpro        two stages, in the checkout as it stands
  build ~/site --if-changed --quiet  for cron: silent unless there is something new

Exit codes
  1  a stage failed or took too long
  3  another build of DIR is in progress
  4  refused for safety: also a commit that none of --signers signed, or that is older than the present one

DIR/build.yml names other stages, commands, env and timeout: see docs/build.md.
`,
  complete: { only: stageNames, skip: stageNames, from: stageNames },
  async run({ flags, args, terminal, signal }) {
    if (flags["notify-test"]) return await testBuildTargets(terminal);
    const folder = await openFolder(args[0] ?? ".");
    const { dir, checkout, state } = folder;
    const { ref, sha: asked, force, check, signers } = flags;
    if (flags.watch) {
      if (!checkout) throw new UsageError(`${dir} is not a git checkout: --watch asks git which files are sources`);
      await readStages(folder, flags, { strict: true });
      const self = await findScript("build");
      const chosen = ["only", "from"] as const;
      const words = chosen.flatMap((name) => (flags[name]?.length ? [`--${name}`, String(flags[name])] : []));
      if (flags.only.length === 0) words.push("--skip", ["pull", ...flags.skip].join(","));
      if (force) words.push("--force");
      if (terminal.quiet) words.push("--quiet");
      if (terminal.json) words.push("--json");
      const env = cleanEnvironment({ ...process.env, PATH: searchPath() });
      for await (const [first, ...others] of watchFiles(dir, signal)) {
        if (first !== undefined)
          terminal.note(`${cleanLine(first)}${others.length > 0 ? ` and ${others.length} more` : ""} changed`);
        await $({ stdio: "inherit", env, signal, nothrow: true })`${self} ${dir} ${words}`;
      }
    }
    let sha = asked;
    let head: Head | undefined;

    /** Fetch a branch or tag; the commit that is asked for, else its newest. */
    const fetchCommit = async (checkout: Checkout, branch: Branch, { say, signal, stop }: StageContext) => {
      const { remote, tracking } = branch;
      const git = gitIn(dir, { signal });
      const quietly = ["--no-auto-gc", "--no-recurse-submodules"];
      await removeStaleLocks(checkout, branch, say);
      const lines: string[] = [];
      const loud = git({ onLine: (line) => say(lines[lines.push(line) - 1] ?? ""), nothrow: true });
      const fetched = await loud`git fetch ${quietly} -- ${remote} ${`+${branch.ref}:${tracking}`}`;
      signal.throwIfAborted();
      if (!fetched.ok)
        stop(explainFetch(branch, lines, isMissing(lines) ? await textOf(git`git ls-remote -- ${remote}`) : ""));

      const [at, tip = ""] = await readCommits(git, ["HEAD", tracking]);
      let to: string | undefined = tip;
      if (asked !== undefined && !tip.startsWith(asked)) {
        [to] = await readCommits(git, [asked]);
        if (to === undefined) {
          // a commit that no branch holds any more; most forges still hand it out
          await git({ nothrow: true })`git fetch --quiet ${quietly} -- ${remote} ${asked}`;
          [to] = await readCommits(git, [asked]);
        }
        if (to === undefined) throw lostCommit(branch, asked, tip);
        say(`${shortSha(to)} is asked for; ${shortRef(branch.ref)} is at ${shortSha(tip)} by now`);
      }
      if (signers !== undefined) await checkSigned(dir, to, await readSigners(signers, "--signers"), { signal });
      return { at, tip, to };
    };

    if (flags.apart) {
      const narrowed = ["only", "skip", "force", "if-changed", "check", "dry-run"] as const;
      const other = narrowed.find((name) => [flags[name]].flat().some(Boolean));
      if (other !== undefined) throw new UsageError(`--apart builds all of it, anew; leave --${other} out`);
      if (!checkout) throw new UsageError(`${dir} is not a git checkout: there is no worktree of it`);
      if (ref === undefined) throw new UsageError("--apart: which branch or tag? name it with --ref");
      const branch = findBranch({ ref, sha: asked }, await readHead(checkout));
      if (!branch) throw new UsageError(`${dir} has no remote to fetch ${ref} from`);
      const place: RunPlace = { dir, work: dir };
      const run = await openRun((id) => `build ${id}`, place, { wait: flags.wait, terminal, signal });
      await excludeFromGit(checkout, ["/logs.txt", "/logs.txt.*"]);
      const tree = await treeBeside(dir);
      place.work = tree.dir;
      await run.begin({ event: "manual", ref: shortRef(branch.ref), sha: asked });
      await run.stage("pull", async (s) => {
        ({ to: sha } = await fetchCommit(checkout, branch, s));
        await addWorktree(checkout, tree.dir, { sha, remote: branch.remote, say: s.say, signal: s.signal });
        return `${shortRef(branch.ref)} at ${shortSha(sha)}, in a worktree of its own`;
      });
      await run.stage("build", (s) => buildIn(tree.dir, run, s));
      await tree
        .remove()
        .catch((error: unknown) => terminal.warn(`${tree.dir} cannot be removed: ${messageOf(error)}`));
      const { run: id, ...rest } = await run.end({ sha });
      const result = { run: id, dir, ref: branch.ref, sha, ...rest };
      terminal.printJson(runJson(result));
      if (!terminal.quiet || result.code !== 0) for (const line of runTable(result, terminal)) terminal.print(line);
      return result.code;
    }
    /** The commit at which there is nothing to do. */
    let builtAt: string | undefined;

    const stages: Record<string, Stage> = {
      async pull(s) {
        if (!checkout || !head) throw new UsageError(`${dir} is not a git checkout; use --skip pull`);
        if (asked !== undefined && /^0+$/.test(asked)) {
          const why = `${shortRef(ref ?? "the branch")} was deleted: nothing to build`;
          await s.plan(why);
          s.stop(why);
        }
        const branch =
          findBranch({ ref, sha: asked }, head) ?? s.skip("the checkout has no remote, it is built as it is");
        const { remote, tracking } = branch;
        const what = [shortRef(branch.ref), ...(asked === undefined ? [] : [shortSha(asked)])].join(" ");
        await s.plan(`fetch ${what} from ${remote} and set the checkout to it`);

        const { say, signal } = s;
        const git = gitIn(dir, { signal });
        const { at, tip, to } = await fetchCommit(checkout, branch, s);
        if (signers !== undefined && at !== undefined && !flags["allow-back"])
          if (!(await git({ nothrow: true })`git merge-base --is-ancestor ${at} ${to}`).ok)
            throw new Refused(
              `commit ${to} has not the present one in its history, so it may be an older one; ` +
                "allow_back: true in hooks.yml, or --allow-back, permits it",
            );
        const dirty = await changedFiles(git);
        const moves = at !== to || !branch.current;
        if (at === to) sha = to;
        if (builtAt === to && at === to) s.stop(`nothing new since ${shortSha(to)}`, "unchanged");
        if (!moves && dirty.length === 0) return `already at ${shortSha(to)}`;

        const tree = { dir, git, say };
        const lfs = await usesLfs(tree, to);
        await stashLocalChanges({ dir, signal, say }, { sha: to, dirty, hasHead: at !== undefined, run: run.id });
        if (at !== undefined && at !== to)
          await keepLocalCommits(tree, { head: at, sha: to, tip, tracking, run: run.id });
        if (lfs) await git`git lfs install --local --skip-repo`;
        if (branch.current) await git`git reset --hard --quiet ${to} --`;
        else if (branch.branch === undefined) await git`git checkout --force --quiet --detach ${to} --`;
        else {
          await git`git checkout --force --quiet -B ${branch.branch} ${to} --`;
          const upstream = tracking.replace(/^refs\/remotes\//, "");
          await git({ nothrow: true })`git branch --quiet --set-upstream-to=${upstream} ${branch.branch}`;
        }
        if ((await textOf(git`git ls-files -- logs.txt`)) !== "") throw trackedLog();
        if (lfs) await git({ onLine: say })`git lfs pull ${remote}`;
        const modules = await updateSubmodules(tree);
        // git's own housekeeping, to its end: it must not go on behind the build's back
        const config = { "gc.autoDetach": "false", "maintenance.autoDetach": "false" };
        if (moves) await gitIn(dir, { signal, config, nothrow: true })`git maintenance run --auto --quiet`;
        const subject = await textOf(git`git log -1 --format=%s ${to} --`);
        say(`${shortRef(branch.ref)} is at ${shortSha(to)}: ${subject}`);
        sha = to;
        const extra = [`${shortRef(branch.ref)} at ${shortSha(to)}`, lfs && "LFS files", modules].filter(Boolean);
        return extra.join(", ");
      },

      async downloads(s) {
        const files = ["manifest.txt", "cloudinary.txt"];
        if (!(await existsAny(dir, files))) s.skip(`no ${files.join(" or ")}`, "absent");
        const downloads = await findScript("downloads");
        await s.plan(`downloads ${dir}`, () => inItsWords(s.$`${downloads} --print ${dir}`));
        s.say(`$ downloads ${dir}`);
        await s.$`${downloads} ${dir}`;
      },

      async install(s) {
        const manager = (await packageManager(dir)) ?? s.skip("no package.json", "absent");
        if (!(await asksForWork(dir, manager))) s.skip("package.json names no packages", "absent");
        const place = { dir, state, env: s.env };
        if (!force && (await isInstalled(place, manager))) s.skip("nothing changed since the last install");
        await s.plan(manager.title, () => findManager(manager, s.env));
        const program = await findManager(manager, s.env);
        const shell = s.$({ env: { ...s.env, ...managerSettings } });
        const git = gitIn(dir, { nothrow: true });
        const trees = checkout && !force ? (await git`git worktree list --porcelain -z`).stdout : "";
        const copies = await installToCopy(place, manager, /^worktree ([^\0]+)/.exec(trees)?.[1] ?? "");
        for (const [from, to] of copies) await shell`cp -a --reflink=auto -- ${from} ${to}`;
        if (copies.length > 0) {
          await rememberInstall(place, manager);
          return "copied from the checkout: nothing changed";
        }
        await refuseOtherYarn(shell, program, manager);
        await beginInstall(place, manager, { force });
        s.say(`$ ${manager.title}`);
        const installed = await shell`${program} ${manager.args}`.nothrow();
        s.signal.throwIfAborted();
        if (!installed.ok) throw whyNotInstalled(manager, installed);
        await rememberInstall(place, manager);
        return manager.lock === undefined ? `${manager.title}; no lock file: the next may bring others` : manager.title;
      },

      async litpro(s) {
        if (!(await existsAny(dir, ["lprc.js"]))) s.skip("no lprc.js", "absent");
        // which litpro it is shows after the install, not before
        await s.plan("litpro", () => needsLitpro(dir));
        return await compileLitpro(s, dir, { force });
      },

      async build(s) {
        const manager = (await packageManager(dir)) ?? s.skip("no package.json", "absent");
        const script = scriptOf(manager, "build") ?? s.skip("package.json has no script named build", "absent");
        const words = [manager.name === "deno" ? "task" : "run", "build"];
        const title = [manager.name, ...words].join(" ");
        await s.plan(`${title}: ${script}`, () => findManager(manager, s.env));
        const program = await findManager(manager, s.env);
        s.say(`$ ${title}`);
        await s.$({ env: { ...s.env, ...managerSettings } })`${program} ${words}`;
        return title;
      },

      async uploads(s) {
        if (!(await existsAny(dir, ["uploads.yml"]))) s.skip("no uploads.yml", "absent");
        const uploads = await findScript("uploads");
        await s.plan(`uploads ${dir}`, () => inItsWords(s.$`${uploads} --check ${dir}`));
        await askToken();
        s.say(`$ uploads ${dir}`);
        await s.$`${uploads} ${dir}`;
      },
    };
    const stageOf = ({ name, command }: StageChoice): Stage => {
      if (command === undefined && name !== "build") return stages[name] as Stage;
      return withSource(dir, async (s) => {
        if (command === undefined) return await stages.build?.(s);
        await s.plan(command);
        s.say(`$ ${command.trimEnd()}`);
        await s.$`/bin/sh -c ${command}`;
      });
    };

    if (check || flags["dry-run"]) {
      const { config, stages: chosen } = await readStages(folder, flags, { strict: check });
      head = checkout && (await readHead(checkout));
      const env = { ...stageEnvironment(), ...config.env };
      const place = { dir, env, signal };
      if (!check) {
        const plans: { name: string; does?: string; skip?: string }[] = [];
        for (const each of chosen) plans.push({ name: each.name, ...(await previewStage(stageOf(each), place)) });
        terminal.printJson({ stages: plans });
        const rows = plans.map(({ name, does, skip }) => [name, does ?? `skipped: ${skip}`]);
        for (const line of terminal.table(rows, { header: ["stage", "what it would do"] })) terminal.print(line);
        return 0;
      }
      const checks = [];
      for (const each of chosen) checks.push(await checkStage(each.name, stageOf(each), place));
      terminal.printJson({ stages: checks });
      const rows = checks.map(({ name, result, note }) => [name, result, note.split("\n")[0] ?? ""]);
      for (const line of terminal.table(rows, { header: ["stage", "check", ""] })) terminal.print(line);
      const failed = checks.filter(({ result }) => result === "failed");
      for (const { name, note } of failed) terminal.warn(`${name}: ${note}`);
      return failed.length > 0 ? 2 : 0;
    }

    const targets = await readBuildTargets();
    // a wrong request or build.yml is refused before even the lock file is made
    const { stages: chosen } = await readStages(folder, flags);
    const run = await openRun((id) => `build ${id}`, { dir }, { wait: flags.wait, terminal, signal });
    head = checkout && (await readHead(checkout));
    const last = await lastBuildOf(folder).read();
    if (flags["if-changed"] && !force && last?.good) builtAt = last.sha;
    // so is a pull that cannot tell what is meant, and a script that is missing
    for (const each of chosen)
      if (each.command === undefined && ["pull", "downloads", "uploads"].includes(each.name))
        await previewStage(stageOf(each), { dir, env: {}, signal });
    if (checkout) await excludeFromGit(checkout, ["/logs.txt", "/logs.txt.*"]);

    const full = ref ?? (head?.current && `refs/heads/${head.current}`);
    await run.begin({ event: "manual", ref: full && shortRef(full), sha: asked }, { hold: builtAt !== undefined });
    for await (const [each, position] of stagesOf(folder, flags, run))
      await run.stage(each.name, stageOf(each), position);
    const isWhole = run.stopped === undefined && flags.only.length === 0 && flags.from === undefined;
    const mayNote = isWhole && flags.skip.every((name) => name === "pull");
    const ended = await run.end({ sha, note: mayNote ? await noteOfNothing(dir, run.results) : undefined });

    const good = ended.code === 0;
    if (isWhole && sha !== undefined && !(good && last?.good && sha === last.sha))
      await lastBuildOf(folder).write({ run: run.id, sha, ref: full, good });
    const { run: id, ...rest } = ended;
    const result = { run: id, dir, ref: full, sha, ...rest };
    terminal.printJson(runJson(result));
    if (result.result === "unchanged") terminal.note(run.stopped ?? "nothing new");
    else if (!terminal.quiet || !good) for (const line of runTable(result, terminal)) terminal.print(line);
    await tellBuild(result, targets, terminal);
    return result.code;
  },
});

/** A stage whose error in a file that litpro built is shown with the line of the document, too. */
function withSource(dir: string, stage: Stage): Stage {
  return async (s) => {
    const lines: string[] = [];
    const onLine = (line: string) => {
      if (lines.push(line) > 1000) lines.shift();
      s.say(line);
    };
    try {
      return await stage({ ...s, $: s.$({ onLine }) });
    } catch (error) {
      // what explains an error must not take its place
      const source = await sourceOf(dir, lines).catch(() => undefined);
      if (source !== undefined) s.say(source);
      throw error;
    }
  };
}

/** What a script that only checks says is wrong, in its own words. */
async function inItsWords(command: ProcessPromise): Promise<void> {
  const { ok, stderr, message } = await command.nothrow();
  if (!ok) throw new Failure(stderr.trim() || message);
}

void runScript(command);
