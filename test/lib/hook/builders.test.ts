// What several builders keep of a log, and which repos they build.
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { mayRun } from "../../../lib/hook/config/builders.ts";
import { keepLog, LogCopies } from "../../../lib/hook/builders/logs.ts";
import type { Run } from "../../../lib/run-store/run-store.ts";
import { createMask } from "../../../lib/core/mask.ts";
import { tempDir } from "../../helpers/tmp.ts";

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
  const shared: Run = {
    ...{ id: "20261122T101500Z-000001", repo: "me/site", forge: "github", event: "push", kind: "push" },
    ...{ ref: "refs/heads/main", sha: "1", accepted: "2026-11-22T10:15:00.000Z", attempt: 1 },
    ...{ state: "running", builder: "two" },
  };
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
