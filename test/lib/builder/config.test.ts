import { chmod, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { parseBuildConfig, readBuildConfig } from "../../../lib/builder/config.ts";
import { UsageError } from "../../../lib/core/errors.ts";
import { root } from "../../helpers/runtime.ts";
import { tempDir } from "../../helpers/tmp.ts";

const parse = (text: string) => parseBuildConfig(text, "build.yml");

test("without a build.yml the built-in stages run", async () => {
  const config = await readBuildConfig(tempDir());
  assert.is(config.stages.join(), "pull,downloads,install,litpro,build,uploads");
});

test("a build.yml names stages, commands, environment and time limits", async () => {
  const config = await parse(`
stages: [pull, install, test, uploads]
commands: { test: npm test }
env: { NODE_ENV: production, PORT: 8080, VERSION: 1.10 }
timeout: { run: 30m, test: 5m }
`);
  assert.is(config.stages.join(), "pull,install,test,uploads");
  assert.is(config.commands["test"], "npm test");
  assert.is(config.env["PORT"], "8080");
  assert.is(config.env["VERSION"], "1.10");
  assert.is(config.timeout.run, 1_800_000);
  assert.is(config.timeout.stages["test"], 300_000);
  assert.is((await parse("timeout: 90s")).timeout.run, 90_000);
});

test("an empty build.yml is as good as none", async () => {
  assert.is((await parse("")).stages.length, 6);
  assert.is((await parse("# nothing\n")).stages.length, 6);
});

test("a secret comes from a file that others cannot read, or from the environment", async () => {
  const file = join(tempDir(), "token");
  await writeFile(file, "s3cret-token\n", { mode: 0o600 });
  process.env["CONFIG_TEST_TOKEN"] = "from-the-environment";
  const config = await parse(`env: { A: { secret_file: "${file}" }, B: { secret_env: CONFIG_TEST_TOKEN }, C: plain }`);
  assert.is(config.env["A"], "s3cret-token");
  assert.equal(config.secrets, ["s3cret-token", "from-the-environment"]);
  await chmod(file, 0o644);
  await parse(`env:\n  A: { secret_file: "${file}" }`).then(
    () => assert.unreachable(),
    (error: Error) => assert.match(error.message, /^build.yml:2:\d+: .*can be read by everybody/),
  );
});

const wrong: [text: string, message: RegExp][] = [
  ["stage: [pull]", /^build.yml:1:1: unknown key "stage" \(did you mean "stages"\?\)/],
  ["stages: [pull, instal]", /^build.yml:1:16: there is no stage "instal" \(did you mean "install"\?\)/],
  ["stages: [install, pull]", /^build.yml:1:19: pull must be the first stage/],
  ["stages: [pull, pull]", /^build.yml:1:16: stage "pull" stands twice/],
  ["stages: [run]\ncommands: { run: make }", /^build.yml:1:10: no stage may be named "run"/],
  ["stages: ['a b']", /^build.yml:1:10: expected a stage's name/],
  ["stages: pull", /^build.yml:1:9: expected a list/],
  ["commands: { test: npm test }", /^build.yml:1:\d+: command "test" is in no stage; name it in stages/],
  ["stages: [test]\ncommands:\n  test: ''", /^build.yml:3:9: expected a shell command/],
  ["timeout: 15", /^build.yml:1:10: /],
  ["timeout: { tset: 5m }", /^build.yml:1:\d+: there is no stage "tset"/],
  ["env: { 'A-B': x }", /^build.yml:1:8: "A-B" is not a name of an environment variable/],
  ["env: { A: { secret_fil: x } }", /secret_fil/],
  ["stages: [pull", /^build.yml:1:\d+/],
];
for (const [text, message] of wrong) {
  test(`refused with its place: ${JSON.stringify(text)}`, async () => {
    await parse(text).then(
      () => assert.unreachable("it was taken"),
      (error: unknown) => {
        assert.instance(error, UsageError);
        assert.match((error as Error).message, message);
      },
    );
  });
}

test("the example in templates is right", async () => {
  const text = await readFile(join(root, "templates/build.yml"), "utf8");
  const config = await parseBuildConfig(text, "templates/build.yml");
  assert.ok(config.stages.includes("test"));
});

test.run();
