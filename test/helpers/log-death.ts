// Writes a line and dies at once, for the test that nothing is lost: log-death.ts FILE exit|kill|throw
import process from "node:process";
import { LogWriter } from "../../lib/log/writer.ts";

const [file = "", how = ""] = process.argv.slice(2);
const log = new LogWriter(file);
log.line("a", how);
if (how === "exit") process.exit(3);
if (how === "throw") throw new Error("as the test asked for");
await Promise.resolve();
process.kill(process.pid, "SIGKILL");
