import { rm, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import type { Terminal } from "../../core/terminal.ts";
import { createMask } from "../../core/mask.ts";
import { messageOf, systemCode, UsageError } from "../../core/errors.ts";
import { newRunId } from "../../core/id.ts";
import { exists, makeFolder, writeAtomic } from "../../files/files.ts";
import type { Target as MessageTarget, Notice } from "../../notify/notify.ts";
import type { Outcome } from "./rollout.ts";
import { lineOf } from "./list.ts";
import { stateFolder } from "./desired-state.ts";

/** What a run leaves: the list of those that failed, and messages to people. */

/**
 * Before anything is sent: can the list of those that failed be written where `--failed` says?
 * @throws {UsageError}
 */
export async function checkFailedFile(file: string): Promise<void> {
  try {
    await makeFolder(dirname(resolve(file)));
    if (!(await stat(file).catch(() => undefined))?.isDirectory()) return;
  } catch (error) {
    throw new UsageError(
      `--failed ${file}: its folder cannot be made (${systemCode(error) ?? messageOf(error)}); name another file`,
    );
  }
  throw new UsageError(`--failed ${file}: it is a folder; name a file`);
}

/** Write the list of those that failed, for `--list`; without any, remove it. */
export async function writeFailed(
  repo: string,
  outcomes: readonly Outcome[],
  flag: string | undefined,
  terminal: Terminal,
): Promise<void> {
  const file = resolve(flag ?? join(stateFolder(), `${repo}.failed.txt`));
  const text = failedList(repo, outcomes, new Date());
  try {
    if (text === undefined) return await rm(file, { force: true });
    await makeFolder(dirname(file));
    await writeAtomic(file, text);
    terminal.note(`the failed ones are in ${file}; for these alone: --list ${file}`);
  } catch (error) {
    terminal.warn(`the list of failed slaves could not be written: ${messageOf(error)}; see --failed`);
  }
}

/** A list that `--list` takes: slaves that failed, each with the reason as a comment; undefined when none did. */
function failedList(repo: string, outcomes: readonly Outcome[], at: Date): string | undefined {
  const lines = [`# server-update ${repo}: not up to date at ${at.toISOString()}`];
  let group = "";
  for (const { target, ok, error = "failed" } of outcomes) {
    if (ok) continue;
    if (target.group !== group) lines.push(`[${target.group}]`);
    group = target.group;
    lines.push(`# ${error.replace(/\s+/g, " ")}`, lineOf(target));
  }
  return lines.length === 1 ? undefined : `${lines.join("\n")}\n`;
}

const load = () => import("../../notify/notify.ts");

/** Who is told: nobody where the file is not there. @throws {UsageError} for a file that is wrong. */
export async function readMessageTargets(file: string): Promise<MessageTarget[]> {
  return (await exists(file)) ? await (await load()).readNotifyFile(file) : [];
}

const maskOf = (targets: readonly MessageTarget[]) => createMask(targets.flatMap(({ secrets }) => secrets));

/** Who tells, and who is told. */
interface Teller {
  targets: readonly MessageTarget[];
  terminal: Terminal;
}

async function tell({ targets, terminal }: Teller, notice: Omit<Notice, "id" | "by" | "at">): Promise<void> {
  if (targets.length === 0) return;
  const { tellOnce } = await load();
  const whole = { id: newRunId(), by: "server-update", at: new Date().toISOString(), ...notice };
  await tellOnce(whole, {
    folder: join(stateFolder(), "notify"),
    targets,
    mask: maskOf(targets),
    log: (text) => terminal.warn(text),
  });
}

/** Tell how the slaves took an update. Takes 15 seconds at most, whoever does not answer. */
export async function tellOutcomes(repo: string, outcomes: readonly Outcome[], teller: Teller): Promise<void> {
  if (outcomes.length === 0) return;
  const failed = outcomes.filter(({ ok }) => !ok);
  const count = `${failed.length} of ${outcomes.length} slaves`;
  await tell(teller, {
    subject: `${repo} on its slaves`,
    outcome: failed.length > 0 ? "failed" : "ok",
    what: failed.length > 0 ? `${count} are not up to date` : "all slaves are up to date",
    lines: failed.map(({ target, error = "failed" }) => `${target.name}: ${error}`),
  });
}

/** Tell which slaves differ from what they should serve. */
export async function tellDrift(
  repo: string | undefined,
  { asked, differing }: { asked: number; differing: readonly string[] },
  teller: Teller,
): Promise<void> {
  if (asked === 0) return;
  const drifts = differing.length > 0;
  await tell(teller, {
    subject: `drift of ${repo ?? "all repos"}`,
    outcome: drifts ? "failed" : "ok",
    what: drifts
      ? `${differing.length} of ${asked} slaves differ or cannot be asked`
      : "every slave serves what it should",
    lines: differing,
  });
}

/** `server-update --notify-test`. @returns 0, or 1 when a target did not accept it. */
export async function testNotify(file: string, terminal: Terminal): Promise<number> {
  const { testTargets } = await load();
  const targets = await readMessageTargets(file);
  return await testTargets(targets, { by: "server-update", mask: maskOf(targets), terminal });
}
