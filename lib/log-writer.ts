import { closeSync, fstatSync, mkdirSync, openSync, statSync, writeSync } from "node:fs";
import { dirname } from "node:path";
import { createMask, type Mask } from "./mask.ts";

/** Writes whole lines `TIME RUN STAGE | text` to a log that other processes write to as well. */
export interface LogWriter {
  /** One line of a stage's output. */
  line(stage: string, text: string): void;
  lines(stage: string, texts: readonly string[]): void;
  close(): void;
}

export interface LogOptions {
  /** The run's id. */
  run: string;
  /** Shown as `***`. */
  secrets?: Iterable<string>;
  /** Told once when the log cannot be written; the work goes on. */
  onTrouble?: (error: unknown) => void;
}

/**
 * Open a log for appending. A batch of lines is one write on a descriptor opened with O_APPEND, so lines of
 * several processes never mix; a log that was renamed by a rotation is left for the new one before a batch.
 */
export function openLog(file: string, { run, secrets = [], onTrouble }: LogOptions): LogWriter {
  const mask: Mask = createMask(secrets);
  mkdirSync(dirname(file), { recursive: true });
  let fd = openSync(file, "a", 0o644);
  let troubled = false;

  function write(stage: string, texts: readonly string[]): void {
    const time = new Date().toISOString();
    const batch = texts.map((text) => `${time} ${run} ${stage} | ${mask(text)}\n`).join("");
    try {
      if (!isCurrent(fd, file)) {
        closeSync(fd);
        fd = openSync(file, "a", 0o644);
      }
      writeSync(fd, batch);
    } catch (error) {
      if (!troubled) onTrouble?.(error);
      troubled = true;
    }
  }

  return {
    line: (stage, text) => write(stage, [text]),
    lines: write,
    close: () => closeSync(fd),
  };
}

function isCurrent(fd: number, file: string): boolean {
  const there = statSync(file, { throwIfNoEntry: false });
  const ours = fstatSync(fd);
  return there?.ino === ours.ino && there.dev === ours.dev;
}
