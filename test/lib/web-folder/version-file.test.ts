import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  archiveName,
  currentFor,
  formatVersionFile,
  isVersion,
  parseVersionFile,
  readArchiveName,
} from "../../../lib/web-folder/version-file.ts";

const name = "https://x/VERSION";
const message = (text: string) => {
  try {
    parseVersionFile(text, name);
    return "taken";
  } catch (error) {
    return `${(error as Error).name}: ${(error as Error).message}`;
  }
};

test("a VERSION as the founding document has it", () => {
  const file = parseVersionFile(
    "CURRENT 1.23.42b my-app-gnu-linux-1.23.42b.tar.gz\nRELEASE icecream-soda-popsticle\n",
    name,
  );
  assert.equal(file, {
    current: [{ version: "1.23.42b", file: "my-app-gnu-linux-1.23.42b.tar.gz" }],
    release: "icecream-soda-popsticle",
  });
});

test("what is written is read again", () => {
  const file = {
    current: [
      {
        version: "1.2",
        file: "a-darwin-1.2.tar.gz",
        platform: "darwin",
        sha256: "0f".repeat(32),
        size: 12,
      },
      { version: "1.3", file: "a-1.3.tar.gz" },
    ],
    app: "a",
    release: "two words",
    date: new Date("2026-11-20T10:15:00Z"),
    expires: new Date("2027-02-18T10:15:00Z"),
  };
  assert.equal(parseVersionFile(formatVersionFile(file), name), file);
});

test("unknown words, blank lines, comments, tabs and Windows line ends are tolerated", () => {
  const file = parseVersionFile("# hi\r\n\r\nFUTURE thing\r\n CURRENT\t1 a-1.tar.gz \r\nNEWS\r\n", name);
  assert.equal(file.current, [{ version: "1", file: "a-1.tar.gz" }]);
});

for (const [text, reason] of [
  ["", /no CURRENT line/],
  ["<!doctype html>\n<title>404</title>", /no CURRENT line/],
  ["CURRENT 1", /:1: CURRENT takes a version and a file name/],
  ["CURRENT 1 a-1.tar.gz extra", /:1: CURRENT takes/],
  ["\nCURRENT x1 a.tar.gz", /:2: "x1" is not a version/],
  ["CURRENT 1 a/b.tar.gz", /not a plain name/],
  ["CURRENT 1 .tar.gz", /not a plain name/],
  ["CURRENT 1 a-1.tar.gz\nSHA256 12", /:2: SHA256 is not followed by 64 hex digits/],
  ["CURRENT 1 a-1.tar.gz\nSIZE -1", /SIZE is not followed by a number of bytes/],
  ["CURRENT 1 a-1.tar.gz\nSIZE 1e9", /SIZE/],
  ["CURRENT 1 a-1.tar.gz\nSIZE 1\nSIZE 2", /:3: SIZE is there twice/],
  ["SIZE 1\nCURRENT 1 a-1.tar.gz", /:1: SIZE comes before/],
  ["CURRENT 1 a-1.tar.gz\nDATE yesterday", /DATE is not followed by a time/],
  ["CURRENT 1 a-1.tar.gz\nDATE 2026-13-01T00:00:00Z", /is not a time/],
  ["CURRENT 1 a-1.tar.gz\nEXPIRES 2026-01-01T00:00:00Z\nEXPIRES 2999-01-01T00:00:00Z", /twice/],
  ["CURRENT 1 a-1.tar.gz\nAPP ..", /not an app's name/],
  ["CURRENT 1 a-1.tar.gz\nPLATFORM darwin\nCURRENT 2 a-2.tar.gz\nPLATFORM darwin", /two CURRENT/],
] as const) {
  test(`refused: ${JSON.stringify(text)}`, () => {
    assert.match(message(text), /^Refused: /);
    assert.match(message(text), reason);
  });
}

test("each platform gets its own line, else the one for any", () => {
  const file = parseVersionFile("CURRENT 1 a-gnu-linux-1.tar.gz\nPLATFORM gnu-linux\nCURRENT 2 a-2.tar.gz\n", name);
  assert.is(currentFor(file, "gnu-linux", name).version, "1");
  assert.is(currentFor(file, "darwin", name).version, "2");
  const linux = parseVersionFile("CURRENT 1 a-1.tar.gz\nPLATFORM gnu-linux\n", name);
  assert.throws(() => currentFor(linux, "darwin", name), /no release for darwin, only for gnu-linux/);
});

test("without PLATFORM lines the archives' names tell", () => {
  const file = parseVersionFile("CURRENT 1 a-gnu-linux-1.tar.gz\nCURRENT 1 a-darwin-1.tar.gz\n", name);
  assert.is(currentFor(file, "darwin", name).file, "a-darwin-1.tar.gz");
  assert.throws(() => currentFor(file, "windows", name), /no release for windows/);
  const one = parseVersionFile("CURRENT 1 a-gnu-linux-1.tar.gz\n", name);
  assert.is(currentFor(one, "darwin", name).version, "1");
});

test("versions are dotted hexadecimal", () => {
  for (const version of ["1", "1.23.42b", "deadbeef", "0.0.1"]) assert.ok(isVersion(version));
  for (const version of ["", "v1", "1.", ".1", "1..2", "1-rc1", "1/2"]) assert.not(isVersion(version));
});

test("archives' names are made and read", () => {
  assert.is(archiveName("my-app", "1.2b", "gnu-linux"), "my-app-gnu-linux-1.2b.tar.gz");
  assert.equal(readArchiveName("my-app-gnu-linux-1.2b.tar.gz", "1.2b"), {
    app: "my-app",
    platform: "gnu-linux",
  });
  assert.equal(readArchiveName("my-app-1.2b.tgz", "1.2b"), { app: "my-app" });
  assert.is(readArchiveName("other.tar.gz", "1.2b"), undefined);
});

test.run();
