// A process that writes numbered lines through lib/log/writer.ts, for tests with several writers.
//   log-process.ts FILE NAME COUNT [LINES A SECOND] [FIRST NUMBER]
// After each batch it prints the number of the next line, so that a test knows what was written when
// the process is killed.
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { openLog } from "../../lib/log/writer.ts";

const [file = "", name = "", count = "0", rate = "0", first = "0"] = process.argv.slice(2);
const log = await openLog(file, { run: `20261121T024404Z-${name}`, rotateAt: 1e12 });
const batch = rate === "0" ? 100 : Math.max(1, Math.round(Number(rate) / 100));
const started = Date.now();
let number = Number(first);
for (const end = number + Number(count); number < end; ) {
  const lines = Math.min(batch, end - number);
  for (let line = 0; line < lines; line += 1) log.line(name, `${number + line} ${"x".repeat(60)}`);
  number += lines;
  log.flush();
  process.stdout.write(`${number}\n`);
  const due = rate === "0" ? 0 : ((number - Number(first)) / Number(rate)) * 1000;
  const wait = started + due - Date.now();
  await sleep(Math.max(0, wait));
}
await log.close();
