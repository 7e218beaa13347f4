import { test } from "uvu";
import * as assert from "uvu/assert";
import { circle, importsIn, refusal } from "../../tools/check-imports.ts";

test("every form of import is found with its line", () => {
  const text = `import a from "a";
import {
  b,
} from "./b.ts"; // import x from "x"
/* import y from "y" */
export { c } from "../c.ts";
const d = await import("d");
import "e";
type F = import("./f.ts").F;
const url = "https://x/y"; import g from "g";
import type { H } from "h";
`;
  assert.equal(importsIn(text), [
    { line: 1, from: "a", loads: true },
    { line: 4, from: "./b.ts", loads: true },
    { line: 6, from: "../c.ts", loads: true },
    { line: 7, from: "d", loads: false },
    { line: 8, from: "e", loads: true },
    { line: 9, from: "./f.ts", loads: false },
    { line: 10, from: "g", loads: true },
    { line: 11, from: "h", loads: false },
  ]);
});

const cases: [string, string, RegExp | undefined][] = [
  ["scripts/build.ts", "../lib/build/plan.ts", undefined],
  ["scripts/build.ts", "./logs.ts", /nobody imports scripts/],
  ["scripts/logs.ts", "./logs/rotate.ts", undefined],
  ["scripts/logs/rotate.ts", "./flags.ts", undefined],
  ["scripts/build.ts", "./logs/rotate.ts", /nobody imports scripts/],
  ["lib/build/plan.ts", "../lock.ts", undefined],
  ["lib/build/plan.ts", "./pull.ts", undefined],
  ["lib/build/plan.ts", "../hook/queue.ts", /must not know lib\/hook/],
  ["lib/lock.ts", "./build/plan.ts", /knows no stage/],
  ["lib/lock.ts", "../test/helpers/tmp.ts", /only from lib/],
  ["lib/lock.ts", "./files", /extension/],
  ["lib/lock.ts", "fs", /node:fs/],
  ["lib/lock.ts", "npm:tar", /bare/],
  ["lib/lock.ts", "chalk", /only lib\/terminal.ts/],
  ["lib/terminal.ts", "chalk", undefined],
  ["lib/lock.ts", "left-pad", /no package but/],
  ["test/lib/lock.test.ts", "../../scripts/build.ts", /nobody imports scripts/],
  ["test/lib/lock.test.ts", "zx", undefined],
];
for (const [file, from, reason] of cases) {
  test(`${file} ${reason ? "may not" : "may"} import ${from}`, () => {
    const answer = refusal(file, { from, loads: true });
    if (reason) assert.match(answer ?? "", reason);
    else assert.is(answer, undefined);
  });
}

test("a heavy package is loaded where it is used, not at the start", () => {
  assert.match(refusal("lib/yaml.ts", { from: "yaml", loads: true }) ?? "", /await import/);
  assert.is(refusal("lib/yaml.ts", { from: "yaml", loads: false }), undefined);
});

test("a circle of imports is shown whole", () => {
  const graph = new Map([
    ["a", ["b"]],
    ["b", ["c", "d"]],
    ["c", []],
    ["d", ["b"]],
  ]);
  assert.equal(circle(graph), ["b", "d", "b"]);
  graph.set("d", []);
  assert.is(circle(graph), undefined);
});

test.run();
