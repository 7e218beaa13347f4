import { randomUUID } from "node:crypto";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { messageOf } from "../../core/errors.ts";
import { readIfThere, writeAtomic } from "../../files/files.ts";
import type { Entry } from "../store/entry.ts";
import type { Executor } from "../runs/executor.ts";
import { hasEnded, type Records } from "../runs/records.ts";
import { clear } from "../runs/run-process.ts";
import type { Store } from "../store/store.ts";
import type { ServerLog } from "../telemetry/telemetry.ts";
import type { Builder } from "./builder.ts";

/** How a server becomes one of several builders, and what it takes along from the time before. */

/** The name of a state folder, which no other has: made at its first start as a builder. */
export async function homeOf(state: string): Promise<string> {
  const path = join(state, "builder");
  const known = (await readIfThere(path))?.trim();
  if (known) return known;
  const home = randomUUID();
  await writeAtomic(path, `${home}\n`, { mode: 0o600 });
  return home;
}

/** End what a former server on this folder left under way: it runs again once a builder has its claim. */
export async function endRunsBefore({
  builder,
  records,
  executor,
  log,
}: {
  builder: Builder;
  records: Records;
  executor: Executor;
  log: ServerLog;
}): Promise<void> {
  for (const record of [...records.all()].filter(({ state }) => !hasEnded(state))) {
    await clear(record);
    builder.underWay.leave(record.id);
    await executor.lose(record, "the server ended while it ran; a builder runs it again");
    log.warn(`run ${record.id} of ${record.repo} was interrupted; a builder runs it again`);
  }
}

/** Put on the bus what was accepted while this server was alone; it is kept here until it is there. */
export async function handOver(
  builder: Builder,
  { store, waiting, log }: { store: Store; waiting: readonly Entry[]; log: ServerLog },
): Promise<void> {
  await builder.connected;
  for (const entry of waiting) {
    for (let isSaid = false; ; isSaid = true) {
      try {
        await builder.acceptance.accept(entry, [entry], await store.payload(entry), [entry]);
        store.settle(entry, "superseded", entry.id);
        break;
      } catch (error) {
        if (!isSaid) log.warn(`run ${entry.id} is not on the bus yet: ${messageOf(error)}`);
        await sleep(5000, undefined, { ref: false });
      }
    }
  }
}
