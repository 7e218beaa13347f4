import { Buffer } from "node:buffer";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { createMask } from "../../../lib/core/mask.ts";

const secret = 'pä55/w+rd&"x';
const mask = createMask([secret, "line-one\nline-two"]);

test("a secret is masked as it is, escaped, in hex, and in base64 at any offset", () => {
  assert.is(mask(`login ${secret} ok`), "login *** ok");
  assert.not.match(mask(JSON.stringify({ secret })), /pä55/);
  assert.is(mask(encodeURIComponent(secret)), "***");
  assert.is(mask(Buffer.from(secret).toString("hex")), "***");
  for (const before of ["", "u:", "us:", "usr:", "user:"]) {
    for (const after of ["", "!", "!!"]) {
      const shown = mask(Buffer.from(before + secret + after).toString("base64"));
      assert.match(shown, /\*\*\*/, `${before}…${after}`);
      const plain = Buffer.from(shown.replace("***", ""), "base64").toString();
      assert.not.match(plain, /55/, `${before}…${after} shows ${plain}`);
    }
  }
});

test("a secret of several lines is masked line by line, and ordinary text is left alone", () => {
  assert.is(mask("got line-two"), "got ***");
  assert.is(mask("nothing to hide"), "nothing to hide");
  assert.is(createMask([""])("as it is"), "as it is");
});

test("of secrets that share characters no part is left standing", () => {
  const both = createMask(["planted-one", "planted-one-and-more", "more-of-another"]);
  assert.is(both("a planted-one-and-more b planted-one c"), "a *** b *** c");
  assert.is(both("planted-one-and-more-of-another"), "***");
  assert.equal(both.spans("x planted-one-and-more-of-another"), [[2, 33]]);
  assert.equal(both.spans("nothing"), []);
});

test.run();
