import { test } from "uvu";
import * as assert from "uvu/assert";
import { needlesOf } from "../../../lib/logs/needles.ts";

const table: [string, string[] | undefined][] = [
  ["error", ["error"]],
  ["npm ERR! code", ["npm ERR! code"]],
  ["npm (ERR|error)", ["npm "]],
  ["timeout|refused", ["timeout", "refused"]],
  ["(timeout|refused)", ["timeout", "refused"]],
  ["(?:timeout|refused)+ by", ["timeout", "refused"]],
  ["(timeout|refused)? by peer", [" by peer"]],
  ["(timeout|refused){0,3}", undefined],
  ["(?=abcdef)xyz", ["xyz"]],
  ["(?!abcdef)xyz", ["xyz"]],
  ["(?<name>abcdef)xyz", ["xyz"]],
  ["((ab|cd)ef|gh)", ["ab", "cd", "gh"]],
  ["timeout|\\d+", undefined],
  ["^error: .* failed$", ["error: "]],
  ["colou?r", ["colo"]],
  ["ab+c", ["ab"]],
  ["ab*cd", ["cd"]],
  ["ab{0,2}cd", ["cd"]],
  ["xab{2}c", ["xab"]],
  ["a\\.b\\*c", ["a.b*c"]],
  ["\\d+ errors", [" errors"]],
  ["[abc]def", ["def"]],
  ["[|]def", ["def"]],
  ["[\\]x]def", ["def"]],
  ["(?:a|b)cd(?=ef)gh", ["cd"]],
  ["(?<!x(y))abc", ["abc"]],
  ["\\x41bcd", undefined],
  ["abc\\x41bcd", ["abc"]],
  ["foo\\b", ["foo"]],
  ["a", undefined],
  [".*", undefined],
  ["", undefined],
  ["ab|", undefined],
  ["grün", ["grün"]],
];

for (const [pattern, needles] of table) {
  test(`lines that may match /${pattern}/ are known by ${needles?.join(" or ") ?? "nothing"}`, () => {
    assert.equal(needlesOf(pattern), needles);
  });
}

test("no match is missed: each needle is in every text that matches", () => {
  const alphabet = [
    "a",
    "b",
    "ab",
    "\\.",
    ".",
    "x?",
    "b*",
    "a+",
    "(ab)",
    "(a|b)",
    "[ab]",
    "ba{2}",
    "|ab",
    "\\b",
  ];
  let seed = 1;
  const random = (below: number) => {
    seed = (seed * 16807) % 2147483647;
    return seed % below;
  };
  for (let round = 0; round < 3000; round += 1) {
    const pattern = Array.from(
      { length: 1 + random(6) },
      () => alphabet[random(alphabet.length)],
    ).join("");
    const needles = needlesOf(pattern);
    if (!needles) continue;
    const text = Array.from({ length: 12 }, () => "abx. "[random(5)]).join("");
    if (new RegExp(pattern).test(text)) {
      assert.ok(
        needles.some((needle) => text.includes(needle)),
        `/${pattern}/ matches "${text}" without ${needles}`,
      );
    }
  }
});

test.run();
