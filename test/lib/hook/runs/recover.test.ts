// What a restarted hook-server makes of the runs that its predecessor left behind.
import { existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { test } from "uvu";
import { type HookServer, makeYard, sha, startHooks } from "../../../helpers/hooks.ts";
import { killProcessesOf } from "../../../helpers/leftovers.ts";
import { waitFor } from "../../../helpers/wait.ts";

test("a run that succeeded while no server was there is recorded like any other", async () => {
  const dir = await makeYard({
    job: "touch started; while ! test -e go; do sleep 0.05; done; touch finished",
  });
  let server = await startHooks(dir);
  const { body } = await server.push("me/site", sha(1));
  await waitFor(() => existsSync(join(dir, "co/started")));
  await server.kill();
  await writeFile(join(dir, "co/go"), "");
  // the shell around the job writes its exit code last
  await waitFor(() => existsSync(join(server.state, "runs", body.run, "exit")));
  server = await startHooks(dir);
  const [run] = await server.idle();
  assert.equal([run?.state, run?.exit, run?.attempt], ["succeeded", 0, 1]);
  assert.not.match(server.running.output(), "cannot be written");
  await server.stop();
});

const runOf = async (server: HookServer, id: string) => (await server.idle()).find((run) => run.id === id);

test("runs that ended before the server was killed are not built again, and the log has no error", async () => {
  const dir = await makeYard({
    repos: { "me/site": "", "me/other": "refs: ['*']" },
    job: 'echo "$HOOK_REPO $HOOK_SHA" >>order',
  });
  let server = await startHooks(dir);
  for (let n = 0; n < 3; n++) {
    await server.push("me/site", sha(n), { id: `d${n}` });
    await server.push("me/other", sha(n), { ref: `refs/heads/b${n}` });
    await server.idle();
  }
  const order = readFileSync(join(dir, "co/order"), "utf8");
  const before = await server.runs();
  await server.kill();
  server = await startHooks(dir);
  assert.equal(await server.idle(), before);
  assert.is((await server.push("me/site", sha(2), { id: "d2" })).status, 200);
  assert.is(readFileSync(join(dir, "co/order"), "utf8"), order);
  assert.not.match(server.running.output(), /bug|before initialization|interrupted/);
  await server.stop();
});

/** A yard whose only run is under way; its server was killed. */
async function killedDuringRun(): Promise<{ dir: string; id: string }> {
  const dir = await makeYard({
    repos: { "me/site": "", "me/other": "" },
    job: "test -e go && exit 0; touch started; while ! test -e go; do sleep 0.05; done",
  });
  const server = await startHooks(dir);
  const id = (await server.push("me/site", sha(1))).body.run;
  await waitFor(() => existsSync(join(dir, "co/started")));
  await server.kill();
  return { dir, id };
}

test("a server whose runs.jsonl is gone or empty says how many runs it does not know", async () => {
  const { dir } = await killedDuringRun();
  await killProcessesOf(dir);
  const file = join(dir, "state/runs.jsonl");
  for (const lose of [() => rmSync(file), () => writeFileSync(file, "")]) {
    lose();
    const server = await startHooks(dir);
    assert.match(
      server.running.output(),
      /runs\.jsonl does not know 1 runs that have a folder, as \S+: it is not whole/,
    );
    assert.equal(await server.runs(), []);
    await server.kill();
  }
});

test("a run whose repo is not configured any more ends as failed: lost; with the repo back it can be run again", async () => {
  const { dir, id } = await killedDuringRun();
  const yaml = join(dir, "hooks.yml");
  const text = readFileSync(yaml, "utf8");
  writeFileSync(yaml, text.replace("me/site:", "me/new:"));
  const server = await startHooks(dir);
  const run = await runOf(server, id);
  assert.is(run?.state, "failed");
  assert.match(run?.reason ?? "", /^lost: me\/site is not configured any more/);
  writeFileSync(yaml, text);
  await server.running.until(/hooks.yml was read again/);
  await writeFile(join(dir, "co/go"), "");
  const again = (await server.local(`/runs/${id}/rerun`, "POST")).body.run;
  assert.is((await runOf(server, again))?.state, "succeeded");
  await server.stop();
});

test("of what waited when the server was killed the newest push of a branch runs, and the others say which", async () => {
  const { dir, id } = await killedDuringRun();
  let server = await startHooks(dir);
  const ids = [id];
  for (const n of [2, 3, 4]) ids.push((await server.push("me/site", sha(n))).body.run);
  await server.kill();
  server = await startHooks(dir);
  await writeFile(join(dir, "co/go"), "");
  const runs = await server.idle();
  const facts = ids.map((each) => runs.find((run) => run.id === each));
  assert.equal(
    facts.map((run) => run?.state),
    ["succeeded", "superseded", "superseded", "succeeded"],
  );
  // each by the newest when it was looked at
  assert.ok(facts[1]?.by === ids[2] || facts[1]?.by === ids[3]);
  assert.is(facts[2]?.by, ids[3]);
  await server.stop();
});

test.run();
