// A gzip in members, cut where the content says so.
import { createHash } from "node:crypto";
import { gunzipSync } from "node:zlib";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { contentParts, gzipMembers } from "../../../lib/archive/members.ts";

/** Text that no compressor makes small, the same each time. */
const text = (bytes: number, seed = "") =>
  Buffer.concat(
    Array.from({ length: Math.ceil(bytes / 64) }, (_, at) =>
      Buffer.from(createHash("sha256").update(`${seed}${at}`).digest("hex")),
    ),
  ).subarray(0, bytes);

async function* inPieces(data: Buffer, size: number) {
  for (let at = 0; at < data.length; at += size) yield data.subarray(at, at + size);
}

const all = async <T>(items: AsyncIterable<T>) => {
  const found: T[] = [];
  for await (const item of items) found.push(item);
  return found;
};

test("the parts are the same however the bytes come, and every gunzip reads the members as one file", async () => {
  const data = Buffer.concat([text(3_000_000), Buffer.alloc(2_500_000), text(10)]);
  const parts = await all(contentParts(inPieces(data, 65_536)));
  assert.ok(parts.length > 10);
  assert.ok(parts.every(({ length }) => length <= 1024 * 1024));
  assert.equal(await all(contentParts(inPieces(data, 1000))), parts);
  assert.ok(gunzipSync(Buffer.concat(await all(gzipMembers(inPieces(data, 65_536))))).equals(data));
  assert.equal(await all(gzipMembers(inPieces(Buffer.alloc(0), 1))), []);
});

test("what is inserted changes the part that it is in, and at most its neighbour", async () => {
  const data = text(5_000_000);
  const hashes = async (bytes: Buffer) =>
    (await all(contentParts(inPieces(bytes, 65_536)))).map((part) => createHash("sha256").update(part).digest("hex"));
  const before = new Set(await hashes(data));
  for (const at of [10, 1_000_000, 2_345_678, 4_999_990]) {
    const inserted = Buffer.concat([data.subarray(0, at), Buffer.from("a line\n"), data.subarray(at)]);
    const changed = (await hashes(inserted)).filter((hash) => !before.has(hash));
    assert.ok(changed.length <= 2, `${changed.length} parts differ`);
  }
});

test.run();
