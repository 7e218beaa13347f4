import { test } from "uvu";
import * as assert from "uvu/assert";
import { readReport } from "../../../lib/builder/litpro.ts";

const table: [title: string, output: string, failures: string[], done: boolean, counts: string][] = [
  [
    "a clean run",
    "# FOLDER LOGS\n## SAVED\n./build/a.js\n./build/b.js\n## UNCHANGED\n./build/c.js\n## DONE\n./build",
    [],
    true,
    "2 1",
  ],
  ["nothing to save", "\n## DONE\n./build", [], true, "0 0"],
  [
    "an error next to DONE",
    "error:file not read:x.md INFO: no such file\n## DONE\n./build",
    ["error:file not read:x.md INFO: no such file"],
    true,
    "0 0",
  ],
  [
    "a section that is still awaited",
    "## !! STILL WAITING\n./build\n---\nNOT SAVED: x NEED: y\nNEED VAR: y FROM: project.md\n",
    ["NOT SAVED: x NEED: y", "NEED VAR: y FROM: project.md"],
    false,
    "0 0",
  ],
  ["waiting without words", "## !! STILL WAITING\n./build\n---\n", ["STILL WAITING"], false, "0 0"],
  [
    "two builds, one of which waits",
    "## DONE\n./a\n## !! STILL WAITING\n./b\n---\nCOMMAND REQUESTED: z BUT NOT DEFINED.",
    ["COMMAND REQUESTED: z BUT NOT DEFINED."],
    true,
    "0 0",
  ],
  ["before 2.0, a clean run", "DONE: ./build\n## SAVED\n./a.js\n## UNCHANGED\n./b.js\n./c.js", [], true, "1 2"],
  [
    "before 2.0, a section that is still awaited",
    "STILL WAITING: ./build\n---\nNOT SAVED: y.txt AS REQUESTED BY: bad.md NEED: nope\nNEED VAR: x FROM: bad.md\n\n",
    ["NOT SAVED: y.txt AS REQUESTED BY: bad.md NEED: nope", "NEED VAR: x FROM: bad.md"],
    false,
    "0 0",
  ],
  [
    "before 2.0, an error next to DONE",
    "error:file not read:none.md INFO: none.md\nDONE: ./build",
    ["error:file not read:none.md INFO: none.md"],
    true,
    "0 0",
  ],
  ["a crash", "node:events:502\n  throw er;\n", [], false, "0 0"],
  ["nothing at all", "", [], false, "0 0"],
];
for (const [title, output, failures, done, counts] of table) {
  test(`litpro's report: ${title}`, () => {
    const report = readReport(output.split("\n"));
    assert.equal(report.failures, failures);
    assert.is(report.done, done);
    assert.is(`${report.saved} ${report.unchanged}`, counts);
  });
}

test.run();
