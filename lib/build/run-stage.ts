import { messageOf } from "../errors.ts";
import { run } from "../exec.ts";
import type { Result } from "../log-format.ts";
import { formatDuration } from "../units.ts";
import type { Output } from "./output.ts";
import type { Done, Finding, Site } from "./stage.ts";

/** How a stage ended. */
export interface StageResult {
  name: string;
  result: Result;
  seconds: number;
  /** Why it was skipped or failed, or what it did, in a few words. */
  note: string;
  done?: Done | undefined;
  /** What was thrown. */
  error?: unknown;
}

export interface StageLimits {
  /** Milliseconds that this stage may take. */
  timeout?: number | undefined;
  /** When the whole run must have ended; as performance.now() counts. */
  deadline?: number | undefined;
  /** Aborted when the build is ended from outside. */
  signal: AbortSignal;
}

/** Run one stage to its end, whatever that is: nothing is thrown. */
export async function runStage(
  name: string,
  look: () => Promise<Finding>,
  site: Site,
  output: Output,
  { timeout = Number.POSITIVE_INFINITY, deadline = Number.POSITIVE_INFINITY, signal }: StageLimits,
): Promise<StageResult> {
  const started = performance.now();
  const limit = Math.min(timeout, deadline - started);
  const abort = new AbortController();
  const timer = Number.isFinite(limit)
    ? setTimeout(
        () => abort.abort(new Error("time limit")),
        Math.min(Math.max(0, limit), 2 ** 31 - 1),
      )
    : undefined;
  const onEnd = () => abort.abort(signal.reason);
  signal.addEventListener("abort", onEnd);
  if (signal.aborted) onEnd();
  const seconds = () => (performance.now() - started) / 1000;
  const say = (line: string) => output.line(name, line);
  try {
    const finding = await look();
    if ("skip" in finding)
      return { name, result: "skipped", seconds: seconds(), note: finding.skip };
    const done = await finding.work({
      say,
      signal: abort.signal,
      run: (argv, options = {}) => runLogged(argv, options),
    });
    abort.signal.throwIfAborted();
    return {
      name,
      result: "ok",
      seconds: seconds(),
      note: done?.note ?? "",
      done: done ?? undefined,
    };
  } catch (error) {
    if (signal.aborted)
      return { name, result: "cancelled", seconds: seconds(), note: "ended from outside", error };
    if (abort.signal.aborted) {
      const what = timeout <= limit ? "its" : "the run's";
      const note = `took longer than ${what} time limit of ${formatDuration(timeout <= limit ? timeout : limit)} and was ended with all it had started`;
      say(note);
      return { name, result: "timeout", seconds: seconds(), note, error };
    }
    const note = messageOf(error);
    say(note);
    return {
      name,
      result: "failed",
      seconds: seconds(),
      note: output.mask(note.split("\n")[0] ?? ""),
      error,
    };
  } finally {
    clearTimeout(timer);
    signal.removeEventListener("abort", onEnd);
  }

  function runLogged(
    argv: readonly string[],
    { onLine, ...options }: Parameters<typeof run>[1] & { onLine?: (line: string) => void },
  ) {
    return run(argv, {
      cwd: site.dir,
      env: { ...site.env },
      ...options,
      signal: abort.signal,
      output: {
        onLine(line) {
          say(line);
          onLine?.(line);
        },
      },
    });
  }
}
