import process from "node:process";
import type { Terminal } from "../core/terminal.ts";
import { createMask, type Mask } from "../core/mask.ts";
import { atEnd } from "../core/at-exit.ts";
import { cleanText } from "../core/clean.ts";
import { messageOf } from "../core/errors.ts";
import { formatMark, type Mark, markStage, type Result, type StartMark } from "../log/format.ts";
import { type LogWriter, openLog } from "../log/writer.ts";

/** Where a run's lines go: the log, and the terminal as they come. Secrets are masked on both. */
export interface Output {
  line(stage: string, text: string): void;
  mark(mark: Mark): void;
  /** Hide more secrets from here on. */
  hide(secrets: readonly string[]): void;
  /** The same for a text that goes elsewhere. */
  mask(text: string): string;
  /** Write the buffered lines; from here on lines go out at once. */
  open(): Promise<void>;
  /** Everything is on the disk when it is done. */
  close(): Promise<void>;
}

/**
 * Lines are buffered until `open`, so that a run that finds nothing to do can leave no trace.
 * @param file the log.
 */
export function createOutput(file: string, run: string, terminal: Terminal): Output {
  let log: LogWriter | undefined;
  let buffered: [stage: string, text: string][] | undefined = [];
  let secrets: string[] = [];
  let maskSecrets: Mask = createMask([]);
  const mask = (text: string) => maskCredentials(maskSecrets(text));

  function write(stage: string, text: string): void {
    if (buffered) return void buffered.push([stage, text]);
    log?.line(stage, text);
    if (stage === markStage) return;
    // the log has it as it is; on a terminal it may be coloured, and act in no other way
    terminal.note(`${terminal.paintNote.dim(`${stage} |`)} ${cleanText(text, true)}`);
  }

  return {
    line(stage, text) {
      for (const line of text.split("\n")) write(stage, mask(lastRedraw(line)));
    },
    mark: (mark) => write(markStage, maskSecrets(formatMark(mark))),
    hide(more) {
      secrets = [...secrets, ...more];
      maskSecrets = createMask(secrets);
    },
    mask,
    async open() {
      if (!buffered) return;
      const lines = buffered;
      log = await openLog(file, { run, onTrouble: (error) => terminal.warn(messageOf(error)) });
      buffered = undefined;
      for (const [stage, text] of lines) write(stage, text);
    },
    async close() {
      await log?.close();
      log = undefined;
    },
  };
}

/** A login in an address: git and npm print remotes as they are configured. For the web a name alone may be a token. */
function maskCredentials(text: string): string {
  return text.replace(
    /(\bhttps?:\/\/)[^\s/@]+@|(\b[a-z][a-z0-9+.-]*:\/\/)[^\s/@:]*:[^\s/@]+@/gi,
    "$1$2***@",
  );
}

/** A progress line redraws itself with carriage returns: its last state is what counts. */
function lastRedraw(line: string): string {
  if (!line.includes("\r")) return line;
  return (
    line
      .split("\r")
      .filter((part) => part !== "")
      .at(-1) ?? ""
  );
}

/** What is still to be written of a run in the log. */
export interface RunLog {
  /** Write the run's last line and close the log; only the first call counts. */
  end(result: Result, code: number, why?: string): Promise<void>;
  /** Write no last line: the run has found nothing to do. */
  discard(): void;
}

/**
 * Write a run's first line into the log; a signal that ends the script writes the last one.
 * @param start the event is the one of HOOK_EVENT where that is set.
 * @param started as performance.now() counts.
 */
export function startRun(
  output: Output,
  start: Omit<StartMark, "kind" | "repo">,
  started: number,
): RunLog {
  const { HOOK_EVENT: event = start.event, HOOK_REPO: repo } = process.env;
  output.mark({ kind: "start", ...start, event, repo });
  let ended = false;
  const discard = () => {
    ended = true;
    forget();
  };
  const end = async (result: Result, code: number, why?: string) => {
    // a signal and the work itself may come to an end at once
    if (ended) return;
    discard();
    await output.open();
    const seconds = (performance.now() - started) / 1000;
    output.mark({ kind: "end", result, code, seconds, why: why && output.mask(why) });
    await output.close();
  };
  const forget = atEnd(() => end("cancelled", 1, "ended by a signal"));
  return { end, discard };
}
