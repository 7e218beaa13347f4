// Lines from standard input into a log that rotates by itself, as launchfit writes the app's:
//   log-writer.mjs FILE < LINES      (bench/logs.ts bundles it)
import process from "node:process";
import { LogWriter } from "../lib/log/writer.ts";

const log = new LogWriter(process.argv[2] ?? "", { rotateAt: 16_777_215, keep: 100 });
let rest = "";
for await (const chunk of process.stdin.setEncoding("utf8")) {
  const texts = (rest + String(chunk)).split("\n");
  rest = texts.pop() ?? "";
  for (const text of texts) log.line("app", text);
}
await log.close();
