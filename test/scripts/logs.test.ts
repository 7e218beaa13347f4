import { appendFile, readFile, rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { runAt, runLines, sampleRun } from "../helpers/log-samples.ts";
import { runCommand, runScript, scriptArgv } from "../helpers/run.ts";
import { tempDir } from "../helpers/tmp.ts";

const early = runAt("09:00:00", "aaaaaa");
const broken = runAt("10:00:00", "bbbbbb");
const late = runAt("11:00:00", "cccccc");

/** A checkout whose log has three runs: one compressed, one in a part, one in the log itself. */
async function checkout(): Promise<string> {
  const dir = tempDir();
  const log = join(dir, "logs.txt");
  await writeFile(`${log}.20261120T093000Z.gz`, gzipSync(sampleRun(early, { words: "early bird" })));
  await writeFile(`${log}.20261120T103000Z`, sampleRun(broken, { code: 3, ref: "wip" }));
  await writeFile(log, sampleRun(late));
  return dir;
}

const logs = (args: string[], expect = 0) => runScript("logs", args, { expect });
const shown = async (args: string[], expect = 0) => (await logs(args, expect)).stdout;

test("the last run is shown, as it stands in the log", async () => {
  assert.is(await shown([await checkout()]), sampleRun(late));
});

test("a run is found by its id, the beginning or the end of it, in compressed parts too", async () => {
  const dir = await checkout();
  assert.is(await shown([dir, "--run", early]), sampleRun(early, { words: "early bird" }));
  assert.is(await shown([dir, "--run", "bbbbbb"]), sampleRun(broken, { code: 3, ref: "wip" }));
  assert.match((await logs([dir, "--run", "dddddd"], 1)).stderr, /there is no run dddddd/);
  assert.match((await logs([dir, "--run", "2026"], 2)).stderr, /may be .* or /);
});

test("--list shows runs with event, ref, result and duration, the newest first", async () => {
  const dir = await checkout();
  const table = (await shown([dir, "--list"])).trim().split("\n");
  assert.match(table[0] ?? "", /^RUN +EVENT +REF +COMMIT +RESULT +TOOK +WHEN$/);
  assert.match(table[1] ?? "", new RegExp(`^${late} +push +main +1f2e0300 +ok +5.0s +2026-11-20 `));
  assert.match(table[2] ?? "", new RegExp(`^${broken} +push +wip .* failed `));
  assert.is(table.length, 4);
  assert.is((await shown([dir, "--list", "-n", "1"])).trim().split("\n").length, 2);
  assert.match(await shown([dir, "--list", "--failed"]), /^RUN.*\n.*bbbbbb.*\n$/);
  const objects = (await shown([dir, "--list", "--json"]))
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  assert.equal(
    objects.map(({ result, code, seconds }) => [result, code, seconds]),
    [
      ["ok", 0, 5],
      ["failed", 3, 5],
      ["ok", 0, 5],
    ],
  );
  assert.equal(
    objects[0].stages.map(({ name }: { name: string }) => name),
    ["install", "litpro"],
  );
});

test("a run without an end was cut off, and counts as failed", async () => {
  const dir = await checkout();
  const cut = runAt("12:00:00", "dddddd");
  await appendFile(join(dir, "logs.txt"), runLines(cut, [{ kind: "start", event: "manual" }, ["pull", "half a"]]));
  assert.match(await shown([dir, "--list", "-n", "1"]), /dddddd +manual +- +- +cut off +- /);
  assert.match(await shown([dir, "--failed"]), /bbbbbb.*[^]*dddddd/);
});

test("--grep searches the texts of all runs, with lines around and times as limits", async () => {
  const dir = await checkout();
  assert.is((await shown([dir, "--grep", "early bird$"])).split("\n").length, 2);
  assert.match(await shown([dir, "--grep", "EARLY", "-i"]), /early bird\n$/);
  const around = (await shown([dir, "--grep", "^error", "-C", "1"])).trim().split("\n");
  assert.equal(
    around.map((line) => line.split(" | ")[1]?.slice(0, 12)),
    ["stage name=i", "error: NOT S", "stage name=l"],
  );
  assert.is(
    (await shown([dir, "--grep", "22 packages", "--since", "2026-11-20T10:30:00Z"])).trim().split("\n").length,
    1,
  );
  assert.is(
    (await shown([dir, "--grep", "22 packages", "--until", "2026-11-20T10:30:00Z"])).trim().split("\n").length,
    2,
  );
  assert.is(await shown([dir, "--grep", "22 packages", "-n", "1"]), `${sampleRun(late).split("\n")[1]}\n`);
  const none = await logs([dir, "--grep", "no such words"], 1);
  assert.is(none.stdout, "");
  assert.match((await logs([dir, "--grep", "("], 2)).stderr, /--grep: Invalid regular expression/);
});

test("--stage, --failed, --since and -n narrow what is shown", async () => {
  const dir = await checkout();
  assert.is(await shown([dir, "--stage", "litpro"]), `${sampleRun(late).split("\n")[3]}\n`);
  assert.is(await shown([dir, "--failed", "--stage", "litpro"]), `${sampleRun(broken, { code: 3 }).split("\n")[3]}\n`);
  assert.is(await shown([dir, "--since", "2026-11-20T11:00:04Z"]), sampleRun(late).split("\n").slice(4).join("\n"));
  assert.is(await shown([dir, "-n", "2"]), sampleRun(late).split("\n").slice(4).join("\n"));
  assert.is(await shown([dir, "-n", "0"]), "");
  assert.match((await logs([dir, "--since", "yesterday"], 2)).stderr, /--since: "yesterday" is not a time/);
});

test("--json gives one object a line", async () => {
  const lines = (await shown([await checkout(), "--json", "-n", "1"]))
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  assert.equal(lines, [
    {
      time: "2026-11-20T11:00:05.000Z",
      run: late,
      stage: "run",
      text: "end result=ok code=0 seconds=5",
    },
  ]);
});

test("a log that is not there is a failure, a folder that is not there an error of usage", async () => {
  assert.match((await logs([tempDir()], 1)).stderr, /^logs: there is no .*logs\.txt yet/);
  assert.match((await logs([join(tempDir(), "a/b")], 2)).stderr, /neither a folder nor a log/);
});

test("a log of another program, without runs, shows its last lines", async () => {
  const dir = tempDir();
  const file = join(dir, "app.log");
  await writeFile(file, `${Array.from({ length: 300 }, (_, number) => `line ${number}`).join("\n")}\nno newline`);
  const lines = (await shown([file])).trim().split("\n");
  assert.is(lines.length, 200);
  assert.is(lines.at(-1), "no newline");
});

test("what could act on the terminal is taken out; colours stay on a terminal only", async () => {
  const dir = tempDir();
  const file = join(dir, "logs.txt");
  const text = "\u001b[31mred\u001b[0m \u001b]0;title\u0007\u0000\u0007 1%\r\u001b[31mred\u001b[0m\u001b[2J done";
  await writeFile(file, runLines(late, [{ kind: "start", event: "push" }, ["a", text]]));
  await appendFile(
    file,
    Buffer.concat([Buffer.from("2026-11-20T11:00:09.000Z "), Buffer.from(`${late} a | \xff\xfe end`, "latin1")]),
  );
  const plain = await shown([dir]);
  assert.not.match(plain, /[\u0000-\u0009\u000b-\u001f]/);
  assert.match(plain, /a \| red done\n.* a \| \ufffd\ufffd end\n$/);
  const coloured = await runScript("logs", [dir], { env: { FORCE_COLOR: "1" }, expect: 0 });
  assert.ok(coloured.stdout.includes("\u001b[31mred\u001b[0m done"));
  assert.not.match(coloured.stdout, /\[2J|title/);
  assert.match(await readFile(file, "latin1"), /title/, "the log itself keeps it");
});

test("a line of 10 MB is read like any other", async () => {
  const dir = tempDir();
  const long = "x".repeat(10_000_000);
  await writeFile(
    join(dir, "logs.txt"),
    runLines(late, [{ kind: "start", event: "push" }, ["a", "before"], ["a", long], ["b", "after"]]),
  );
  assert.is(
    (await shown([dir, "--stage", "a"])).length,
    long.length + 2 * "2026-11-20T11:00:09.000Z 20261120T110000Z-cccccc a | ".length + "before\n\n".length,
  );
  assert.match(await shown([dir, "-n", "1"]), / b \| after\n$/);
  assert.match(await shown([dir, "--grep", "after"]), / b \| after\n$/);
});

test("a reader that has seen enough ends it quietly", async () => {
  const dir = tempDir();
  await writeFile(
    join(dir, "logs.txt"),
    runLines(late, [
      { kind: "start", event: "push" },
      ...Array.from({ length: 50_000 }, () => ["a", "x".repeat(80)] as [string, string]),
    ]),
  );
  const result = await runCommand(["sh", "-c", '"$@" | head -n 2', "sh", ...scriptArgv("logs"), dir], { expect: 0 });
  assert.is(result.stdout.split("\n").length, 3);
  assert.is(result.stderr, "");
});

test("a damaged part is named, and the rest is shown", async () => {
  const dir = await checkout();
  const part = join(dir, "logs.txt.20261120T093000Z.gz");
  await writeFile(part, (await readFile(part)).subarray(0, 60));
  const result = await logs([dir, "--grep", "22 packages"]);
  assert.match(result.stderr, /093000Z\.gz is damaged/);
  assert.is(result.stdout.trim().split("\n").length, 2);
});

test("a part that is there plain and compressed counts once", async () => {
  const dir = await checkout();
  await writeFile(join(dir, "logs.txt.20261120T103000Z.gz"), gzipSync("half"));
  assert.is((await shown([dir, "--grep", "22 packages"])).trim().split("\n").length, 3);
});

test("between a rotation and the next line, the last run is found in the part", async () => {
  const dir = await checkout();
  await rename(join(dir, "logs.txt"), join(dir, "logs.txt.20261120T113000Z"));
  assert.is(await shown([dir]), sampleRun(late));
});

test("stats tell runs, failures, median and worst of each stage, and draw the last ones", async () => {
  const dir = await checkout();
  const table = (await shown(["stats", dir])).trim().split("\n");
  assert.match(table[0] ?? "", /^STAGE +RUNS +FAILED +SKIPPED +MEDIAN +WORST +LAST RUNS$/);
  assert.match(table[1] ?? "", /^install +3 +0 +0 +1.5s +1.5s +███$/);
  assert.match(table[2] ?? "", /^litpro +3 +1 +0 +2.0s +2.0s +█x█$/);
  assert.match(table[3] ?? "", /^run +3 +1 +0 +5.0s +5.0s +█x█$/);
  const { runs, stages } = JSON.parse(await shown(["stats", dir, "--json", "-n", "2"]));
  assert.is(runs, 2);
  assert.equal(
    stages.map(({ stage, runs, failures }: Record<string, unknown>) => [stage, runs, failures]),
    [
      ["install", 2, 0],
      ["litpro", 2, 1],
      ["run", 2, 1],
    ],
  );
});

test.run();
