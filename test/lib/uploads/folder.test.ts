import { createHash } from "node:crypto";
import { appendFile, mkdir, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { hashFile, partSizeOf, readWhole } from "../../../lib/uploads/content.ts";
import { isFresh, isProof, type LocalFile, scanFolder } from "../../../lib/uploads/folder.ts";
import { openState } from "../../../lib/uploads/state.ts";
import { tempDir } from "../../helpers/tmp.ts";
import { waitFor } from "../../helpers/wait.ts";

const only = (dir: string): LocalFile => {
  const [file] = scanFolder(dir);
  if (!file) throw new Error("no file");
  return file;
};

test("a large file's ETag is the one that S3 gives to parts of 8 MiB", async () => {
  const dir = tempDir();
  const content = Buffer.alloc(17 * 1024 * 1024, "boat");
  await writeFile(join(dir, "large"), content);
  const md5 = (bytes: Buffer) => createHash("md5").update(bytes).digest();
  const part = 8 * 1024 * 1024;
  const parts = [0, 1, 2].map((index) => md5(content.subarray(index * part, (index + 1) * part)));
  const { result: found } = await hashFile(only(dir));
  assert.is(found.etag, `${md5(Buffer.concat(parts)).toString("hex")}-3`);
});

test("parts grow with the file, so that there are never more than 10,000", () => {
  assert.is(partSizeOf(100), 8 * 1024 * 1024);
  const huge = 5 * 1024 ** 4;
  assert.ok(Math.ceil(huge / partSizeOf(huge)) <= 10_000);
});

test("a hash made within the tick of the last change proves nothing", () => {
  const at = (ms: number, ns = 5) => `1 ${ms}000${ns} ${BigInt(ms) * 1_000_000n + BigInt(ns)} 7`;
  const now = 1_800_000_000_123;
  assert.ok(isFresh(at(now - 5), now));
  assert.not(isFresh(at(now - 100), now));
  assert.ok(isProof(at(now - 100), now));
  assert.not(isProof(at(now - 5), now));
  assert.not(isProof(at(now + 60_000), now), "a time in the future says that a clock is wrong");
  const wholeSeconds = 1_800_000_000_000;
  assert.ok(isFresh(at(wholeSeconds, 0), wholeSeconds + 1500), "where times are whole seconds");
});

test("what is remembered of a file ends with any change, its size and time set back or not", async () => {
  const dir = tempDir();
  const folder = join(dir, "upload");
  await mkdir(folder);
  const path = join(folder, "a.txt");
  await writeFile(path, "old");
  const old = new Date("2020-01-01");
  await utimes(path, old, old);
  const file = only(folder);
  await waitFor(() => isProof(file.stamp, Date.now()));
  const state = await openState(dir);
  const { result: content, stamp } = await hashFile(file);
  state.learn("a.txt", content, stamp);
  await state.save([file]);
  const later = await openState(dir);
  assert.equal(later.known(only(folder)), content);
  await writeFile(path, "new");
  await utimes(path, old, old);
  assert.is(later.known(only(folder)), undefined);
});

test("a file that is written while it is read is whole in the end, or reported", async () => {
  const dir = tempDir();
  const path = join(dir, "busy");
  await writeFile(path, "");
  let writing = true;
  const writer = (async () => {
    while (writing) {
      await appendFile(path, "line\n".repeat(200));
      await sleep(1);
    }
  })();
  for (let index = 0; index < 10; index++) {
    try {
      const { bytes, md5 } = (await readWhole(only(dir))).result;
      assert.is(bytes.length % 1000, 0);
      assert.is(createHash("md5").update(bytes).digest("hex"), md5);
    } catch (error) {
      assert.match(String(error), /"busy" changes while it is read/);
    }
  }
  writing = false;
  await writer;
});

test("damaged records are as good as none", async () => {
  const dir = tempDir();
  const state = await openState(dir);
  await writeFile(join(state.folder, ".hashes.json"), "{ not json");
  assert.is((await openState(dir)).known({ ...file0, path: "x" }), undefined);
});
const file0: LocalFile = { path: "", file: "", size: 0, executable: false, stamp: "" };

test.run();
