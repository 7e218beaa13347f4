// The questions that are asked on a terminal, answered on a real one: script(1) makes it.
import { spawn } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { webApp } from "../helpers/launch.ts";
import { makePublisher } from "../helpers/publisher.ts";
import { runCommand, runScript, scriptArgv } from "../helpers/run.ts";
import { testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";

const missing = await runCommand(["script", "--version"]).then(
  ({ stdout }) => (stdout.includes("util-linux") ? undefined : "script(1) is another one"),
  () => "script(1) is missing",
);
const onTerminal = testUnless(test, missing);

const quoted = (word: string) => `'${word.replaceAll("'", "'\\''")}'`;

/** Runs a script of ours on a terminal, where `answer` is typed at the question; what was shown, and the exit code. */
async function typed(name: string, args: string[], question: RegExp, answer: string) {
  const line = [...scriptArgv(name), ...args].map(quoted).join(" ");
  const child = spawn("script", ["-qefc", line, "/dev/null"], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  let shown = "";
  let asked = false;
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    shown += text;
    if (asked || !question.test(shown)) return;
    asked = true;
    child.stdin.write(answer);
  });
  const code = await new Promise<number | null>((resolve) => child.on("close", resolve));
  return { code, shown };
}

const trustQuestion = /Is this the publisher's key\? \[y\/N\] /;

const publisher = await makePublisher();
await publisher.publish("1", webApp("1"));
test.after(() => publisher.close());

onTerminal("the first install without a key shows the fingerprint and asks; yes pins it", async () => {
  const dir = tempDir();
  const { code, shown } = await typed("launchfit", [publisher.url, "--dir", dir], trustQuestion, "y\r");
  assert.is(code, 0, shown);
  assert.match(shown, publisher.fingerprint);
  assert.match(readFileSync(join(dir, "launchify.yml"), "utf8"), publisher.fingerprint);
});

onTerminal("any other answer installs nothing, exit 4", async () => {
  for (const answer of ["\r", "n\r", "yep\r"]) {
    const dir = tempDir();
    const { code, shown } = await typed("launchfit", [publisher.url, "--dir", dir], trustQuestion, answer);
    assert.is(code, 4, shown);
    assert.not.ok(existsSync(join(dir, "current")));
    assert.not.ok(existsSync(join(dir, "launchify.yml")));
  }
});

onTerminal("Ctrl-C or Ctrl-D at a question ends the script with one line", async () => {
  for (const key of ["\u0003", "\u0004"]) {
    const dir = tempDir();
    const args = [publisher.url, "--dir", dir];
    const { code, shown } = await typed("launchfit", args, trustQuestion, key);
    assert.is(code, 1, shown);
    assert.match(shown, /launchfit: nobody answered; nothing was changed\r?\n$/);
    assert.not.ok(existsSync(join(dir, "current")));
  }
});

onTerminal("release asks for the key's passphrase and does not show it", async () => {
  const folder = tempDir();
  const secret = join(folder, "passphrase");
  writeFileSync(secret, "correct horse\n", { mode: 0o600 });
  const key = join(folder, "key.asc");
  const made = await runScript("release", ["keygen", "--out", key, "--passphrase-file", secret]);
  assert.is(made.code, 0, made.stderr);
  const args = ["pack", "--app", "a", "--version", "1", "--from", publisher.folder, "--key", key];
  const good = await typed("release", [...args, "--out", join(folder, "one")], /passphrase.*: /i, "correct horse\r");
  assert.is(good.code, 0, good.shown);
  assert.not.match(good.shown, "horse");
  const wrong = await typed("release", [...args, "--out", join(folder, "two")], /passphrase.*: /i, "battery\r");
  assert.is(wrong.code, 2, wrong.shown);
  assert.match(wrong.shown, /the passphrase for .*key\.asc is wrong/);
  assert.not.match(wrong.shown, "battery");
});

test.run();
