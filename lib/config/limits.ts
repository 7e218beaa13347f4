import { type Infer, y } from "./schema.ts";

/** `app.limits` of a launchify.yml: what an app may take. systemd holds it, as properties of the app's unit. */

export const limitShape = {
  /** Bytes, of all its processes together; beyond that the kernel ends one. */
  memory: y.size(),
  cpu: y.string({ match: /^[1-9]\d{0,4}%$/, what: "a share of one processor, as 50% or 200%" }),
  processes: y.number({ min: 1 }),
};

export const limitsSchema = y.object({
  memory: y.optional(limitShape.memory),
  cpu: y.optional(limitShape.cpu),
  processes: y.optional(limitShape.processes),
});
export type Limits = Infer<typeof limitsSchema>;

/** The lines for [Service], by systemd.resource-control(5). */
export function limitLines({ memory, cpu, processes }: Limits = {}): string[] {
  const properties = { MemoryMax: memory, CPUQuota: cpu, TasksMax: processes };
  return Object.entries(properties).flatMap(([name, value]) => (value === undefined ? [] : [`${name}=${value}`]));
}
