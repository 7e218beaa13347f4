// The fleet: which updates a slave takes, what it serves, and what a master believes.
import type { Mutation } from "./mutation.ts";

const orders = ["scripts/fleet-orders"];
const activate = ["lib/fleet/repo/activate"];

export const fleet: Mutation[] = [
  {
    what: "the last byte of the fleet's shared signature is not compared",
    file: "lib/fleet/signature.ts",
    from: `timingSafeEqual(Buffer.from(hmacOf(each, text), "hex"), given));`,
    to: `timingSafeEqual(Buffer.from(hmacOf(each, text), "hex").subarray(0, 31), given.subarray(0, 31)));`,
    tests: ["lib/fleet/signature", "scripts/slave-server.test"],
  },
  {
    what: "an old request to a slave is taken again",
    file: "lib/fleet/signature.ts",
    from: `  const late = clockRefusal(Number(time) * 1000, now);
  if (late !== undefined) return { ok: false, reason: late, isLate: true };
  return { ok: true, nonce, time: Number(time), secret, target };`,
    to: "  return { ok: true, nonce, time: Number(time), secret, target };",
    tests: ["scripts/slave-server.test"],
  },
  {
    what: "an order for one slave is taken by another",
    file: "lib/fleet/slave/access.ts",
    from: "this.checkTarget(order.order.target);",
    to: "",
    tests: orders,
  },
  {
    what: "an older order is taken after a newer one",
    file: "lib/fleet/slave/taken-once.ts",
    from: "if (last !== undefined && at <= last.at)",
    to: "if (last !== undefined && at < 0)",
    tests: orders,
  },
  {
    what: "a request is taken again after a power cut",
    file: "lib/fleet/slave/taken-once.ts",
    from: "await file.datasync();",
    to: "",
    tests: ["scripts/durability"],
  },
  {
    what: "a tree whose check failed is served",
    file: "lib/fleet/repo/put-in-place.ts",
    from: "if (words !== undefined) throw new Failure(`check: ${words};",
    to: 'if (words === "") throw new Failure(`check: ${words};',
    tests: activate,
  },
  {
    what: "a tree whose after command failed stays",
    file: "lib/fleet/repo/put-in-place.ts",
    from: "await undo(update, tree, before === tree ? undefined : before);",
    to: "",
    tests: ["scripts/slave-activate"],
  },
  {
    what: "a tree in which a program works is removed under it",
    file: "lib/fleet/repo/put-in-place.ts",
    from: "return !(age < maxInUse) || !isInUse(join(place.trees, id));",
    to: "return true;",
    tests: activate,
  },
  {
    what: "a slave that serves another commit counts as done",
    file: "lib/fleet/master/fan-out.ts",
    from: 'if (sha !== wanted.sha) return failed(`it serves ${sha ?? "nothing"}, not ${wanted.sha}`);',
    to: "",
    tests: ["scripts/server-update.test"],
  },
  {
    what: "a rollout goes on although too many failed",
    file: "lib/fleet/master/fan-out.ts",
    from: "isOver: stopped }",
    to: "isOver: () => false }",
    tests: ["scripts/server-update.test"],
  },
  {
    what: "a master believes another slave's answer",
    file: "lib/fleet/master/by-http.ts",
    from: "if (refusal !== undefined) return { ...answer, status: 0",
    to: 'if (refusal === "") return { ...answer, status: 0',
    tests: orders,
  },
];
