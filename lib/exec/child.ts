import { type ChildProcess, spawn, type SpawnOptions } from "node:child_process";
import { EventEmitter } from "node:events";
import process from "node:process";
import type { Readable } from "node:stream";
import { StringDecoder } from "node:string_decoder";
import { atEnd } from "../core/at-exit.ts";
import { systemCode } from "../core/errors.ts";
import { cannotStart, CommandFailed, lastWords, title } from "./failure.ts";
import { cookieEnvironment, endTree, newCookie } from "./process-tree.ts";

/** What a command of ours knows beyond zx's own options. */
export interface ChildOptions {
  /** Milliseconds after which the whole tree is ended. */
  timeout?: number | undefined;
  /** Milliseconds between TERM and KILL; default 5 s. */
  grace?: number | undefined;
  /** Every line as it comes; nothing is kept then. */
  onLine?: ((line: string, from: "stdout" | "stderr") => void) | undefined;
  /** The mark in the environment of its tree, where the caller must know it before the start; default: a fresh one. */
  cookie?: string | undefined;
  /** Let it outlive this process. */
  outlives?: boolean | undefined;
}

/** The children under way, by pid. */
const children = new Map<number, Child>();

/** End the whole tree of a child of ours. */
export async function endChild(pid: number): Promise<void> {
  await children.get(pid)?.end();
}

/** How long after the exit its pipes are still read, in ms: since the last data, and at most. */
const drain = { quiet: 30, most: 2000 };
/** Captured output beyond that ends the command, in bytes. */
const maxOutput = 64 * 1024 * 1024;
/** A line without an end must not fill the memory. */
const maxLine = 1024 * 1024;

/** What zx takes for a ChildProcess. Its `close` comes when the command, and what ends its tree, is over. */
export class Child extends EventEmitter {
  readonly pid: number | undefined;
  readonly stdin: ChildProcess["stdin"];
  readonly stdout: ChildProcess["stdout"];
  readonly stderr: ChildProcess["stderr"];
  readonly #argv: readonly string[];
  readonly #cookie: string;
  readonly #grace: number | undefined;
  readonly #byLine: boolean;
  readonly #started = performance.now();
  readonly #output = { bytes: 0, stdout: "", stderr: "" };
  #ending: Promise<void> | undefined;
  /** Why we ended it. */
  #reason: "timeout" | "output" | undefined;

  constructor(
    argv: readonly string[],
    { cwd, env, stdio, signal }: SpawnOptions,
    { timeout, grace, onLine, cookie = newCookie(), outlives = false }: ChildOptions,
  ) {
    super();
    this.#argv = argv;
    this.#cookie = cookie;
    this.#grace = grace;
    this.#byLine = onLine !== undefined;
    const [file = "", ...args] = argv;
    const inner = startProcess(file, args, {
      // it is in our folder anyway; asking for it fails where root's is closed to the user that we run as
      cwd: cwd === process.cwd() ? undefined : cwd,
      env: { ...env, ...cookieEnvironment(cookie) },
      stdio,
      // a session of its own: signals of the terminal reach it only through us
      detached: true,
    });
    this.pid = inner.pid;
    this.stdin = inner.stdin;
    // a command may end without reading all of its input
    this.stdin?.on("error", () => {});
    // zx keeps what comes from these
    this.stdout = onLine ? null : inner.stdout;
    this.stderr = onLine ? null : inner.stderr;
    const flush = [
      this.read(inner.stdout, "stdout", onLine),
      this.read(inner.stderr, "stderr", onLine),
    ];

    if (this.pid !== undefined) children.set(this.pid, this);
    const forget = outlives ? () => {} : atEnd(() => this.end(2000));
    if (outlives) inner.unref();
    const timer =
      timeout === undefined ? undefined : setTimeout(() => this.endFor("timeout"), timeout);
    const onAbort = () => void this.end();
    signal?.addEventListener("abort", onAbort, { once: true });
    if (signal?.aborted) onAbort();

    let status: [code: number | null, signal: NodeJS.Signals | null] = [null, null];
    let failure: CommandFailed | undefined;
    let closed = false;
    const close = async () => {
      if (closed) return;
      closed = true;
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
      for (const each of flush) each();
      // the tree is not over when its root is: wait for the end that was asked for
      await this.#ending;
      if (this.pid !== undefined) children.delete(this.pid);
      forget();
      failure ??= this.failure(...status);
      if (failure) this.emit("error", failure);
      this.emit("close", ...status);
    };
    inner.once("error", (error) => {
      failure = cannotStart(file, cwd, error);
      // a child that did not start has no exit to wait for
      setImmediate(() => void close());
    });
    inner.once("exit", (...how) => {
      status = how;
      const latest = Date.now() + drain.most;
      let heard = false;
      const stop = () => {
        heard = false;
        // A loop that was busy runs its timers before it reads what has come meanwhile: the pipes get their turn first.
        setImmediate(() => {
          if (heard) return;
          inner.stdout?.destroy();
          inner.stderr?.destroy();
          void close();
        });
      };
      const quiet = setTimeout(stop, drain.quiet);
      for (const stream of [inner.stdout, inner.stderr])
        stream?.on("data", () => {
          heard = Date.now() < latest;
          if (heard) quiet.refresh();
        });
      inner.once("close", () => {
        clearTimeout(quiet);
        void close();
      });
    });
  }

  /** End its whole tree: TERM, after `grace` ms KILL. */
  end(grace = this.#grace): Promise<void> {
    const options = grace === undefined ? {} : { grace };
    this.#ending ??= endTree({ pid: this.pid, cookie: this.#cookie }, options).then(() => {});
    return this.#ending;
  }

  private endFor(reason: "timeout" | "output"): void {
    this.#reason ??= reason;
    void this.end();
  }

  /** Reads a stream for its last words, and by lines for `onLine`; the returned function gives out what is left. */
  private read(stream: Readable | null, from: "stdout" | "stderr", onLine: ChildOptions["onLine"]) {
    const decoder = new StringDecoder("utf8");
    let rest = "";
    stream?.on("error", () => {});
    stream?.on("data", (chunk: Buffer) => {
      if (!onLine) {
        this.#output[from] = (this.#output[from] + decoder.write(chunk)).slice(-2000);
        this.#output.bytes += chunk.length;
        if (this.#output.bytes > maxOutput) this.endFor("output");
        return;
      }
      const lines = (rest + decoder.write(chunk)).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) onLine(line, from);
      if (rest.length > maxLine) {
        onLine(rest, from);
        rest = "";
      }
    });
    return () => {
      rest += onLine ? decoder.end() : "";
      if (rest !== "") onLine?.(rest, from);
      rest = "";
    };
  }

  private failure(code: number | null, signal: NodeJS.Signals | null): CommandFailed | undefined {
    if (code === 0 && !this.#reason) return undefined;
    const seconds = Math.round((performance.now() - this.#started) / 1000);
    const how =
      this.#reason === "timeout"
        ? `took longer than its time limit and was ended after ${seconds} s`
        : this.#reason === "output"
          ? `printed more than ${maxOutput / 1024 / 1024} MiB and was ended`
          : signal
            ? `was ended by ${signal}`
            : `failed with exit code ${code}`;
    const message = `${title(this.#argv)} ${how}${lastWords(this.#output)}`;
    const timedOut = this.#reason === "timeout";
    return new CommandFailed(message, { timedOut, printed: this.#byLine });
  }
}

/** Some system errors (ENOTDIR, E2BIG) Node throws at once, and does not tell by an event. */
function startProcess(file: string, args: string[], options: SpawnOptions): ChildProcess {
  try {
    return spawn(file, args, options);
  } catch (error) {
    const isSystemError = /^E[A-Z0-9]+$/.test(systemCode(error) ?? "");
    throw isSystemError ? cannotStart(file, options.cwd, error as Error) : error;
  }
}
