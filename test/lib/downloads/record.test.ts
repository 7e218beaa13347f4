import { createHash } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  formatRecord,
  parseRecord,
  readRecord,
  recordableTag,
  type Saved,
} from "../../../lib/downloads/record.ts";
import { tempDir } from "../../helpers/tmp.ts";

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

const format = (lines: Saved[]) =>
  formatRecord({ saved: new Map(lines.map((each) => [each.path, each])) });

test("a record that was written is read back as it was", () => {
  const { saved, wrong } = parseRecord(format([plain, one]));
  assert.equal(wrong, []);
  assert.equal([...saved.values()], [plain, one]);
});

test("what a URL, a tag and a path hold beside letters breaks no line", () => {
  const odd = {
    url: "HTTPS://a.test/\t?\u00a0\u2028",
    tag: '"a\u00a0b"',
    path: "a\u2028b\u00a0 c",
  };
  const { saved, wrong } = parseRecord(format([{ ...one, ...odd }]));
  assert.equal(wrong, []);
  assert.equal([...saved.values()], [{ ...one, ...odd }]);
});

test("its lines stand in the order of their paths", () => {
  const paths = ["b", "a", "c d", "c"].map((path) => ({ ...plain, path }));
  assert.equal([...parseRecord(format(paths)).saved.keys()], ["a", "b", "c", "c d"]);
});

test("a line that cannot be understood is named and left out, and the others count", () => {
  const text = format([plain, one]);
  for (const [damage, line] of [
    [text.replace(hex, "xyz"), 3],
    [text.replace(" 12 ", " 12x "), 3],
    [text.slice(0, -20), 4],
  ] as const) {
    const { saved, wrong } = parseRecord(damage);
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

test("what a killed run had noted counts where the file has these bytes; another file is fetched again", async () => {
  const root = tempDir();
  const sha256 = createHash("sha256").update("bytes").digest("hex");
  const noted = ["right", "wrong", "gone"].map((path) => ({ ...plain, path, sha256 }));
  writeFileSync(join(root, ".saved.journal"), format(noted));
  writeFileSync(join(root, "right"), "bytes");
  writeFileSync(join(root, "wrong"), "BYTES");
  const { saved, lost, unsynced } = await readRecord(root);
  assert.equal([...saved.keys()], ["right"]);
  assert.equal([...lost], ["wrong"]);
  assert.is(unsynced?.since, plain.time);
});

test.run();
