// The limits of hook-server: how much may wait and what that costs, what cannot be run again, what a log keeps.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { test } from "uvu";
import { makeYard, runScript, sha, startHooks } from "../helpers/hooks.ts";
import { waitFor } from "../helpers/wait.ts";

/** A job that waits until the file `go` is in its folder. */
const patient = "touch begun; while ! test -e go; do sleep 0.02; done";

test("past max_waiting a repo's deliveries are answered 429 with a time to come back; the others are taken", async () => {
  const dir = await makeYard({
    top: "max_waiting: 2\nconcurrency: 1",
    repos: { "me/site": "refs: ['refs/tags/*']", "me/other": "" },
    job: patient,
  });
  const server = await startHooks(dir);
  const tag = (n: number) => server.push("me/site", sha(n), { ref: `refs/tags/v${n}`, id: `delivery-${n}` });
  const first = await tag(0);
  await waitFor(() => existsSync(join(dir, "co/begun")));
  const statuses = [await tag(1), await tag(2), await tag(3)].map(({ status }) => status);
  assert.equal(statuses, [202, 202, 429]);
  const refused = await tag(4);
  assert.is(refused.status, 429);
  assert.is(refused.headers["retry-after"], "60");
  assert.match(refused.body.error, "too many runs");
  assert.is((await tag(0)).body.run, first.body.run, "one that was taken is known still");
  assert.is((await server.push("me/other", sha(5))).status, 202);
  await writeFile(join(dir, "co/go"), "");
  await server.idle();
  assert.is((await tag(4)).status, 202, "sent again when there is room it runs");
  const runs = await server.idle();
  assert.is(runs.filter((run) => run.repo === "me/site").length, 4);
  await server.stop();
});

test("who wants a superseded run again is told which run took its place", async () => {
  const dir = await makeYard({ job: patient });
  const server = await startHooks(dir);
  await server.push("me/site", sha(0));
  await waitFor(() => existsSync(join(dir, "co/begun")));
  const old = (await server.push("me/site", sha(1))).body.run;
  const newer = (await server.push("me/site", sha(2))).body.run;
  const rerun = () => runScript("hook-server", ["rerun", old, "--state", server.state]);
  const { code, stderr } = await rerun();
  assert.is(code, 1);
  assert.match(stderr, `${newer} took its place`);
  await writeFile(join(dir, "co/go"), "");
  await server.idle();
  assert.match((await rerun()).stderr, `${newer} took its place`);
  await server.stop();
});

function childrenOf(parent: number): string[] {
  return readdirSync("/proc").filter((pid) => {
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
      return Number(stat.slice(stat.lastIndexOf(")") + 4).split(" ", 1)[0]) === parent;
    } catch {
      return false;
    }
  });
}

test("deliveries that wait cost no process", async () => {
  const dir = await makeYard({
    top: "concurrency: 1",
    repos: { "me/site": "refs: ['refs/tags/*']" },
    job: ": >begun; until test -e go; do sleep 0.02; done",
  });
  const server = await startHooks(dir);
  for (let n = 0; n < 20; n++) await server.push("me/site", sha(n), { ref: `refs/tags/${n}` });
  await waitFor(() => existsSync(join(dir, "co/begun")));
  assert.is(childrenOf(server.running.pid).length, 1);
  await writeFile(join(dir, "co/go"), "");
  await server.idle();
  await server.stop();
});

test("a log keeps the order of stdout and stderr, and a last line without its end", async () => {
  const dir = await makeYard({
    job: "for n in 1 2 3 4 5 6 7 8 9; do echo out $n; echo err $n >&2; done; printf 'the end'",
  });
  const server = await startHooks(dir);
  const { body } = await server.push("me/site", sha(1));
  await server.idle();
  const { text } = await server.local(`/runs/${body.run}/log`);
  const lines = Array.from({ length: 9 }, (_, n) => `out ${n + 1}\nerr ${n + 1}\n`).join("");
  assert.ok(text.startsWith(`${lines}the end\n`), text);
  await server.stop();
});

test.run();
