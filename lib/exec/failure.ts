import process from "node:process";
import { cleanText } from "../core/clean.ts";
import { Failure, systemCode } from "../core/errors.ts";

/** What is told of a command that failed. */

/** A command ended badly or could not be started: what it was, how it ended, and its last words. */
export class CommandFailed extends Failure {
  override name = "CommandFailed";
  /** The `code` of the system error when it could not be started: ENOENT, EACCES … */
  readonly code: string | undefined;
  readonly timedOut: boolean;
  /** What it printed went to `onLine`, and is not in the message. */
  readonly printed: boolean;
  constructor(
    message: string,
    fields: { code?: string | undefined; timedOut?: boolean; printed?: boolean } = {},
  ) {
    super(message);
    this.code = fields.code;
    this.timedOut = fields.timedOut ?? false;
    this.printed = fields.printed ?? false;
  }
}

/** The failure of a command that could not be started. */
export function cannotStart(
  file: string,
  cwd: string | URL | undefined,
  error: Error,
): CommandFailed {
  const code = systemCode(error);
  // zx always names a folder: ours goes without saying
  const where = cwd === undefined || cwd === process.cwd() ? "" : ` in ${String(cwd)}`;
  // a folder in PATH that may not be read says EACCES of a command that is nowhere
  const missing =
    code === "ENOENT" || code === "ENOTDIR" || (code === "EACCES" && !file.includes("/"));
  const why = missing
    ? "not found; install it, or correct PATH or the folder"
    : (code ?? error.message);
  return new CommandFailed(`cannot start ${file}${where}: ${why}`, { code });
}

/** The words that name the command, without options and whatever they may carry. */
export function title(argv: readonly string[]): string {
  // a shell may prepare the way (it enters a cgroup, or closes descriptors) and then become the command
  const becomes = argv[1] === "-c" && argv[2]?.endsWith('exec "$@"') === true;
  const inner = becomes ? argv.slice(4) : argv;
  // what runs as another user comes after setpriv's own options
  const own = inner[0] === "setpriv" ? inner.slice(inner.indexOf("--") + 1) : inner;
  if (own[0] === "/bin/sh") return "the command";
  return own
    .filter((word, at) => at === 0 || /^[a-z][a-z0-9-]*$/.test(word))
    .slice(0, 3)
    .join(" ");
}

/** The end of what a command printed, for a message; its errors alone where it names some. */
export function lastWords({ stdout, stderr }: { stdout: string; stderr: string }): string {
  const lines = (stderr.trim() || stdout.trim()).split("\n").filter((line) => line.trim() !== "");
  const fatal = lines.filter((line) => /^(?:fatal|error)\b/i.test(line));
  const words = (fatal.length > 0 ? fatal : lines)
    .slice(-3)
    // what a command prints may not steer a terminal
    .map((line) => cleanText(line))
    .join(" | ");
  return words === "" ? "" : `: ${words.slice(0, 500)}`;
}
