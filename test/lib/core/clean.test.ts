import { test } from "uvu";
import * as assert from "uvu/assert";
import { cleanJson, cleanLine, cleanText, withoutEscapes } from "../../../lib/core/clean.ts";
import { slowness } from "../../helpers/wait.ts";

const esc = "\u001b";

test("ordinary text, tabs and other scripts stay as they are", () => {
  for (const text of ["", "added 22 packages", "a\tb", "zażółć 漢字 🎉 العربية", "100% | [ok]"]) {
    assert.is(cleanText(text), text);
    assert.is(cleanText(text, true), text);
  }
});

test("colours are kept where they are wanted, end with the line, and are taken out elsewhere", () => {
  assert.is(cleanText(`${esc}[1;31merror${esc}[0m: no`), "error: no");
  assert.is(cleanText(`${esc}[1;31merror`, true), `${esc}[1;31merror${esc}[0m`);
  assert.is(cleanText(`${esc}[38:5:9merror`, true), `${esc}[38:5:9merror${esc}[0m`);
});

test("whatever acts on a terminal is taken out, also where colours are kept", () => {
  const acting = [
    `${esc}[2J`, // clears the screen
    `${esc}[1A${esc}[2K`, // goes up and wipes a line
    `${esc}]0;title\u0007`, // sets the title
    `${esc}]52;c;cm0gLXJmIC8=${esc}\\`, // fills the clipboard
    `${esc}]8;;http://evil.example${esc}\\`, // makes a link
    `${esc}P$q"p${esc}\\`, // asks the terminal to answer
    `${esc}[6n`, // the same
    `${esc}[?1049h`, // switches to the other screen
    `${esc}c`, // resets the terminal
    `${esc}(0`, // line drawing characters
    "\u009b2J",
    "\u009d0;title\u009c",
  ];
  for (const sequence of acting) {
    assert.is(cleanText(`a${sequence}b`), "ab", JSON.stringify(sequence));
    assert.is(cleanText(`a${sequence}b`, true), "ab", JSON.stringify(sequence));
  }
});

test("nothing that is left over can begin a sequence", () => {
  for (const text of [`a${esc}`, `a${esc}]0;no end`, `a${esc}[`, `${esc}${esc}[31m[2J`, "a\u009b", "a\u009dno end"]) {
    for (const colours of [false, true]) {
      const clean = cleanText(text, colours);
      assert.not.match(clean.replace(/\u001b\[[0-9;:]*m/g, ""), /[\u0000-\u0008\u000a-\u001f\u007f-\u009f]/);
    }
  }
  assert.is(cleanText(`${esc}]0;no end of it`), "0;no end of it", "an end that never comes hides nothing");
});

test("other control characters, NUL bytes and turned directions show as signs", () => {
  assert.is(cleanText("a\u0000b\u0007c\bd"), "a^@b^Gc^Hd");
  assert.is(cleanText("x\u007f\u0085"), "x^?<85>");
  assert.is(cleanText("safe\u202egnp.exe"), "safe<202e>gnp.exe");
  assert.is(cleanText("a\u2066b", true), "a<2066>b");
});

test("of a progress bar that redraws itself the last state stays", () => {
  assert.is(cleanText("10%\r50%\r100%"), "100%");
  assert.is(cleanText("10%\r100%\r"), "100%");
  assert.is(cleanText(`10%\r${esc}[K100%\r${esc}[K`), "100%");
  assert.is(cleanText("\r"), "");
});

test("several lines become one, in which a carriage return hides nothing", () => {
  assert.is(cleanLine("cannot read: a\rb\r\nc\n\u001b[2Jd\n"), "cannot read: a | b | c | d");
});

test("JSON keeps its value, and holds nothing that acts on a terminal", () => {
  const value = { a: `${esc}[2J\u009b\u202e\u2028ü漢🎉` };
  const json = cleanJson(JSON.stringify(value));
  assert.equal(JSON.parse(json), value);
  assert.is(json, '{"a":"\\u001b[2J\\u009b\\u202e\\u2028ü漢🎉"}');
});

test("a search sees the text without escapes", () => {
  assert.is(withoutEscapes(`npm ${esc}[31mERR${esc}[0m! code`), "npm ERR! code");
});

test("text made to be slow is not: each kind of sequence without an end, many times", () => {
  const started = Date.now();
  for (const start of ["\u009d", "\u009b", "\u0090", "\u001b]", "\u001b[", "\u001b[1", "\u001b[1 "])
    cleanText(start.repeat(300_000));
  assert.ok(Date.now() - started < 5000 * slowness());
});

test.run();
