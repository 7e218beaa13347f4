import { test } from "uvu";
import * as assert from "uvu/assert";
import { isNkey, keyOfSeed, newSeed, nkeyOf } from "../../../lib/bus/nkey.ts";

// Node 20 stops for ever when it collects a generated key's job while it exports that key as JWK: one in a thousand.
test("thousands of keys are made one after the other, and each is another", () => {
  const seeds = Array.from({ length: 10_000 }, newSeed);
  assert.is(new Set(seeds).size, seeds.length);
  for (const seed of seeds.slice(0, 10)) {
    const key = keyOfSeed(seed);
    assert.ok(key && isNkey(nkeyOf(key)), seed);
  }
});

test.run();
