import { chmodSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { readSecretFile, readSecretVariable } from "../../../lib/config/secrets.ts";
import { tempDir } from "../../helpers/tmp.ts";

test("a secret file that everybody can read, is empty or missing is refused", async () => {
  const file = join(tempDir(), "secret");
  const refusal = () =>
    readSecretFile(file, "hooks.yml:3:4").then(
      () => "taken",
      (error: Error) => error.message,
    );
  assert.match(await refusal(), /^hooks.yml:3:4: secret file .* does not exist; make it/);
  writeFileSync(file, "");
  chmodSync(file, 0o600);
  assert.match(await refusal(), /is empty/);
  writeFileSync(file, "sesame\n");
  chmodSync(file, 0o644);
  assert.match(await refusal(), /can be read by everybody; run: chmod 600/);
  chmodSync(file, 0o600);
  assert.is(await readSecretFile(file), "sesame");
  // no advice to close what everybody needs
  for (const other of ["/dev/null", "/etc"])
    await readSecretFile(other).then(assert.unreachable, (error: Error) =>
      assert.match(error.message, `${other} is not a file; name the file`),
    );
});

test("a secret from the environment must be there", () => {
  process.env["BOATYARD_TEST_TOKEN"] = "sesame";
  assert.is(readSecretVariable("BOATYARD_TEST_TOKEN"), "sesame");
  delete process.env["BOATYARD_TEST_TOKEN"];
  assert.throws(() => readSecretVariable("BOATYARD_TEST_TOKEN"), /is not set/);
});

test.run();
