import { test } from "uvu";
import * as assert from "uvu/assert";
import { explain } from "../../../lib/hook/run-process.ts";

test("a reason names the limit that was met before the exit code that follows from it", () => {
  const memory = "out of memory (limit 2.0 GB)";
  const processes = "could not start a process (limit 500 processes)";
  const exit = (code: number, signal?: string) =>
    ({ how: "exit", code, ...(signal === undefined ? {} : { signal }) }) as const;
  const cut = (reason: string) => ({ how: "cut", reason }) as const;
  assert.equal(explain(exit(128, "SIGKILL"), { memory }), cut(memory));
  assert.equal(explain(exit(137), { memory, processes }), cut(`${memory}; ${processes}`));
  assert.equal(explain({ how: "lost" }, { memory }), cut(memory));
  assert.equal(explain({ how: "lost" }, { processes }), { how: "lost" });
  assert.equal(explain(exit(2), { processes }), {
    ...exit(2),
    reason: `exit code 2; ${processes}`,
  });
  assert.equal(explain(exit(0), { processes }), { ...exit(0), reason: processes });
  assert.equal(explain(exit(0), {}), { ...exit(0), reason: undefined });
  assert.is(explain(exit(128, "SIGKILL"), {}).how, "exit");
  assert.equal(explain({ how: "stopped" }, { memory }), { how: "stopped" });
  assert.equal(explain(cut("took too long"), { processes }), cut(`took too long; ${processes}`));
});

test.run();
