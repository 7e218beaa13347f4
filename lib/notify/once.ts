import { join } from "node:path";
import { cleanLine } from "../core/clean.ts";
import { Busy, messageOf, UsageError } from "../core/errors.ts";
import type { Terminal } from "../core/terminal.ts";
import { acquireLock } from "../files/lock.ts";
import { type Notice, prepare } from "./notice.ts";
import { Outbox } from "./outbox.ts";
import type { Target } from "./target.ts";

/** For scripts that end: build, server-update. */
export interface TellOptions {
  /** Where notices are kept until they are told. */
  folder: string;
  targets: readonly Target[];
  mask: (text: string) => string;
  log: (text: string) => void;
  /** Milliseconds that the script waits at most for targets; what they did not take, the next run sends. */
  limit?: number;
}

/**
 * Tell a notice, and send it with what an earlier run could not: a target that does not answer holds the script up for
 * `limit` milliseconds at most. Nothing that goes wrong here is the script's own failure: `log` is told.
 */
export async function tellOnce(notice: Notice, { limit = 15_000, ...options }: TellOptions): Promise<void> {
  const { folder, targets, mask, log } = options;
  if (targets.length === 0) return;
  const locked = async (name: string, work: (outbox: Outbox) => Promise<unknown>) => {
    const lock = await acquireLock(join(folder, name), { what: notice.by, wait: limit, secluded: true });
    try {
      const outbox = await Outbox.open(options);
      await work(outbox);
      await outbox.close();
    } finally {
      lock.release();
    }
  };
  try {
    await locked("lock", (outbox) => outbox.tell(notice));
  } catch (error) {
    return log(`notify: nobody was told of ${cleanLine(mask(notice.subject))}: ${messageOf(error)}`);
  }
  try {
    // read anew: another script may have sent it meanwhile
    await locked("sending", (outbox) => outbox.flush(limit));
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

/** Who sends a sample, and hides secrets in what a target answers. */
interface Sender {
  by: string;
  mask: (text: string) => string;
}

/**
 * Send a sample to every target, now, and show how it went: `notify test`.
 * @returns 0, or 1 when a target did not accept it.
 * @throws {UsageError} when there are no targets.
 */
export async function testTargets(
  targets: readonly Target[],
  { terminal, ...sender }: Sender & { terminal: Terminal },
): Promise<number> {
  if (targets.length === 0) throw new UsageError("nobody is to be told; name somebody under notify: (docs/notify.md)");
  const results = await sendSamples(targets, sender);
  for (const { target, ok, error } of results) {
    terminal.printJson({ target, ok, error });
    const { green, red } = terminal.paint;
    terminal.print(ok ? `${green("ok")}      ${target}` : `${red("failed")}  ${target}: ${error ?? ""}`);
  }
  return results.every(({ ok }) => ok) ? 0 : 1;
}

/** Send a sample to every target, now. */
export async function sendSamples(targets: readonly Target[], { by, mask }: Sender): Promise<SampleResult[]> {
  const notice: Notice = {
    ...{ id: `sample-${Date.now()}`, by, subject: "a sample", outcome: "news", at: new Date().toISOString() },
    what: "notify test: this is how messages arrive",
    title: "Everything is all right",
    lines: ["the last lines of a stage stand here"],
  };
  const sample = prepare(notice, { change: undefined, failures: 0 }, mask);
  return await Promise.all(
    targets.map(async (target) => {
      try {
        await target.send([sample], AbortSignal.timeout(60_000));
        return { target: target.name, ok: true };
      } catch (error) {
        return { target: target.name, ok: false, error: cleanLine(mask(messageOf(error))) };
      }
    }),
  );
}
