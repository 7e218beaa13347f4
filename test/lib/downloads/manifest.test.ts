import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  clashes,
  formatEntry,
  parseManifest,
  pinLines,
  shownUrl,
  throwFaults,
} from "../../../lib/downloads/manifest.ts";
import { Refused, UsageError } from "../../../lib/core/errors.ts";

const read = (text: string) => parseManifest(text, "manifest.txt");
const reasons = (text: string) => read(text).faults.map(({ where, reason }) => `${where}: ${reason}`);
const hex = "0123456789abcdef".repeat(4);

test("the first space ends the URL and all others belong to the path", () => {
  const { entries, faults } = read("https://a.test/x.zip my files/a b.zip\n");
  assert.equal(faults, []);
  assert.equal(entries, [{ where: "manifest.txt:1", url: "https://a.test/x.zip", path: "my files/a b.zip" }]);
});

test("blank lines, comments, a byte order mark and Windows line ends are no lines of their own", () => {
  const { entries, faults } = read("\ufeff# list\r\n\r\nhttps://a.test/x x\r\n   \r\n");
  assert.equal(faults, []);
  assert.equal(
    entries.map(({ path, where }) => [path, where]),
    [["x", "manifest.txt:3"]],
  );
});

test("the fragment is the version, the pin, or both, and is not part of the URL", () => {
  for (const [fragment, version, sha256] of [
    ["", undefined, undefined],
    ["#3", "3", undefined],
    ["#v1.2-rc_1", "v1.2-rc_1", undefined],
    [`#sha256-${hex.toUpperCase()}`, undefined, hex],
    [`#3,sha256-${hex}`, "3", hex],
    [`#sha256-${hex},3`, "3", hex],
  ] as const) {
    const { entries, faults } = read(`https://a.test/x${fragment} x`);
    assert.equal(faults, []);
    assert.is(entries[0]?.url, "https://a.test/x");
    assert.is(entries[0]?.version, version);
    assert.is(entries[0]?.sha256, sha256);
  }
});

test("a URL alone takes the last part of its path; further URLs are mirrors of what is pinned", () => {
  assert.equal(
    read("https://a.test/papers/On%20the%20Answer.pdf?x=1#2").entries.map(({ path, version }) => [path, version]),
    [["On the Answer.pdf", "2"]],
  );
  const line = `https://a.test/x#sha256-${hex} https://b.test/y s3://c/z my file`;
  const [entry] = read(line).entries;
  assert.equal(entry?.mirrors, ["https://b.test/y", "s3://c/z"]);
  assert.is(entry?.path, "my file");
  assert.is(entry && formatEntry(entry), line);
  assert.is(read(`https://a.test/x#sha256-${hex} https://b.test/y`).entries[0]?.path, "x");
});

test("pinning writes the hash behind each URL that has none, and leaves all else as it is", () => {
  const text = `# list\r\nhttps://a.test/x#3 x\r\nhttps://a.test/y#sha256-${hex} y\n\nhttps://a.test/z\nwrong\nhttps://a.test/q q\n`;
  const known = new Map([
    ["x", "1".repeat(64)],
    ["y", "2".repeat(64)],
    ["z", "3".repeat(64)],
  ]);
  const { text: pinned, unknown } = pinLines(text, "manifest.txt", ({ path }) => known.get(path));
  assert.is(
    pinned,
    `# list\r\nhttps://a.test/x#3,sha256-${"1".repeat(64)} x\r\nhttps://a.test/y#sha256-${hex} y\n\n` +
      `https://a.test/z#sha256-${"3".repeat(64)}\nwrong\nhttps://a.test/q q\n`,
  );
  assert.equal(
    unknown.map(({ path }) => path),
    ["q"],
  );
});

test("a login in a wrong URL is not repeated, wherever its characters have put it", () => {
  for (const address of [
    "https://me:sec/ret@a.test/x",
    "https://me:sec#ret@a.test/x",
    "https://me:443#sec,ret@a.test/x",
    "https:me:secret@a.test/x",
  ]) {
    const [reason = ""] = reasons(`${address} x`);
    assert.match(reason, /^manifest\.txt:1: /);
    assert.not.match(reason, /sec|ret/, reason);
  }
});

test("a file: URL that names no file is a wrong line, not a failure to try again", () => {
  assert.match(reasons("file:///a%2Fb x")[0] ?? "", /%2F/);
});

test("every wrong line is named with its number and what to do", () => {
  const lines: [string, RegExp][] = [
    ["https://a.test/", /without a file's name/],
    ["https://a.test/x\tx", /tab/],
    ["https://a.test/x https://b.test/x x", /need a pin/],
    [`https://a.test/x#sha256-${hex} https://b.test/x#2 x`, /behind the first URL/],
    [`https://a.test/x#sha256-${hex} https:x x`, /is not a URL/],
    [" https://a.test/x x", /starts with a space/],
    ["https://a.test/x ", /no path/],
    ["a.test/x x", /is not a URL/],
    ["https:x x", /is not a URL/],
    ["ftp://a.test/x x", /ftp: is not fetched/],
    ["file://host/x x", /no host/],
    ["s3://bucket x", /s3:\/\/bucket\/key/],
    ["https://a.test/x#sha256-12 x", /64 hex/],
    ["https://a.test/x#1,2 x", /two versions/],
    ["https://a.test/x#../3 x", /not a version/],
    ["https://a.test/x dir/", /empty part/],
    ["https://a.test/x ./x", /dot/],
    ["https://a.test/x saved.txt", /keeps for itself/],
    ["https://a.test/x Old/x", /keeps for itself/],
    ["https://a.test/x .partial/x", /keeps for itself/],
    ["https://a.test/x a\tb", /control/],
    [`https://a.test/x ${"n".repeat(300)}`, /200 bytes/],
  ];
  const found = reasons(lines.map(([line]) => line).join("\n"));
  assert.is(found.length, lines.length);
  lines.forEach(([line, reason], index) => {
    assert.ok(found[index]?.startsWith(`manifest.txt:${index + 1}: `), line);
    assert.match(found[index] ?? "", reason);
  });
});

test("a path that would leave the folder is refused for safety, however it is written", () => {
  for (const path of ["../evil", "a/../../evil", "/etc/passwd", "..", "a/..", "C:\\x", "..\\evil", "a\\..\\x"]) {
    const { faults } = read(`https://a.test/x ${path}`);
    assert.is(faults[0]?.unsafe, true, path);
    assert.throws(
      () => throwFaults(faults),
      (error: unknown) => error instanceof Refused,
    );
  }
  assert.equal(reasons("https://a.test/x ..a/b..c/...x"), []);
});

test("two lines with one path are wrong, also when only some file systems take them for one", () => {
  const clash = (text: string) => clashes(read(text).entries).map(({ where, reason }) => `${where} ${reason}`);
  assert.match(clash("https://a.test/1 x\nhttps://a.test/2 x").join(), /txt:2 x: the same path as .*txt:1/);
  assert.match(clash("https://a.test/1 a/X\nhttps://a.test/2 A/x").join(), /txt:2/);
  assert.match(clash("https://a.test/1 caf\u00e9\nhttps://a.test/2 cafe\u0301").join(), /txt:2/);
  assert.match(clash("https://a.test/1 stra\u00dfe\nhttps://a.test/2 STRASSE").join(), /txt:2/);
  assert.match(clash("https://a.test/1 a/b\nhttps://a.test/2 a").join(), /a\/b: a is a file at .*txt:2/);
  assert.equal(clash("https://a.test/1 a/b\nhttps://a.test/2 a/c"), []);
});

test("all wrong lines come as one error", () => {
  const { faults } = read("nonsense\nhttps://a.test/");
  assert.throws(
    () => throwFaults(faults),
    (error: unknown) => error instanceof UsageError && error.message.split("\n").length === 2,
  );
});

test("a login in a URL is not shown", () => {
  assert.is(shownUrl("https://me:secret@a.test/x@y"), "https://a.test/x@y");
  assert.not.match(reasons("ftp://me:secret@a.test/x x").join(), /secret/);
  assert.not.match(reasons("https:me:secret@a.test/x x").join(), /secret/);
  assert.not.match(reasons("me:secret@a.test/x x").join(), /secret/);
});

test("an entry written out is the line that it was read from", () => {
  for (const line of ["https://a.test/x a b", "https://a.test/x#3 x", `s3://b/k#3,sha256-${hex} k`])
    assert.equal(read(line).entries.map(formatEntry), [line]);
});

test.run();
