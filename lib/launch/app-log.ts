import { join } from "node:path";
import { Failure } from "../core/errors.ts";
import { lastLines } from "../log/tail.ts";
import { LogWriter } from "../log/writer.ts";

/** What the app and launchfit print: it is shown, written to app.log, and kept for `launchfit log`. */
export interface AppLog {
  /** A line of the app's. */
  app(line: string): void;
  /** A line of launchfit's own. */
  own(line: string): void;
  /** The last `count` lines. */
  last(count: number): string[];
  /**
   * Give the coming lines until `signal` is aborted.
   * @param onLine says whether its reader keeps up.
   * @throws {Failure} when the reader does not: what waits for it would fill the memory.
   */
  follow(onLine: (line: string) => boolean, signal: AbortSignal): Promise<void>;
  close(): Promise<void>;
}

/** Lines that are kept, and bytes of an earlier log that are read for them. */
const kept = 500;
const tailSize = 128 * 1024;

/** @param show gets every line, for whoever watches. */
export async function openAppLog(folder: string, show: (line: string) => void): Promise<AppLog> {
  const file = new LogWriter(join(folder, "app.log"), { mode: 0o640 });
  const lines = await writtenLines(folder, kept);
  const listeners = new Set<(line: string) => void>();
  const add = (stage: string, line: string) => {
    file.line(stage, line);
    const whole = `${new Date().toISOString()} ${stage} | ${line}`;
    lines.push(whole);
    if (lines.length > kept * 2) lines.splice(0, kept);
    for (const listener of listeners) listener(whole);
  };
  return {
    app(line) {
      add("app", line);
      show(line);
    },
    own(line) {
      add("launchfit", line);
      show(`launchfit: ${line}`);
    },
    last: (count) => (count > 0 ? lines.slice(-Math.min(count, kept)) : []),
    async follow(onLine, signal) {
      if (signal.aborted) return;
      let listener: (line: string) => void = () => {};
      await new Promise<void>((resolve, reject) => {
        const slow = new Failure("lines come faster than they are read; ask again");
        listener = (line) => void (onLine(line) || reject(slow));
        listeners.add(listener);
        signal.addEventListener("abort", () => resolve(), { once: true });
      }).finally(() => listeners.delete(listener));
    },
    close: () => file.close(),
  };
}

/** The last lines that an app and its launchfit wrote, also where none runs. */
export async function writtenLines(folder: string, count: number): Promise<string[]> {
  return (await lastLines(join(folder, "app.log"), {}, tailSize)).slice(-Math.min(count, kept));
}
