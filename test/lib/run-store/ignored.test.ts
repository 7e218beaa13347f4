import { appendFileSync, mkdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { test } from "uvu";
import { Ignored } from "../../../lib/run-store/ignored.ts";
import { tempDir } from "../../helpers/tmp.ts";

const delivery = (n: number) => ({
  reason: `reason ${n}`,
  repo: n % 2 ? "me/odd" : "me/even",
  forge: "github",
  event: "push",
});
const reasons = (ignored: Ignored, repo?: string, limit = 100) =>
  ignored.list({ repo, limit }).map(({ reason }) => Number(reason.split(" ")[1]));

test("the newest are remembered, over restarts too, and no more are in the file", async () => {
  const state = tempDir();
  const warn = (text: string) => assert.unreachable(text);
  let ignored = await Ignored.open(state, { warn, max: 5 });
  for (let n = 0; n < 33; n++) {
    ignored.add(delivery(n));
    if (n % 3 === 0) await ignored.close();
  }
  assert.equal(reasons(ignored), [32, 31, 30, 29, 28]);
  await ignored.close();
  const path = join(state, "ignored.jsonl");
  assert.is(readFileSync(path, "utf8").split("\n").filter(Boolean).length, 5);
  assert.is(statSync(path).mode & 0o777, 0o600);
  // as a crash of a former version left it
  appendFileSync(path, '{"time":"20');
  ignored = await Ignored.open(state, { warn, max: 5 });
  assert.ok(reasons(ignored).length >= 4);
  ignored.add(delivery(33));
  await ignored.close();
  ignored = await Ignored.open(state, { warn, max: 5 });
  assert.equal(reasons(ignored).slice(0, 3), [33, 32, 31]);
  assert.equal(reasons(ignored, "me/even", 1), [32]);
});

test("a file that cannot be written is told once, and what is remembered stays", async () => {
  const state = tempDir();
  const warnings: string[] = [];
  const ignored = await Ignored.open(state, { warn: (text) => warnings.push(text) });
  mkdirSync(join(state, "ignored.jsonl"));
  for (let n = 0; n < 3; n++) {
    ignored.add(delivery(n));
    await ignored.close();
  }
  assert.equal(reasons(ignored), [2, 1, 0]);
  assert.is(warnings.length, 1);
  assert.match(warnings[0] ?? "", /ignored deliveries cannot be written: EISDIR/);
  await Ignored.open(state, { warn: (text) => warnings.push(text) });
  assert.match(warnings[1] ?? "", /ignored\.jsonl cannot be read: EISDIR/);
});

test("what is no line of it is left out", async () => {
  const state = tempDir();
  writeFileSync(join(state, "ignored.jsonl"), 'null\n[]\n{"time":1}\nrubbish\n\u0000\n');
  const ignored = await Ignored.open(state, { warn: (text) => assert.unreachable(text) });
  assert.equal(reasons(ignored), []);
});

test.run();
