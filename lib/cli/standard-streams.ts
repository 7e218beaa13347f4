import { fstatSync, statSync } from "node:fs";
import { devNull } from "node:os";
import process from "node:process";
import { systemCode } from "../core/errors.ts";

/**
 * stdout and stderr, opened at their first use: as a pipe each is a socket, and the part of Node that
 * makes it takes longer to load than many a script to find that there is nothing to do.
 */
const opened: { stdout?: NodeJS.WriteStream; stderr?: NodeJS.WriteStream } = {};

/** Results go here. A reader that has seen enough (`logs | head`) ends the script, and is no error. */
export function stdout(): NodeJS.WriteStream {
  return (opened.stdout ??= process.stdout.on("error", (error) =>
    process.exit(systemCode(error) === "EPIPE" ? 0 : 1),
  ));
}

/** Everything else goes here; that nobody reads it stops nobody. */
export function stderr(): NodeJS.WriteStream {
  return (opened.stderr ??= process.stderr.on("error", () => {}));
}

/** Whether a person watches the stream. */
export function isTerminal(name: "stdout" | "stderr"): boolean {
  // a pipe, a file and the null device are told apart without opening the stream
  const info = fstatSync(name === "stdout" ? 1 : 2);
  const mayBe = info.isCharacterDevice() && info.rdev !== statSync(devNull).rdev;
  return mayBe && process[name].isTTY === true;
}

/** Wait until what was written to stdout has left the process. */
export async function flushStdout(): Promise<void> {
  if (opened.stdout) await new Promise((resolve) => opened.stdout?.write("", resolve));
}
