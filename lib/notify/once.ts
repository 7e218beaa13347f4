import { join } from "node:path";
import type { Terminal } from "../core/terminal.ts";
import type { Mask } from "../core/mask.ts";
import { cleanLine } from "../core/clean.ts";
import { Busy, messageOf, UsageError } from "../core/errors.ts";
import { acquireLock } from "../files/lock.ts";
import { composeMessage } from "./message.ts";
import { type Notice, prepare } from "./notice.ts";
import { Outbox } from "./outbox.ts";
import type { Target } from "./target.ts";

/** For scripts that end: build, server-update. */
export interface TellOptions {
  /** Where notices are kept until they are told. */
  folder: string;
  targets: readonly Target[];
  mask: Mask;
  log: (text: string) => void;
  /** Milliseconds that the script waits at most for targets; what they did not take, the next run sends. */
  limit?: number;
}

/**
 * Tell notices, and send them with what an earlier run could not: a target that does not answer holds the script up for
 * `limit` milliseconds at most. Nothing that goes wrong here is the script's own failure: `log` is told.
 */
export async function tellOnce(
  notices: readonly Notice[],
  { folder, targets, mask, log, limit = 15_000 }: TellOptions,
): Promise<void> {
  if (targets.length === 0) return;
  const what = notices[0]?.by ?? "notify";
  const open = () => Outbox.open({ folder, targets, mask, log });
  const locked = async (name: string, wait: number, work: (outbox: Outbox) => Promise<void>) => {
    const lock = await acquireLock(join(folder, name), { what, wait, secluded: true });
    try {
      const outbox = await open();
      await work(outbox);
      await outbox.close();
    } finally {
      lock.release();
    }
  };
  try {
    await locked("lock", limit, async (outbox) => {
      for (const notice of notices) await outbox.tell(notice);
    });
  } catch (error) {
    const about = notices.map(({ subject }) => subject).join(", ");
    return log(`notify: nobody was told of ${cleanLine(mask(about))}: ${messageOf(error)}`);
  }
  try {
    // read anew: another script may have sent it meanwhile
    await locked("sending", limit, (outbox) => outbox.flush(limit));
  } catch (error) {
    // whoever is sending now, or comes next, sends what waits
    if (!(error instanceof Busy)) log(`notify: ${messageOf(error)}`);
  }
}

/** How a sample went to a target. */
export interface SampleResult {
  readonly target: string;
  readonly ok: boolean;
  readonly error?: string;
}

/**
 * Send a sample to every target, now, and show how it went: `notify test`.
 * @returns 0, or 1 when a target did not accept it.
 * @throws {UsageError} when there are no targets.
 */
export async function testTargets(
  targets: readonly Target[],
  { by, mask, terminal }: { by: string; mask: Mask; terminal: Terminal },
): Promise<number> {
  if (targets.length === 0) throw new UsageError("nobody is to be told; name somebody under notify: (docs/notify.md)");
  const results = await sendSamples(targets, { by, mask });
  for (const { target, ok, error } of results) {
    terminal.printJson({ target, ok, error });
    terminal.print(
      ok
        ? `${terminal.paint.green("ok")}      ${target}`
        : `${terminal.paint.red("failed")}  ${target}: ${error ?? ""}`,
    );
  }
  return results.every(({ ok }) => ok) ? 0 : 1;
}

/** Send a sample to every target, now. */
export async function sendSamples(
  targets: readonly Target[],
  { by, mask }: { by: string; mask: Mask },
): Promise<SampleResult[]> {
  const notice: Notice = {
    id: `sample-${Date.now()}`,
    by,
    subject: "a sample",
    outcome: "news",
    what: "notify test: this is how messages arrive",
    at: new Date().toISOString(),
    title: "Everything is all right",
    lines: ["the last lines of a stage stand here"],
  };
  const message = composeMessage([prepare(notice, { change: undefined, failures: 0 }, mask)]);
  return await Promise.all(
    targets.map(async ({ name, send }) => {
      try {
        await send(message, AbortSignal.timeout(60_000));
        return { target: name, ok: true };
      } catch (error) {
        return { target: name, ok: false, error: cleanLine(mask(messageOf(error))) };
      }
    }),
  );
}
