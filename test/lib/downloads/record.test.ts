import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  formatRecord,
  readRecord,
  recordableTag,
  type Saved,
} from "../../../lib/downloads/record.ts";

const hex = "0123456789abcdef".repeat(4);
const one: Saved = {
  path: "my files/a  b.zip",
  sha256: hex,
  size: 12,
  time: "2026-11-20T10:15:00Z",
  url: "https://a.test/a",
  version: "3",
  tag: 'W/"x"',
};
const { version: _, tag: __, ...plain } = { ...one, path: "b" };

test("a record that was written is read back as it was", () => {
  const { saved, wrong } = readRecord(formatRecord([plain, one]));
  assert.equal(wrong, []);
  assert.equal([...saved.values()], [plain, one]);
});

test("its lines stand in the order of their paths", () => {
  const paths = ["b", "a", "c d", "c"].map((path) => ({ ...plain, path }));
  assert.equal([...readRecord(formatRecord(paths)).saved.keys()], ["a", "b", "c", "c d"]);
});

test("a line that cannot be understood is named and left out, and the others count", () => {
  const text = formatRecord([plain, one]);
  for (const [damage, line] of [
    [text.replace(hex, "xyz"), 3],
    [text.replace(" 12 ", " 12x "), 3],
    [text.slice(0, -20), 4],
  ] as const) {
    const { saved, wrong } = readRecord(damage);
    assert.equal(wrong, [line]);
    assert.is(saved.size, 1);
  }
});

test("a tag is the ETag, else the time; one that a line cannot hold is left out", () => {
  assert.is(recordableTag('"a"', 5000), '"a"');
  assert.is(recordableTag(undefined, 5999), "lm:5");
  assert.is(recordableTag('"a b"', undefined), undefined);
  assert.is(recordableTag('"a\nb"', 5000), "lm:5");
  assert.is(recordableTag(undefined, undefined), undefined);
});

test.run();
