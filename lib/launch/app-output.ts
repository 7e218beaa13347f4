import { closeSync, constants, openSync, readSync } from "node:fs";
import { lstat, rm } from "node:fs/promises";
import { Socket } from "node:net";
import { join } from "node:path";
import { StringDecoder } from "node:string_decoder";
import { Failure, systemCode } from "../core/errors.ts";
import { $ } from "../exec/exec.ts";
import { lastLines } from "../log/tail.ts";
import { LogWriter } from "../log/writer.ts";

/** What the app and launchfit print: it is shown, written to app.log, and kept for `launchfit log`. */
export interface AppOutput {
  /** What the app gets as stdout and stderr. */
  readonly fd: number;
  /** A line of launchfit's own. */
  readonly log: (line: string) => void;
  /**
   * The last `count` lines; with `follow` also the coming ones, until `signal` is aborted.
   * @param onLine says whether its reader keeps up.
   * @throws {Failure} when the reader does not: what waits for it would fill the memory.
   */
  give(
    onLine: (line: string) => boolean,
    options: { count: number; follow: boolean; signal: AbortSignal },
  ): Promise<void>;
  /** The last `count` lines. */
  last(count: number): string[];
  close(): Promise<void>;
}

/**
 * Open the log and the pipe of a deploy directory.
 * @param folder `.launchfit` in it.
 * @param show gets every line, for whoever watches.
 */
export async function openAppOutput(folder: string, show: (line: string) => void): Promise<AppOutput> {
  const path = join(folder, "app.log");
  const file = new LogWriter(path, { mode: 0o640 });
  const recent = new RecentLines(await lastLines(path, {}, tailSize));
  const write = (stage: string, lines: string[]) => {
    for (const line of lines) {
      file.line(stage, line);
      recent.add(`${new Date().toISOString()} ${stage} | ${line}`);
    }
  };
  const pipe = await openOutputPipe(join(folder, "output"), (lines) => {
    write("app", lines);
    for (const line of lines) show(line);
  });
  return {
    fd: pipe.fd,
    log: (line) => {
      write("launchfit", [line]);
      show(`launchfit: ${line}`);
    },
    give: (onLine, options) => recent.give(onLine, options),
    last: (count) => recent.last(count),
    async close() {
      pipe.close();
      await file.close();
    },
  };
}

/** The last lines that an app and its launchfit wrote, also where none runs. */
export async function writtenLines(folder: string, count: number): Promise<string[]> {
  return new RecentLines(await lastLines(join(folder, "app.log"), {}, tailSize)).last(count);
}

/** A pipe that the app writes to. */
interface OutputPipe {
  readonly fd: number;
  /** Pass on what is in the pipe, then close it. */
  close(): void;
}

/** Milliseconds between two looks into the pipe, where they are needed. */
const minPause = 4;
const maxPause = 100;
/** Characters after which a line without an end is passed on. */
const maxLine = 64 * 1024;

/**
 * Open the pipe in which the app writes, made when it is not there, and give every line that comes through it to
 * `onLines`. It is a named pipe (fifo(7)) that the app gets opened for reading and writing, so it always has a reader:
 * when launchfit dies, SIGPIPE does not kill the app, and what it writes waits in the pipe for the next launchfit.
 */
async function openOutputPipe(path: string, onLines: (lines: string[]) => void): Promise<OutputPipe> {
  const there = await lstat(path).catch(() => undefined);
  if (there && !there.isFIFO()) await rm(path, { recursive: true, force: true });
  if (!there?.isFIFO()) await $`mkfifo -m 600 -- ${path}`;
  // held open by us as well: the pipe never ends between two apps
  const fd = openSync(path, constants.O_RDWR);
  const reading = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  const buffer = new Uint8Array(64 * 1024);
  const decoder = new StringDecoder("utf8");
  let rest = "";
  const stop = watch();

  /** Takes in what comes from now on; the function that is given ends that, and closes the descriptor. */
  function watch(): () => void {
    try {
      const socket = new Socket({ fd: reading, readable: true, writable: false });
      socket.on("data", (data: Buffer) => take(data));
      // we hold the other end open ourselves; should it fail all the same, the lines wait in the pipe
      socket.on("error", () => {});
      socket.unref();
      return () => socket.destroy();
    } catch {
      // Deno's takes no descriptor: the pipe is asked, less often while it is silent
      return poll();
    }
  }

  function poll(): () => void {
    let pause = minPause;
    const look = () => {
      pause = drain() > 0 ? minPause : Math.min(maxPause, pause * 1.5);
      timer = setTimeout(look, pause);
      timer.unref();
    };
    let timer = setTimeout(look, 0);
    return () => {
      clearTimeout(timer);
      closeSync(reading);
    };
  }

  function take(data: Uint8Array): void {
    const lines = (rest + decoder.write(data as Buffer)).split("\n");
    rest = lines.pop() ?? "";
    if (rest.length > maxLine) {
      lines.push(rest);
      rest = "";
    }
    if (lines.length > 0) onLines(lines);
  }

  /** Takes in what there is. One long burst must not keep everything else from running. */
  function drain(): number {
    let total = 0;
    for (let length = 1; length > 0 && total < 1024 * 1024; total += length) {
      length = readSome();
      take(buffer.subarray(0, length));
    }
    return total;
  }

  function readSome(): number {
    try {
      return readSync(reading, buffer, 0, buffer.length, null);
    } catch (error) {
      if (systemCode(error) === "EAGAIN") return 0;
      throw error;
    }
  }

  return {
    fd,
    close() {
      drain();
      stop();
      if (rest !== "") onLines([rest]);
      closeSync(fd);
    },
  };
}

/** Lines that are kept. */
const kept = 500;
/** Bytes of an earlier log that are read: enough for them, unless they are long. */
const tailSize = 128 * 1024;

/** The last lines of the log, for whoever asks, and the coming ones for whoever follows. */
class RecentLines {
  readonly #lines: string[];
  readonly #listeners = new Set<(line: string) => void>();

  /** @param lines those that an earlier launchfit wrote. */
  constructor(lines: string[]) {
    this.#lines = lines;
  }

  add(line: string): void {
    this.#lines.push(line);
    if (this.#lines.length > kept * 2) this.#lines.splice(0, kept);
    for (const listener of this.#listeners) listener(line);
  }

  last(count: number): string[] {
    return count > 0 ? this.#lines.slice(-Math.min(count, kept)) : [];
  }

  /** See AppOutput. */
  async give(
    onLine: (line: string) => boolean,
    { count, follow, signal }: { count: number; follow: boolean; signal: AbortSignal },
  ): Promise<void> {
    for (const line of this.last(count)) onLine(line);
    if (!follow || signal.aborted) return;
    let listener: (line: string) => void = () => {};
    await new Promise<void>((resolve, reject) => {
      listener = (line) => {
        if (!onLine(line)) reject(new Failure("lines come faster than they are read; ask again"));
      };
      this.#listeners.add(listener);
      signal.addEventListener("abort", () => resolve(), { once: true });
    }).finally(() => this.#listeners.delete(listener));
  }
}
