import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { placeBefore, readLines } from "../../../lib/logs/read.ts";
import type { Selection } from "../../../lib/logs/select.ts";
import { closeLogFiles, openLogFiles } from "../../../lib/logs/source.ts";
import { tempDir } from "../../helpers/tmp.ts";

const start = Date.parse("2026-11-20T10:00:00.000Z");
const at = (second: number) => new Date(start + second * 1000).toISOString();
const line = (second: number) =>
  `${at(second)} 20261120T100000Z-aaaaaa test | ${second} ${"x".repeat(100)}`;

/** A log of 30,000 seconds, and a part of the 30,000 before them. */
async function longLog(): Promise<string> {
  const dir = tempDir();
  const lines = (from: number) =>
    Array.from({ length: 30_000 }, (_, index) => `${line(from + index)}\n`).join("");
  await writeFile(join(dir, "logs.txt.20261120T182000Z"), lines(0));
  await writeFile(join(dir, "logs.txt"), lines(30_000));
  return join(dir, "logs.txt");
}

async function read(file: string, selection: Selection) {
  const files = await openLogFiles(file);
  const seconds: number[] = [];
  let blocks = 0;
  const choose = ({ raw }: { raw: string }) =>
    void seconds.push(Number(/ \| (\d+) /.exec(raw)?.[1]));
  await readLines(files, selection, choose, { afterBlock: () => void blocks++ });
  const place = placeBefore(files, selection, 3);
  closeLogFiles(files);
  return { seconds, blocks, place };
}

test("of a long log only what lies between --since and --until is read", async () => {
  const file = await longLog();
  const { seconds, blocks } = await read(file, { since: at(9000), until: at(9002) });
  assert.equal(seconds, [9000, 9001, 9002]);
  assert.ok(blocks <= 3, `${blocks} blocks of 64 KiB`);
  const early = await read(file, { until: at(1) });
  assert.equal(early.seconds, [0, 1]);
  assert.ok(early.blocks <= 2, `${early.blocks} blocks`);
});

test("--until ends after the lines around the last match", async () => {
  const file = await longLog();
  const selection = { until: at(5), grep: /^5 /, after: 2000 };
  const { seconds } = await read(file, selection);
  assert.is(seconds.length, 2001);
  assert.is(seconds.at(-1), 2005);
});

test("the last lines before --until are found though the log goes on", async () => {
  const { place } = await read(await longLog(), { until: at(20_000) });
  assert.is(place.source, 0);
});

test.run();
