// Git's hook proc-receive, and the file of an app's secrets.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { parseEnv } from "node:util";
import { changeVariables, readVariables, variableNames } from "../../../lib/apps/env-file.ts";
import { packet, readUpdates, report } from "../../../lib/apps/packets.ts";

async function* pieces(text: string, size: number) {
  for (let at = 0; at < text.length; at += size) yield Buffer.from(text.slice(at, at + size));
}

test("updates are read however the bytes come, and answered after git's greeting", async () => {
  const update = `${"0".repeat(40)} ${"a".repeat(40)} refs/heads/main`;
  const text = `${packet("version=1\0push-options atomic\n")}0000${packet(`${update}\n`)}0000`;
  for (const size of [1, 3, 7, 1000]) {
    let greeted = 0;
    const updates = await readUpdates(pieces(text, size), () => (greeted += 1));
    assert.equal(updates, [{ old: "0".repeat(40), sha: "a".repeat(40), ref: "refs/heads/main" }]);
    assert.is(greeted, 1);
  }
});

test("what is not git is refused, and so is its early end", async () => {
  const read = (text: string) => readUpdates(pieces(text, 100), () => {});
  for (const [text, wrong] of [
    ["hello world", "no packet"],
    [packet("version=1"), "ended before"],
    [`${packet("version=9")}0000`, "version=9"],
  ] as const)
    await read(text).then(
      () => assert.unreachable(),
      (error: Error) => assert.match(error.message, wrong),
    );
});

test("a reason is one line of a packet", () => {
  assert.is(
    report([{ ref: "r" }, { ref: "s", wrong: "a\nb\0 c" }]),
    "0008ok r000cng s a b c0000".replace("000c", "000e"),
  );
});

test("a secret comes back as it was given; one that no line can hold is refused", () => {
  const values = ["a b", "it's", 'say "x"', "#no comment", "$HOME ${X}", "\\n \\t", " lead ", "", "a=b"];
  for (const value of values) {
    const text = changeVariables("", readVariables(`NAME=${value}\nOTHER=1\n`));
    assert.equal({ ...parseEnv(text) }, { NAME: value, OTHER: "1" });
    const without = changeVariables(text, new Map([["NAME", undefined]]));
    assert.equal(variableNames(without), ["OTHER"]);
  }
  assert.throws(() => changeVariables("", new Map([["A", "'`\""]])), /^A|base64/);
  assert.throws(() => readVariables("no value"), "line 1 is not NAME=VALUE");
});

test.run();
