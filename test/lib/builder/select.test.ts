import { test } from "uvu";
import * as assert from "uvu/assert";
import { type BuildConfig, defaultConfig } from "../../../lib/builder/config.ts";
import { selectStages, type StageFilter } from "../../../lib/builder/config.ts";
import { UsageError } from "../../../lib/core/errors.ts";

const own: BuildConfig = {
  ...defaultConfig,
  stages: ["pull", "install", "test", "uploads"],
  commands: { test: "npm test" },
};

function plan(config: BuildConfig, wanted: Partial<StageFilter> = {}): string {
  return selectStages(config, { only: [], skip: [], ...wanted })
    .map((stage) => (stage.command !== undefined ? `${stage.name}: ${stage.command}` : stage.name))
    .join(", ");
}

const table: [title: string, config: BuildConfig, wanted: Partial<StageFilter>, stages: string][] = [
  ["all stages in their order", defaultConfig, {}, "pull, downloads, install, litpro, build, uploads"],
  ["the repo's own stages", own, {}, "pull, install, test: npm test, uploads"],
  ["--only, in the stages' order", own, { only: ["uploads", "test"] }, "test: npm test, uploads"],
  ["--skip", own, { skip: ["pull", "test"] }, "install, uploads"],
  [
    "--skip of a built-in stage that the repo lacks",
    own,
    { skip: ["pull", "litpro"] },
    "install, test: npm test, uploads",
  ],
  ["--from", own, { from: "test" }, "test: npm test, uploads"],
  ["--from of a commit that is asked for", own, { from: "test", sha: "1".repeat(40) }, "pull, test: npm test, uploads"],
  ["--from with --skip", own, { from: "install", skip: ["uploads"] }, "install, test: npm test"],
  [
    "a command in a built-in stage's place",
    { ...defaultConfig, stages: ["install"], commands: { install: "make" } },
    {},
    "install: make",
  ],
];
for (const [title, config, wanted, stages] of table) {
  test(`the plan: ${title}`, () => assert.is(plan(config, wanted), stages));
}

const wrong: [wanted: Partial<StageFilter>, message: RegExp][] = [
  [{ only: ["instal"] }, /--only: there is no stage "instal" \(did you mean "install"\?\); the stages are pull/],
  [{ skip: ["tests"] }, /--skip: there is no stage "tests" \(did you mean "test"/],
  [{ from: "__proto__" }, /--from: there is no stage "__proto__"/],
  [{ only: ["test"], skip: ["test"] }, /no stage is left to run/],
];
for (const [wanted, message] of wrong) {
  test(`a plan is refused: ${JSON.stringify(wanted)}`, () => {
    assert.throws(
      () => plan(own, wanted),
      (error: unknown) => error instanceof UsageError && message.test(error.message),
    );
  });
}

test.run();
