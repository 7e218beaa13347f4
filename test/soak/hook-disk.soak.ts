// hook-server with its state on a disk that really fills up: at the deliveries, at a payload, at a run's log.
import { appendFileSync, existsSync } from "node:fs";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { test } from "uvu";
import { http, makeYard, pushPayload, sha, startHooks } from "../helpers/hooks.ts";
import { runCommand } from "../helpers/run.ts";
import { needsRoot, testUnless } from "../helpers/skip.ts";
import { waitFor } from "../helpers/wait.ts";

/** A push of about 1 MB: a small one may still fit into the file's last page. */
function large(number: number): object {
  return { ...pushPayload("me/site", sha(number)), filler: "x".repeat(1_000_000) };
}

/** A yard with a state folder of a few MB, which `work` may fill. */
async function withSmallDisk(
  job: string,
  work: (dir: string, disk: { fill: (room: number) => Promise<void>; empty: () => Promise<void> }) => Promise<void>,
): Promise<void> {
  const dir = await makeYard({ job, repos: { "me/site": "refs: ['*']" } });
  const state = join(dir, "state");
  const filler = join(state, "filler");
  await mkdir(state);
  await runCommand(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", state], { expect: 0 });
  try {
    await work(dir, {
      async fill(room) {
        // dd ends when the disk is full; then so many KB are given back
        await runCommand([
          "sh",
          "-c",
          'dd if=/dev/zero of="$1" bs=1k 2>/dev/null; truncate -s -"$2"k "$1"',
          "sh",
          filler,
          String(room),
        ]);
      },
      empty: () => rm(filler, { force: true }),
    });
  } finally {
    await runCommand(["umount", "-l", state], { expect: 0 });
  }
}

testUnless(test, needsRoot)(
  "no room for a delivery: 503 until there is room, then it goes on, and nothing half written is found later",
  async () => {
    await withSmallDisk("echo built", async (dir, disk) => {
      const server = await startHooks(dir);
      assert.is((await server.push("me/site", sha(1))).status, 202);
      await server.idle();
      await disk.fill(0);
      assert.is((await server.send({ payload: large(2) })).status, 503);
      assert.is((await http({ port: server.port }, "/healthz")).status, 200);
      await disk.empty();
      assert.is((await server.push("me/site", sha(3))).status, 202);
      await server.idle();
      await server.kill();
      const again = await startHooks(dir);
      const runs = await again.idle();
      assert.equal(runs.map((run) => [run.sha, run.state]).sort(), [
        [sha(1), "succeeded"],
        [sha(3), "succeeded"],
      ]);
      assert.not.match(again.running.output(), "damaged or cut off");
      await again.stop();
    });
  },
);

testUnless(test, needsRoot)(
  "room for a delivery but not for its payload's file: the run waits, and begins when there is room",
  async () => {
    await withSmallDisk('wc -c <"$HOOK_PAYLOAD"', async (dir, disk) => {
      const server = await startHooks(dir);
      await server.push("me/site", sha(1));
      await server.idle();
      await disk.fill(1600);
      const payload = large(2);
      const { status, body } = await server.send({ payload });
      assert.is(status, 202);
      await server.running.until(/cannot start: .*ENOSPC.*; it waits/);
      assert.is((await server.local(`/runs/${body.run}`)).body.state, "waiting");
      await disk.empty();
      const runs = await server.idle(20_000);
      assert.is(runs.find((run) => run.id === body.run)?.state, "succeeded");
      const log = await server.local(`/runs/${body.run}/log`);
      assert.match(log.text, String(JSON.stringify(payload).length));
      await server.stop();
    });
  },
);

testUnless(test, needsRoot)(
  "no room for a run's log: the run goes on, its end is written when there is room, and then the next begins",
  async () => {
    const job =
      "cd ..; : >begun; until test -e go; do sleep 0.02; done; head -c 100000 /dev/zero | tr '\\0' x; : >done; exit 0";
    await withSmallDisk(job, async (dir, disk) => {
      const server = await startHooks(dir);
      const first = (await server.push("me/site", sha(1))).body.run;
      await waitFor(() => existsSync(join(dir, "begun")));
      const second = (await server.push("me/site", sha(2))).body.run;
      await disk.fill(0);
      await writeFile(join(dir, "go"), "");
      await server.running.until(/what became of run \S+ cannot be written: .*ENOSPC/);
      assert.ok(existsSync(join(dir, "done")));
      assert.is((await server.send({ payload: large(3) })).status, 503);
      assert.is((await http({ port: server.port }, "/healthz")).status, 200);
      await disk.empty();
      const runs = await server.idle(20_000);
      for (const id of [first, second]) assert.is(runs.find((run) => run.id === id)?.state, "succeeded");
      const said = server.running.output().match(/what became of run \S+ cannot be written/g);
      assert.is(said?.length, 1, "not each time that it is tried");
      await server.stop();
    });
  },
);

testUnless(test, needsRoot)(
  "a server that starts on a full disk answers 503, shows what waits, and goes on when there is room",
  async () => {
    const job = "cd ..; : >begun; until test -e go; do sleep 0.02; done";
    await withSmallDisk(job, async (dir, disk) => {
      let server = await startHooks(dir);
      const first = (await server.push("me/site", sha(1))).body.run;
      await waitFor(() => existsSync(join(dir, "begun")));
      const second = (await server.push("me/site", sha(2), { ref: "refs/heads/b" })).body.run;
      await server.kill();
      // cut off, and no room to keep it aside
      appendFileSync(join(server.state, "runs.jsonl"), '{"runs":[{"id":"cut o');
      await disk.fill(0);
      server = await startHooks(dir);
      assert.match(server.running.output(), /runs\.jsonl: the line at byte \d+ has no end/);
      assert.is((await server.send({ payload: large(3) })).status, 503);
      assert.is((await http({ port: server.port }, "/healthz")).status, 200);
      assert.equal((await server.runs()).map(({ id }) => id).sort(), [first, second].sort());
      await writeFile(join(dir, "go"), "");
      await disk.empty();
      const runs = await server.idle(20_000);
      assert.equal(
        runs.map(({ state }) => state),
        ["succeeded", "succeeded"],
      );
      assert.is((await server.push("me/site", sha(4))).status, 202);
      await server.idle();
      await server.stop();
    });
  },
);

testUnless(test, needsRoot)("the very first start may meet a full disk, too", async () => {
  await withSmallDisk("true", async (dir, disk) => {
    await disk.fill(0);
    const server = await startHooks(dir);
    assert.is((await server.push("me/site", sha(1))).status, 503);
    await disk.empty();
    assert.is((await server.push("me/site", sha(2))).status, 202);
    assert.is((await server.idle())[0]?.state, "succeeded");
    await server.stop();
  });
});

test.run();
