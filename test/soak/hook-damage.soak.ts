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
const kinds: [string, (path: string, bytes: Buffer) => void, RegExp | undefined, number][] = [
  ["untouched", () => {}, undefined, 0],
  ["deleted", (path) => rmSync(path), /does not know 1 runs that have a folder/, waiting + 1],
  ["emptied", (path) => writeFileSync(path, ""), /does not know 1 runs that have a folder/, waiting + 1],
  ["cut in the middle", (path, bytes) => truncateSync(path, bytes.length / 2), /has no end/, waiting / 2 + 3],
  ["a bit of line 1", (path, bytes) => flip(path, bytes, 20), /byte 0 is damaged/, 0],
  ["a bit of the first delivery", (path, bytes) => flip(path, bytes, bytes.indexOf("\n") + 99), /is damaged/, 1],
  ["a bit of the last delivery", (path, bytes) => flip(path, bytes, bytes.length - 99), /is damaged/, 1],
  ["zeros over a page", (path, bytes) => writeFileSync(path, bytes.fill(0, 4096, 8192)), /is damaged/, 14],
  [
    "zeros at the end",
    (path, bytes) => writeFileSync(path, Buffer.concat([bytes, Buffer.alloc(9999)])),
    /has no end/,
    0,
  ],
  ["another file", (path) => writeFileSync(path, "key: value\n".repeat(50)), /byte 0 is damaged/, waiting + 1],
];

function flip(path: string, bytes: Buffer, at: number): void {
  bytes[at] = (bytes[at] ?? 0) ^ 1;
  writeFileSync(path, bytes);
}

// test/lib/run-store/file-store.test.ts has more of them: a taste is every third
for (const [kind, damage, said, lost] of kinds.filter((_, n) => scale >= 0.5 || n % 3 === 1)) {
  test(`runs.jsonl ${kind}: said, and what is left runs`, async () => {
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
    const path = join(server.state, "runs.jsonl");
    damage(path, readFileSync(path));
    server = await startHooks(dir);
    const lines = server.running
      .output()
      .split("\n")
      .filter((line) => line.includes("jsonl"));
    if (said)
      assert.ok(
        lines.some((line) => said.test(line)),
        lines.join("\n"),
      );
    else assert.equal(lines, []);
    assert.not.match(server.running.output(), /bug/);
    await writeFile(join(dir, "co/go"), "");
    const runs = await server.idle(60_000);
    assert.ok(runs.every((run) => run.state === "succeeded"));
    const left = new Set(runs.map((run) => run.id));
    const missing = accepted.filter((id) => !left.has(id));
    assert.ok(missing.length <= lost, `${missing.length} lost`);
    if (lost <= waiting) assert.ok(left.has(accepted[0] ?? ""), "the one under way went on");
    assert.is((await server.push("me/site", sha(99))).status, 202);
    await server.idle();
    await server.stop();
    const again = await startHooks(dir);
    if (lost <= waiting) assert.not.match(again.running.output(), "jsonl");
    await again.stop();
  });
}

test.run();
