// What several builders decide: what is wanted of a repo, and whose claim it is; and what they keep of a log.
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { mayRun } from "../../../lib/hook/config/builders.ts";
import { keepLog, LogCopies } from "../../../lib/hook/builders/logs.ts";
import {
  addWanted,
  judgeClaim,
  knownRun,
  nextFence,
  nextOrder,
  parseWanted,
  removeWanted,
  type WantedRun,
  withoutSuperseded,
} from "../../../lib/hook/builders/wanted.ts";
import { recordOf } from "../../../lib/hook/runs/records.ts";
import { createMask } from "../../../lib/core/mask.ts";
import { tempDir } from "../../helpers/tmp.ts";

let count = 0;
function run(ref: string, more: Partial<WantedRun> = {}): WantedRun {
  count += 1;
  return {
    ...{ id: `20261122T101500Z-${String(count).padStart(6, "0")}`, repo: "me/site", ref },
    ...{ kind: "push", forge: "github", event: "push", sha: String(count), payload: "p" },
    ...{ order: count, accepted: "2026-11-22T10:15:00.000Z", delivery: `d${count}` },
    ...more,
  } as WantedRun;
}

test("of the pushes to one branch the newest is wanted; tags and releases all are", () => {
  const main = [run("refs/heads/main"), run("refs/heads/main")] as const;
  const others = [run("refs/heads/dev"), run("refs/tags/v1"), run("refs/tags/v1", { kind: "release" })];
  const wanted = [main[0], ...others, main[1]].reduce(addWanted, parseWanted("me/site", undefined));
  assert.equal(
    wanted.runs.map(({ id }) => id),
    [...others, main[1]].map(({ id }) => id),
  );
  assert.equal(wanted.superseded, [{ run: main[0], by: main[1].id }]);
  const poll = { ...run("refs/heads/main"), forge: "poll", delivery: undefined };
  const known = (sha: string | undefined) => knownRun(wanted, { ...poll, sha }, () => undefined)?.id;
  assert.is(known(main[1].sha), main[1].id);
  assert.is(known(main[0].sha), undefined);
  assert.equal(withoutSuperseded(wanted, new Set([main[0].id])).superseded, []);
  assert.is(removeWanted(wanted, main[1].id).runs.length, others.length);
  // a builder's clock may be behind
  assert.is(nextOrder(wanted, 0), Math.max(...wanted.runs.map(({ order }) => order)) + 1);
  assert.throws(() => parseWanted("me/site", '{"repo":"me/site","runs":[{}]}'), /damaged/);
});

test("a run that is handed over twice is there once, and one that is older than what waits gives way to that", () => {
  const [older, newer] = [run("refs/heads/main"), run("refs/heads/main")];
  const none = parseWanted("me/site", undefined);
  const once = addWanted(none, newer);
  assert.is(addWanted(once, newer), once);
  const both = addWanted(once, older);
  assert.equal(both.runs, [newer]);
  assert.equal(both.superseded, [{ run: older, by: newer.id }]);
  assert.is(addWanted(both, older), both);
});

test("a delivery that is sent again is known, also where its run was not heard of; one that failed runs again", () => {
  const old = run("refs/heads/main");
  const wanted = [old, run("refs/heads/main")].reduce(addWanted, parseWanted("me/site", undefined));
  const known = (state: string | undefined) =>
    knownRun(wanted, { ...old, event: "again" }, (id) =>
      state !== undefined && id === old.id ? { entry: old, state } : undefined,
    )?.id;
  assert.equal([undefined, "running", "superseded", "succeeded", "failed", "cancelled"].map(known), [
    old.id,
    old.id,
    old.id,
    old.id,
    undefined,
    undefined,
  ]);
});

test("a claim is taken that is free, of a former server here, or was not renewed for a lease", () => {
  const judge = (home: string | undefined, age: number) =>
    judgeClaim(home === undefined ? undefined : { repo: "me/site", home }, {
      ...{ home: "ours", lease: 5000, now: 20_000 },
      seen: { revision: 1, at: 20_000 - age },
    });
  assert.equal(
    [judge(undefined, 0), judge("ours", 0), judge("theirs", 5000), judge("theirs", 5001)],
    ["free", "free", "held", "free"],
  );
});

test("the number of a claim grows with each, also when the bus has lost the one before, and where a clock is behind", () => {
  const now = Date.parse("2026-11-22T10:15:00Z");
  const first = nextFence(undefined, now);
  const next = nextFence({ repo: "me/site", fence: first }, now - 60_000);
  assert.equal([first, next], [now, now + 1]);
  assert.ok(nextFence(undefined, now + 5000) > next);
});

test("of a long log whole lines are kept, without the rest of a secret that the cut went through", async () => {
  const path = join(tempDir(), "log");
  const secret = "correct-horse-battery";
  const kept = 8 * 1024 * 1024;
  // the last 10 characters of the secret are what the kept part would begin with
  const end = `${"x".repeat(kept - 11 - "\nlast line\n".length)}`;
  await writeFile(path, `first\n${secret}\n${end}\nlast line\n`);
  let text = "";
  const objects = {
    put: async (_: string, data: Uint8Array) => void (text = String(gunzipSync(data))),
    ...{ get: async () => undefined, remove: async () => {}, names: async () => [] },
  };
  await keepLog(objects, { id: "run", path, mask: createMask([secret]) });
  assert.is(text.split("\n")[0], "[all before the last 8.0 MB is not kept here]");
  assert.not.match(text, "battery");
  assert.is(text.endsWith("\nlast line\n"), true);
});

test("of a builder whose log has no end, no more is copied than a log may have", async () => {
  const folder = tempDir();
  const text = "x".repeat(128 * 1024);
  let asked = 0;
  const copies = new LogCopies(folder, {
    async ask() {
      asked += 1;
      if (asked > 100) throw new Error("asked for ever");
      return { text, ino: 1, at: asked, isEnd: false };
    },
    kept: async () => undefined,
    max: () => 1024 * 1024,
  });
  const shared = { ...recordOf(run("refs/heads/main")), state: "running", builder: "two" } as const;
  await copies.update(shared);
  await copies.update(shared);
  assert.is(copies.isBehind(shared.id), false);
  assert.is(asked, 10);
  assert.match(await readFile(copies.path(shared.id), "utf8"), /the rest is not copied\]\n$/);
});

test("runs_on names builders or labels", () => {
  const builder = { name: "one", labels: ["big"] };
  const asked = [undefined, ["one"], ["two", "big"], ["two"]];
  assert.equal(
    asked.map((each) => mayRun(builder, each)),
    [true, true, true, false],
  );
});

test.run();
