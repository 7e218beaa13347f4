import { mkdirSync } from "node:fs";
import { dirname } from "node:path";
import process from "node:process";
import { Failure, messageOf, Refused, systemCode } from "../core/errors.ts";
import { columnName, formatLine, formatMark, type Mark, markStage, noRun } from "./format.ts";
import { LogFile } from "./log-file.ts";
import { startRotation } from "./rotate.ts";

/**
 * The one writer of logs.txt. What it promises:
 * - Whole lines, in order, also from several processes: each batch is one write(2) with O_APPEND.
 * - Nothing that was written before a crash is lost: lines are with the kernel when the turn of the
 *   event loop in which they were given ends; `close` has them on the disk.
 * - Rotation loses nothing: a log that was renamed stays good to write to, and is closed within a second.
 * - A full or failing disk stops nobody: lines wait in memory up to a limit, then are counted, and the
 *   log tells how many are missing as soon as it can be written again.
 */
export interface LogWriter {
  /** One line of a stage's output, or several when the text holds newlines. */
  line(stage: string, text: string): void;
  /** Many lines at once. */
  lines(stage: string, texts: readonly string[]): void;
  /** How the run, or one of its stages, started or finished. */
  mark(mark: Mark): void;
  /** Hand all lines to the kernel now; it happens by itself at the end of the turn. */
  flush(): void;
  /** Flush, wait for the disk and for a rotation under way, and close the file. */
  close(): Promise<void>;
}

export interface LogOptions {
  /** The run's id; none: `-`. */
  run?: string | undefined;
  /** Bytes from which the log is rotated when it is opened, and without a run also later; default 10 MiB. */
  rotateAt?: number | undefined;
  /** How many rotated parts are kept; default 10. */
  keep?: number | undefined;
  /** Permissions of a new log, less the umask; default 644. */
  mode?: number | undefined;
  /** Told once when the log cannot be written; the work goes on. Default: a line on stderr. */
  onTrouble?: ((error: unknown) => void) | undefined;
}

/** Characters: a batch is written as soon as it has so many. */
const batchSize = 64 * 1024;
/** Characters that wait in memory while the log cannot be written. */
const backlogSize = 4 * 1024 * 1024;
/** Milliseconds between two tries to write to a failing disk. */
const retryEvery = 250;
/** Milliseconds after which an idle writer closes a log that was renamed. */
const idleCheckEvery = 1000;

/**
 * Open a log for appending; it is made when it is not there, and rotated first when it is past `rotateAt`.
 * @throws {Failure} when it cannot be opened for a reason other than a full or failing disk.
 */
export async function openLog(file: string, options: LogOptions = {}): Promise<LogWriter> {
  mkdirSync(dirname(file), { recursive: true });
  const writer = new Writer(file, options);
  await writer.rotate();
  writer.open();
  return writer;
}

class Writer implements LogWriter {
  readonly #file: LogFile;
  readonly #run: string;
  readonly #rotateAt: number;
  readonly #keep: number | undefined;
  readonly #onTrouble: (error: unknown) => void;
  #told = false;
  #closed = false;
  #pending = "";
  #scheduled = false;
  /** Whole lines that could not be written, and how many more there were. */
  #backlog = "";
  #lost = 0;
  #failedAt: number | undefined;
  /** A rotation under way: first the renaming, then what may take longer. */
  #renaming: Promise<void> | undefined;
  #compressing: Promise<void> | undefined;
  #idleCheck: NodeJS.Timeout | undefined;
  readonly #atExit = () => this.write();

  constructor(path: string, options: LogOptions) {
    this.#file = new LogFile(path, options.mode ?? 0o644);
    this.#run = columnName(options.run ?? noRun);
    this.#rotateAt = options.rotateAt ?? 10 * 1024 * 1024;
    this.#keep = options.keep;
    this.#onTrouble =
      options.onTrouble ?? ((error) => process.stderr.write(`${messageOf(error)}\n`));
  }

  open(): void {
    try {
      this.#file.open();
    } catch (error) {
      if (["ENOSPC", "EDQUOT", "EIO"].includes(systemCode(error) ?? "")) this.failed(error);
      else {
        const link = systemCode(error) === "ELOOP";
        throw new Failure(
          `cannot write ${this.#file.path}: ${link ? "it is a link; put a plain file there" : messageOf(error)}`,
        );
      }
    }
    process.on("exit", this.#atExit);
    this.#idleCheck = setInterval(() => {
      if (this.#failedAt !== undefined) this.write();
      this.#file.closeIfRenamed();
    }, idleCheckEvery);
    this.#idleCheck.unref();
  }

  line(stage: string, text: string): void {
    this.lines(stage, [text]);
  }

  mark(mark: Mark): void {
    this.lines(markStage, [formatMark(mark)]);
  }

  lines(stage: string, texts: readonly string[]): void {
    if (this.#closed) return;
    const columns = this.columns(stage);
    for (const text of texts) {
      const lines = text.includes("\n") ? text.replace(/\n$/, "").split("\n") : [text];
      // the end of a line as Windows programs write it is not part of the text
      for (const each of lines)
        this.#pending += `${formatLine({ ...columns, text: each.replace(/\r$/, "") })}\n`;
    }
    if (this.#pending.length >= batchSize) this.flush();
    else if (!this.#scheduled) {
      this.#scheduled = true;
      queueMicrotask(() => this.flush());
    }
  }

  private columns(stage: string) {
    return { time: new Date().toISOString(), run: this.#run, stage: columnName(stage) };
  }

  flush(): void {
    this.#scheduled = false;
    if (this.#failedAt === undefined || Date.now() - this.#failedAt >= retryEvery) this.write();
    else this.keepPending();
  }

  /** Rename the log when it is past its limit; the part is compressed while writing goes on. */
  rotate(): Promise<void> {
    this.#renaming ??= this.rename().finally(() => {
      this.#renaming = undefined;
    });
    return this.#renaming;
  }

  private async rename(): Promise<void> {
    const { path } = this.#file;
    try {
      const rotation = await startRotation(path, { maxSize: this.#rotateAt, keep: this.#keep });
      if (!rotation) return;
      // what is open here would not be compressed
      this.#file.closeIfRenamed();
      this.#compressing = rotation.finish().finally(() => {
        this.#compressing = undefined;
      });
    } catch (error) {
      // what is not a plain file cannot be opened either, and that says more
      if (!(error instanceof Refused))
        this.tell(new Failure(`cannot rotate ${path}: ${messageOf(error)}`));
    }
  }

  async close(): Promise<void> {
    clearInterval(this.#idleCheck);
    this.write();
    this.#closed = true;
    await this.#renaming;
    await this.#compressing;
    process.off("exit", this.#atExit);
    await this.#file.close();
  }

  private write(): void {
    if (this.#closed || (this.#lost > 0 && !this.writeLoss())) return;
    const text = this.#backlog + this.#pending;
    if (text === "") return;
    const { rest, size, error } = this.#file.append(text);
    this.#backlog = "";
    this.#pending = rest;
    this.#failedAt = undefined;
    if (error !== undefined) this.failed(error);
    // a log of runs is rotated between runs
    else if (this.#run === noRun && size >= this.#rotateAt && !this.#compressing)
      void this.rotate();
  }

  /** Write the lines that waited, and how many were lost after them: the count holds until it is in the file. */
  private writeLoss(): boolean {
    const text = `${this.#lost} lines are missing here: they could not be written`;
    const notice = `${formatLine({ ...this.columns("log"), text })}\n`;
    const first = this.#file.append(this.#backlog);
    this.#backlog = first.rest;
    const { error } = first.error === undefined ? this.#file.append(notice) : first;
    if (error === undefined) this.#lost = 0;
    else this.failed(error);
    return error === undefined;
  }

  private failed(error: unknown): void {
    this.#failedAt = Date.now();
    this.keepPending();
    this.tell(
      new Failure(`cannot write ${this.#file.path}: ${messageOf(error)}; going on without`),
    );
  }

  private tell(error: unknown): void {
    if (!this.#told) this.#onTrouble(error);
    this.#told = true;
  }

  /** What is pending joins the backlog as far as there is room; the rest is counted. */
  private keepPending(): void {
    const room = backlogSize - this.#backlog.length;
    const fits = this.#lost === 0 && this.#pending.length <= room;
    const cut = fits || this.#lost > 0 ? 0 : this.#pending.lastIndexOf("\n", room - 1) + 1;
    const kept = fits ? this.#pending : this.#pending.slice(0, cut);
    this.#backlog += kept;
    this.#lost += this.#pending.slice(kept.length).split("\n").length - 1;
    this.#pending = "";
  }
}
