import "../core/permissions.ts";
import { basename } from "node:path";
import process from "node:process";
import { cleanUp } from "../core/at-exit.ts";
import { cleanText } from "../core/clean.ts";
import { exitCodeOf, messageOf, systemCode, systemRefusal } from "../core/errors.ts";
import { formatBuild, thisBuild } from "../core/version.ts";
import { parseArguments } from "./arguments.ts";
import { completeWord, completions } from "./complete.ts";
import { type Command, choose } from "./define.ts";
import { description, helpText } from "./help.ts";
import { createTerminal } from "./terminal.ts";

export { parseArguments } from "./arguments.ts";
export { type Command, type CommandInput, defineCommand, type Live } from "./define.ts";
export { helpText } from "./help.ts";
export type { FlagsIn, FlagsOf } from "./usage.ts";

/**
 * The edge of every script: reads the command line, runs the command, turns its result or error into an exit code.
 * An expected error, and what the file system refuses, is a line on stderr; anything else is a bug and shows its stack.
 * SIGINT and SIGTERM abort `signal`, run the clean-up steps and end with 128 and the signal's number.
 */
export async function runScript(command: Command, argv: readonly string[] = process.argv.slice(2)): Promise<void> {
  // A reader that has seen enough (`logs | head`) ends the script, and is no error.
  process.stdout.on("error", (error) => process.exit(systemCode(error) === "EPIPE" ? 0 : 1));
  // That nobody reads the notes stops nobody.
  process.stderr.on("error", () => {});
  // Deno's own parts may meet a missing permission where nobody waits for them.
  process.on("unhandledRejection", (error) => process.exit(tell(error, command.name)));
  passWarnings();
  // Reached only when nothing is left that could still resolve what the command waits for.
  process.on("beforeExit", () => {
    if (process.exitCode !== undefined) return; // ended by a signal
    process.stderr.write(`${command.name}: stopped in the middle of its work; this is a bug\n`);
    process.exit(1);
  });
  const [chosen, words] = choose(command, argv);
  const code = await execute(chosen, words, command.name);
  await cleanUp();
  await new Promise((resolve) => process.stdout.write("", resolve));
  process.exit(code);
}

/** Node's own warnings go to stderr, but those for us alone: no user can do anything about an experimental API. */
function passWarnings(): void {
  const listeners = process.listeners("warning");
  process.removeAllListeners("warning");
  process.on("warning", (warning) => {
    if (/^(?:Experimental|Deprecation)Warning$/.test(warning.name)) return;
    for (const listener of listeners) listener(warning);
  });
}

async function execute(command: Command, argv: readonly string[], script: string): Promise<number> {
  const abort = new AbortController();
  try {
    if (argv[0] === completeWord) {
      const found = await completions(command, argv.slice(1));
      return found.length === 0 ? 0 : show(found.join("\n"));
    }
    const { values, args } = parseArguments(command, argv);
    if (values.help) return show(values.json ? JSON.stringify(description(command)) : helpText(command));
    if (values.version === true || values.V === true)
      return show(
        values.json === true
          ? JSON.stringify({ script: basename(script), ...thisBuild })
          : `${basename(script)} ${formatBuild(thisBuild)}`,
      );
    const terminal = createTerminal({ json: values.json === true, quiet: values.quiet === true });
    const { ownSignals = false } = command;
    if (!(typeof ownSignals === "function" ? ownSignals(args) : ownSignals)) endOnSignals(abort);
    const result = await command.run({ flags: values, args, terminal, signal: abort.signal });
    // the signal's own handler is ending the script, with its own exit code
    if (abort.signal.aborted) return await new Promise<never>(() => {});
    return result ?? 0;
  } catch (error) {
    // nor is it this error that the user should see
    if (abort.signal.aborted) return await new Promise<never>(() => {});
    return tell(error, script);
  }
}

/** Writes to stderr what went wrong: an expected error in a line, a bug with its stack. Its exit code. */
function tell(error: unknown, script: string): number {
  const code = exitCodeOf(error);
  const words = code === undefined ? systemRefusal(error) : messageOf(error);
  const text = words ?? (error as Error)?.stack ?? String(error);
  const lines = text.split("\n").map((line) => (words === undefined ? "" : `${script}: `) + cleanText(line));
  process.stderr.write(`${lines.join("\n")}\n`);
  return code ?? 1;
}

function show(text: string): number {
  process.stdout.write(`${text}\n`);
  return 0;
}

function endOnSignals(abort: AbortController): void {
  for (const [name, number] of [
    ["SIGINT", 2],
    ["SIGTERM", 15],
    ["SIGHUP", 1],
  ] as const) {
    process.on(name, () => {
      if (abort.signal.aborted) return;
      abort.abort(new Error(name));
      process.exitCode = 128 + number;
      void cleanUp().then(() => process.exit());
    });
  }
}
