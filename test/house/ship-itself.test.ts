// docs/self-updating.md: the toolkit is released, installed and upgraded as any other app.
import { mkdir, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { runCommand, runScript } from "../helpers/run.ts";
import { current, root } from "../helpers/runtime.ts";
import { testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";

const bundles: string[] = await readdir(join(root, "dist")).catch(() => []);
const missing = !bundles.includes("setup.mjs") && "no bundles: npm run bundle";

testUnless(test, missing)("the toolkit is packed, signed, installed by launchfit, and set up from there", async () => {
  const dir = tempDir("ship-");
  const key = join(dir, "release.asc");
  const made = await runScript("release", ["keygen", "--out", key, "--json"], { expect: 0 });
  const { fingerprint } = JSON.parse(made.stdout) as { fingerprint: string };
  const web = join(dir, "app-updates");
  const pack = ["pack", "--app", "boatyard", "--from", join(root, "dist"), "--out", web, "--key", key];
  await runScript("release", [...pack, "--version", "0.1.0"], { expect: 0 });
  const place = join(dir, "boatyard");
  await mkdir(place);
  const install = [pathToFileURL(web).href, "--dir", place, "--key", fingerprint];
  await runScript("launchfit", install, { expect: 0 });
  const scripts = join(place, "current");
  for (const name of bundles)
    assert.equal(await readFile(join(scripts, name)), await readFile(join(root, "dist", name)));

  // what stands there works, and prepares a server by itself
  const server = join(dir, "root");
  await mkdir(server);
  const argv = current.argv(join(scripts, "setup.mjs"));
  await runCommand([...argv, "server", "--yes", "--root", server], { expect: 0 });
  const { stdout } = await runCommand([...current.argv(join(scripts, "build.mjs")), "--version"], { expect: 0 });
  assert.match(stdout, /^build \d/);

  // the upgrade
  await runScript("release", [...pack, "--version", "0.1.1"], { expect: 0 });
  await runScript("launchfit", install.slice(0, 3), { expect: 0 });
  assert.match((await runScript("launchfit", ["list", "--dir", place], { expect: 0 })).stdout, "0.1.1");
});

test.run();
