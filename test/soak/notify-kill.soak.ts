// A message survives a kill before each step of telling it: it arrives, and a repeat can be told from another message.
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { closeReceivers, startReceiver } from "../helpers/receiver.ts";
import { runCommand } from "../helpers/run.ts";
import { current } from "../helpers/runtime.ts";
import { testUnless } from "../helpers/skip.ts";
import { killAtEachStep, needsCompiler } from "../helpers/steps.ts";
import { tempDir } from "../helpers/tmp.ts";

test.after(closeReceivers);

const program = fileURLToPath(new URL("../helpers/tell-notice.ts", import.meta.url));

testUnless(test, needsCompiler)(
  "a kill before any step of telling loses no message, and doubles none but what was on its way",
  async () => {
    const server = await startReceiver();
    let before = 0;
    let argv: string[] = [];
    const steps = await killAtEachStep(
      async () => {
        before = server.received.length;
        const folder = tempDir();
        argv = [...current.argv(program), folder, server.url];
        return { argv, folder };
      },
      async ({ folder }) => {
        // the caller tells it again, as its own record says that it is still to be told
        await runCommand(argv, { expect: 0 });
        const got = server.received.slice(before);
        assert.ok(got.length >= 1 && got.length <= 2, `${got.length} messages`);
        assert.is(new Set(got.map(({ headers }) => headers["idempotency-key"])).size, 1);
        assert.equal(await readdir(join(folder, "outbox")), []);
        const subjects = JSON.parse(await readFile(join(folder, "subjects.json"), "utf8"));
        assert.is(subjects["me/site main"].failures, 1);
      },
    );
    assert.ok(
      steps.some((step) => step.startsWith("rename")),
      steps.join("\n"),
    );
  },
);

test.run();
