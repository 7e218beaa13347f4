// hook-server at full size: storms of pushes and kills, bursts, fuzz, large logs. SOAK_SCALE=1 is the full size.
import { existsSync, readFileSync, statSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import * as assert from "uvu/assert";
import { test } from "uvu";
import { fuzz } from "../helpers/hook-fuzz.ts";
import { seeded, storm } from "../helpers/hook-storm.ts";
import { filesBelow, http, makeYard, pushPayload, secret, sha, sign, startHooks } from "../helpers/hooks.ts";
import { testUnless } from "../helpers/skip.ts";
import { waitFor } from "../helpers/wait.ts";

const scale = Number(process.env["SOAK_SCALE"] ?? 1);
const scaled = (full: number, least: number) => Math.max(least, Math.round(full * scale));
// a short run, as in CI, is the same every time; a long one looks for what is new
const seed = Number(process.env["SOAK_SEED"] ?? (scale < 1 ? 1 : Date.now() % 100_000));

/** A process's memory in kB. */
function residentOf(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1] ?? 0);
}

test(`200 pushes over 20 repos and 20 kills at random instants lose nothing and double nothing (seed ${seed})`, async () => {
  const result = await storm({
    pushes: scaled(200, 20),
    repos: scaled(20, 4),
    kills: scaled(20, 3),
    seed,
  });
  console.log(`  accepted ${result.accepted}, unanswered ${result.unanswered}, interrupted runs ${result.interrupted}`);
});

test("200 pushes to one repo during one build make at most 2 further runs, 198 are superseded", async () => {
  const dir = await makeYard({
    job: 'echo "$HOOK_SHA" >>order; while ! test -e go; do sleep 0.02; done',
  });
  const server = await startHooks(dir);
  await server.push("me/site", sha(0));
  await waitFor(() => existsSync(join(dir, "co/order")));
  for (let n = 1; n <= 200; n++) assert.is((await server.push("me/site", sha(n))).status, 202);
  await writeFile(join(dir, "co/go"), "");
  const runs = await server.idle();
  const built = readFileSync(join(dir, "co/order"), "utf8").trim().split("\n");
  assert.ok(built.length <= 3);
  assert.is(built.at(-1), sha(200));
  assert.ok(runs.filter((run) => run.state === "superseded").length >= 198);
  await server.stop();
});

const few = scale < 0.5 && "fewer deliveries than are remembered, at this SOAK_SCALE";

testUnless(test, few)(
  "of deliveries without end the newest 10,000 are remembered, and no more memory or disk is taken",
  async () => {
    const dir = await makeYard({ job: ": >begun; until test -e go; do sleep 0.02; done" });
    const server = await startHooks(dir, { args: ["--quiet"] });
    const count = 24_000;
    const one = async (n: number) => (await server.push("me/site", sha(n), { id: `delivery-${n}` })).status;
    await one(0);
    await waitFor(() => existsSync(join(dir, "co/begun")));
    const memory: number[] = [];
    for (let n = 1; n < count; n += 40) {
      const statuses = await Promise.all(Array.from({ length: 40 }, (_, k) => one(n + k)));
      assert.ok(statuses.every((status) => status === 202));
      if (n % 4000 < 40) memory.push(residentOf(server.running.pid));
    }
    const known = (await server.runs()).length;
    console.log(`  ${known} remembered; memory in MB: ${memory.map((kB) => kB >> 10).join(" ")}`);
    assert.ok(known >= 10_000 && known < 11_500, `${known}`);
    assert.ok((memory.at(-1) ?? 0) < 300 * 1024);
    await writeFile(join(dir, "co/go"), "");
    await server.idle();
    const disk = filesBelow(server.state).reduce((sum, file) => sum + statSync(file).size, 0);
    console.log(`  ${disk >> 10} kB on disk`);
    assert.ok(disk < 48 * 1024 * 1024, `${disk} bytes`);
    assert.is(await one(count - 100), 200, "one of the newest");
    await server.kill();
    const again = await startHooks(dir);
    const { status } = await again.push("me/site", sha(0), { id: `delivery-${count - 100}` });
    assert.is(status, 200, "also after a restart");
    assert.is((await again.push("me/site", sha(1), { id: "delivery-1" })).status, 202);
    await again.idle();
    await again.stop();
  },
);

test(`of a flood with kills at random instants all that was answered is known, in files that do not pile up (seed ${seed})`, async () => {
  const dir = await makeYard({
    job: 'echo "$HOOK_SHA" >>order; until test -e go; do sleep 0.02; done',
  });
  const random = seeded(seed);
  const note = { payload_note: "x".repeat(9000) };
  const accepted: string[] = [];
  let sent = 0;
  let newest = 0;
  for (let kill = 0; kill < scaled(10, 2); kill++) {
    const server = await startHooks(dir, { args: ["--quiet"] });
    const known = new Set((await server.runs()).map((run) => run.id));
    const lost = accepted.slice(-9000).filter((id) => !known.has(id));
    assert.equal(lost, [], `after ${kill} kills`);
    const end = accepted.length + 1500 + Math.floor(random() * 2500);
    const sender = async () => {
      for (;;) {
        const n = ++sent;
        const payload = { ...pushPayload("me/site", sha(n)), ...note };
        const answer = await server.send({ payload }).catch(() => undefined);
        if (answer === undefined) return;
        assert.is(answer.status, 202);
        accepted.push(answer.body.run);
        newest = Math.max(newest, n);
      }
    };
    const senders = Promise.all(Array.from({ length: 16 }, sender));
    await waitFor(() => accepted.length >= end, { timeout: 60_000 });
    await server.kill();
    await senders;
    assert.not.match(server.running.output(), /bug/);
  }
  const { size } = statSync(join(dir, "state/runs.jsonl"));
  console.log(`  ${accepted.length} of ${sent} answered; the file has ${size >> 10} kB`);
  assert.ok(size < 168 * 1024 * 1024, `${size} bytes`);
  await writeFile(join(dir, "co/go"), "");
  const server = await startHooks(dir, { args: ["--quiet"] });
  await server.idle();
  await server.stop();
  const built = readFileSync(join(dir, "co/order"), "utf8").trim().split("\n");
  assert.ok(Number.parseInt(built.at(-1)?.replace(/^a+/, "") ?? "", 16) >= newest);
});

test("fuzzed requests never crash it, are never a 5xx, never start a run", async () => {
  const server = await startHooks(await makeYard());
  const statuses = await fuzz(server, scaled(10_000, 500), seed);
  for (const status of statuses.keys()) assert.ok(status < 500, `${status}, seed ${seed}`);
  assert.equal(await server.runs(), []);
  assert.not.match(server.running.output(), /bug:/);
  await server.stop();
});

test("a build that prints without end costs the server no memory, and its cap ends it", async () => {
  const dir = await makeYard({
    top: `max_log: ${scaled(1024, 64)}M`,
    job: `head -c ${scaled(1000, 50)}M /dev/zero | tr '\\0' 'x' | fold -w 100`,
  });
  const server = await startHooks(dir);
  await server.push("me/site", sha(1));
  let most = 0;
  await waitFor(
    async () => {
      most = Math.max(most, residentOf(server.running.pid));
      return (await server.runs())[0]?.state === "succeeded";
    },
    { timeout: 120_000 },
  );
  console.log(`  the server's memory was ${Math.round(most / 1024)} MB at most`);
  assert.ok(most < 400 * 1024, `${most} kB`);
  await server.stop();
});

test("nothing secret is in any file, page, answer or log, also split over two writes and in base64", async () => {
  const token = "planted-t0ken-of-the-status";
  const dir = await makeYard({
    top: "status: { token_file: token }",
    job: `printf %s ${secret.slice(0, 10)}; sleep 0.2; echo ${secret.slice(10)}; base64 <../secret; printf 'x%s' "$(cat ../secret)" | base64; cat ../token; exit 1`,
  });
  await writeFile(join(dir, "token"), token, { mode: 0o600 });
  const server = await startHooks(dir);
  const answers: string[] = [];
  const { body, text } = await server.push("me/site", sha(1));
  answers.push(text);
  for (const key of ["wrong", null]) answers.push((await server.push("me/site", sha(2), { key })).text);
  const headers = { authorization: `Bearer ${token}` };
  await server.idle();
  for (const path of [
    "/runs",
    `/runs/${body.run}`,
    `/runs/${body.run}/log`,
    `/runs/${body.run}/log?follow=1`,
    "/metrics",
    "/healthz",
    "/nothing",
  ]) {
    answers.push((await http({ port: server.port }, path, { headers })).text);
    answers.push((await server.local(path)).text);
  }
  await server.stop();
  const texts = [
    ...answers,
    server.running.output(),
    ...filesBelow(server.state).map((file) => readFileSync(file, "latin1")),
  ];
  const shapes = [secret, token].flatMap((each) => [
    each,
    Buffer.from(each).toString("base64").slice(0, 16),
    Buffer.from(`x${each}`).toString("base64").slice(4, 20),
    Buffer.from(each).toString("hex"),
  ]);
  for (const planted of [...shapes, sign("")]) for (const each of texts) assert.not(each.includes(planted), each);
});

test.run();
