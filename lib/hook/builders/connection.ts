import { setTimeout as sleep } from "node:timers/promises";
import { nameOnBus } from "../../bus/address.ts";
import { type Bus, connectBus, type Objects } from "../../bus/bus.ts";
import { nkeyOf } from "../../bus/nkey.ts";
import { messageOf } from "../../core/errors.ts";
import type { Problems } from "../telemetry/overview.ts";
import type { ServerLog } from "../telemetry/telemetry.ts";
import { type ClaimEvents, Claims } from "./claims.ts";
import type { BuilderSettings } from "../config/builders.ts";
import { bucketName, Documents, type DocumentEvents } from "./documents.ts";

/** What is there once the bus was reached. */
export interface Connected {
  readonly bus: Bus;
  readonly documents: Documents;
  readonly claims: Claims;
  /** What was delivered, and the logs of runs that have ended. */
  readonly payloads: Objects;
  readonly logs: Objects;
}

interface ConnectionParts extends ClaimEvents, DocumentEvents {
  builder: BuilderSettings;
  home: string;
  log: ServerLog;
  problems: Problems;
  onConnect: () => void;
}

/** Reach the bus, however long that takes, and make the buckets there. */
export async function connect(
  { builder, home, log, problems, ...events }: ConnectionParts,
  signal: AbortSignal,
): Promise<Connected | undefined> {
  const note = (text: string) => log.warn(text);
  note(`the bus knows this builder by the key ${nkeyOf(builder.bus.key)}`);
  problems.set("bus", `the bus ${builder.bus.servers.join(", ")} was not reached yet`);
  const connecting = connectBus({
    ...builder.bus,
    name: `builder-${nameOnBus(builder.name)}`,
    // a claim must be written well within its lease
    timeout: Math.min(5000, builder.lease * 0.15),
    patient: true,
    onStatus: note,
  });
  const stopped = new Promise<undefined>((resolve) => {
    signal.addEventListener("abort", () => resolve(undefined), { once: true });
  });
  const bus = await Promise.race([connecting, stopped]);
  if (!bus) {
    // one that was never reached ends with the process
    connecting.then((late) => late.close()).catch(() => {});
    return undefined;
  }
  signal.addEventListener("abort", () => void bus.close(), { once: true });
  const makeBuckets = async () => {
    await bus.makeBucket(bucketName);
    const payloads = await bus.objects("payloads");
    return { payloads, logs: await bus.objects("logs", { maxBytes: builder.keepLogs }) };
  };
  for (;;) {
    try {
      const objects = await makeBuckets();
      const bucket = bus.bucket(bucketName);
      const documents = new Documents({ ...events, bucket, warn: note });
      await documents.follow();
      const claims = new Claims({ ...events, bucket, home, lease: builder.lease, warn: note });
      // its disk may have been lost meanwhile
      bus.onConnect(() => {
        makeBuckets().catch((error: unknown) => note(messageOf(error)));
        events.onConnect();
      });
      problems.set("bus", undefined);
      note(`connected to the bus as builder ${builder.name}`);
      return { bus, documents, claims, ...objects };
    } catch (error) {
      if (signal.aborted) return undefined;
      problems.set("bus", messageOf(error));
      note(messageOf(error));
      await sleep(1000);
    }
  }
}
