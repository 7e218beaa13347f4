// What a restarted hook-server makes of the runs that its predecessor left behind.
import { existsSync, readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { test } from "uvu";
import { makeYard, sha, startHooks } from "../../helpers/hooks.ts";
import { waitFor } from "../../helpers/wait.ts";

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
  const heads = readFileSync(join(server.state, "heads/me%2Fsite.json"), "utf8");
  assert.equal(JSON.parse(heads), { "refs/heads/main": { good: sha(1) } });
  await server.stop();
});

test.run();
