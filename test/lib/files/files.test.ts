import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { readIfThere, removeStaleTemporaries, writeAtomic } from "../../../lib/files/files.ts";
import { tempDir } from "../../helpers/tmp.ts";

test("a file is replaced in one step, keeps its mode, and leaves nothing beside it", async () => {
  const folder = tempDir();
  const file = join(folder, "record.txt");
  await writeAtomic(file, "one\n", { mode: 0o600 });
  assert.is(statSync(file).mode & 0o777, 0o600);
  const before = statSync(file).ino;
  await writeAtomic(file, "two\n");
  assert.is(readFileSync(file, "utf8"), "two\n");
  assert.is(statSync(file).mode & 0o777, 0o600);
  assert.is.not(statSync(file).ino, before, "a reader of the old one keeps the old one");
  assert.equal(readdirSync(folder), ["record.txt"]);
});

test("a link is replaced by a file that others may read no better than what it led to", async () => {
  const folder = tempDir();
  const [target, link] = [join(folder, "secrets"), join(folder, "link")];
  writeFileSync(target, "old", { mode: 0o600 });
  symlinkSync("secrets", link);
  await writeAtomic(link, "new");
  assert.is(statSync(link).mode & 0o7777, 0o600);
  assert.is(readFileSync(target, "utf8"), "old");
  // where everybody may write, as in /tmp, they may not into the file
  const open = join(folder, "open");
  mkdirSync(open);
  chmodSync(open, 0o777);
  symlinkSync("open", join(folder, "second"));
  await writeAtomic(join(folder, "second"), "new");
  await writeAtomic(join(folder, "new"), "new");
  assert.is(statSync(join(folder, "second")).mode, statSync(join(folder, "new")).mode);
});

test("a write that fails leaves the old content and no temporary file", async () => {
  const folder = tempDir();
  const target = join(folder, "folder");
  await writeAtomic(join(folder, "x"), "x");
  mkdirSync(join(target, "inside"), { recursive: true });
  let failed = false;
  await writeAtomic(target, "data").catch(() => {
    failed = true;
  });
  assert.ok(failed, "a folder cannot be replaced by a file");
  assert.equal(readdirSync(folder).sort(), ["folder", "x"]);
});

test("temporary files of killed processes are removed, those of living ones stay", async () => {
  const folder = tempDir();
  // 2^22 is over Linux's highest pid
  const dead = join(folder, ".record.txt.tmp-4194999-0011aabb");
  const living = join(folder, `.record.txt.tmp-1-0011aabb`);
  const other = join(folder, ".record.txt.tmp");
  for (const file of [dead, living, other]) writeFileSync(file, "half");
  await removeStaleTemporaries(folder);
  assert.equal(
    [dead, living, other].map((file) => existsSync(file)),
    [false, true, true],
  );
  await removeStaleTemporaries(join(folder, "missing"));
});

test("a file that is not there reads as nothing, one that cannot be read is an error", async () => {
  const folder = tempDir();
  assert.is(await readIfThere(join(folder, "none")), undefined);
  let failed = false;
  await readIfThere(folder).catch(() => {
    failed = true;
  });
  assert.ok(failed);
});

test.run();
