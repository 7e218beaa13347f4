import { test } from "uvu";
import * as assert from "uvu/assert";
import { UsageError } from "../../../lib/core/errors.ts";
import { grepPattern, lineFilter, pointInTime, type Selection } from "../../../lib/logs/select.ts";

const runs = ["20261120T101500Z-aaaaaa", "20261120T101600Z-bbbbbb"];
const log = (run: number, stage: string, text: string, second = 0) =>
  `2026-11-20T10:15:${String(second).padStart(2, "0")}.000Z ${runs[run]} ${stage} | ${text}`;

/** What the filter chooses of some lines, handed over in blocks of so many lines. */
function choose(lines: string[], selection: Selection, blockLines = 1000, newline = true): string[] {
  const chosen: string[] = [];
  const filter = lineFilter(selection, ({ raw, context, gap }) => {
    if (gap) chosen.push("--");
    chosen.push(`${context ? "-" : ":"}${raw}`);
  });
  for (let at = 0; at < lines.length; at += blockLines) {
    const block = lines.slice(at, at + blockLines).join("\n");
    const last = at + blockLines >= lines.length;
    filter(last && !newline ? block : `${block}\n`);
  }
  return chosen;
}

const lines = [
  log(0, "install", "one", 1),
  log(1, "install", "two", 2),
  "three, of nobody",
  log(0, "litpro", "four", 4),
  log(1, "litpro", "\u001b[31mfi\u001b[0mve", 5),
];
const wanted = (...indices: number[]) => indices.map((index) => `:${lines[index]}`);

test("all lines but empty ones are chosen when nothing is asked for, also a last one without a newline", () => {
  assert.equal(choose([...lines, ""], {}), wanted(0, 1, 2, 3, 4));
  assert.equal(choose(lines, {}, 1000, false), wanted(0, 1, 2, 3, 4));
});

test("runs, stages and times narrow it, and lines of nobody belong to none", () => {
  assert.equal(choose(lines, { runs: new Set([runs[0] ?? ""]) }), wanted(0, 3));
  assert.equal(choose(lines, { stage: "litpro" }), wanted(3, 4));
  assert.equal(choose(lines, { since: "2026-11-20T10:15:02.000Z" }), wanted(1, 3, 4));
  assert.equal(choose(lines, { since: "2026-11-20T10:15:02.000Z", until: "2026-11-20T10:15:04.000Z" }), wanted(1, 3));
  assert.equal(choose(lines, { runs: new Set(runs), stage: "install" }), wanted(0, 1));
  assert.equal(choose(lines, { runs: new Set() }), []);
});

test("a time that there is not is an error, and names what to write", () => {
  const now = new Date("2026-11-20T10:00:00Z");
  for (const text of [
    "25:99",
    "24:00",
    "10:60",
    "2026-02-31",
    "2026-13-01",
    "2026-02-31T10:00",
    "2026-11-20T25:00",
    "x",
  ])
    assert.throws(() => pointInTime("--since", text, now), /--since: ".*" is not a time; write 2h/, text);
  for (const text of ["23:59", "9:05:07", "2026-02-28", "2026-11-20 10:15", "2026-11-20T10:15:00Z", "2h"])
    assert.match(pointInTime("--since", text, now), /^2026-\d\d-\d\dT/);
});

test("a pattern is matched against the text only, without escape sequences", () => {
  assert.equal(choose(lines, { grep: /^five$/ }), wanted(4));
  assert.equal(choose(lines, { grep: /five/ }), wanted(4));
  assert.equal(choose(lines, { grep: /FIVE|One/i }), wanted(0, 4));
  assert.equal(choose(lines, { grep: /nobody/ }), wanted(2));
  assert.equal(choose(lines, { grep: /2026|litpro|bbbbbb/ }), []);
  assert.equal(choose(lines, { grep: /o/, stage: "install" }), wanted(0, 1));
  assert.equal(choose(lines, { grep: /^.{3}$/ }), wanted(0, 1));
  assert.equal(choose(lines.slice(0, 4), { grep: /^.{3}$|[w]h|[2]026/ }), wanted(0, 1));
  assert.equal(choose([log(0, "a", "x | [y] grün"), "| é"], { grep: /^. . \[.\] ....$/ }).length, 1);
});

test("a pattern that is none is an error of usage", () => {
  assert.throws(
    () => grepPattern("(", false),
    (error: unknown) => error instanceof UsageError && /--grep/.test(error.message),
  );
});

test("lines around a match are shown once, whatever blocks they come in", () => {
  let seed = 7;
  const random = (below: number) => {
    seed = (seed * 16807) % 2147483647;
    return seed % below;
  };
  for (let round = 0; round < 400; round += 1) {
    const texts = Array.from({ length: 1 + random(30) }, (_, index) =>
      log(0, "a", `${random(5) === 0 ? "hit" : "no"} ${index}`),
    );
    const before = random(4);
    const after = random(4);
    const expected: string[] = [];
    let shown = -1;
    for (const [index, text] of texts.entries()) {
      const near = texts.some((other, at) => other.includes("| hit") && at - before <= index && index <= at + after);
      if (!near) continue;
      if (shown >= 0 && shown < index - 1 && before + after > 0) expected.push("--");
      expected.push(`${text.includes("| hit") ? ":" : "-"}${text}`);
      shown = index;
    }
    for (const grep of [/^hit/, /^[h]it/, /^[h][i]/]) {
      const got = choose(texts, { grep, before, after }, 1 + random(6), random(2) === 0);
      assert.equal(got, expected, `-B ${before} -A ${after}\n${texts.join("\n")}`);
    }
  }
});

test("however a block is searched, the lines are those that match one by one", () => {
  let seed = 11;
  const random = (below: number) => {
    seed = (seed * 16807) % 2147483647;
    return seed % below;
  };
  const words = ["foo", "bar", "foo 1", "x", "", " ", "12", "b|ar", "\u001b[1mfo\u001b[0mo", "grün", "^a$"];
  const texts = Array.from({ length: 900 }, (_, index) => {
    // escapes and what is not ASCII come late, so that there are blocks without
    const of = index < 600 ? words.length - 3 : words.length;
    return Array.from({ length: random(4) }, () => words[random(of)]).join(" ");
  });
  const lines = texts.map((text, index) => (index % 7 === 3 ? `plain ${text}` : log(0, "a", text)));
  const patterns = [
    /(?:foo|bar) \d+$/,
    /foo|bar/,
    /(foo|bar)\s+x$/,
    /foo[^z]*bar/,
    /[^a-z|]$/,
    /\bx\b/,
    /x$|12/i,
    /(?!foo)bar$/,
    /^(?:bar|x)/,
    /\^a\$|[$^]/,
    /o\W1/,
    /2026|10:15/,
    /\s$/,
    /FOO|BAR/i,
  ];
  for (const grep of patterns) {
    const expected = lines
      .filter((line) => {
        const text = line.replace(/^2026.*? \| /, "").replace(/\u001b\[\dm/g, "");
        return grep.test(text);
      })
      .map((line) => `:${line}`);
    for (const size of [1, 10, 300, 1000])
      assert.equal(choose(lines, { grep }, size), expected, `${grep} in blocks of ${size} lines`);
  }
});

test.run();
