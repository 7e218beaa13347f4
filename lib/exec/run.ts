import { type ChildProcess, spawn } from "node:child_process";
import { StringDecoder } from "node:string_decoder";
import { atEnd } from "../core/at-exit.ts";
import { Failure, systemCode } from "../core/errors.ts";
import { cookieEnvironment, endTree, newCookie } from "./process-tree.ts";
import { cleanEnvironment } from "./environment.ts";
import { asUser, type User } from "./as-user.ts";

/**
 * The former way of running commands, until its callers use `$` of exec.ts.
 *
 * Running commands: argv, never a shell string; a clean environment; a session of its own, so that a
 * time-out ends the whole tree; done when the command exits, not when a grandchild lets go of its pipe.
 *
 * It is node:child_process and not zx: zx ignores uid, its time-out sends one TERM and never more, its
 * promise waits for the pipe, and loading it costs a third of Node's own start (bench/build.ts shows both).
 */
export interface RunOptions {
  cwd?: string;
  /** The complete environment of the child; default: `cleanEnvironment()`. */
  env?: Record<string, string>;
  /** What the child reads on stdin; default: nothing. */
  input?: string | Uint8Array;
  /** A descriptor that the child gets as its stdin instead. */
  stdin?: number;
  /** Milliseconds after which the whole tree is ended. */
  timeout?: number | undefined;
  /** Milliseconds between TERM and KILL; default 5 s. */
  grace?: number;
  /** Aborting it ends the whole tree. */
  signal?: AbortSignal | undefined;
  /** The Unix user to run as; only root can run as another. */
  user?: User | undefined;
  /** A descriptor that the child gets as its fd 3: a socket handed over (sd_listen_fds(3)). */
  fd3?: number | undefined;
  /** Where the output goes; default: captured. `fd`: both streams straight into a file, in their order. */
  output?:
    | "capture"
    | "inherit"
    | "ignore"
    | { fd: number }
    | { onLine: (line: string, from: "stdout" | "stderr") => void };
  /** false: a bad exit code is a result, not an error. */
  check?: boolean;
  /** The mark in the environment of its tree, where the caller must know it before the start; default: a fresh one. */
  cookie?: string;
  /** How many bytes of each stream are kept when captured; default 64 MiB, more is a failure. */
  maxOutput?: number;
}

export interface RunResult {
  code: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
  timedOut: boolean;
  /** Milliseconds. */
  ms: number;
}

/** A command ended badly: what it was, how it ended, and its last words. */
export class CommandFailed extends Failure {
  override name = "CommandFailed";
  readonly result: RunResult;
  constructor(argv: readonly string[], result: RunResult) {
    super(`${title(argv)} ${howItEnded(result)}${lastWords(result)}`);
    this.result = result;
  }
}

/**
 * Run a command to its end.
 * @throws {CommandFailed} when it ends badly and `check` is not false.
 * @throws {Failure} when it cannot be started.
 */
export async function run(argv: readonly string[], options: RunOptions = {}): Promise<RunResult> {
  const started = performance.now();
  const child = start(argv, options);
  let timedOut = false;
  const timer =
    options.timeout === undefined
      ? undefined
      : setTimeout(() => {
          timedOut = true;
          void child.end(options.grace);
        }, options.timeout);
  const onAbort = () => void child.end(options.grace);
  options.signal?.addEventListener("abort", onAbort, { once: true });
  if (options.signal?.aborted) onAbort();
  try {
    const { code, signal } = await child.exited;
    // the tree is not over when its root is: wait for the end that was asked for
    if (timedOut || options.signal?.aborted) await child.end(options.grace);
    const { stdout, stderr } = await child.output();
    const result: RunResult = {
      code,
      signal,
      stdout,
      stderr,
      timedOut,
      ms: performance.now() - started,
    };
    if (options.check !== false && (code !== 0 || timedOut)) throw new CommandFailed(argv, result);
    return result;
  } finally {
    clearTimeout(timer);
    options.signal?.removeEventListener("abort", onAbort);
  }
}

/** Run a command that a person wrote into a config, by /bin/sh, as written. Data reaches it only through `env`. */
export function shell(text: string, options: RunOptions = {}): Promise<RunResult> {
  return run(["/bin/sh", "-c", text], options);
}

/** A child that is under way. */
export interface Child {
  readonly pid: number;
  /** The mark in its environment, by which its tree is found. */
  readonly cookie: string;
  /** Its end; rejected with a Failure when it could not be started. */
  readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  /** What was captured, once it has exited. */
  output(): Promise<{ stdout: string; stderr: string }>;
  /** End its whole tree: TERM, after `grace` ms KILL. */
  end(grace?: number): Promise<void>;
  /** Let it outlive this process. */
  release(): void;
}

/** Start a command without waiting for its end. When the script ends, so does the child's tree, unless it was released. */
export function start(argv: readonly string[], options: RunOptions = {}): Child {
  const cookie = options.cookie ?? newCookie();
  const env = { ...(options.env ?? cleanEnvironment()), ...cookieEnvironment(cookie) };
  const [file = "", ...args] = options.user ? asUser(argv, options.user) : argv;
  const where = options.output ?? "capture";
  const out =
    where === "inherit" || where === "ignore"
      ? where
      : typeof where === "object" && "fd" in where
        ? where.fd
        : "pipe";
  const child = spawn(file, args, {
    ...(options.cwd === undefined ? {} : { cwd: options.cwd }),
    env,
    // a session of its own: signals of the terminal reach it only through us
    detached: true,
    stdio: [
      options.stdin ?? (options.input === undefined ? "ignore" : "pipe"),
      out,
      out,
      ...(options.fd3 === undefined ? [] : [options.fd3]),
    ],
  });
  if (options.input !== undefined) {
    child.stdin?.on("error", () => {});
    child.stdin?.end(options.input);
  }
  const limit = options.maxOutput ?? 64 * 1024 * 1024;
  const onLine = typeof where === "object" && "onLine" in where ? where.onLine : undefined;
  const readers = [
    reader(child, "stdout", limit, onLine),
    reader(child, "stderr", limit, onLine),
  ] as const;
  let ending: Promise<void> | undefined;
  const end = (grace?: number) => {
    ending ??= endTree({ pid: child.pid, cookie }, grace === undefined ? {} : { grace }).then(
      () => {},
    );
    return ending;
  };
  const forget = atEnd(() => end(2000));
  const exited = new Promise<{ code: number | null; signal: NodeJS.Signals | null }>(
    (resolve, reject) => {
      child.once("error", (error) => {
        forget();
        reject(cannotStart(file, options.cwd, error));
      });
      child.once("exit", (code, signal) => {
        if (!ending) forget();
        resolve({ code, signal });
      });
    },
  );
  // who does not ask for the end must not crash on it
  exited.catch(() => {});
  return {
    pid: child.pid ?? 0,
    cookie,
    exited,
    async output() {
      const [stdout, stderr] = await Promise.all(readers.map((each) => each()));
      return { stdout: stdout ?? "", stderr: stderr ?? "" };
    },
    end,
    release() {
      forget();
      child.unref();
    },
  };
}

const longestLine = 1024 * 1024;

/** Collects a stream; the returned function waits for what is still in the pipe, but not for a grandchild that keeps it open. */
function reader(
  child: ChildProcess,
  from: "stdout" | "stderr",
  limit: number,
  onLine?: (line: string, from: "stdout" | "stderr") => void,
): () => Promise<string> {
  const stream = child[from];
  if (!stream) return async () => "";
  const decoder = new StringDecoder("utf8");
  const chunks: string[] = [];
  let size = 0;
  let rest = "";
  let lastData = 0;
  let closed = false;
  const close = new Promise<void>((resolve) => {
    stream.once("close", () => {
      closed = true;
      resolve();
    });
  });
  stream.on("data", (chunk: Buffer) => {
    lastData = Date.now();
    const text = decoder.write(chunk);
    if (onLine) {
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) onLine(line, from);
      // a line without an end must not fill the memory
      if (rest.length > longestLine) {
        onLine(rest, from);
        rest = "";
      }
    } else if (size <= limit) {
      size += chunk.length;
      chunks.push(
        size > limit ? `${text}\n(more output than ${limit} bytes: the rest is left out)` : text,
      );
    }
  });
  stream.on("error", () => {});
  return async () => {
    const exit = Date.now();
    while (
      !closed &&
      (Date.now() - exit < 30 || Date.now() - lastData < 30) &&
      Date.now() - exit < 2000
    ) {
      let timer: NodeJS.Timeout | undefined;
      const moment = new Promise<void>((resolve) => {
        timer = setTimeout(resolve, 5);
      });
      await Promise.race([close, moment]);
      clearTimeout(timer);
    }
    stream.destroy();
    const text = rest + decoder.end();
    rest = "";
    if (onLine && text !== "") onLine(text, from);
    return chunks.join("");
  };
}

function cannotStart(file: string, cwd: string | undefined, error: Error): Failure {
  const code = systemCode(error);
  const where = cwd === undefined ? "" : ` in ${cwd}`;
  // a folder in PATH that may not be read says EACCES of a command that is nowhere
  if (code === "ENOENT" || (code === "EACCES" && !file.includes("/")))
    return new Failure(
      `cannot start ${file}${where}: not found; install it, or mend PATH or the folder`,
    );
  return new Failure(`cannot start ${file}${where}: ${code ?? error.message}`);
}

function title(argv: readonly string[]): string {
  // the words that name the command, without options and whatever they may carry
  const words = argv
    .filter((word, index) => index === 0 || /^[a-z][a-z0-9-]*$/.test(word))
    .slice(0, 3);
  return argv[0] === "/bin/sh" ? "the command" : words.join(" ");
}

function howItEnded({ code, signal, timedOut, ms }: RunResult): string {
  if (timedOut)
    return `took longer than its time limit and was ended after ${Math.round(ms / 1000)} s`;
  return signal ? `was ended by ${signal}` : `failed with exit code ${code}`;
}

function lastWords({ stdout, stderr }: RunResult): string {
  const lines = (stderr.trim() || stdout.trim()).split("\n").filter((line) => line.trim() !== "");
  const fatal = lines.filter((line) => /^(?:fatal|error)\b/i.test(line));
  const words = (fatal.length > 0 ? fatal : lines).slice(-3).join(" | ");
  return words === "" ? "" : `: ${words.slice(0, 500)}`;
}
