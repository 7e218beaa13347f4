// What a restarted hook-server makes of the runs that its predecessor left behind.
import { appendFileSync, existsSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { test } from "uvu";
import { type HookServer, makeYard, sha, startHooks } from "../../../helpers/hooks.ts";
import { killProcessesOf } from "../../../helpers/leftovers.ts";
import { waitFor } from "../../../helpers/wait.ts";

test("a run that succeeded while no server was there is recorded like any other: its commit is the ref's last good one", async () => {
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
  const heads = await waitFor(() => readFileSync(join(server.state, "heads/me%2Fsite.json"), "utf8"));
  assert.equal(JSON.parse(heads), { "refs/heads/main": { good: sha(1) } });
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

test("a run whose delivery is gone ends as failed: lost; it can be run again", async () => {
  const { dir, id } = await killedDuringRun();
  await killProcessesOf(dir);
  rmSync(join(dir, "state/deliveries.jsonl"));
  const server = await startHooks(dir);
  const run = await runOf(server, id);
  assert.is(run?.state, "failed");
  assert.match(run?.reason ?? "", /^lost: its delivery is not in deliveries.jsonl any more; rerun it/);
  assert.match(server.running.output(), /deliveries\.jsonl is missing: what waited in it is lost/);
  assert.not.match(server.running.output(), "runs again");
  await writeFile(join(dir, "co/go"), "");
  const again = (await server.local(`/runs/${id}/rerun`, "POST")).body.run;
  assert.is((await runOf(server, again))?.state, "succeeded");
  await server.stop();
});

test("a run whose delivery is gone goes on when its process lives", async () => {
  const { dir, id } = await killedDuringRun();
  writeFileSync(join(dir, "state/deliveries.jsonl"), "");
  let server = await startHooks(dir);
  assert.match(server.running.output(), /deliveries\.jsonl is empty/);
  await writeFile(join(dir, "co/go"), "");
  assert.is((await runOf(server, id))?.state, "succeeded");
  await server.stop();
  server = await startHooks(dir);
  assert.is((await runOf(server, id))?.state, "succeeded");
  assert.not.match(server.running.output(), "jsonl");
  await server.stop();
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

test("a run that was superseded just before the server was killed is shown as superseded", async () => {
  const { dir, id } = await killedDuringRun();
  await killProcessesOf(dir);
  const by = id.replace(/.$/, (digit) => (digit === "0" ? "1" : "0"));
  const line = { run: id, state: "superseded", by };
  appendFileSync(join(dir, "state/deliveries.jsonl"), `${JSON.stringify(line)}\n`);
  const server = await startHooks(dir);
  const run = await runOf(server, id);
  assert.equal([run?.state, run?.by], ["superseded", by]);
  await server.stop();
});

test.run();
