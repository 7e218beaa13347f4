import "../core/permissions.ts";
import { AsyncLocalStorage } from "node:async_hooks";
import { type ChildProcess, spawn, type SpawnOptions } from "node:child_process";
import { userInfo } from "node:os";
import { delimiter } from "node:path";
import process from "node:process";
import type { Readable } from "node:stream";
import { StringDecoder } from "node:string_decoder";
import { setImmediate as turn, setTimeout as sleep } from "node:timers/promises";
import { type Options, ProcessOutput, type ProcessPromise, $ as zx } from "zx/core";
import { atEnd } from "../core/at-exit.ts";
import { cleanText } from "../core/clean.ts";
import { Failure, systemCode } from "../core/errors.ts";
import { cookieEnvironment, endTree, newCookie } from "./process-tree.ts";

/**
 * Running commands: zx's `$`, set up once; all of zx holds, `$({ … })` and pipes in the template included.
 *
 *     const { stdout } = await $`git rev-parse --verify ${ref}`;
 *     const { exitCode } = await $({ cwd: dir, nothrow: true })`git diff --quiet -- ${files}`;
 *     await $({ ...as(owner), onLine: say })`npm ci`;
 *
 * bash reads what stands in the source; a value that is put in is one word in single quotes, an array several, and no
 * shell reads it as code. The whole line is at most 128 KiB (Linux, one argument): lists go by `input`.
 *
 * A child gets a clean environment, nothing on stdin, and a session of its own. `timeout`, `signal`, `kill()` and the
 * script's end end its whole tree, TERM and then KILL. A command is over when it exits, not when a grandchild drops
 * its pipe. Take `stdout` of the result: zx's `text()` and `lines()` mix in stderr. Write `|` in the template: zx's
 * `.pipe()` starts its second command outside these options.
 *
 * A command that fails rejects with zx's ProcessOutput (`exitCode`, `signal`, `stdout`, `stderr`), whose
 * `cause` is a `CommandFailed`: at the edge of a script that is one line and exit 1. With `nothrow` it is
 * a result, also when the command could not be started (`cause` says why).
 */
export interface CommandOptions {
  /** The folder it runs in; default: ours. */
  cwd?: string | undefined;
  /** The complete environment of the child; default: `cleanEnvironment()`. */
  env?: Readonly<Record<string, string>> | undefined;
  /** What the child reads on stdin; default: nothing. */
  input?: string | Buffer | undefined;
  /** As for `child_process.spawn`; a fourth descriptor is the child's fd 3. Default: stdout and stderr are kept. */
  stdio?: Options["stdio"] | undefined;
  /** Aborting it ends the whole tree. */
  signal?: AbortSignal | undefined;
  /** Milliseconds after which the whole tree is ended. */
  timeout?: number | undefined;
  /** A bad exit code is a result, not an error. */
  nothrow?: boolean | undefined;
  /** Ours: every line as it comes; nothing is kept then. */
  onLine?: ((line: string, from: "stdout" | "stderr") => void) | undefined;
  /** Ours: words put before the shell, `setpriv … --`: no part of the line runs as who we are. */
  words?: readonly string[] | undefined;
  /** Ours: milliseconds between TERM and KILL; default 5 s. */
  grace?: number | undefined;
  /** Ours: the mark in the environment of its tree, where it must be known before the start. */
  cookie?: string | undefined;
  /** Ours: let it outlive this process. */
  outlives?: boolean | undefined;
  /** Ours: in our own session, so that it may ask on the terminal, as ssh for a passphrase. */
  asks?: boolean | undefined;
}

/** `$`, or a `$` with options of its own set: a command, or options for one. */
export interface Shell {
  (pieces: TemplateStringsArray, ...words: unknown[]): ProcessPromise;
  (options: CommandOptions): Shell;
}

export { ProcessOutput, type ProcessPromise };

/** Run a command, or set options for one: see above. */
export const $ = zx as unknown as Shell;

/** A command ended badly or could not be started: what it was, how it ended, and its last words. */
export class CommandFailed extends Failure {
  override name = "CommandFailed";
  /** The `code` of the system error when it could not be started: ENOENT, EACCES … */
  readonly code: string | undefined;
  readonly timedOut: boolean;
  /** What it printed went to `onLine`, and is not in the message. */
  readonly printed: boolean;
  constructor(message: string, how: { code?: string | undefined; timedOut?: boolean; printed?: boolean } = {}) {
    super(message);
    this.code = how.code;
    this.timedOut = how.timedOut ?? false;
    this.printed = how.printed ?? false;
  }
}

/** What is known of a command that failed, from what `$` rejects with or, with `nothrow`, returns. */
export function commandFailure({ cause }: ProcessOutput): CommandFailed | undefined {
  return cause instanceof CommandFailed ? cause : undefined;
}

/** Whether a command was ended because it took longer than its `timeout`. */
export function timedOut(output: ProcessOutput): boolean {
  return commandFailure(output)?.timedOut === true;
}

type Reason = "timeout" | "output" | undefined;

/** How to end the tree of each command under way, by pid. */
const running = new Map<number, (reason: Reason, grace?: number) => Promise<unknown>>();
atEnd(async () => void (await Promise.all([...running.values()].map((end) => end(undefined, 2000)))));

/** Runs what is not of a command: a `$` in it has not that command's options. */
const outside = AsyncLocalStorage.snapshot();

Object.assign(zx, {
  shell: "/bin/bash",
  prefix: "set -euo pipefail; ",
  quote: quoteWord,
  quiet: true,
  verbose: false,
  detached: false, // else zx, too, would signal the group at an abort
  postfix: "",
  preferLocal: false,
  stdio: ["ignore", "pipe", "pipe"],
  env: undefined,
  spawn: start,
  // zx ends a command that takes longer by `kill`, which sees in this signal why
  timeoutSignal: "SIGALRM",
  kill: async (pid: number, signal: string) =>
    void (await running.get(pid)?.(signal === "SIGALRM" ? "timeout" : undefined)),
});
// what went wrong is told by `start`, which knows the command; zx would add where it was called
ProcessOutput.getErrorMessage = (error) => error?.message ?? "";

/** One word of a command line, in single quotes: for every POSIX shell. */
export function quoteWord(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

/** A command that a person wrote into a config: by /bin/sh, as written. Data reaches it only through `env`. */
export function sh(text: string, options: CommandOptions = {}): ProcessPromise {
  return $(options)`/bin/sh -c ${text}`;
}

/** How long after the exit its pipes are still read, in ms: since the last data, and at most. */
const drain = { quiet: 30, most: 2000 };
/** Captured output beyond that ends the command, in bytes. */
const maxOutput = 64 * 2 ** 20;
/** A line without an end must not fill the memory. */
const maxLine = 2 ** 20;

/** The process of a command: Node's own, that says `close` when its whole tree is over, if that was to end. */
function start(line: string, _: unknown, given: SpawnOptions & { input?: unknown }): ChildProcess {
  // the options of the command that is being started: zx keeps them where it runs it
  const options = zx as CommandOptions;
  const { onLine, words = [], grace, cookie = newCookie(), env, signal, outlives = false, asks = false } = options;
  const { shell, signal: _own, input, cwd, stdio, ...others } = given;
  const argv = [...words, String(shell), "-c", line];
  // it is in our folder anyway; asking for it fails where root's is closed to the user that we run as
  const folder = cwd === process.cwd() ? undefined : cwd;
  const where = folder === undefined ? "" : ` in ${String(folder)}`;
  let child: ChildProcess;
  try {
    child = spawn(argv[0] as string, argv.slice(1), {
      ...others,
      // a session of its own: signals of the terminal reach it only through us
      detached: !asks,
      cwd: folder,
      env: { ...(env ?? cleanEnvironment()), ...cookieEnvironment(cookie) },
      stdio: input ? ["pipe", ...(stdio as "pipe"[]).slice(1)] : stdio,
    });
  } catch (error) {
    // some errors (ENOTDIR, E2BIG) Node throws at once
    throw cannotStart(titleOf(line) + where, error as Error);
  }
  // a command may end without reading all of its input
  child.stdin?.on("error", () => {});
  const { stdout, stderr } = child;
  // zx keeps what it reads: lines are read by us alone
  if (onLine) Object.assign(child, { stdout: null, stderr: null });

  const began = performance.now();
  let reason: Reason;
  let isOver = false;
  let ending: Promise<unknown> | undefined;
  const end = (why?: Reason, within = grace) => {
    if (!isOver) reason ??= why;
    return (ending ??= endTree({ pid: child.pid, cookie }, within === undefined ? {} : { grace: within }));
  };
  const onAbort = () => void end();
  signal?.addEventListener("abort", onAbort, { once: true });
  if (signal?.aborted) onAbort();
  if (child.pid !== undefined) running.set(child.pid, outlives ? async () => {} : end);
  if (outlives) child.unref();

  let bytes = 0;
  let heard = true;
  const last = { stdout: "", stderr: "" };
  const flush: (() => void)[] = [];
  for (const [from, stream] of Object.entries({ stdout, stderr }) as ["stdout" | "stderr", Readable | null][]) {
    stream?.on("error", () => {});
    stream?.on("data", (chunk: Buffer) => {
      heard = true;
      last[from] = (last[from] + chunk.toString("utf8")).slice(-2000);
      if (!onLine && (bytes += chunk.length) > maxOutput) void end("output");
    });
    if (onLine && stream) flush.push(byLine(stream, (text) => outside(onLine, text, from)));
  }
  const drainPipes = async () => {
    isOver = true;
    // what is in the pipes is read, their end is not waited for: a grandchild may hold it
    for (const until = Date.now() + drain.most; heard && Date.now() < until; await turn()) {
      heard = false;
      await sleep(drain.quiet, undefined, { ref: false });
    }
    for (const stream of [stdout, stderr]) stream?.destroy();
  };
  child.once("exit", () => void drainPipes());

  const emit = child.emit.bind(child);
  let isStarted = true;
  const close = async (code: number | null, by: NodeJS.Signals | null) => {
    await ending;
    signal?.removeEventListener("abort", onAbort);
    if (child.pid !== undefined) running.delete(child.pid);
    for (const each of flush) each();
    const seconds = (performance.now() - began) / 1000;
    const failed = isStarted && failureOf({ line, code, by, reason, seconds, last, printed: onLine !== undefined });
    if (failed) emit("error", failed);
    emit("close", isStarted ? code : null, by);
  };
  child.emit = (event: string, ...rest: unknown[]) => {
    if (event === "error") {
      isStarted = false;
      return emit(event, cannotStart((words[0] ?? titleOf(line)) + where, rest[0] as Error));
    }
    if (event !== "close") return emit(event, ...rest);
    void close(...(rest as [number, NodeJS.Signals]));
    return true;
  };
  return child;
}

interface Ended {
  line: string;
  code: number | null;
  by: NodeJS.Signals | null;
  reason: Reason;
  seconds: number;
  last: { stdout: string; stderr: string };
  printed: boolean;
}

/** What is told of a command that has ended; nothing of one that went well. */
function failureOf({ line, code, by, reason, seconds, last, printed }: Ended): CommandFailed | undefined {
  if (code === 0 && reason === undefined) return undefined;
  // what the shell itself says, in whatever language, of a program that it cannot start (POSIX: 126 and 127)
  const missing = /^\/bin\/(?:ba)?sh: (?:[^:]*\d+: )?([^:\n]+): [^:\n]*\n$/.exec(last.stderr)?.[1];
  if (missing && code === 127) return cannotStart(missing, { code: "ENOENT" });
  if (missing && code === 126) return cannotStart(missing, { code: "EACCES" });
  const how =
    reason === "timeout"
      ? `took longer than its time limit and was ended after ${Math.round(seconds)} s`
      : reason === "output"
        ? `printed more than ${maxOutput / 2 ** 20} MiB and was ended`
        : by
          ? `was ended by ${by}`
          : `failed with exit code ${code}`;
  const words = printed ? "" : lastWords(last);
  return new CommandFailed(`${titleOf(line)} ${how}${words}`, { timedOut: reason === "timeout", printed });
}

/** The failure of a command that could not be started; `what` is its file, and the folder where that is not ours. */
function cannotStart(what: string, error: { message?: string; code?: string }): CommandFailed {
  const code = systemCode(error);
  // a folder in PATH that may not be read says EACCES of a command that is nowhere
  const missing = code === "ENOENT" || code === "ENOTDIR" || (code === "EACCES" && !what.includes("/"));
  const why = missing ? "not found; install it, or correct PATH or the folder" : (code ?? error.message);
  return new CommandFailed(`cannot start ${what}: ${why}`, { code });
}

/** The words that name the command, without options and whatever they may carry. */
function titleOf(line: string): string {
  const quoted = line.replace(/^set -\w+(?: pipefail)?; /, "").match(/(?:'[^']*'|\\'|[^\s'\\])+/g) ?? [];
  const words = quoted.map((word) => word.replace(/'([^']*)'|\\(')/g, "$1$2"));
  if (words[0] === "/bin/sh") return "the command";
  return words
    .filter((word, at) => at === 0 || /^[a-z][a-z0-9-]*$/.test(word))
    .slice(0, 3)
    .join(" ");
}

/** The end of what a command printed, for a message; its errors alone where it names some. */
function lastWords({ stdout, stderr }: Ended["last"]): string {
  const lines = (stderr.trim() || stdout.trim()).split("\n").filter((line) => line.trim() !== "");
  const fatal = lines.filter((line) => /^(?:fatal|error)\b/i.test(line));
  const words = (fatal.length > 0 ? fatal : lines)
    .slice(-3)
    // what a command prints may not steer a terminal
    .map((line) => cleanText(line))
    .join(" | ");
  return words === "" ? "" : `: ${words.slice(0, 500)}`;
}

/** Reads a stream by lines; the returned function gives out what is left. */
function byLine(stream: Readable, say: (line: string) => void): () => void {
  const decoder = new StringDecoder("utf8");
  let rest = "";
  const flush = () => {
    if (rest !== "") say(rest);
    rest = "";
  };
  stream.on("data", (chunk: Buffer) => {
    const lines = (rest + decoder.write(chunk)).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) say(line);
    if (rest.length > maxLine) flush();
  });
  return () => {
    rest += decoder.end();
    flush();
  };
}

const allowed =
  /^(?:PATH|HOME|USER|LOGNAME|SHELL|LANG|LC_\w+|TZ|TMPDIR|SSH_AUTH_SOCK|DENO_DIR|(?:https?|no|all)_proxy)$/i;
const certificates = /^(?:SSL_CERT_(?:FILE|DIR)|NODE_EXTRA_CA_CERTS|NODE_USE_SYSTEM_CA|DENO_CERT|DENO_TLS_CA_STORE)$/;

function variablesOf(...which: RegExp[]): [string, string][] {
  return Object.entries(process.env as Record<string, string>).filter(([name]) =>
    which.some((each) => each.test(name)),
  );
}

/**
 * The environment for a child: only what is on a short list of ours, then `extra` (undefined takes one away).
 * SHLVL is set because Debian's bash reads ~/.bashrc when it finds none and its stdin is a socket.
 */
export function cleanEnvironment(extra: Record<string, string | undefined> = {}): Record<string, string> {
  const own = Object.fromEntries(variablesOf(allowed, certificates));
  const env = Object.entries({ SHLVL: "1", ...own, PATH: searchPath(), ...extra });
  return Object.fromEntries(env.filter((each): each is [string, string] => each[1] !== undefined));
}

/** Which certificates to trust: a private CA holds for all that is started, as whichever user. */
export function trustedCertificates(): Record<string, string> {
  return Object.fromEntries(variablesOf(certificates));
}

/** HOME, USER and LOGNAME of the user that we are, also where cron, systemd and `env -i` leave them out. */
export function accountVariables(): Record<string, string> {
  const { HOME, USER, LOGNAME } = process.env;
  if (HOME && USER && LOGNAME) return { HOME, USER, LOGNAME };
  try {
    const { homedir, username } = userInfo();
    return { HOME: HOME || homedir, USER: USER || username, LOGNAME: LOGNAME || username };
  } catch {
    // a container may run under a number that has no account
    return { HOME: HOME || "/" };
  }
}

/**
 * PATH as children get it. Deno (2.9) puts a folder before it, in which `node` is Deno itself: a build's
 * npm and scripts must get the real one, as they do when they are started by hand.
 */
export function searchPath(): string {
  const folders = (process.env.PATH ?? "").split(delimiter);
  const own = folders.filter((folder) => folder !== "" && !folder.endsWith("/node_compat_bin"));
  return own.join(delimiter) || "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
}
