// The log at full size: many writers, many rotations, kills at random instants. SOAK_SCALE=1 is 30 s of it.
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { parseLine } from "../../lib/log/format.ts";
import { listParts } from "../../lib/log/parts.ts";
import { contentOf } from "../helpers/log-content.ts";
import {
  type Running,
  runScript,
  scriptArgv,
  startCommand,
  startScript,
  timed,
} from "../helpers/run.ts";
import { current, root } from "../helpers/runtime.ts";
import { tempDir } from "../helpers/tmp.ts";
import { waitFor } from "../helpers/wait.ts";

const scale = Number(process.env["SOAK_SCALE"] ?? 1);
const names = ["aaa", "bbb", "ccc"];

/** Starts a writer of numbered lines. */
function writer(file: string, name: string, count: number, rate: number, first = 0): Running {
  const argv = current.argv(join(root, "test/helpers/log-process.ts"));
  return startCommand([...argv, file, name, String(count), String(rate), String(first)]);
}

/** The number after the last one that the writer said it has written. */
const written = (running: Running) => Number(running.stdout().trim().split("\n").at(-1) || 0);

/** Fails unless the lines of each writer are there from 0 to `counts`, in order, each once and whole. */
function checkLines(lines: string[], counts: ReadonlyMap<string, number>, torn = 0): void {
  const numbers = new Map(names.map((name) => [name, [] as number[]]));
  const strange: string[] = [];
  for (const raw of lines) {
    const line = parseLine(raw);
    const number = /^(\d+) x{60}$/.exec(line?.text ?? "")?.[1];
    if (line && number !== undefined) numbers.get(line.stage)?.push(Number(number));
    else if (line?.stage !== "run") strange.push(raw);
  }
  assert.ok(
    strange.length <= torn,
    `${strange.length} lines are torn:\n${strange.slice(0, 5).join("\n")}`,
  );
  for (const [name, count] of counts) {
    const found = numbers.get(name) ?? [];
    const wrong = found.findIndex((number, index) => number !== index);
    assert.is(wrong, -1, `${name}: ${found.slice(wrong - 2, wrong + 3).join(" ")} at ${wrong}`);
    assert.is(found.length, count, `${name}: ${found.length} lines of ${count}`);
  }
}

test("three writers, rotation every second, one killed and restarted: no line is lost, doubled or torn", async () => {
  const dir = tempDir();
  const file = join(dir, "logs.txt");
  const seconds = Math.max(3, 30 * scale);
  const rate = 50_000 / names.length;
  const count = Math.round(rate * seconds);
  const followed = join(tempDir(), "followed");
  const follower = startCommand([
    "sh",
    "-c",
    'exec "$@" > "$0"',
    followed,
    ...scriptArgv("logs"),
    dir,
    "-f",
    "-n",
    "1000000000",
  ]);
  const writers = names.map((name) => writer(file, name, count, rate));
  const [, , victim] = writers;
  let over = false;
  const rotations = (async () => {
    while (!over) {
      await sleep(1000);
      await runScript("logs", ["rotate", dir, "--max-size", "1", "--keep", "10000"], { expect: 0 });
    }
  })();
  await sleep(1000 * (seconds / 3));
  victim?.kill("SIGKILL");
  await victim?.exited;
  // it may have written more than it could still say; what it has written tells where to go on
  const whole = (await contentOf(file))
    .map(parseLine)
    .filter((line) => line?.stage === "ccc" && / x{60}$/.test(line.text));
  const next = Number.parseInt(whole.at(-1)?.text ?? "-1", 10) + 1;
  assert.ok(victim && next >= written(victim), "what was written before the kill is there");
  const second = writer(file, "ccc", count - next, rate, next);
  for (const each of [...writers.slice(0, 2), second]) assert.is((await each.exited).code, 0);
  over = true;
  await rotations;
  const lines = await contentOf(file);
  const counts = new Map(names.map((name) => [name, count]));
  checkLines(lines, counts, 1);
  assert.ok((await listParts(file)).filter(({ packed }) => packed).length >= seconds / 3);
  const wanted = lines.length;
  const shown = async () => (await readFile(followed, "latin1")).split("\n").length - 1;
  await waitFor(async () => (await shown()) >= wanted, {
    timeout: 60_000,
    what: () => `the follower to have ${wanted} lines`,
  });
  follower.kill("SIGINT");
  await follower.exited;
  checkLines((await readFile(followed, "utf8")).trimEnd().split("\n"), counts, 1);
});

test("rotation killed at random instants loses nothing, and the next one tidies up", async () => {
  const dir = tempDir();
  const file = join(dir, "logs.txt");
  const times = Math.max(4, Math.round(20 * scale));
  const rate = 3000;
  const count = Math.round(rate * times * 0.6);
  const writers = names.map((name) => writer(file, name, count, rate));
  const rotate = ["rotate", dir, "--max-size", "1", "--keep", "10000"];
  const areDone = () => writers.every(({ child }) => child.exitCode !== null);
  // so that each rotation has something to do
  const grown = () =>
    waitFor(async () => {
      const size = (await stat(file).catch(() => undefined))?.size ?? 0;
      return size > 200_000 || areDone();
    });
  await grown();
  const usual = await timed(() => runScript("logs", rotate, { expect: 0 }));
  for (let round = 0; round < times; round += 1) {
    await grown();
    const rotation = startScript("logs", rotate);
    await sleep(Math.random() * 1.2 * usual);
    rotation.kill("SIGKILL");
    await rotation.exited;
  }
  for (const each of writers) assert.is((await each.exited).code, 0);
  checkLines(await contentOf(file), new Map(names.map((name) => [name, count])));
  await runScript("logs", rotate, { expect: 0 });
  checkLines(await contentOf(file), new Map(names.map((name) => [name, count])));
  const left = (await readdir(dir)).filter(
    (name) => !/^logs\.txt(\.lock|\.\d{8}T\d{6}Z(-\d+)?\.gz)$/.test(name),
  );
  assert.equal(left, []);
});

test.run();
