// The log at full size: a part every second, kills at random instants. SOAK_SCALE=1 is 30 s of it.
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { parseLine } from "../../lib/log/format.ts";
import { listParts } from "../../lib/log/parts.ts";
import { contentOf } from "../helpers/log-content.ts";
import { type Running, runScript, scriptArgv, startCommand, startScript, timed } from "../helpers/run.ts";
import { current, root } from "../helpers/runtime.ts";
import { tempDir } from "../helpers/tmp.ts";
import { waitFor } from "../helpers/wait.ts";

const scale = Number(process.env["SOAK_SCALE"] ?? 1);
const argv = current.argv(join(root, "test/helpers/log-process.ts"));

/** Starts a writer of numbered lines. */
const writer = (file: string, ...options: number[]) => startCommand([...argv, file, ...options.map(String)]);

/** The number after the last one that the writer said it has written. */
const written = (running: Running) => Number(running.stdout().trim().split("\n").at(-1) || 0);

/** The lines' numbers. Fails when more than so many lines are torn. */
function numbersIn(lines: string[], torn = 0): number[] {
  const texts = lines.map((raw) => /^(\d+) x{60}$/.exec(parseLine(raw)?.text ?? "")?.[1]);
  const strange = lines.filter((_, index) => texts[index] === undefined);
  assert.ok(strange.length <= torn, `${strange.length} lines are torn:\n${strange.slice(0, 5).join("\n")}`);
  return texts.flatMap((text) => (text === undefined ? [] : [Number(text)]));
}

/** Fails unless the lines are there from 0 to `count`, in order, each once and whole. */
function checkLines(lines: string[], count: number, torn = 0): void {
  const found = numbersIn(lines, torn);
  const wrong = found.findIndex((number, index) => number !== index);
  assert.is(wrong, -1, `${found.slice(wrong - 2, wrong + 3).join(" ")} at ${wrong}`);
  assert.is(found.length, count, `${found.length} lines of ${count}`);
}

test("a part every second, the writer killed and started again: no line is lost, doubled or torn", async () => {
  const dir = tempDir();
  const file = join(dir, "logs.txt");
  const seconds = Math.max(3, 30 * scale);
  const rate = 50_000;
  const count = Math.round(rate * seconds);
  const followed = join(tempDir(), "followed");
  const follow = [...scriptArgv("logs"), dir, "-f", "-n", "1000000000"];
  const follower = startCommand(["sh", "-c", 'exec "$@" > "$0"', followed, ...follow]);
  const partSize = 110 * rate;
  const victim = writer(file, count, rate, 0, partSize);
  await sleep(1000 * (seconds / 3));
  victim.kill("SIGKILL");
  await victim.exited;
  // it may have written more than it could still say; what it has written tells where to go on
  const next = (numbersIn(await contentOf(file), 1).at(-1) ?? -1) + 1;
  assert.ok(next >= written(victim), "what was written before the kill is there");
  const second = writer(file, count - next, rate, next, partSize);
  await second.until(/\d/);
  const { stderr } = await runScript("logs", ["rotate", dir, "--max-size", "1"], { expect: 0 });
  assert.match(stderr, /left .* as it is/);
  assert.is((await second.exited).code, 0);
  const lines = await contentOf(file);
  checkLines(lines, count, 1);
  assert.ok(listParts(file).filter(({ packed }) => packed).length >= seconds / 3);
  const shown = async () => (await readFile(followed, "latin1")).split("\n").length - 1;
  await waitFor(async () => (await shown()) >= lines.length, {
    timeout: 60_000,
    what: () => `the follower to have ${lines.length} lines`,
  });
  follower.kill("SIGINT");
  await follower.exited;
  checkLines((await readFile(followed, "utf8")).trimEnd().split("\n"), count, 1);
});

test("rotation killed at random instants loses nothing, and the next one tidies up", async () => {
  const dir = tempDir();
  const file = join(dir, "logs.txt");
  const times = Math.max(4, Math.round(20 * scale));
  const rotate = ["rotate", dir, "--max-size", "1", "--keep", "10000"];
  const batch = 50_000;
  let usual = 0;
  for (let round = 0; round <= times; round += 1) {
    assert.is((await writer(file, batch, 0, round * batch).exited).code, 0);
    // the first one shows how long it takes
    if (round === 0) usual = await timed(() => runScript("logs", rotate, { expect: 0 }));
    else {
      const rotation = startScript("logs", rotate);
      await sleep(Math.random() * 1.2 * usual);
      rotation.kill("SIGKILL");
      await rotation.exited;
    }
    checkLines(await contentOf(file), (round + 1) * batch);
  }
  await runScript("logs", rotate, { expect: 0 });
  checkLines(await contentOf(file), (times + 1) * batch);
  const left = (await readdir(dir)).filter((name) => !/^logs\.txt(\.lock|\.\d{8}T\d{6}Z\.gz)$/.test(name));
  assert.equal(left, []);
});

test.run();
