import { type Options, ProcessOutput, type ProcessPromise, $ as zx } from "zx/core";
import { Child, type ChildOptions, endChild } from "./child.ts";
import { accountVariables, cleanEnvironment } from "./environment.ts";
import { CommandFailed } from "./failure.ts";

/**
 * Running commands: zx's `$`, set up once. A command is a template; what is put into it is one word each,
 * an array several. No shell reads it: the words reach the program as they are, and a shell's own
 * characters in the template (`|`, `>`, `*` …) are an error.
 *
 *     const { stdout } = await $`git rev-parse --verify ${ref}`;
 *     const { exitCode } = await $({ cwd: dir, nothrow: true })`git diff --quiet -- ${files}`;
 *     await $({ ...as(owner), onLine: say })`npm ci`;
 *
 * A child gets a clean environment, nothing on stdin, and a session of its own. `timeout`, `signal` and
 * `kill()` end its whole tree, TERM and then KILL, and so does the end of the script. A command is over
 * when it exits, not when a grandchild lets go of its pipe. Take `stdout` of the result: zx's `text()`
 * and `lines()` mix in stderr.
 *
 * A command that fails rejects with zx's ProcessOutput (`exitCode`, `signal`, `stdout`, `stderr`), whose
 * `cause` is a `CommandFailed`: at the edge of a script that is one line and exit 1. With `nothrow` it is
 * a result, also when the command could not be started (`exitCode` is null then, and `cause` says why).
 */
export interface CommandOptions extends ChildOptions {
  /** The folder it runs in; default: ours. */
  cwd?: string | undefined;
  /** The complete environment of the child; default: `cleanEnvironment()`. */
  env?: Readonly<Record<string, string>> | undefined;
  /** What the child reads on stdin; default: nothing. */
  input?: string | Buffer | undefined;
  /** As for `child_process.spawn`; a descriptor in fourth place is the child's fd 3. Default: stdout and stderr are kept. */
  stdio?: Options["stdio"] | undefined;
  /** Aborting it ends the whole tree. */
  signal?: AbortSignal | undefined;
  /** A bad exit code is a result, not an error. */
  nothrow?: boolean | undefined;
  /** Words put before the command: `setpriv … --`. */
  prefix?: string | undefined;
}

/** `$`, or a `$` with options of its own set: a command, or options for one. */
export interface Shell {
  (pieces: TemplateStringsArray, ...words: unknown[]): ProcessPromise;
  (options: CommandOptions): Shell;
}

export { accountVariables, cleanEnvironment, CommandFailed, ProcessOutput, type ProcessPromise };
Object.assign(zx, {
  shell: "none", // zx wants a name; our spawn starts no shell
  quote: quoteWord,
  // what zx would take from ZX_… variables
  postfix: "",
  quiet: true,
  verbose: false,
  detached: false,
  preferLocal: false,
  timeout: undefined,
  kill: (pid: number) => endChild(pid),
});
// what went wrong is told by our child, which knows the command; zx would add where it was called
ProcessOutput.getErrorMessage = (error) => error?.message ?? "";

/** Run a command, or set options for one: see above. */
export const $: Shell = shellWith({});

/** A `$` for which these options hold until others are set: ``const git = shellWith({ cwd: dir })``. */
export function shellWith(defaults: CommandOptions): Shell {
  function run(first: TemplateStringsArray, ...words: unknown[]): ProcessPromise;
  function run(first: CommandOptions): Shell;
  function run(first: TemplateStringsArray | CommandOptions, ...words: unknown[]) {
    return isTemplate(first)
      ? runWith(defaults, first, words)
      : shellWith({ ...defaults, ...first });
  }
  return run;
}

/** A command that a person wrote into a config: by /bin/sh, as written. Data reaches it only through `env`. */
export function sh(text: string, options: CommandOptions = {}): ProcessPromise {
  return $(options)`/bin/sh -c ${text}`;
}

function isTemplate(first: TemplateStringsArray | CommandOptions): first is TemplateStringsArray {
  return Array.isArray(first);
}

function runWith(
  { cwd, env, input, stdio, signal, nothrow = false, prefix, ...child }: CommandOptions,
  pieces: TemplateStringsArray,
  words: unknown[],
): ProcessPromise {
  // zx takes its options over when a command starts: they are set anew for each, and none is left from the one before
  Object.assign(zx, {
    cwd,
    env: { ...(env ?? cleanEnvironment()) },
    // zx takes an empty input for none at all
    input: input === "" ? undefined : input,
    stdio: stdio ?? [input ? "pipe" : "ignore", "pipe", "pipe"],
    signal,
    nothrow,
    prefix: prefix === undefined ? "" : `${prefix} `,
    spawn: (command: string, _: unknown, given: ConstructorParameters<typeof Child>[1]) =>
      new Child(splitWords(command), given, child),
  });
  return zx(pieces, ...words);
}

/** One word of a command line, in single quotes. */
export function quoteWord(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

/**
 * The words of a command that zx has put together: those of the template are plain, those put in stand in single quotes.
 * @throws {Error} for a character in the template that a shell would act on.
 */
function splitWords(command: string): string[] {
  for (const part of command.split(/'[^']*'|\\'/))
    if (/[|&;<>()$`\\"*?[\]#~]/.test(part)) throw new Error(`no shell reads this: ${command}`);
  const words = command.match(/(?:'[^']*'|\\'|[^\s'\\])+/g) ?? [];
  return words.map((word) => word.replace(/'([^']*)'|\\(')/g, "$1$2"));
}

/** What is known of a command that failed, from what `$` rejects with or, with `nothrow`, returns. */
export function commandFailure({ cause }: ProcessOutput): CommandFailed | undefined {
  return cause instanceof CommandFailed ? cause : undefined;
}

/** Whether a command was ended because it took longer than its `timeout`. */
export function timedOut(output: ProcessOutput): boolean {
  return commandFailure(output)?.timedOut === true;
}
