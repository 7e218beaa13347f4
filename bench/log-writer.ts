// Lines from standard input into a log that rotates by itself, as launchfit writes the app's:
//   log-writer.mjs FILE < LINES      (bench/logs.ts bundles it)
import process from "node:process";
import { openLog } from "../lib/log/writer.ts";

const log = await openLog(process.argv[2] ?? "", { rotateAt: 16_777_215, keep: 100 });
let rest = "";
for await (const chunk of process.stdin.setEncoding("utf8")) {
  const texts = (rest + String(chunk)).split("\n");
  rest = texts.pop() ?? "";
  log.lines("app", texts);
}
await log.close();
