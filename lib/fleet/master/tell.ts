import { join } from "node:path";
import type { Terminal } from "../../cli/terminal.ts";
import { createMask } from "../../config/secrets.ts";
import { exists } from "../../files/files.ts";
import type { Notice, Target } from "../../notify/notify.ts";
import { newRunId } from "../../core/id.ts";
import type { Outcome } from "./transport.ts";
import { stateFolder } from "./want.ts";

/** Telling people of slaves that failed, and of slaves that serve something else than they should. */

const load = () => import("../../notify/notify.ts");

/** Who is told: nobody where the file is not there. @throws {UsageError} for a file that is wrong. */
export async function readMessageTargets(file: string): Promise<Target[]> {
  return (await exists(file)) ? await (await load()).readNotifyFile(file) : [];
}

const maskOf = (targets: readonly Target[]) =>
  createMask(targets.flatMap(({ secrets }) => secrets));

/** Who tells, and who is told. */
interface Teller {
  targets: readonly Target[];
  terminal: Terminal;
}

async function tell(
  { targets, terminal }: Teller,
  notice: Omit<Notice, "id" | "by" | "at">,
): Promise<void> {
  if (targets.length === 0) return;
  const { tellOnce } = await load();
  const whole = { id: newRunId(), by: "server-update", at: new Date().toISOString(), ...notice };
  await tellOnce([whole], {
    folder: join(stateFolder(), "notify"),
    targets,
    mask: maskOf(targets),
    log: (text) => terminal.warn(text),
  });
}

/** Tell how the slaves took an update. Takes 15 seconds at most, whoever does not answer. */
export async function tellOutcomes(
  repo: string,
  outcomes: readonly Outcome[],
  teller: Teller,
): Promise<void> {
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

/** `server-update --notify-test`. @returns 0, or 1 when a target did not take it. */
export async function testNotify(file: string, terminal: Terminal): Promise<number> {
  const { testTargets } = await load();
  const targets = await readMessageTargets(file);
  return await testTargets(targets, { by: "server-update", mask: maskOf(targets), terminal });
}
