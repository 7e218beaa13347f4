// The helper that reads system calls notices what it is there to notice.
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { assertDurable, type Call, readCalls, traceDisk } from "../helpers/disk-trace.ts";
import { testUnless } from "../helpers/skip.ts";
import { needsStrace } from "../helpers/strace.ts";
import { tempDir } from "../helpers/tmp.ts";

test("calls that other processes interrupt are read with where they began and ended", () => {
  const calls = readCalls(
    [
      '10 openat(AT_FDCWD</w>, "a.tmp", O_WRONLY|O_CREAT, 0666) = 17</w/a.tmp>',
      '11 write(17</w/a.tmp>, "x", 1 <unfinished ...>',
      "12 fsync(17</w/a.tmp>) = -1 EIO (Input/output error)",
      "11 <... write resumed>) = 1",
      '12 renameat2(AT_FDCWD</w>, "a.tmp", AT_FDCWD</w>, "a", 0) = 0',
      '12 symlink("../x", "/w/link") = 0',
    ].join("\n"),
  );
  assert.equal(
    calls.map(({ name, paths, start, end }) => [name, paths, start, end]),
    [
      ["openat", ["/w/a.tmp"], 0, 0],
      ["write", ["/w/a.tmp"], 1, 3],
      ["renameat2", ["/w/a.tmp", "/w/a"], 4, 4],
      ["symlink", ["../x", "/w/link"], 5, 5],
    ],
  );
});

/** What a small program does, as calls. */
async function callsOf(program: string): Promise<{ folder: string; calls: Call[] }> {
  const folder = tempDir();
  const source = `const fs = require("node:fs"); const folder = ${JSON.stringify(folder)};
const file = fs.openSync(folder + "/new", "w"); fs.writeSync(file, "text"); ${program}`;
  const node = process.versions["deno"] ? "node" : process.execPath;
  const { calls } = await traceDisk([node, "--eval", source], { expect: 0 });
  return { folder, calls };
}

const sync = "fs.fsyncSync(file);";
const rename = 'fs.renameSync(folder + "/new", folder + "/final");';
const folder = 'fs.fsyncSync(fs.openSync(folder, "r"));';
const tell = 'fs.writeSync(1, "done");';
const programs: [what: string, program: string, error: RegExp | undefined][] = [
  ["file, name, folder, word", sync + rename + folder + tell, undefined],
  ["a name before the file is synced", rename + sync + folder + tell, /new was not synced before/],
  ["no sync of the file", rename + folder + tell, /new was not synced before it became/],
  ["a write after the sync", `${sync}fs.writeSync(file, "more");${rename}${folder}${tell}`, /not synced/],
  ["no sync of the folder", sync + rename + tell, /was not synced after rename/],
  ["a word before the folder's sync", sync + rename + tell + folder, /was told before/],
  ["no rename at all", sync + folder + tell, /nothing was renamed or linked/],
];
for (const [what, program, error] of programs) {
  testUnless(test, needsStrace)(`${what}: ${error ? "is noticed" : "passes"}`, async () => {
    const { folder: dir, calls } = await callsOf(program);
    let found = "";
    try {
      assertDurable(calls, join(dir, "final"), /done/);
    } catch (problem) {
      found = (problem as Error).message;
    }
    if (error) assert.match(found, error);
    else assert.is(found, "");
  });
}

test.run();
