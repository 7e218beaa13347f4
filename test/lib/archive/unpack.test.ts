// Hostile archives: refused as a whole, by the entry's name, and nothing is written outside.
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { lstat, readFile, readlink } from "node:fs/promises";
import { join } from "node:path";
import { gunzipSync, gzipSync } from "node:zlib";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { unpack } from "../../../lib/archive/unpack.ts";
import { type TarLimits, tarLimits } from "../../../lib/archive/tar.ts";
import { runCommand } from "../../helpers/run.ts";
import { testUnless } from "../../helpers/skip.ts";
import { paxEntry, type RawEntry, tarEntry, tarGz } from "../../helpers/tar.ts";
import { withTemp } from "../../helpers/tmp.ts";

/** Unpacks into FOLDER/in; the message of the refusal, or undefined. */
async function tryUnpack(folder: string, archive: Buffer, limits: Partial<TarLimits> = {}) {
  const path = join(folder, "archive");
  const into = join(folder, "in");
  writeFileSync(path, archive);
  mkdirSync(into);
  const fd = openSync(path, "r");
  try {
    await unpack(fd, into, "a.tar.gz", { limits: { ...tarLimits, ...limits } });
    return undefined;
  } catch (error) {
    assert.is((error as Error).name, "Refused", (error as Error).stack ?? "");
    return (error as Error).message;
  } finally {
    closeSync(fd);
  }
}

function refused(
  what: string,
  reason: RegExp,
  archive: Buffer | (RawEntry | Buffer)[],
  limits: Partial<TarLimits> = {},
): void {
  test(`refused: ${what}`, () =>
    withTemp(async (folder) => {
      const bytes = Buffer.isBuffer(archive) ? archive : tarGz(...archive);
      const message = await tryUnpack(folder, bytes, limits);
      assert.match(message ?? "it was unpacked", reason, message ?? "it was unpacked");
      assert.match(message ?? "", /^a\.tar\.gz is not unpacked: /);
      assert.equal(readdirSync(folder).sort(), ["archive", "in"]);
      assert.not(existsSync("/tmp/evil-boatyard"));
    }));
}

refused("an absolute path", /"\/tmp\/evil-boatyard" is absolute/, [{ name: "/tmp/evil-boatyard" }]);
refused("a Windows path", /backslash/, [{ name: "..\\evil" }]);
refused("a drive letter", /absolute/, [{ name: "C:/evil" }]);
refused("a path with ..", /"\.\.\/evil" leads out/, [{ name: "../evil" }]);
refused("a path with .. in the middle", /leads out/, [{ name: "a/../../evil" }]);
refused("a path with .. in a pax name", /leads out/, [paxEntry({ path: "../evil" }), {}]);
refused("a path with .. in a GNU long name", /leads out/, [
  { name: "././@LongLink", type: "L", content: "../evil\0" },
  {},
]);
refused("a link to an absolute path", /"l" is a link to an absolute path: "\/etc"/, [
  { name: "l", type: "2", link: "/etc" },
]);
refused("a link that leads out", /leads out of the archive: "\.\.\/x"/, [{ name: "l", type: "2", link: "../x" }]);
refused("a link that leads out from a folder", /leads out/, [{ name: "a/b/l", type: "2", link: "../../../x" }]);
refused("a link that goes back up behind another link", /with \.\. after a name/, [
  { name: "a/b/up", type: "2", link: "../.." },
  { name: "l", type: "2", link: "a/b/up/.." },
]);
refused("writing through a link", /"l" is used as a folder, but is a link/, [
  { name: "d", type: "5", mode: 0o755 },
  { name: "l", type: "2", link: "d" },
  { name: "l/file", content: "x" },
]);
refused("writing through a link in place of a file", /"l" is there twice/, [
  { name: "l", type: "2", link: "x" },
  { name: "l", content: "x" },
]);
refused("a folder in place of a link", /"l\/" is there twice/, [
  { name: "l", type: "2", link: "d" },
  { name: "l/", type: "5", mode: 0o755 },
]);
refused("a hard link out", /leads out/, [{ name: "h", type: "1", link: "../../etc/passwd" }]);
refused("a hard link to an absolute path", /absolute/, [{ name: "h", type: "1", link: "/etc/passwd" }]);
refused("a hard link to a link", /not a file before it/, [
  { name: "l", type: "2", link: "x" },
  { name: "h", type: "1", link: "l" },
]);
refused("a hard link to what comes later", /not a file before it/, [
  { name: "h", type: "1", link: "f" },
  { name: "f" },
]);
refused("a character device", /"dev" is of a kind that is not unpacked \(CharacterDevice\)/, [
  { name: "dev", type: "3" },
]);
refused("a block device", /BlockDevice/, [{ name: "dev", type: "4" }]);
refused("a fifo", /"pipe" is of a kind that is not unpacked \(FIFO\)/, [{ name: "pipe", type: "6" }]);
refused("a sparse file", /kind that is not unpacked/, [{ name: "sparse", type: "S" }]);
refused("a pax sparse giant", /sparse/, [
  paxEntry({ "GNU.sparse.major": "1", "GNU.sparse.realsize": "1099511627776" }),
  { name: "giant" },
]);
refused("an unknown kind", /kind that is not unpacked/, [{ name: "odd", type: "Z" }]);
refused("setuid", /"su" is setuid/, [{ name: "su", mode: 0o4755 }]);
refused("setgid", /"sg" is setuid or setgid/, [{ name: "sg", mode: 0o2755 }]);
refused("a name for all entries at once", /path for every entry/, [
  paxEntry({ path: "everywhere" }, "g"),
  { name: "f" },
]);
refused("a link's target for all entries at once", /linkpath for every entry/, [
  paxEntry({ linkpath: "f" }, "g"),
  { name: "l", type: "2", link: "x" },
]);
refused("a line end in a pax name", /control characters/, [paxEntry({ path: "a\nb" }), {}]);
refused("two pax names, one of them within an attribute", /second name of one entry/, [
  paxEntry({ path: "f", "SCHILY.xattr.user.x": "\n10 path=g\n" }),
  {},
]);
refused("a duplicate", /"f" is there twice/, [{ name: "f" }, { name: "f", content: "2" }]);
refused("a duplicate by another spelling", /"\.\/\/f" is there twice/, [{ name: "f" }, { name: ".//f" }]);
refused("a file where a folder is", /"d" is there twice/, [{ name: "d/f" }, { name: "d" }]);
refused("a folder where a file is", /"d" is used as a folder, but is a file/, [{ name: "d" }, { name: "d/f" }]);
refused("names that differ by case", /"readme" and "README" differ only in case/, [
  { name: "README" },
  { name: "readme" },
]);
refused("folders that differ by case", /differ only in case/, [{ name: "A/x" }, { name: "a/y" }]);
refused("names that differ by Unicode form", /differ only in case or Unicode form/, [
  { name: "\u00e9" },
  { name: "e\u0301" },
]);
refused("a NUL in a pax name", /control characters/, [paxEntry({ path: "a\0b" }), {}]);
refused("a line end in a name", /control characters/, [{ name: "a\nb" }]);
refused("an escape in a name, which the message does not pass on", /"a\?b"/, [{ name: "a\u001bb" }]);
refused("a name that is not UTF-8", /not named in UTF-8/, [{ name: Buffer.from([0x61, 0xff]) }]);
refused("too deep a folder", /deeper than 64/, [paxEntry({ path: `${"d/".repeat(70)}f` }), {}]);
refused("too long a name", /too long a name/, [paxEntry({ path: "n".repeat(300) }), {}]);
refused(
  "too many entries",
  /more than 3 entries/,
  [1, 2, 3, 4].map((n) => ({ name: `f${n}` })),
  {
    entries: 3,
  },
);
refused("too many folders that only a name tells of", /more than 3 entries/, [{ name: "a/b/c/f" }], {
  entries: 3,
});
refused("too many bytes", /more than 10 bytes/, [{ name: "f", content: "x".repeat(11) }], {
  size: 10,
});
refused("a bomb", /more than 20 times its size/, [{ name: "f", content: Buffer.alloc(4_000_000) }], {
  ratio: 20,
  ratioFrom: 1_000_000,
});
refused("a gzip within the gzip", /no tar in the gzip/, gzipSync(tarGz({ name: "f", content: "x".repeat(600) })));
refused("a page of HTML", /not a whole gzip/, Buffer.from("<!doctype html><title>404</title>"));
refused("nothing", /cut off|not a whole gzip/, Buffer.alloc(0));
refused("an empty tar", /broken|no tar/, gzipSync(Buffer.alloc(0)));
refused(
  "a header with a wrong sum",
  /broken/,
  (() => {
    const entry = tarEntry({ name: "f" });
    entry[0] = 0x67;
    return tarGz(entry, { name: "g" });
  })(),
);
refused(
  "an archive that is cut off in its gzip",
  /not a whole gzip|no tar in the gzip/,
  tarGz({ name: "f", content: "x".repeat(9000) }).subarray(0, 60),
);
refused("a file that is cut off", /cut off|broken/, gzipSync(tarEntry({ name: "f", content: "abc", size: 99_999 })));
refused("an archive without its end mark", /cut off/, gzipSync(tarEntry({ name: "f", content: "abc" })));
refused(
  "a size beyond all",
  /more than|cut off|broken/,
  gzipSync(tarEntry({ name: "f", content: "abc", size: 0o77777777777 })),
  { size: 1e6 },
);

test("a good archive: files, folders, links, modes, long and Unicode names", () =>
  withTemp(async (folder) => {
    const long = `${"deep/".repeat(30)}${"n".repeat(200)}`;
    const archive = tarGz(
      { name: "./", type: "5", mode: 0o755 },
      { name: "run.sh", mode: 0o755, content: "#!/bin/sh\n" },
      { name: "world.txt", mode: 0o666, content: "w" },
      { name: "locked/", type: "5", mode: 0o500 },
      { name: "locked/f", content: "in" },
      { name: "a/l", type: "2", link: "../run.sh" },
      { name: "self", type: "2", link: "." },
      { name: "hard", type: "1", link: "run.sh" },
      paxEntry({ path: long }),
      { content: "long" },
      paxEntry({ path: "ünïcödé 日本" }),
      { content: "u" },
      { name: "empty" },
    );
    assert.is(await tryUnpack(folder, archive), undefined);
    const at = (path: string) => join(folder, "in", path);
    assert.is(await readFile(at(long), "utf8"), "long");
    assert.is(await readFile(at("ünïcödé 日本"), "utf8"), "u");
    assert.is(await readFile(at("empty"), "utf8"), "");
    assert.is(await readFile(at("locked/f"), "utf8"), "in");
    assert.is(await readlink(at("a/l")), "../run.sh");
    assert.is(await readFile(at("hard"), "utf8"), "#!/bin/sh\n");
    const mode = async (path: string) => ((await lstat(at(path))).mode & 0o7777).toString(8);
    assert.is(await mode("run.sh"), "755");
    assert.is(await mode("world.txt"), "644");
    // whoever prunes must be able to remove it
    assert.is(await mode("locked"), "700");
    assert.is((await lstat(at("run.sh"))).uid, process.getuid?.());
  }));

test("extended attributes, a comment for all entries and a folder's setgid bit are left out", () =>
  withTemp(async (folder) => {
    const archive = tarGz(
      paxEntry({ comment: "0123456789abcdef" }, "g"),
      { name: "d/", type: "5", mode: 0o2775 },
      paxEntry({
        "SCHILY.xattr.user.note": "\0\x01binary\0",
        "LIBARCHIVE.xattr.user.note": "AAE=",
      }),
      { name: "d/f", content: "x" },
    );
    assert.is(await tryUnpack(folder, archive), undefined);
    assert.is((await lstat(join(folder, "in/d"))).mode & 0o7777, 0o755);
    assert.is(await readFile(join(folder, "in/d/f"), "utf8"), "x");
  }));

for (const [tool, ...argv] of [
  ["tar", "--xattrs", "--format=pax", "-czf"],
  ["bsdtar", "--xattrs", "--format=pax", "-czf"],
] as const) {
  const missing = ["setfattr", tool].find((name) => !existsSync(`/usr/bin/${name}`) && !existsSync(`/bin/${name}`));
  testUnless(test, missing && `needs ${missing}`)(`extended attributes as ${tool} writes them are ignored`, () =>
    withTemp(async (folder) => {
      const from = join(folder, "from");
      mkdirSync(from);
      writeFileSync(join(from, "f"), "x");
      const value = `0s${Buffer.from("\0a\n12 b=c\n\xff", "latin1").toString("base64")}`;
      const set = await runCommand(["setfattr", "-n", "user.note", "-v", value, join(from, "f")]);
      const archive = join(folder, "made.tar.gz");
      await runCommand([tool, ...argv, archive, "-C", from, "f"], { expect: 0 });
      // where the file system has none, tar has nothing to write
      if (set.code === 0) assert.match(gunzipSync(readFileSync(archive)).toString("latin1"), "xattr");
      assert.is(await tryUnpack(folder, readFileSync(archive)), undefined);
      assert.is(await readFile(join(folder, "in/f"), "utf8"), "x");
    }),
  );
}

test("a file that takes many pieces arrives whole", () =>
  withTemp(async (folder) => {
    const content = Buffer.alloc(5_000_001, "0123456789");
    assert.is(await tryUnpack(folder, tarGz({ name: "big", content }, { name: "after", content: "x" })), undefined);
    assert.ok((await readFile(join(folder, "in", "big"))).equals(content));
  }));

test.run();
