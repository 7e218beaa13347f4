import { Failure } from "../core/errors.ts";
import { markStage, parseLine, parseMark } from "../log/format.ts";
import { writersOf } from "../log/holders.ts";
import { follow } from "./follow.ts";
import { lineFilter, type Selection } from "./select.ts";
import type { Printer } from "./show.ts";
import type { LogFiles } from "./source.ts";

export interface Watch {
  file: string;
  /** Only this run; undefined: all, and with `untilDone` the next that begins. */
  run: string | undefined;
  selection: Selection;
  /** End with the run, with its exit code. */
  untilDone: boolean;
  signal: AbortSignal;
}

/** Milliseconds without a line after which it is asked whether anybody still writes. */
const silence = 3000;

/**
 * Print what is added to a log.
 * @param position how much of the log itself was shown already.
 * @returns the exit code of the run that was waited for; 0 when it was not asked for one.
 * @throws {Failure} when the run was cut off: it has no end, and nobody writes to the log any more.
 */
export async function watchLog(
  files: LogFiles,
  watch: Watch,
  position: number,
  printer: Printer,
): Promise<number> {
  const { file, untilDone, signal } = watch;
  const live = files.sources.find((source) => source.isLive);
  const handle = await live?.handle();
  let { run } = watch;
  const selection = { ...watch.selection, runs: run === undefined ? undefined : new Set([run]) };
  const filter = lineFilter(selection, (chosen) => printer.print(chosen));
  let grownAt = Date.now();
  const blocks = follow({
    file,
    live: handle && { handle, position },
    newest: files.newest,
    signal,
  });
  for await (const bytes of blocks) {
    if (bytes.length > 0) {
      grownAt = Date.now();
      filter(bytes);
      await printer.flush();
      if (!untilDone) continue;
      const seen = endIn(bytes, run);
      if (seen.code !== undefined) return seen.code;
      run = seen.run;
    } else if (run !== undefined && untilDone && Date.now() - grownAt > silence) {
      grownAt = Date.now();
      if ((await writersOf([file]))[0] === "free") {
        throw new Failure(
          `run ${run} was cut off: it has no end, and nobody writes to ${file} any more`,
        );
      }
    }
  }
  return 0;
}

/** The run that is waited for, once it has begun, and its exit code, once it has ended. */
function endIn(
  bytes: Buffer,
  wanted: string | undefined,
): { run: string | undefined; code?: number } {
  let run = wanted;
  for (const text of bytes.toString("utf8").split("\n")) {
    if (!text.includes(` ${markStage} | `)) continue;
    const line = parseLine(text);
    const mark = line?.stage === markStage ? parseMark(line.text) : undefined;
    if (!line || !mark) continue;
    if (mark.kind === "start") run ??= line.run;
    if (mark.kind === "end" && line.run === run) return { run, code: mark.code };
  }
  return { run };
}
