// The table of mutations fits the product: each can be made, and names tests that there are.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { root } from "../helpers/runtime.ts";
import { mutations } from "../mutants/table.ts";

test("each mutation's text is in its file once, and the mutation changes it", () => {
  for (const { what, file, from, to } of mutations) {
    const count = readFileSync(join(root, file), "utf8").split(from).length - 1;
    assert.is(count, 1, `${what}: ${count} times in ${file}; correct test/mutants/`);
    assert.is.not(from, to, what);
  }
});

test("each mutation has words of its own, and tests that must notice it", () => {
  const files = readdirSync(join(root, "test"), { recursive: true, encoding: "utf8" });
  const tests = files.filter((file) => file.endsWith(".test.ts"));
  assert.is(new Set(mutations.map(({ what }) => what)).size, mutations.length);
  for (const { what, tests: patterns } of mutations) {
    assert.ok(patterns.length > 0, what);
    for (const pattern of patterns)
      assert.ok(
        tests.some((file) => file.includes(pattern)),
        `${what}: no test file is called ${pattern}`,
      );
  }
});

test.run();
