import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { openLogFiles, readLog } from "../../../lib/logs/log-files.ts";
import { findRuns } from "../../../lib/logs/runs.ts";
import { runAt, runLines, sampleRun } from "../../helpers/log-samples.ts";
import { tempDir } from "../../helpers/tmp.ts";

const run = runAt("11:00:00");
const early = runAt("09:00:00", "aaaaaa");
const warn = (line: string) => assert.unreachable(line);

test("a run that goes over several parts is found whole, and older parts are not read for it", async () => {
  const file = join(tempDir(), "logs.txt");
  const lines = sampleRun(run).split("\n");
  await writeFile(`${file}.20261120T080000Z`, sampleRun(runAt("07:00:00", "bbbbbb")));
  await writeFile(`${file}.20261120T110002Z`, `${sampleRun(early)}${lines.slice(0, 2).join("\n")}\n`);
  await writeFile(`${file}.20261120T110004Z`, `${lines.slice(2, 4).join("\n")}\n`);
  await writeFile(file, lines.slice(4).join("\n"));
  const files = openLogFiles(file, warn);
  const runs = await findRuns(files, (found) => found.some(({ start }) => start));
  assert.equal(
    runs.map(({ id }) => id),
    [run, early],
  );
  const [last] = runs;
  assert.is(last?.status, "ok");
  assert.equal(
    last?.stages.map(({ name }) => name),
    ["install", "litpro"],
  );
  let text = "";
  for await (const each of readLog(files, { from: last?.place, to: last?.endSource })) text += each;
  assert.is(text, sampleRun(run));
});

test("of the runs without an end none is running when nobody has the lock", async () => {
  const file = join(tempDir(), "logs.txt");
  await writeFile(file, runLines(early, [{ kind: "start", event: "push" }]) + runLines(run, [["a", "no mark"]]));
  const runs = await findRuns(openLogFiles(file, warn));
  assert.equal(
    runs.map(({ id, status }) => [id, status]),
    [[early, "cut off"]],
  );
});

test.run();
