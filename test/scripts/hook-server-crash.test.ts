// hook-server is killed, or the disk is full: nothing that was accepted is lost.
import { existsSync, readFileSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { test } from "uvu";
import { storm } from "../helpers/hook-storm.ts";
import { type HookServer, makeYard, sha, startHooks } from "../helpers/hooks.ts";
import { runCommand, startCommand } from "../helpers/run.ts";
import { testUnless } from "../helpers/skip.ts";
import { waitFor } from "../helpers/wait.ts";

test("of pushes to several repos with a kill -9 now and then none is lost, none is doubled", async () => {
  const result = await storm({ pushes: 30, repos: 5, kills: 4, seed: 7 });
  assert.ok(result.accepted >= 20);
});

test("a build that outlived the server is recognised, not doubled, and its end is known", async () => {
  const dir = await makeYard({ job: "echo x >>begun; while ! test -e go; do sleep 0.05; done" });
  let server = await startHooks(dir);
  const { body } = await server.push("me/site", sha(1));
  await waitFor(() => existsSync(join(dir, "co/begun")));
  await server.kill();
  server = await startHooks(dir);
  await server.running.until(/outlived the former server/);
  assert.is((await server.local(`/runs/${body.run}`)).body.state, "running");
  await writeFile(join(dir, "co/go"), "");
  const [run] = await server.idle();
  assert.is(run?.state, "succeeded");
  assert.is(run?.attempt, 1);
  assert.is(readFileSync(join(dir, "co/begun"), "utf8"), "x\n");
  await server.stop();
});

test("a build that ended while no server was there keeps its result", async () => {
  const dir = await makeYard({
    job: "echo x >>begun; while ! test -e go; do sleep 0.05; done; echo x >>ended; exit 7",
  });
  let server = await startHooks(dir);
  await server.push("me/site", sha(1));
  await waitFor(() => existsSync(join(dir, "co/begun")));
  await server.kill();
  await writeFile(join(dir, "co/go"), "");
  await waitFor(() => existsSync(join(dir, "co/ended")));
  await new Promise((resolve) => setTimeout(resolve, 200));
  server = await startHooks(dir);
  const [run] = await server.idle();
  assert.is(run?.state, "failed");
  assert.is(run?.exit, 7);
  await server.stop();
});

test("an adopted build still has its time-out, and can be cancelled", async () => {
  const dir = await makeYard({ job: "touch begun; sleep 100" });
  let server = await startHooks(dir);
  const { body } = await server.push("me/site", sha(1));
  await waitFor(() => existsSync(join(dir, "co/begun")));
  await server.kill();
  server = await startHooks(dir);
  assert.is((await server.local(`/runs/${body.run}/cancel`, "POST")).status, 202);
  assert.is((await server.idle())[0]?.state, "cancelled");
  await server.stop();
});

// A real try: strace may be missing, or tracing forbidden.
const strace = await runCommand(["strace", "-qq", "-o", "/dev/null", "true"]).catch(() => undefined);
const noStrace = strace?.code === 0 ? undefined : "strace is missing, or may not trace";

/** Inject a fault into a system call of a running server, on some paths below its folder. Returns what ends it. */
async function inject(server: HookServer, fault: string, paths: string[]): Promise<() => Promise<unknown>> {
  const call = fault.split(":")[0];
  const on = paths.flatMap((path) => ["-P", join(server.dir, path)]);
  const pid = String(server.running.pid);
  const strace = startCommand([
    "strace",
    "-f",
    "-qq",
    "-o",
    "/dev/null",
    ...on,
    "-e",
    `trace=${call}`,
    "-e",
    `inject=${fault}`,
    "-p",
    pid,
  ]);
  // a server that has gone was traced too: the fault met a run that was still under way
  const traced = (status: string) => !/^TracerPid:\t0$/m.test(status);
  await waitFor(async () => traced(await readFile(`/proc/${pid}/status`, "utf8").catch(() => "gone")), {
    what: "strace to attach",
  });
  return () => strace.stop("SIGINT");
}

// on Node the file system's calls come from a pool of threads, and strace counts per thread
const env = { UV_THREADPOOL_SIZE: "1" };
const deliveries = "state/runs.jsonl";
const writes = "write,pwrite64,writev,pwritev,pwritev2";

testUnless(test, noStrace)("killed at any step of an accept, an accepted push is there at the next start", async () => {
  const steps: [string, string[]][] = [
    [`${writes}:signal=KILL:when=1`, [deliveries]],
    [`${writes}:signal=KILL:when=2`, [deliveries]],
    ["mkdir,mkdirat:signal=KILL:when=1", []],
    ["rename,renameat,renameat2:signal=KILL:when=1", []],
    ["rename,renameat,renameat2:signal=KILL:when=2", []],
    ["rename,renameat,renameat2:signal=KILL:when=3", []],
  ];
  for (const [fault, paths] of steps) {
    const dir = await makeYard({ repos: { "me/site": "refs: ['*']" } });
    let server = await startHooks(dir, { env });
    const accepted = [(await server.push("me/site", sha(0), { ref: "refs/heads/b0" })).body.run];
    await inject(server, fault, paths);
    for (let n = 1; n < 4; n++) {
      const answer = await server.push("me/site", sha(n), { ref: `refs/heads/b${n}` }).catch(() => undefined);
      if (answer?.status === 202) accepted.push(answer.body.run);
    }
    await server.kill();
    server = await startHooks(dir);
    const runs = await server.idle();
    for (const id of accepted) assert.is(runs.find((run) => run.id === id)?.state, "succeeded", fault);
    assert.is((await server.push("me/site", sha(9))).status, 202);
    await server.idle();
    await server.stop();
  }
});

testUnless(test, noStrace)(
  "with a full disk a delivery is answered 503, and the server goes on when there is room",
  async () => {
    for (const fault of [`${writes}:error=ENOSPC:when=1..3`, `${writes}:error=EIO:when=1..2`]) {
      const dir = await makeYard({ repos: { "me/site": "refs: ['*']" } });
      const server = await startHooks(dir, { env });
      const statuses = [(await server.push("me/site", sha(0), { ref: "refs/heads/b0" })).status];
      await server.idle();
      await inject(server, fault, [deliveries]);
      // strace counts by thread, and a runtime may have many
      for (let n = 1; n < 8 || (statuses.at(-1) !== 202 && n < 50); n++) {
        statuses.push((await server.push("me/site", sha(n), { ref: `refs/heads/b${n}` })).status);
      }
      assert.is(statuses[0], 202);
      assert.ok(statuses.includes(503), `${fault}: ${statuses.join()}`);
      assert.is(statuses.at(-1), 202);
      assert.ok(statuses.every((status) => status === 202 || status === 503));
      await server.idle();
      await server.kill();
      const again = await startHooks(dir);
      const runs = await again.idle();
      const good = statuses.filter((status) => status === 202).length;
      assert.is(runs.filter((run) => run.state === "succeeded").length, good, `${fault}: ${statuses.join()}`);
      assert.not.match(again.running.output(), "runs.jsonl");
      await again.stop();
    }
  },
);

testUnless(test, noStrace)(
  "with a full disk at any step of a run it waits or its end is written later; it is not lost, nor doubled",
  async () => {
    // the first write is the accept's
    const steps: [string, string[]][] = [
      ["mkdir,mkdirat:error=ENOSPC:when=1", []],
      ["fchown:error=ENOSPC:when=1", []],
      ...[2, 3, 4].map((n): [string, string[]] => [`${writes}:error=ENOSPC:when=${n}`, [deliveries]]),
    ];
    await Promise.all(
      steps.map(async ([fault, paths]) => {
        const dir = await makeYard({
          // no mkdir in here: strace would fail that one too
          job: "test -e busy && echo twice >>order; : >busy; sleep 0.3; echo $HOOK_SHA >>order; rm busy",
        });
        const server = await startHooks(dir, { env });
        const makeRoom = await inject(server, fault, paths);
        const { status, body } = await server.push("me/site", sha(1));
        assert.is(status, 202, fault);
        // each of a runtime's threads would meet the fault once
        const met = () => /ENOSPC/.test(server.running.output());
        const ended = async () => (await server.runs()).every((run) => run.state === "succeeded");
        await waitFor(async () => met() || (await ended()));
        await makeRoom();
        const runs = await server.idle();
        assert.is(runs.find((run) => run.id === body.run)?.state, "succeeded", fault);
        const order = readFileSync(join(dir, "co/order"), "utf8");
        assert.match(order, sha(1), fault);
        assert.not.match(order, "twice", fault);
        await server.kill();
        const again = await startHooks(dir);
        assert.is((await again.local(`/runs/${body.run}`)).body.state, "succeeded", fault);
        assert.is(readFileSync(join(dir, "co/order"), "utf8"), order, fault);
        await again.stop();
      }),
    );
  },
);

test.run();
