// The one writer of a log, for tests: numbered lines through lib/log/writer.ts, under the log's lock.
//   log-process.ts FILE COUNT [LINES A SECOND] [FIRST NUMBER] [BYTES OF A PART]
// After each batch it prints the number of the next line, so that a test knows what was written when
// the process is killed.
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { acquireLock } from "../../lib/files/lock.ts";
import { LogWriter } from "../../lib/log/writer.ts";

const [file = "", count = "0", rate = "0", first = "0", rotateAt = "1e12"] = process.argv.slice(2);
const lock = await acquireLock(`${file}.lock`, { what: "a test", wait: true });
const log = new LogWriter(file, { run: "20261121T024404Z-aaaaaa", rotateAt: Number(rotateAt), keep: 10_000 });
const batch = rate === "0" ? 100 : Math.max(1, Math.round(Number(rate) / 100));
const started = Date.now();
let number = Number(first);
for (const end = number + Number(count); number < end; ) {
  const lines = Math.min(batch, end - number);
  for (let line = 0; line < lines; line += 1) log.line("a", `${number + line} ${"x".repeat(60)}`);
  number += lines;
  log.flush();
  process.stdout.write(`${number}\n`);
  const due = rate === "0" ? 0 : ((number - Number(first)) / Number(rate)) * 1000;
  const wait = started + due - Date.now();
  await sleep(Math.max(0, wait));
}
await log.close();
lock.release();
