import { existsSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { newCookie } from "../../../../lib/exec/process-tree.ts";
import { explain, type Running, startCommand } from "../../../../lib/hook/runs/run-process.ts";
import { tempDir } from "../../../helpers/tmp.ts";
import { waitFor } from "../../../helpers/wait.ts";

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

/** A command that takes a while to end. */
async function slowToEnd(timeout: number): Promise<Running> {
  const dir = tempDir();
  const files = { logFile: join(dir, "log"), exitFile: join(dir, "exit") };
  const job = { ...files, cookie: newCookie(), cgroup: undefined, limits: {}, timeout };
  const script = `trap "" TERM; : >${dir}/ready; while :; do sleep 0.1; done`;
  const running = await startCommand(
    { ...job, maxLog: () => 1e6 },
    { argv: ["/bin/sh", "-c", script], env: { PATH: "/usr/bin:/bin" } },
    { outlives: true },
  );
  await waitFor(() => existsSync(join(dir, "ready")));
  return running;
}

test("a command that is being ended is not left to the next server", async () => {
  const running = await slowToEnd(60_000);
  running.stop();
  assert.not(running.leave());
  assert.is((await running.outcome).how, "stopped");
  const other = await slowToEnd(60_000);
  assert.ok(other.leave());
  assert.is((await other.outcome).how, "left");
  other.stop();
  await waitFor(() => !existsSync(`/proc/${other.pid}`));
});

test.run();
