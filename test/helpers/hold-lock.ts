// A process that takes the lock named by its argument, says so, and holds it until it is killed.
import process from "node:process";
import { acquireLock } from "../../lib/files/lock.ts";

await acquireLock(process.argv[2] ?? "", { what: "holding" });
console.log("held");
setInterval(() => {}, 1000);
