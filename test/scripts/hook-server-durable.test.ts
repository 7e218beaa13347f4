// A crash of the whole machine, many deliveries at once, and the end of what a run left behind.
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { test } from "uvu";
import { logOf, makeYard, runScript, sha, startHooks } from "../helpers/hooks.ts";
import { killProcessesOf, processesOf } from "../helpers/leftovers.ts";
import { startCommand } from "../helpers/run.ts";
import { testUnless } from "../helpers/skip.ts";
import { needsStrace } from "../helpers/strace.ts";
import { slowness, waitFor } from "../helpers/wait.ts";

test("a run that a crash took along is marked as interrupted and runs again; its log has both, and what waited runs too", async () => {
  const dir = await makeYard({
    top: "concurrency: 1",
    repos: { "me/site": "", "me/other": "" },
    job: 'echo "try of $HOOK_REPO"; test -e again && exit 0; printf "cut o"; touch again; sleep 300',
  });
  let server = await startHooks(dir);
  const cut = (await server.push("me/site", sha(1))).body.run;
  await waitFor(() => existsSync(join(dir, "co/again")));
  const waiting = (await server.push("me/other", sha(2))).body.run;
  const tag = (await server.push("me/site", sha(3))).body.run;
  await server.kill();
  await killProcessesOf(dir);
  server = await startHooks(dir);
  const runs = await server.idle();
  const facts = (id: string) => {
    const run = runs.find((each) => each.id === id);
    return [run?.state, run?.attempt, run?.interrupted?.length ?? 0];
  };
  // a push that was cut off gives way to a newer one
  assert.equal(facts(cut), ["superseded", 1, 1]);
  assert.equal(facts(tag), ["succeeded", 1, 0]);
  assert.equal(facts(waiting), ["succeeded", 1, 0]);
  assert.match(
    logOf(server, cut),
    /^try of me\/site\ncut o\n\S+Z \S+ hook-server \| interrupted by the end of the server; it runs again\n$/,
  );
  const alone = (await server.push("me/other", sha(4))).body.run;
  await server.idle();
  await server.stop();
  assert.match(logOf(server, alone), /try of me\/other\n.*succeeded/);
});

test("a run that a crash took along runs again when nothing newer waits, its log keeps both attempts", async () => {
  const dir = await makeYard({
    job: 'echo "begin"; test -e again && exit 0; printf "cut o"; touch again; sleep 300',
  });
  let server = await startHooks(dir);
  const { run } = (await server.push("me/site", sha(1))).body;
  await waitFor(() => existsSync(join(dir, "co/again")));
  await server.kill();
  await killProcessesOf(dir);
  server = await startHooks(dir);
  const [again] = await server.idle();
  assert.equal([again?.id, again?.state, again?.attempt], [run, "succeeded", 2]);
  assert.is(again?.interrupted?.length, 1);
  assert.match(logOf(server, run), /^begin\ncut o\n\S+ .* \| interrupted .*\nbegin\n\S+ .* \| succe/);
  await server.stop();
});

test("a cancelled run is ended with children that left its session, forked twice and do not heed TERM", async () => {
  const dir = await makeYard({
    job: `trap '' TERM
setsid sh -c 'trap "" TERM; sleep 311' &
(setsid sh -c 'sleep 312 & ' &)
nohup sleep 313 >/dev/null 2>&1 &
touch begun; sleep 314`,
  });
  const server = await startHooks(dir);
  const { run } = (await server.push("me/site", sha(1))).body;
  await waitFor(() => existsSync(join(dir, "co/begun")));
  const sleeps = async () => (await processesOf(dir)).filter(({ command }) => command.startsWith("sleep 31"));
  await waitFor(async () => (await sleeps()).length === 4);
  assert.is((await runScript("hook-server", ["cancel", run, "--state", server.state])).code, 0);
  assert.is((await server.idle())[0]?.state, "cancelled");
  assert.equal(await sleeps(), []);
  await server.stop();
});

const writes = "write,pwrite64,writev,pwritev,pwritev2,fsync,fdatasync";

testUnless(test, needsStrace)(
  "deliveries that come together go to disk together, and none is answered before it is there",
  async () => {
    const dir = await makeYard({ repos: { "me/site": "refs: ['refs/tags/*']" }, job: "true" });
    const server = await startHooks(dir, { env: { UV_THREADPOOL_SIZE: "1" } });
    await server.push("me/site", sha(0), { ref: "refs/tags/v0" });
    await server.idle();
    const calls = join(dir, "calls");
    const path = join(server.state, "runs.jsonl");
    // each step to the disk takes this long now: longer than the deliveries need to come
    const seconds = 0.1 * slowness();
    const tracer = startCommand([
      ...["strace", "-f", "-ttt", "-o", calls, "-P", path, "-e", `trace=${writes}`],
      ...["-e", `inject=${writes}:delay_enter=${Math.round(seconds * 1e6)}`, "-p", String(server.running.pid)],
    ]);
    await tracer.until(/attached/);
    const begun = Date.now() / 1000;
    const answers = await Promise.all(
      Array.from({ length: 40 }, async (_, n) => {
        const { status } = await server.push("me/site", sha(n + 1), { ref: `refs/tags/v${n}` });
        return { status, at: Date.now() / 1000 };
      }),
    );
    await tracer.stop();
    assert.ok(answers.every(({ status }) => status === 202));
    const steps = readFileSync(calls, "utf8")
      .split("\n")
      .map((line) => Number(/^\d+ +(\d+\.\d+) \w+\(/.exec(line)?.[1] ?? 0))
      .filter((at) => at > 0);
    assert.ok(steps.length > 0 && steps.length < 20, `${steps.length} steps for 40 deliveries`);
    // the first step of all takes its time before anybody is told
    for (const { at } of answers) assert.ok(at - begun > seconds, `answered after ${at - begun} s`);
    await server.idle();
    await server.stop();
  },
);

test.run();
