import { test } from "uvu";
import * as assert from "uvu/assert";
import { checkTree, circle, hiddenCommands, importsIn, refusal } from "../../tools/check-imports.ts";
import { writeFiles } from "../helpers/repos.ts";
import { tempDir } from "../helpers/tmp.ts";

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
  ["scripts/build.ts", "../lib/cli/command.ts", undefined],
  ["scripts/build.ts", "../lib/builder/pull.ts", undefined],
  ["scripts/build.ts", "./logs.ts", /nobody imports scripts/],
  ["scripts/logs.ts", "./logs-commands.ts", undefined],
  ["scripts/build.ts", "./logs-commands.ts", /nobody imports scripts/],
  ["lib/builder/plan.ts", "../files/lock.ts", undefined],
  ["lib/builder/plan.ts", "../fetch/partial.ts", /private to lib\/fetch; import fetch.ts/],
  ["scripts/logs.ts", "../lib/uploads/plan.ts", /private to lib\/uploads/],
  ["lib/builder/plan.ts", "../lock.ts", /folders only/],
  ["lib/builder/plan.ts", "./pull.ts", undefined],
  ["lib/builder/plan.ts", "../cli/terminal.ts", /lib\/cli is for scripts/],
  ["lib/builder/plan.ts", "../hook/queue.ts", /must not know lib\/hook/],
  ["lib/files/lock.ts", "../builder/plan.ts", /knows no stage/],
  ["lib/files/lock.ts", "../../test/helpers/tmp.ts", /only from lib/],
  ["lib/files/lock.ts", "./files", /extension/],
  ["lib/files/lock.ts", "fs", /node:fs/],
  ["lib/files/lock.ts", "npm:tar", /bare/],
  ["lib/files/lock.ts", "chalk", /only lib\/cli\/terminal.ts/],
  ["lib/cli/terminal.ts", "chalk", undefined],
  ["lib/files/lock.ts", "left-pad", /no package but/],
  ["test/lib/files/lock.test.ts", "../../../scripts/build.ts", /nobody imports scripts/],
  ["test/lib/files/lock.test.ts", "zx", undefined],
];
for (const [file, from, reason] of cases) {
  test(`${file} ${reason ? "may not" : "may"} import ${from}`, () => {
    const answer = refusal(file, { from, loads: true });
    if (reason) assert.match(answer ?? "", reason);
    else assert.is(answer, undefined);
  });
}

test("a stage's git fetch, push, checkout and worktree, its rsync and ssh stand in the script", () => {
  const text =
    "await git`git status`;\nawait git`git push -- ${remote}`;\nawait $({ cwd })`rsync ${argv}`;\n// `git fetch`\n";
  assert.equal(hiddenCommands("lib/builder/pull.ts", text), [2, 3]);
  assert.equal(hiddenCommands("lib/git/git.ts", text), []);
});

test("a heavy package is loaded where it is used, not at the start", () => {
  assert.match(refusal("lib/config/tree.ts", { from: "yaml", loads: true }) ?? "", /await import/);
  assert.is(refusal("lib/config/tree.ts", { from: "yaml", loads: false }), undefined);
});

test("every folder is looked into, one that is called build too", async () => {
  const tree = tempDir();
  await writeFiles(tree, {
    "package.json": "{}",
    "lib/build/build.ts": 'import "left-pad";\n',
    "test/lib/build/dist/build.test.ts": 'import "fs";\n',
  });
  const faults = await checkTree(tree);
  assert.equal(
    faults.map((fault) => fault.split(": ")[0]),
    ["lib/build/build.ts:1", "test/lib/build/dist/build.test.ts:1"],
  );
});

test("a line of more than 120 columns is a fault, in a string and in a comment too", async () => {
  const root = tempDir();
  const text = "é".repeat(118);
  await writeFiles(root, {
    "package.json": "{}",
    "lib/core/a.ts": `"${text}"\n//${text}\n`,
    "lib/core/b.ts": `"${text}"\n"${text}";\n///${text}\n`,
    "test/a.ts": `"${text}${text}"\n`,
  });
  assert.equal(await checkTree(root), [
    "lib/core/b.ts:2: 121 columns; a line has 120 at most",
    "lib/core/b.ts:3: 121 columns; a line has 120 at most",
  ]);
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

test("a circle between the folders of a folder is a fault, though no file is in one", async () => {
  const root = tempDir();
  await writeFiles(root, {
    "package.json": "{}",
    "lib/hook/hook.ts": 'import "./runs/runs.ts";',
    "lib/hook/runs/runs.ts": 'import "../store/store.ts";',
    "lib/hook/store/store.ts": "",
  });
  assert.equal(await checkTree(root), []);
  await writeFiles(root, {
    "lib/hook/store/line.ts": 'import "../runs/end.ts";',
    "lib/hook/runs/end.ts": "",
  });
  assert.equal(await checkTree(root), [
    "lib/hook/runs:1: imports run in a circle: lib/hook/runs → lib/hook/store → lib/hook/runs",
  ]);
});

test.run();
