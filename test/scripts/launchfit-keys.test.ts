// Keys that change: what a client learns of them is kept, real keys made by gpg.
import { readFileSync } from "node:fs";
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { type GpgHome, gpgHome, needsGpg } from "../helpers/gpg.ts";
import { runScript } from "../helpers/run.ts";
import { testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";
import { goodArchive, installedVersion } from "../helpers/web-folder.ts";

const gpgTest = testUnless(test, needsGpg);
let home: GpgHome;
test.before(async () => {
  if (!needsGpg) home = await gpgHome();
});
test.after(async () => {
  if (!needsGpg) await home.close();
});

/** A folder as the founding document draws it, signed by gpg. */
async function publishByHand(web: string, key: string, version: string): Promise<void> {
  const file = join(web, `my-app-${version}.tar.gz`);
  await writeFile(file, goodArchive("my-app", version));
  await home.sign(file, key);
  await writeFile(join(web, "VERSION"), `CURRENT ${version} my-app-${version}.tar.gz\n`);
}

gpgTest("a revocation that was seen once is not forgotten", async () => {
  const web = tempDir("web-");
  const deploy = tempDir("deploy-");
  const key = await home.key("Revoked Later");
  const before = await home.export(key);
  await publishByHand(web, key, "1");
  await writeFile(join(web, "KEY.asc"), before);
  const argv = [`file://${web}`, "--dir", deploy, "--key", key];
  await runScript("launchfit", argv, { expect: 0 });
  await publishByHand(web, key, "2");
  const revocation = join(home.path, "openpgp-revocs.d", `${key}.rev`);
  await writeFile(
    revocation,
    readFileSync(revocation, "utf8").replace(":-----BEGIN", "-----BEGIN"),
  );
  await home.gpg(["--import", revocation]);
  await writeFile(join(web, "KEY.asc"), await home.export(key));
  assert.match((await runScript("launchfit", argv, { expect: 4 })).stderr, /revoked/i);
  // whoever has the stolen key shows the key as it was
  await writeFile(join(web, "KEY.asc"), before);
  assert.match((await runScript("launchfit", argv, { expect: 4 })).stderr, /revoked/i);
  await rm(join(web, "KEY.asc"));
  assert.match((await runScript("launchfit", argv, { expect: 4 })).stderr, /revoked/i);
  assert.is(await installedVersion(deploy), "1");
});

test.run();
