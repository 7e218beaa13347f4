// hook-server with its deliveries damaged in every way: it starts, says so in its log, and runs what is left.
import { existsSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import * as assert from "uvu/assert";
import { test } from "uvu";
import { makeYard, sha, startHooks } from "../helpers/hooks.ts";
import { waitFor } from "../helpers/wait.ts";

const scale = Number(process.env["SOAK_SCALE"] ?? 1);
const waiting = 40;

/** What is done to the file, what the log says, and how many of the waiting runs may be lost at most. */
const kinds: [string, (path: string, bytes: Buffer) => void, RegExp, number][] = [
  [
    "untouched",
    () => {},
    /the former server was killed, or the end of the file is missing; runs without an end: 41/,
    0,
  ],
  ["deleted", (path) => rmSync(path), /deliveries\.jsonl is missing/, waiting],
  ["emptied", (path) => writeFileSync(path, ""), /deliveries\.jsonl is empty/, waiting],
  [
    "cut in the middle",
    (path, bytes) => truncateSync(path, bytes.length / 2),
    /jsonl:\d+: damaged or cut off/,
    waiting / 2 + 2,
  ],
  [
    "cut between two lines",
    (path, bytes) => truncateSync(path, bytes.indexOf("\n", bytes.length / 2) + 1),
    /the end of the file is missing; runs without an end: 2\d/,
    waiting / 2 + 2,
  ],
  ["a bit of line 1", (path, bytes) => flip(path, bytes, 20), /jsonl:1: damaged/, 0],
  ["a bit of the first delivery", (path, bytes) => flip(path, bytes, bytes.indexOf("\n") + 99), /jsonl:2: damaged/, 1],
  ["a bit of the last delivery", (path, bytes) => flip(path, bytes, bytes.length - 99), /jsonl:\d\d: damaged/, 1],
  ["zeros over a page", (path, bytes) => writeFileSync(path, bytes.fill(0, 4096, 8192)), /jsonl:\d+: damaged/, 14],
  [
    "zeros at the end",
    (path, bytes) => writeFileSync(path, Buffer.concat([bytes, Buffer.alloc(9999)])),
    /jsonl:\d+: damaged/,
    0,
  ],
  ["zeros only", (path, bytes) => writeFileSync(path, bytes.fill(0)), /jsonl:1: damaged/, waiting],
  ["another file", (path) => writeFileSync(path, "key: value\n".repeat(50)), /jsonl:1,2,3,.*…: damaged/, waiting],
];

function flip(path: string, bytes: Buffer, at: number): void {
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  writeFileSync(path, bytes);
}

// test/lib/hook/store/line-file.test.ts has them all: a taste is every third
for (const [kind, damage, said, lost] of kinds.filter((_, n) => scale >= 0.5 || n % 3 === 1)) {
  test(`deliveries.jsonl ${kind}: said in one line, and what is left runs`, async () => {
    const dir = await makeYard({
      repos: { "me/site": "refs: ['*']" },
      job: ": >begun; until test -e go; do sleep 0.02; done",
    });
    let server = await startHooks(dir);
    const accepted = [(await server.push("me/site", sha(0), { ref: "refs/heads/first" })).body.run];
    await waitFor(() => existsSync(join(dir, "co/begun")));
    for (let n = 1; n <= waiting; n++) {
      const { status, body } = await server.push("me/site", sha(n), { ref: `refs/heads/b${n}` });
      assert.is(status, 202);
      accepted.push(body.run);
    }
    await server.kill();
    const path = join(server.state, "deliveries.jsonl");
    damage(path, readFileSync(path));
    server = await startHooks(dir);
    const lines = server.running
      .output()
      .split("\n")
      .filter((line) => line.includes("jsonl"));
    assert.is(lines.filter((line) => said.test(line)).length, 1, lines.join("\n"));
    assert.not.match(server.running.output(), /bug/);
    await writeFile(join(dir, "co/go"), "");
    const runs = await server.idle(60_000);
    assert.ok(runs.every((run) => run.state === "succeeded"));
    const left = new Set(runs.map((run) => run.id));
    const missing = accepted.filter((id) => !left.has(id));
    assert.ok(missing.length <= lost, `${missing.length} lost`);
    assert.ok(left.has(accepted[0] ?? ""), "the one under way went on");
    assert.is((await server.push("me/site", sha(99))).status, 202);
    await server.idle();
    await server.stop();
    const again = await startHooks(dir);
    assert.not.match(again.running.output(), "jsonl");
    await again.stop();
  });
}

test.run();
