// The fleet: which updates a slave takes, what it serves, and what a master believes.
import type { Mutation } from "./mutation.ts";

const orders = ["scripts/fleet-orders"];
const activate = ["lib/fleet/repo/activate"];

export const fleet: Mutation[] = [
  {
    what: "a letter that nobody known has signed is taken",
    file: "lib/fleet/letter.ts",
    from: "if (keys && !key)",
    to: "if (keys && mark === text)",
    tests: ["lib/fleet/letter", "scripts/slave-server.test"],
  },
  {
    what: "an old letter is taken again",
    file: "lib/fleet/letter.ts",
    from: "if (now <= until) return;",
    to: "if (now <= until || kind) return;",
    tests: ["scripts/slave-server.test"],
  },
  {
    what: "a letter for one slave is taken by another",
    file: "lib/fleet/letter.ts",
    from: "if (names && !names.some(",
    to: "if (names && !to && !names.some(",
    tests: orders,
  },
  {
    what: "an older order is taken after a newer one",
    file: "lib/fleet/slave/slave.ts",
    from: "const isOld = last !== undefined && order.at <= last.at;",
    to: "const isOld = last !== undefined && order.at < 0;",
    tests: orders,
  },
  {
    what: "an order is answered before it is on disk",
    file: "lib/fleet/slave/slave.ts",
    from: "await this.save(desired).catch((error: unknown) => {",
    to: "void this.save(desired).catch((error: unknown) => {",
    tests: ["scripts/durability"],
  },
  {
    what: "a commit that a stranger signed is served",
    file: "lib/git/signers.ts",
    from: "if (exitCode === 0) return;",
    to: "if (exitCode !== 0) return;",
    tests: activate,
  },
  {
    what: "an older signed commit is served",
    file: "lib/fleet/repo/clone.ts",
    from: "if (goal.above && ",
    to: "if (goal.above && !goal.sha && ",
    tests: activate,
  },
  {
    what: "an order that does not say so goes back",
    file: "lib/fleet/repo/activate.ts",
    from: "settings.allowBack && back === true",
    to: "settings.allowBack",
    tests: activate,
  },
  {
    what: "a tree whose check failed is served",
    file: "lib/fleet/repo/activate.ts",
    from: "throw new Failure(`check: ${wordsOf(error)}; ${kept}`);",
    to: "",
    tests: activate,
  },
  {
    what: "a tree whose after command failed stays",
    file: "lib/fleet/repo/activate.ts",
    from: "await switchTo(place, back.id);",
    to: "",
    tests: ["scripts/slave-activate"],
  },
  {
    what: "a tree in which a program works is removed under it",
    file: "lib/fleet/repo/activate.ts",
    from: "if (isNew && isInUse(path)) continue;",
    to: "",
    tests: activate,
  },
  {
    what: "a slave that serves another commit counts as done",
    file: "lib/fleet/master/rollout.ts",
    from: 'if (sha !== desired) return failed(`it serves ${sha ?? "nothing"}, not ${desired}`);',
    to: "",
    tests: ["scripts/server-update.test"],
  },
  {
    what: "a rollout goes on although too many failed",
    file: "lib/fleet/master/rollout.ts",
    from: "if (stopped()) return;",
    to: "",
    tests: ["scripts/server-update.test"],
  },
  {
    what: "a master believes another slave's answer",
    file: "lib/fleet/report.ts",
    from: "if (letter.to !== to)",
    to: "if (letter.to === to && false)",
    tests: ["lib/fleet/letter"],
  },
];
