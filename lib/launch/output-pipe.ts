import { closeSync, constants, openSync, readSync } from "node:fs";
import { lstat, rm } from "node:fs/promises";
import { StringDecoder } from "node:string_decoder";
import { systemCode } from "../errors.ts";
import { run } from "../exec.ts";

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
// each look costs a wake-up: ten a second were 0.4 % of a core
const longestPause = 250;
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
  let pause = shortestPause;
  let timer: NodeJS.Timeout | undefined;

  // neither runtime tells on its own that a fifo has data: it is asked, less often while it is silent
  function poll(): void {
    pause = drain() > 0 ? shortestPause : Math.min(longestPause, pause * 1.5);
    timer = setTimeout(poll, pause);
    timer.unref();
  }

  function drain(): number {
    let total = 0;
    for (;;) {
      const length = readSome();
      if (length <= 0) return total;
      total += length;
      const lines = (rest + decoder.write(buffer.subarray(0, length) as Buffer)).split("\n");
      rest = lines.pop() ?? "";
      if (rest.length > longestLine) {
        lines.push(rest);
        rest = "";
      }
      if (lines.length > 0) onLines(lines);
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

  poll();
  return {
    fd,
    close() {
      clearTimeout(timer);
      drain();
      if (rest !== "") onLines([rest]);
      closeSync(reading);
      closeSync(fd);
    },
  };
}
