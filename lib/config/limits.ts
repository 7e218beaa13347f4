import { y } from "./schema.ts";

/** `limits:` of an app or a run: what it may take. systemd holds it, as properties of a unit (exec/scope.ts). */
export const limitsSchema = y.object({
  /** Bytes, of all its processes together; beyond that the kernel ends the largest. */
  memory: y.optional(y.size()),
  cpu: y.optional(y.string({ match: /^[1-9]\d{0,5}%$/, what: "a share of one processor, as 50% or 200%" })),
  processes: y.optional(y.number({ min: 1 })),
});
