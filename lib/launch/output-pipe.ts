import { closeSync, constants, openSync, readSync } from "node:fs";
import { lstat, rm } from "node:fs/promises";
import { Socket } from "node:net";
import { StringDecoder } from "node:string_decoder";
import { systemCode } from "../core/errors.ts";
import { run } from "../exec/exec.ts";

/**
 * Where the app writes: a named pipe (fifo(7)) in the deploy directory.
 *
 * The app gets it opened for reading and writing, so it always has a reader: when launchfit dies, the app
 * is not killed by SIGPIPE, and what it writes meanwhile waits in the pipe for the next launchfit.
 */
export interface OutputPipe {
  /** What the app gets as stdout and stderr. */
  readonly fd: number;
  /** Pass on what is in the pipe, then close it. */
  close(): void;
}

const shortestPause = 4;
const longestPause = 100;
const longestLine = 64 * 1024;

/** Open the pipe, made when it is not there, and give every line that comes through it to `onLines`. */
export async function openOutputPipe(
  path: string,
  onLines: (lines: string[]) => void,
): Promise<OutputPipe> {
  const there = await lstat(path).catch(() => undefined);
  if (there && !there.isFIFO()) await rm(path, { recursive: true, force: true });
  if (!there?.isFIFO()) await run(["mkfifo", "-m", "600", "--", path]);
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
    let pause = shortestPause;
    const look = () => {
      pause = drain() > 0 ? shortestPause : Math.min(longestPause, pause * 1.5);
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
    if (rest.length > longestLine) {
      lines.push(rest);
      rest = "";
    }
    if (lines.length > 0) onLines(lines);
  }

  function drain(): number {
    let total = 0;
    for (;;) {
      const length = readSome();
      if (length <= 0) return total;
      total += length;
      take(buffer.subarray(0, length));
      // one long burst must not keep everything else from running
      if (total > 1024 * 1024) return total;
    }
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
