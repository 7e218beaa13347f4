import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import * as assert from "uvu/assert";
import { test } from "uvu";
import { Records, type RunRecord } from "../../../../lib/hook/runs/records.ts";
import { tempDir } from "../../../helpers/tmp.ts";

const day = 86_400_000;
const now = Date.parse("2026-11-20T12:00:00Z");

function run(id: string, repo: string, daysAgo: number, state: RunRecord["state"]): RunRecord {
  const accepted = new Date(now - daysAgo * day).toISOString();
  const { forge, event } = { forge: "github", event: "push" };
  return {
    id,
    repo,
    kind: "push",
    ref: "refs/heads/main",
    sha: undefined,
    forge,
    event,
    accepted,
    state,
    attempt: 1,
  };
}

test("ended runs go by count and by age, each repo's by its own count; what waits or runs stays", async () => {
  const records = await Records.open(tempDir(), { warn: () => {} });
  await records.save(run("20261001T000000Z-000001", "me/a", 50, "running"));
  await records.save(run("20261001T000000Z-000002", "me/a", 40, "failed"));
  await records.save(run("20261001T000000Z-000003", "me/a", 3, "succeeded"));
  await records.save(run("20261001T000000Z-000004", "me/a", 2, "failed"));
  await records.save(run("20261001T000000Z-000005", "me/b", 1, "succeeded"));
  const ends = (keep: number, maxAge: number, repo?: string) =>
    records
      .old(repo, { keep, maxAge, now })
      .map((id) => id.slice(-1))
      .sort()
      .join("");
  assert.is(ends(50, 30 * day), "2");
  assert.is(ends(1, 365 * day), "23");
  assert.is(ends(1, 365 * day, "me/b"), "");
  assert.is(ends(50, 0), "2345");
});

test("a record that is none is said and left aside", async () => {
  const state = tempDir();
  const id = "20261001T000000Z-000001";
  const path = join(state, "runs", id, "run.json");
  mkdirSync(join(state, "runs", id), { recursive: true });
  for (const text of ["null", "{", `{"id":"${id}","repo":"me/a","state":"running"}`]) {
    writeFileSync(path, text);
    const said: string[] = [];
    const records = await Records.open(state, { warn: (line) => said.push(line) });
    assert.equal([...records.all()], []);
    assert.is(said.length, 1, text);
    assert.match(said[0] ?? "", /run\.json: (?:not a record of this run|.*JSON.*); left aside$/);
  }
});

test.run();
