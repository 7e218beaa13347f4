import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { formatRecord, parseRecord, Record, recordableTag, type Saved } from "../../../lib/downloads/record.ts";
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
const plain: Saved = { ...one, path: "b", version: undefined, tag: undefined };

const format = (lines: Saved[]) => formatRecord({ saved: new Map(lines.map((each) => [each.path, each])) });

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

test("what is done is noted at once, also after a line that a killed run left without its end", async () => {
  const root = tempDir();
  const path = join(root, "saved.txt");
  const first = await Record.read(root);
  first.add(plain, { synced: false });
  assert.equal([...(await Record.read(root)).saved.values()], [plain]);
  writeFileSync(path, readFileSync(path, "utf8").slice(0, -4));
  const second = await Record.read(root);
  assert.is(second.saved.size, 0);
  second.add({ ...plain, version: "2" }, { synced: false });
  second.add({ ...plain, version: "3" }, { synced: true });
  const third = await Record.read(root);
  assert.is(third.saved.get("b")?.version, "3", "the last line of a path counts");
  await third.write([]);
  assert.equal((await Record.read(root)).wrong, []);
});

test("what was noted before a restart of the machine counts where the file has these bytes, else it is fetched again", async () => {
  const root = tempDir();
  const path = join(root, "saved.txt");
  const sha256 = createHash("sha256").update("bytes").digest("hex");
  const record = await Record.read(root);
  for (const name of ["right", "wrong", "gone"]) record.add({ ...plain, path: name, sha256 }, { synced: true });
  writeFileSync(path, readFileSync(path, "utf8").replace(/in boot \S+:/, "in boot another:"));
  writeFileSync(join(root, "right"), "bytes");
  writeFileSync(join(root, "wrong"), "BYTES");
  assert.equal([...(await Record.read(root)).lost], ["wrong"]);
});

test.run();
