// Starts a hook-server, pushes once, and stops it when the forge has the status; ends by SIGKILL when a step did so: DIR.
import { readFileSync } from "node:fs";
import process from "node:process";
import { sha, startHooks, untold } from "./hooks.ts";
import { waitFor } from "./wait.ts";

const [dir = ""] = process.argv.slice(2);
const { LD_PRELOAD, STEPS_BELOW, STEPS_LOG: log = "", STEPS_KILL: kill } = process.env;
const env = { LD_PRELOAD, STEPS_BELOW, STEPS_LOG: log, STEPS_KILL: kill };

function isKilled(): boolean {
  if (kill === "0") return false;
  try {
    return readFileSync(log, "utf8").split("\n").length > Number(kill);
  } catch {
    return false;
  }
}

try {
  const server = await startHooks(dir, { env });
  await server.push("me/site", sha(1), { id: "delivery-1" });
  const told = async () => {
    await server.idle();
    return !untold(server);
  };
  await Promise.race([server.running.exited, waitFor(async () => isKilled() || (await told()))]);
  await server.stop();
} catch (error) {
  if (!isKilled()) throw error;
}
// a process of the run may have been the one
if (isKilled()) process.kill(process.pid, "SIGKILL");
