import { messageOf } from "../core/errors.ts";
import { formatMark, type Mark, markStage } from "../log/format.ts";
import { type LogWriter, openLog } from "../log/writer.ts";
import { createMask, type Mask } from "../config/secrets.ts";
import type { Terminal } from "../cli/terminal.ts";

/** Where a run's lines go: the log, and the terminal as they come. Secrets are masked on both. */
export interface Output {
  line(stage: string, text: string): void;
  mark(mark: Mark): void;
  /** Hide more secrets from here on. */
  hide(secrets: readonly string[]): void;
  /** The same for a text that goes elsewhere. */
  mask(text: string): string;
  /** Write what was held back; from here on lines go out at once. */
  open(): Promise<void>;
  /** Everything is on the disk when it is done. */
  close(): Promise<void>;
}

/**
 * Lines are held back until `open`, so that a run that finds nothing to do can leave no trace.
 * @param file the log.
 */
export function createOutput(file: string, run: string, terminal: Terminal): Output {
  let log: LogWriter | undefined;
  let held: [stage: string, text: string][] | undefined = [];
  let secrets: string[] = [];
  let maskSecrets: Mask = createMask([]);
  const mask = (text: string) => maskCredentials(maskSecrets(text));

  function write(stage: string, text: string): void {
    if (held) return void held.push([stage, text]);
    log?.line(stage, text);
    if (stage !== markStage) terminal.note(`${terminal.paintNote.dim(`${stage} |`)} ${text}`);
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
      if (!held) return;
      const lines = held;
      log = await openLog(file, { run, onTrouble: (error) => terminal.warn(messageOf(error)) });
      held = undefined;
      for (const [stage, text] of lines) write(stage, text);
    },
    async close() {
      await log?.close();
      log = undefined;
    },
  };
}

/** A password in an address: git and npm print remotes as they are configured. */
function maskCredentials(text: string): string {
  return text.replace(/(\b[a-z][a-z0-9+.-]*:\/\/)[^\s/@:]*:[^\s/@]+@/gi, "$1***@");
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
