// Reads in a tight loop, in a process of its own, while something is switched: never missing, never mixed.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import * as assert from "uvu/assert";
import { startCommand } from "./run.ts";
import { tempDir } from "./tmp.ts";

/** Node, also under Deno: the reader is no part of what is tested. */
const node = process.versions["deno"] ? "node" : process.execPath;

const source = `
const { existsSync, readFileSync, realpathSync } = require("node:fs");
const { join } = require("node:path");
const [stop, folder, ...files] = process.argv.slice(1);
const seen = {};
let rounds = 0;
console.log("reads");
for (let turn = 0; turn % 100 !== 0 || !existsSync(stop); turn++) {
  let what;
  try {
    const place = folder === "" ? "" : realpathSync(folder);
    what = files.map((file) => readFileSync(join(place, file), "utf8")).join("|");
  } catch (error) {
    // a tree that was left since the link was read may be gone: only what the link leads to now counts
    if (folder !== "" && error.code === "ENOENT" && existsSync(folder)) continue;
    what = String(error);
  }
  seen[what] = (seen[what] ?? 0) + 1;
  rounds += 1;
}
console.log(JSON.stringify({ rounds, seen }));
`;

/** How long is switched, in milliseconds, and how often at most: a release each time is dated later, but not too much. */
const switchingTime = 1500;
const mostSwitches = 200;

/**
 * Repeats `work` for `switchingTime`, and three times at least, while the files are read again and again, and gives how often each content was seen
 * (several files: joined by `|`). `folder` is a link or folder that is resolved first, in each round: its files belong together.
 */
export async function readWhile(
  { folder = "", files }: { folder?: string; files: readonly string[] },
  work: (round: number) => Promise<unknown>,
): Promise<{ rounds: number; seen: Record<string, number>; switches: number }> {
  const stop = join(tempDir(), "stop");
  const reader = startCommand([node, "--eval", source, stop, folder, ...files]);
  await reader.until(/reads/);
  const end = Date.now() + switchingTime;
  let switches = 0;
  try {
    do await work(switches++);
    while (switches < 3 || (switches < mostSwitches && Date.now() < end));
  } finally {
    writeFileSync(stop, "");
  }
  const { stdout, stderr } = await reader.exited;
  assert.is(stderr, "");
  return { ...JSON.parse(stdout.split("\n")[1] ?? ""), switches };
}
