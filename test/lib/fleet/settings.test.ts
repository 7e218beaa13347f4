import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { parseList } from "../../../lib/fleet/master/list.ts";
import { isAllowed, readSettings, settingsFor } from "../../../lib/fleet/settings.ts";
import { root } from "../../helpers/runtime.ts";
import { tempDir } from "../../helpers/tmp.ts";

test("templates/slave.yml is read, and one repo's part wins over what stands for all", async () => {
  const settings = await readSettings(join(root, "templates/slave.yml"));
  const site = settingsFor("site", settings, {});
  assert.is(site.branch, "stable");
  assert.is(site.base, undefined, "nobody's address is a default");
  const other = settingsFor("app-other", settings, { keep: 5 });
  assert.is(other.base, "https://github.com/me");
  assert.is(other.tokenFile, "/etc/boatyard/app-other.token");
  assert.is(other.keep, 5);
  assert.is(settingsFor("app-private", settings, { base: "file:///srv" }).base, "file:///srv");
});

test("a slave's settings lie in slave.yml and in the files of slave.d, each in one place", async () => {
  const dir = tempDir();
  await mkdir(join(dir, "slave.d"));
  await writeFile(join(dir, "slave.yml"), "base: https://git.example.com/me\n");
  await writeFile(join(dir, "slave.d/bus.yml"), "bus: { url: tls://bus.example.com:4222, seed_file: bus.seed }\n");
  const { values } = await readSettings(join(dir, "slave.yml"));
  assert.equal([values.base, values.bus?.url], ["https://git.example.com/me", ["tls://bus.example.com:4222"]]);
  await writeFile(join(dir, "slave.d/other.yml"), "base: https://other.example.com/\n");
  const said = await readSettings(join(dir, "slave.yml")).catch((error: unknown) => (error as Error).message);
  assert.is(said, `${dir}/slave.d/other.yml:1:1: base stands at ${dir}/slave.yml:1:1, too; keep one`);
});

test("templates/slavelist.txt is read without a complaint", async () => {
  const text = await readFile(join(root, "templates/slavelist.txt"), "utf8");
  const { targets, duplicates } = parseList(text, "slavelist.txt");
  assert.equal(duplicates, []);
  assert.is(targets.length, 29);
  assert.is(targets.at(-1)?.url.href, "https://slave.us.example.com/boatyard/get/");
});

test("patterns of allowed repos are whole names", () => {
  assert.ok(isAllowed("anything", []));
  assert.ok(isAllowed("app-x", ["site", "app-*"]));
  assert.not.ok(isAllowed("my-app-x", ["app-*"]));
  assert.not.ok(isAllowed("appAx", ["app.x"]));
  for (const pattern of ["a-b-c", "*", "a*", "*c", "a*c", "a*b*c", "**-**"])
    assert.ok(isAllowed("a-b-c", [pattern]), pattern);
  for (const pattern of ["", "a", "a*d", "a-b*b-c", "*a-b", "a*c*c"])
    assert.not.ok(isAllowed("a-b-c", [pattern]), pattern);
});

test("a pattern of a slave that means harm costs its master no time", () => {
  const begin = performance.now();
  assert.not.ok(isAllowed("a".repeat(100), [`${"*a".repeat(50)}*b*c`]));
  assert.ok(performance.now() - begin < 1000);
});

test.run();
