// Several builders that share their runs by a real nats-server.
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { type Builders, makeBuilders, watchedJob } from "../helpers/builders.ts";
import { sha } from "../helpers/hooks.ts";
import { needsNats } from "../helpers/nats.ts";
import { testUnless } from "../helpers/skip.ts";
import { waitFor } from "../helpers/wait.ts";

const test = suite("builders");
const testBus = testUnless(test, needsNats);
let builders: Builders | undefined;
test.after.each(async () => {
  await builders?.end();
  builders = undefined;
});

testBus(
  "of three builders each takes deliveries, a repo has one run at a time, the newest push wins, and a dead one's run is taken over",
  async () => {
    builders = await makeBuilders(["one", "two", "three"], {
      job: watchedJob,
      repos: { "me/a": "", "me/b": "", "me/special": "runs_on: big" },
      own: { three: "labels: [big]" },
    });
    const { dir, bus, events } = builders;
    const hold = (repo: string) => writeFile(join(dir, `hold-me_${repo}`), "");
    const go = (repo: string) => rm(join(dir, `hold-me_${repo}`));
    const seen = async (line: RegExp) =>
      await waitFor(async () => (await events()).find((each) => line.test(each)), {
        what: () => `${line}`,
      });
    const servers = await Promise.all(["one", "two", "three"].map((name) => builders!.start(name)));
    (globalThis as any).dbg = servers;
    const [one, two, three] = servers as [never, never, never] as (typeof servers)[number][] as any;

    await Promise.all([hold("a"), hold("b")]);
    let last = 0;
    const push = async (repo: string, server = servers[last % 3]) => {
      last += 1;
      const answer = await server!.push(`me/${repo}`, sha(last));
      assert.is(answer.status, 202, answer.text);
      return sha(last);
    };
    const first = await push("a");
    const begun = await seen(new RegExp(`begin me/a ${first}`));
    await push("special", one);
    await seen(/end me\/special \w+ three/);
    const waits = await push("a");
    const newest = [await push("a"), await push("b")];
    // the one that runs it is killed, and its run with it
    const owner = begun.split(" ").at(-1) as "one" | "two" | "three";
    const killed = servers[["one", "two", "three"].indexOf(owner)]!;
    await killed.kill();
    const rest = servers.filter((each) => each !== killed);
    await seen(new RegExp(`begin me/a ${newest[0]}`));
    await Promise.all([go("a"), go("b")]);
    await seen(new RegExp(`end me/a ${newest[0]}`));
    await seen(new RegExp(`end me/b ${newest[1]}`));
    assert.is(
      (await events()).some((line) => line.includes(waits)),
      false,
    );
    assert.is(
      (await events()).find((line) => line.includes("overlap")),
      undefined,
    );
    const runs = await rest[0]!.idle();
    assert.equal(
      runs.filter(({ repo }) => repo === "me/a").map(({ state }) => state),
      ["succeeded", "superseded", "superseded"],
    );

    // what cannot be kept is not accepted
    await bus.kill();
    const refused = await rest[0]!.push("me/b", sha(99));
    assert.is(refused.status, 503);
    assert.match(refused.text, "not accepted");
    await bus.start();
    await waitFor(async () => (await rest[0]!.push("me/b", sha(99))).status === 202);
    await seen(new RegExp(`end me/b ${sha(99)}`));
  },
);

if (process.env.DEBUG_B)
  setTimeout(async () => {
    for (const s of globalThis.dbg ?? []) console.log(s.running.output());
    console.log((await builders?.events())?.join("\n"));
  }, 16000).unref();
test.run();
