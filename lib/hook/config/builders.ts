import { hostname } from "node:os";
import { type BusAccess, busSchema, readBusAccess } from "../../bus/settings.ts";
import { type Infer, y } from "../../config/yaml.ts";
import { UsageError } from "../../core/errors.ts";
import type { ConfigSource } from "./config-source.ts";

/** `builders:` of hooks.yml: several builders that share their runs by a bus. */

const label = y.string({
  match: /^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/,
  what: "a name of letters, digits, dots, dashes and underscores",
});

export const buildersSchema = y.object({
  bus: busSchema,
  name: y.optional(label),
  labels: y.optional(y.oneOrMore(label), []),
  lease: y.optional(y.duration(), 30_000),
  keep_logs: y.optional(y.size(), 512 * 1024 * 1024),
});

/** Where a repo may be built: names or labels of builders. */
export const runsOnSchema = y.oneOrMore(label);

/** The builder that this server is. */
export interface BuilderSettings {
  readonly bus: BusAccess;
  readonly name: string;
  readonly labels: readonly string[];
  /** Milliseconds after which another builder takes over the run of one that shows no sign of life. */
  readonly lease: number;
  /** Bytes of logs that the bus keeps for those whose builder is gone. */
  readonly keepLogs: number;
}

/** Below that the bus's own delays end runs; above it nobody waits for a dead builder. In milliseconds. */
const leases = { min: 5000, max: 3_600_000 };
/** Less than that is not worth a bucket. */
const minLogs = 1024 * 1024;

/** @throws {UsageError} with file:line:column. */
export async function readBuilders(
  source: ConfigSource,
  raw: Infer<typeof buildersSchema> | undefined,
): Promise<BuilderSettings | undefined> {
  if (!raw) return undefined;
  const where = (...keys: string[]) => source.where(["builders", ...keys]);
  if (raw.lease < leases.min || raw.lease > leases.max)
    throw new UsageError(`${where("lease")}: a lease is between 5s and 1h; write 30s`);
  if (raw.keep_logs < minLogs) throw new UsageError(`${where("keep_logs")}: at least 1M; write 512M`);
  for (const file of [raw.bus.seed_file, raw.bus.ca_file]) if (file !== undefined) source.onFile(source.path(file));
  return {
    bus: await readBusAccess(raw.bus, { path: source.path, where: (key) => where("bus", key) }),
    name: raw.name ?? hostname(),
    labels: raw.labels,
    lease: raw.lease,
    keepLogs: raw.keep_logs,
  };
}

/** Whether a builder may run a repo that names its builders, or none. Pure. */
export function mayRun(
  { name, labels }: Pick<BuilderSettings, "name" | "labels">,
  runsOn: readonly string[] | undefined,
): boolean {
  return runsOn === undefined || runsOn.some((each) => each === name || labels.includes(each));
}
