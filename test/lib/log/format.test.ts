import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  columnName,
  formatLine,
  formatMark,
  isFailure,
  type Mark,
  parseLine,
  parseMark,
} from "../../../lib/log/format.ts";

const line = {
  time: "2026-11-20T10:15:00.123Z",
  run: "20261120T101500Z-3f2a9c",
  stage: "install",
  text: "added 22 packages",
};

test("a line is TIME RUN STAGE | text", () => {
  assert.is(formatLine(line), "2026-11-20T10:15:00.123Z 20261120T101500Z-3f2a9c install | added 22 packages");
  assert.equal(parseLine(formatLine(line)), line);
});

test("an empty text, and one that looks like a line itself, come back as they were", () => {
  for (const text of ["", "  indented", "a | b", formatLine(line), "\r50%\r100%", "\u0000\u001b[31m"]) {
    assert.equal(parseLine(formatLine({ ...line, text })), { ...line, text });
  }
  assert.is(
    parseLine("2026-11-20T10:15:00.123Z - app |")?.text,
    "",
    "also where an editor has taken trailing spaces away",
  );
});

test("what somebody else wrote is no line of ours", () => {
  for (const text of [
    "",
    "npm ERR! code 1",
    "2026-11-20 10:15 x y | z",
    "60.123Z 20261120T101500Z-3f2a9c install | torn",
  ])
    assert.is(parseLine(text), undefined);
});

test("marks tell how runs and stages began and ended", () => {
  const marks: [Mark, string][] = [
    [
      { kind: "start", event: "push", ref: "main", sha: "1f2e", repo: "me/site" },
      "start event=push ref=main sha=1f2e repo=me/site",
    ],
    [{ kind: "start", event: "manual", ref: undefined, sha: undefined, repo: undefined }, "start event=manual"],
    [
      { kind: "stage", name: "install", result: "ok", code: 0, seconds: 2.125, why: undefined },
      "stage name=install result=ok code=0 seconds=2.125",
    ],
    [
      {
        kind: "stage",
        name: "litpro",
        result: "skipped",
        code: undefined,
        seconds: 0,
        why: 'no "lprc.js"',
      },
      'stage name=litpro result=skipped seconds=0 why="no \\"lprc.js\\""',
    ],
    [
      { kind: "end", result: "failed", code: 3, seconds: 9.5, sha: undefined, why: undefined },
      "end result=failed code=3 seconds=9.5",
    ],
  ];
  for (const [mark, text] of marks) {
    assert.is(formatMark(mark), text);
    assert.equal(parseMark(text), mark);
  }
});

test("a mark that lost words is read as far as it goes, and never as a success", () => {
  assert.equal(parseMark("end"), {
    kind: "end",
    result: "failed",
    code: 1,
    seconds: 0,
    sha: undefined,
    why: undefined,
  });
  assert.equal(parseMark("end result=splendid code=x"), {
    kind: "end",
    result: "failed",
    code: 1,
    seconds: 0,
    sha: undefined,
    why: undefined,
  });
  assert.is(parseMark("ended result=ok"), undefined);
  assert.is(parseMark("hello"), undefined);
});

test("names that would break the columns are changed", () => {
  assert.is(columnName("npm test"), "npm_test");
  assert.is(columnName(""), "-");
  assert.is(columnName("a\nb"), "a_b");
});

test("a skipped stage is no failure, a timeout is", () => {
  assert.equal((["ok", "failed", "skipped", "timeout", "cancelled"] as const).map(isFailure), [
    false,
    true,
    false,
    true,
    true,
  ]);
});

test.run();
