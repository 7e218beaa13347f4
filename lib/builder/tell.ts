import { homedir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import type { Terminal } from "../core/terminal.ts";
import { createMask } from "../core/mask.ts";
import { shortRef } from "../core/names.ts";
import { gitIn } from "../git/git.ts";
import { parseLine } from "../log/format.ts";
import { lastLines } from "../log/tail.ts";
import { exists } from "../files/files.ts";
import type { Notice, Target } from "../notify/notify.ts";
import { isBad, type RunSummary } from "../run/report.ts";

/** How a build ended. */
export interface BuildResult extends RunSummary {
  dir: string;
  ref?: string | undefined;
  sha?: string | undefined;
}

/**
 * Telling people how a build ended that nobody watches: `~/.config/boatyard/notify.yml`. Without it, what sends
 * messages is not even loaded.
 */

// not homedir() alone: under Deno it takes a permission that a build does not need
const home = () => process.env.HOME || homedir();
const notifyFile = () => join(home(), ".config/boatyard/notify.yml");
const load = () => import("../notify/notify.ts");

/** Who is told. Under hook-server nobody: it tells of its runs itself. @throws {UsageError} for a wrong file. */
export async function readBuildTargets(): Promise<Target[]> {
  if (process.env.HOOK_RUN !== undefined || !(await exists(notifyFile()))) return [];
  return await (await load()).readNotifyFile(notifyFile());
}

/** Tell how a build ended: not one that found nothing new. Takes 15 seconds at most, whoever does not answer. */
export async function tellBuild(result: BuildResult, targets: readonly Target[], terminal: Terminal): Promise<void> {
  if (targets.length === 0 || result.result === "unchanged") return;
  const { tellOnce } = await load();
  await tellOnce(await noticeOf(result), {
    folder: join(home(), ".local/state/boatyard/notify"),
    targets,
    // the log's secrets are masked already
    mask: createMask(targets.flatMap(({ secrets }) => secrets)),
    log: (text) => terminal.warn(text),
  });
}

async function noticeOf({ run, dir, ref, sha, code, seconds, stages }: BuildResult): Promise<Notice> {
  const failed = stages.find(isBad);
  const commit = sha === undefined ? undefined : await commitOf(dir, sha);
  const lines = (await lastLines(join(dir, "logs.txt")))
    .map(parseLine)
    .filter((line) => line?.run === run && line.stage === failed?.name)
    .map((line) => line?.text ?? "");
  return {
    ...{ id: run, by: "build", ref, sha, seconds, ...commit, lines },
    subject: ref === undefined ? dir : `${dir} ${shortRef(ref)}`,
    outcome: code === 0 ? "ok" : "failed",
    what: code === 0 ? "build succeeded" : "build failed",
    at: new Date().toISOString(),
    stage: failed?.name,
    reason: failed?.note,
  };
}

/** The first line of a commit's message, and its author; nothing where git does not know it. */
async function commitOf(dir: string, sha: string): Promise<Pick<Notice, "title" | "author">> {
  const git = gitIn(dir, { nothrow: true });
  const { ok, stdout } = await git`git log -1 ${"--format=%s%n%an"} ${sha} --`;
  const [title, author] = stdout.split("\n");
  return ok ? { title, author } : {};
}

/** `build --notify-test`. @returns 0, or 1 when a target did not accept it. */
export async function testBuildTargets(terminal: Terminal): Promise<number> {
  const { readNotifyFile, testTargets } = await load();
  const targets = await readNotifyFile(notifyFile());
  const mask = createMask(targets.flatMap(({ secrets }) => secrets));
  return await testTargets(targets, { by: "build", mask, terminal });
}
