import { mkdir, rm } from "node:fs/promises";
import { homedir } from "node:os";
import { dirname, join, resolve } from "node:path";
import process from "node:process";
import { Busy, messageOf } from "../core/errors.ts";
import { writeAtomic } from "../files/files.ts";
import { type Lock, acquireLock } from "../files/lock.ts";
import { readSecretFile } from "../config/secrets.ts";
import type { Terminal } from "../cli/terminal.ts";
import { checkRepo } from "./under-lock.ts";
import { fanOut } from "./fan-out.ts";
import { type Plan, readPlan, readText, showPlan, type UpdateFlags } from "./plan.ts";
import { failedList, outcomeLine, outcomeRows, totalsLine } from "./report.ts";
import { createSender, type Sender } from "./send.ts";
import { showStatus } from "./status.ts";

/** server-update from its flags to its exit code. */

/**
 * Tell the fleet, or with `--status` ask it.
 * @returns 0 when all is well, 1 when a slave failed or differs
 */
export async function serverUpdate(
  repo: string,
  flags: UpdateFlags,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<number> {
  checkRepo(repo);
  const plan = await readPlan(flags, terminal);
  if (flags["dry-run"]) return showPlan(plan.targets, plan.batches, flags, terminal);
  const sender = createSender({
    secret:
      flags["secret-file"] === undefined ? undefined : await readSecretFile(flags["secret-file"]),
    ca: flags.ca === undefined ? undefined : await readText(flags.ca, "--ca"),
    connectTimeout: flags["connect-timeout"],
    timeout: flags.timeout,
    signal,
  });
  return flags.status
    ? await showStatus(repo, plan.targets, sender, flags, terminal, signal)
    : await runUpdate(repo, plan, sender, flags, terminal, signal);
}

async function runUpdate(
  repo: string,
  plan: Plan,
  sender: Sender,
  flags: UpdateFlags,
  terminal: Terminal,
  signal: AbortSignal,
): Promise<number> {
  const started = performance.now();
  const file = resolve(flags.failed ?? join(stateFolder(), `${repo}.failed.txt`));
  // two runs that pin commits at once could leave the fleet half on one and half on the other
  const lock = plan.wait || flags.sha !== undefined ? await lockRun(repo, terminal) : undefined;
  const progress = terminal.progress({ label: `update ${repo}`, total: plan.targets.length });
  let failed = 0;
  try {
    const outcomes = await fanOut(plan.targets, sender, {
      ...plan,
      repo,
      sha: flags.sha,
      jobs: flags.jobs,
      retries: flags.retries,
      waitLimit: flags["wait-limit"],
      pause: flags.pause,
      signal,
      onOutcome(outcome) {
        if (!outcome.ok) failed += 1;
        terminal.printJson(outcomeLine(outcome));
        progress.add(1, failed > 0 ? `${failed} failed` : undefined);
      },
      onStep: (asked, bad) =>
        terminal.note(
          `${asked} of ${plan.targets.length} asked, ${bad} failed; going on in ${flags.pause / 1000} s`,
        ),
    });
    progress.end();
    for (const outcome of outcomes) if (outcome.skipped) terminal.printJson(outcomeLine(outcome));
    if (!terminal.json) {
      const rows = outcomeRows(outcomes);
      for (const line of terminal.table(rows, {
        header: ["SLAVE", "ANSWER", "COMMIT", "SECONDS"],
        right: [3],
      })) {
        terminal.print(line);
      }
      terminal.print(totalsLine(outcomes, (performance.now() - started) / 1000));
    }
    const bad = outcomes.filter((outcome) => !outcome.ok).length;
    await writeFailed(
      file,
      bad === 0 ? undefined : failedList(repo, outcomes, new Date()),
      terminal,
    );
    return bad === 0 ? 0 : 1;
  } finally {
    progress.end();
    lock?.release();
  }
}

async function lockRun(repo: string, terminal: Terminal): Promise<Lock> {
  const path = join(stateFolder(), `${repo}.lock`);
  const what = `server-update ${repo}`;
  try {
    return await acquireLock(path, { what, wait: 100 });
  } catch (error) {
    if (!(error instanceof Busy)) throw error;
    terminal.note(`waiting: ${messageOf(error)}`);
    return await acquireLock(path, { what, wait: true });
  }
}

/** Where lists of failed slaves go: systemd's state folder for the unit, else the user's. */
function stateFolder(): string {
  const { STATE_DIRECTORY, XDG_STATE_HOME } = process.env;
  if (STATE_DIRECTORY) return STATE_DIRECTORY.split(":")[0] ?? STATE_DIRECTORY;
  return join(XDG_STATE_HOME || join(homedir(), ".local", "state"), "server-update");
}

async function writeFailed(
  file: string,
  text: string | undefined,
  terminal: Terminal,
): Promise<void> {
  try {
    if (text === undefined) return await rm(file, { force: true });
    await mkdir(dirname(file), { recursive: true });
    await writeAtomic(file, text);
    terminal.note(`the failed ones are in ${file}; for these alone: --list ${file}`);
  } catch (error) {
    terminal.warn(
      `the list of failed slaves could not be written: ${messageOf(error)}; see --failed`,
    );
  }
}
