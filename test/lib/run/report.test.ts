// What `build --json` and `release --json` print of a run, and what another script reads of it.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { failedStage, runJson } from "../../../lib/run/report.ts";

const stage = (name: string, result: "ok" | "skipped" | "failed" | "timeout", note = "") => ({
  ...{ name, result, note, seconds: 1 },
});
const json = (...stages: ReturnType<typeof stage>[]) =>
  JSON.stringify(runJson({ run: "r", result: "failed", code: 1, seconds: 2, stages, note: undefined }));

test("who started a build knows the stage that failed and why, also when its time was up", () => {
  const failed = failedStage(
    json(stage("pull", "ok"), stage("litpro", "skipped"), stage("test", "failed", "exit code 1")),
  );
  assert.equal([failed?.stage, failed?.note], ["test", "exit code 1"]);
  assert.is(failedStage(json(stage("test", "timeout", "took longer")))?.note, "took longer");
});

test("where no stage failed, or the build ended without an answer, there is none", () => {
  assert.is(failedStage(json(stage("pull", "ok"))), undefined);
  assert.is(failedStage(""), undefined);
});

test.run();
