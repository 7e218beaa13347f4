import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { defineCommand, runScript } from "../lib/cli/command.ts";
import { atEnd } from "../lib/core/at-exit.ts";
import { messageOf, UsageError } from "../lib/core/errors.ts";
import { $ } from "../lib/exec/exec.ts";
import { findOnPath } from "../lib/exec/scripts.ts";
import { exists } from "../lib/files/files.ts";
import { acquireLock } from "../lib/files/lock.ts";
import { textOf } from "../lib/git/git.ts";
import { askToken } from "../lib/run/lease.ts";
import {
  type GitTarget,
  readUploadsConfig,
  type RsyncTarget,
  type S3Target,
  type Target,
} from "../lib/uploads/config.ts";
import { scanFolder } from "../lib/uploads/folder.ts";
import { difference, explainGit, isListed, makeCommit, openRepo, there, writeTree } from "../lib/uploads/git-target.ts";
import { contentTypes } from "../lib/uploads/headers.ts";
import { type Job, readAllAtRest, withRetries } from "../lib/uploads/job.ts";
import {
  isExpected,
  type Outcome,
  outcomeOf,
  problemLines,
  resultJson,
  resultLines,
  resultOf,
  shownPath,
  type TargetResult,
} from "../lib/uploads/outcome.ts";
import { readReport, rsyncOptions, rsyncPlace, sendsOf } from "../lib/uploads/rsync-target.ts";
import { abortStaleUploads } from "../lib/uploads/s3-parts.ts";
import { inOrder, planTarget } from "../lib/uploads/s3-plan.ts";
import { openSession } from "../lib/uploads/s3-session.ts";
import { changeOf, deletionOf, listTarget, removeAll, sendAll, withoutUnchanged } from "../lib/uploads/s3-target.ts";
import { sharedConnection, sshOptions } from "../lib/uploads/ssh.ts";
import { openState, stateFolderOf } from "../lib/uploads/state.ts";
import { checkTargets, chooseTargets, refuseEmptyFolder } from "../lib/uploads/targets.ts";

const command = defineCommand({
  usage: `
uploads: publish a folder by rsync, S3 and git, sending only what changed

Usage
  uploads [DIR] [--to NAME] [--check | --dry-run] [--delete]

Operands
  [DIR]  the checkout, with its uploads.yml; default: the current folder

Flags
  --to NAME,…    only these targets of uploads.yml
  --check        check uploads.yml, the programs and keys that it needs, and that each target answers; send nothing
  -n, --dry-run  list what would be sent, replaced and deleted
  --delete       at the end remove from the targets what is no longer in the folder
  --retries N=6  retries after a broken connection, throttling or a server error
  --config FILE  read this instead of DIR/uploads.yml

Environment
  AWS_ACCESS_KEY_ID, AWS_PROFILE, …  S3 credentials, as all AWS tools read them
  https_proxy, all_proxy             a proxy for S3 over https; no_proxy names exceptions
  SSH_AUTH_SOCK                      the ssh agent, for rsync and git

Examples
  uploads --dry-run --delete   show what a full run would do
  uploads ~/site --to cdn,web  publish ~/site to two of its targets

Exit codes
  1  a target failed; the others were served
  3  another uploads runs in DIR
`,
  complete: {
    to: async ({ args: [dir = "."], flags }) => {
      const config = await readUploadsConfig(flags.config ?? resolve(dir, "uploads.yml"), dir);
      return config.targets.map(({ name }) => name);
    },
  },
  async run({ flags, args, terminal, signal }) {
    const dir = resolve(args[0] ?? ".");
    const { check } = flags;
    const dryRun = flags["dry-run"] || check;
    const retries = check ? 0 : flags.retries;
    // before the lock, whose file would be made in a folder that is not a checkout at all
    const config = await readUploadsConfig(resolve(flags.config ?? join(dir, "uploads.yml")), dir);
    const targets = chooseTargets(config.targets, flags);
    if (check) await checkTargets(targets);
    else if (!(await exists(dir))) throw new UsageError(`there is no folder ${dir}; name a checkout`);
    // a check publishes nothing to each target, and leaves nothing in the checkout
    const own = check ? await mkdtemp(join(tmpdir(), "uploads-")) : dir;
    if (check) atEnd(() => rm(own, { recursive: true, force: true }));
    await acquireLock(join(stateFolderOf(own), "lock"), { what: "uploads", signal });
    const state = await openState(own);
    const root = check ? own : config.from;
    const files = check ? [] : scanFolder(root);
    if (!check) refuseEmptyFolder(targets, files.length, root);
    const typeOf = await contentTypes();
    /** Before each step that others see: where several builders share the repo, it must still be ours. */
    const mayPublish = async () => (dryRun ? undefined : await askToken());
    await mayPublish();

    const progress = terminal.progress({ label: "uploads", total: 0, unit: "bytes" });
    let expected = 0;
    const jobOf = ({ name }: Target): Job => ({
      ...{ root, files, state, dryRun, retries, signal },
      expect: (bytes) => progress.setTotal((expected += bytes)),
      arrived: (bytes, path) => progress.add(bytes, shownPath(path)),
      note: (text) => terminal.note(`${name}: ${text}`),
    });

    /** Assets, then pages, then deletions, so that whoever reads a new page finds all that it names. */
    async function sendByRsync(target: RsyncTarget, job: Job): Promise<Outcome> {
      const { address, ssh } = target;
      const report = readReport(target, files, ({ size, path }) => {
        if (dryRun) return;
        job.expect(size);
        job.arrived(size, path);
      });
      // killed by -9 we end nothing: the kernel ends rsync then, and its other side finds the connection closed
      const words = (await findOnPath("setpriv")) === undefined ? [] : ["setpriv", "--pdeathsig", "KILL", "--"];
      const shell = $({ signal, nothrow: true, words, onLine: report.onLine });
      // the names of sockets are short: the checkout's own may be too long
      const folder = await mkdtemp(join(tmpdir(), "uploads-"));
      const shared = sharedConnection(join(folder, "ssh"));
      const options = rsyncOptions(target, shared, dryRun);
      const [from, to] = [`${root.replace(/\/+$/, "")}/`, rsyncPlace(address)];
      try {
        // content decides, not times, so that a rebuild sends nothing; a file may take the place of a folder
        const { files: sent } = await readAllAtRest(job, async (all) => {
          for (const paths of sendsOf(all, typeOf)) {
            await mayPublish();
            const send = shell({ input: paths.map((path) => `${path}\0`).join("") });
            report.check(await send`rsync --checksum --force --from0 --files-from=- ${options} -- ${from} ${to}`);
          }
        });
        // it deletes by what it finds here now: only while that is what was sent
        const deletes = target.delete ? ["--delete"] : [];
        await withRetries(job, async () => {
          await mayPublish();
          report.check(
            await shell`rsync --recursive --existing --ignore-existing ${deletes} ${options} -- ${from} ${to}`,
          );
        });
        return outcomeOf([...report.changes.values()], sent.length);
      } finally {
        if (address.login !== undefined && shared.length > 0)
          await $({ nothrow: true, timeout: 5000 })`ssh ${sshOptions(ssh)} ${shared} -O exit -- ${address.login}`;
        await rm(folder, { recursive: true, force: true });
      }
    }

    /** Assets, then pages, then deletions, each only when everything before it succeeded. */
    async function sendToS3(target: S3Target, job: Job, outcome: Outcome): Promise<void> {
      const session = await openSession(target, job, outcome);
      const isWhole = (waiting: { length: number }, why: string) => {
        if (outcome.problems.length === 0) return true;
        if (waiting.length > 0) outcome.problems.push(`${waiting.length} ${why}`);
        return false;
      };
      try {
        const plan = planTarget(target, files, await listTarget(session), session.record.entries, typeOf);
        const sends = await withoutUnchanged(session, plan.sends);
        if (dryRun) {
          outcome.changes.push(...sends.map(changeOf), ...plan.stray.map(deletionOf));
          return;
        }
        await abortStaleUploads(session, sends);
        const { assets, pages } = inOrder(sends);
        job.expect(sends.reduce((sum, { file }) => sum + file.size, 0));
        await mayPublish();
        await sendAll(session, assets);
        await mayPublish();
        if (isWhole(pages, "pages were held back: what they need is not all there")) await sendAll(session, pages);
        await mayPublish();
        if (isWhole(plan.stray, "deletions were held back: not everything was sent"))
          await removeAll(session, plan.stray);
      } finally {
        await session.close();
      }
    }

    /** One commit, on top of what is there, never forced. */
    async function pushByGit(target: GitTarget, job: Job): Promise<Outcome> {
      const { url, branch } = target;
      const ref = `refs/heads/${branch}`;
      const git = await openRepo(target, state.folder, job);
      const why = (error: unknown) => {
        throw explainGit(error, target);
      };
      const { files: sent, result: tree } = await readAllAtRest(job, (all) => writeTree(git, all));
      const changes = await withRetries(job, async () => {
        let parent: string | undefined;
        if (isListed(await textOf(git`git ls-remote -- ${url} ${ref}`.catch(why)), ref)) {
          const quietly = ["--quiet", "--no-tags", "--no-write-fetch-head"];
          await git`git fetch ${quietly} --depth=1 -- ${url} ${`+${ref}:${there}`}`.catch(why);
          parent = await textOf(git`git rev-parse --verify ${`${there}^{commit}`}`);
        }
        const found = await difference(git, parent, tree, sent);
        if (found.length === 0 || dryRun) return found;
        const commit = await makeCommit(git, parent, tree, dir);
        await mayPublish();
        await git`git push --quiet --no-verify -- ${url} ${`${commit}:${ref}`}`.catch(why);
        return found;
      });
      const outcome = outcomeOf(changes, sent.length);
      if (!dryRun) {
        job.expect(outcome.bytes);
        job.arrived(outcome.bytes, branch);
      }
      return outcome;
    }

    /** One that fails leaves the others alone. */
    async function serve(target: Target): Promise<TargetResult> {
      const started = performance.now();
      const job = jobOf(target);
      let outcome: Outcome = { changes: [], bytes: 0, problems: [] };
      try {
        if (target.kind === "rsync") outcome = await sendByRsync(target, job);
        else if (target.kind === "git") outcome = await pushByGit(target, job);
        else await sendToS3(target, job, outcome);
      } catch (error) {
        // a bug is shown as one; whatever is expected is this target's result
        if (signal.aborted || !isExpected(error)) throw error;
        outcome.problems.push(messageOf(error));
      }
      const result = resultOf(target, outcome, (performance.now() - started) / 1000);
      const { kind, ok, problems } = result;
      terminal.printJson(check ? { target: target.name, kind, ok, problems } : resultJson(result, dryRun));
      return result;
    }

    const work = targets.map(serve);
    const ended = Promise.allSettled(work);
    // also after a signal: no connection and no multipart upload stays open
    atEnd(async () => void (await ended));
    const results = (await ended).flatMap((each) => (each.status === "fulfilled" ? [each.value] : []));
    progress.end();
    if (check) {
      const rows = results.map(({ target, kind, ok }) => [target, kind, ok ? "ok" : "failed"]);
      for (const line of terminal.table(rows, { header: ["target", "kind", "check"] })) terminal.print(line);
      for (const line of results.flatMap(problemLines)) terminal.warn(line);
      await Promise.all(work);
      return results.every(({ ok }) => ok) ? 0 : 2;
    }
    await state.save(files);
    for (const line of resultLines(results, dryRun, terminal)) terminal.print(line);
    for (const line of results.flatMap(problemLines)) terminal.warn(line);
    await Promise.all(work);
    return results.every(({ ok }) => ok) ? 0 : 1;
  },
});

void runScript(command);
