// npm run release: what it leaves in the web folder, and that a server takes it.
import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { version } from "../../lib/core/version.ts";
import { noMachine, startMachine } from "../helpers/machine.ts";
import { runCommand, runScript } from "../helpers/run.ts";
import { root } from "../helpers/runtime.ts";
import { testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";
import { noWorld } from "../helpers/world.ts";

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

testUnless(test, noMachine ?? noWorld)(
  "a server with older scripts takes the release, by its key, and has then the files of SHA256SUMS",
  async () => {
    const { sh, stop } = await startMachine();
    try {
      await sh(`mkdir web
        sed -i '2s|.*|// Boatyard 0.1.0 (commit eeeeeeeeeeee of 2001-01-01T00:00:00Z)|' clone/dist/*.mjs
        node clone/dist/setup.mjs server --yes`);
      const carried = (await readdir(web, { recursive: true, withFileTypes: true })).filter(
        (entry) => entry.isFile() && !/\.(?:mjs|deb|tgz)$/.test(entry.name),
      );
      for (const { parentPath, name } of carried) {
        const file = join(parentPath, name).slice(web.length + 1);
        const bytes = await readFile(join(web, file));
        const bring = `mkdir -p "$(dirname web/${file})"; base64 -d >web/${file}`;
        await sh(bring, 0, bytes.toString("base64"));
      }
      const upgrade = "setup upgrade --yes --from file:///root/web";
      assert.match((await sh(upgrade, 4)).stderr, "no key is pinned");
      const { stdout } = await sh(`${upgrade} --key ${fingerprint}`);
      assert.ok(stdout.includes(`Boatyard ${version} (commit `), stdout);
      assert.match(stdout, "over 0.1.0 (commit eeeeeeeeeeee ");
      const sums = `sha256sum --check --ignore-missing --quiet ~/web/SHA256SUMS-${version}`;
      await sh(`cd /usr/local/lib/boatyard; ${sums}; [ "$(ls *.mjs | wc -l)" -ge 12 ]`);
      assert.match((await sh("setup --version")).stdout, `setup ${version} (commit `);
      assert.match((await sh(upgrade)).stderr, "nothing was older");
    } finally {
      await stop();
    }
  },
);

test.run();
