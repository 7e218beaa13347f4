// The README's first command does what it says, by Node and by Deno.
import { readdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { runCommand } from "../helpers/run.ts";
import { current, root } from "../helpers/runtime.ts";
import { testUnless } from "../helpers/skip.ts";

const bundles: string[] = await readdir(join(root, "dist")).catch(() => []);
const missing =
  current.kind === "node" && !bundles.includes("hook-server.mjs") && "there are no bundles: npm run bundle";

testUnless(test, missing)("the demo goes from two pushes to slaves and an app, and leaves nothing", async () => {
  const argv = current.argv(join(root, "tools/demo.ts"));
  const { stdout, stderr } = await runCommand(argv, { timeout: 110_000, expect: 0 });
  assert.match(stdout, "wrongly signed: 401");
  assert.match(stdout, "the slaves' copy is the commit");
  assert.match(stdout, "says: 2 ships in harbour: Argo, Beagle\n");
  assert.match(stdout, "downloads asked the server 0 times");
  assert.match(stdout, "says: 3 ships in harbour: Argo, Beagle, Calypso\n");
  assert.match(stdout, /launchfit +the running app became 1\.1 +[\d.]+ s\n/);
  assert.match(stdout, /done in [\d.]+ s/);
  assert.not.match(stdout, "another one");
  assert.not.match(stdout, "\u001b[");
  assert.is(stderr, "");
  assert.equal(
    (await readdir(tmpdir())).filter((name) => name.startsWith("boatyard-demo-")),
    [],
  );
});

test("without git the demo says what to install", async () => {
  const argv = current.argv(join(root, "tools/demo.ts"));
  const env = { PATH: "/nowhere" };
  const { stdout, stderr } = await runCommand(argv, { env, expect: 1 });
  assert.match(`${stdout}${stderr}`, "the demo needs git: apt-get install git");
});

test.run();
