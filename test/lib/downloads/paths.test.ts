import { existsSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Refused, UsageError } from "../../../lib/core/errors.ts";
import { Folders, oldPath, sizeAt, twinKey } from "../../../lib/downloads/paths.ts";
import { tempDir } from "../../helpers/tmp.ts";

test("the old file's name says its version in front of the last extension", () => {
  for (const [path, version, old] of [
    ["dir/file.ext", "2", "dir/file.2.ext"],
    ["file", "1.0", "file.1.0"],
    ["a.tar.gz", "2", "a.tar.2.gz"],
    [".hidden", "2", ".hidden.2"],
    ["d.d/x", "2", "d.d/x.2"],
  ] as const)
    assert.is(oldPath(path, version), old);
});

test("twins by case and by Unicode form have one key", () => {
  assert.is(twinKey("A/\u00c9"), twinKey("a/e\u0301"));
  assert.is(twinKey("\u03a3"), twinKey("\u03c2"));
  assert.is.not(twinKey("a"), twinKey("b"));
});

test("a link in the path or at its end is seen, also one that leads inside", () => {
  const root = tempDir();
  mkdirSync(join(root, "real/deep"), { recursive: true });
  writeFileSync(join(root, "real/file"), "12345");
  symlinkSync("real", join(root, "link"));
  symlinkSync("/etc/passwd", join(root, "real/out"));
  assert.is(sizeAt(root, "real/file"), 5);
  assert.is(sizeAt(root, "real/none"), undefined);
  assert.is(sizeAt(root, "none/none"), undefined);
  const refused = (kind: typeof Refused | typeof UsageError) => (error: unknown) => error instanceof kind;
  for (const path of ["link/file", "link/deep/x", "real/out"])
    assert.throws(() => sizeAt(root, path), refused(Refused), path);
  for (const path of ["real/deep", "real/file/x"]) assert.throws(() => sizeAt(root, path), refused(UsageError), path);
});

test("a folder that has become a link since the plan is not written through", () => {
  const root = tempDir();
  const elsewhere = tempDir();
  symlinkSync(elsewhere, join(root, "dir"));
  const folders = new Folders(root);
  assert.throws(() => folders.fileAt("dir/file"), /link/);
  assert.is(folders.fileAt("new/deep/file"), join(root, "new/deep/file"));
  assert.ok(existsSync(join(root, "new/deep")));
  assert.is(folders.fileAt("file"), join(root, "file"));
});

test.run();
