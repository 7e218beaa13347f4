// npm run release: what it leaves in the web folder.
import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { version } from "../../lib/core/version.ts";
import { runCommand, runScript } from "../helpers/run.ts";
import { root } from "../helpers/runtime.ts";
import { tempDir } from "../helpers/tmp.ts";

const place = tempDir("release-");
const web = join(place, "web");
let fingerprint = "";

test("npm run release -- --dry-run makes a signed web folder with packages and single files", async () => {
  const key = join(place, "key.asc");
  const made = await runScript("release", ["keygen", "--out", key, "--json"], { expect: 0 });
  ({ fingerprint } = JSON.parse(made.stdout) as { fingerprint: string });
  const argv = ["tools/ship/release.ts", "--dry-run", "--key", key, "--out", web];
  const env = { npm_config_cache: join(place, "cache"), TMPDIR: place };
  const { stdout } = await runCommand(["node", "--import", "tsx", ...argv], {
    ...{ cwd: root, env, expect: 0, timeout: 240_000 },
  });
  assert.match(stdout, "nothing was published");
  const names = await readdir(web);
  for (const name of [
    "VERSION",
    "VERSION.sig",
    `boatyard-${version}.tar.gz`,
    `boatyard-${version}.tgz`,
    "build.mjs",
    "setup.mjs",
  ])
    assert.ok(names.includes(name), `${name} in ${names.join(" ")}`);
  // every file but the release's own is in the list, by its sum
  const sums = await readFile(join(web, `SHA256SUMS-${version}`), "utf8");
  assert.ok(sums.split("\n").length > 13, sums);
  for (const line of sums.trim().split("\n")) {
    const [sum, name = ""] = line.split("  ");
    const bytes = await readFile(join(web, name));
    assert.is(createHash("sha256").update(bytes).digest("hex"), sum, name);
  }
  assert.ok(names.includes(`SHA256SUMS-${version}.sig`));
  const verified = await runScript("release", ["verify", web, "--key", fingerprint], { expect: 0 });
  assert.match(verified.stdout, `boatyard-${version}.tar.gz: good`);
});

test.run();
