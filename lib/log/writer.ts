import {
  closeSync,
  constants,
  fdatasync,
  fstatSync,
  mkdirSync,
  openSync,
  readSync,
  statSync,
  writeSync,
} from "node:fs";
import { dirname } from "node:path";
import process from "node:process";
import { promisify } from "node:util";
import { Failure, messageOf, Refused, systemCode } from "../core/errors.ts";
import { columnName, formatMark, lineHead, type Mark, markStage, noRun } from "./format.ts";
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
  readonly #atExit = () => this.#write();

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
      if (["ENOSPC", "EDQUOT", "EIO"].includes(systemCode(error) ?? "")) this.#failed(error);
      else {
        const link = systemCode(error) === "ELOOP";
        throw new Failure(
          `cannot write ${this.#file.path}: ${link ? "it is a link; put a plain file there" : messageOf(error)}`,
        );
      }
    }
    process.on("exit", this.#atExit);
    this.#idleCheck = setInterval(() => {
      if (this.#failedAt !== undefined) this.#write();
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
    const head = lineHead(new Date().toISOString(), this.#run, columnName(stage));
    for (const text of texts) {
      const lines = text.includes("\n") ? text.replace(/\n$/, "").split("\n") : [text];
      // the end of a line as Windows programs write it is not part of the text
      for (const each of lines)
        this.#pending += `${head}${each.endsWith("\r") ? each.slice(0, -1) : each}\n`;
    }
    if (this.#pending.length >= batchSize) this.flush();
    else if (!this.#scheduled) {
      this.#scheduled = true;
      queueMicrotask(() => this.flush());
    }
  }

  flush(): void {
    this.#scheduled = false;
    if (this.#failedAt === undefined || Date.now() - this.#failedAt >= retryEvery) this.#write();
    else this.#keepPending();
  }

  /** Rename the log when it is past its limit; the part is compressed while writing goes on. */
  rotate(): Promise<void> {
    this.#renaming ??= this.#rename().finally(() => {
      this.#renaming = undefined;
    });
    return this.#renaming;
  }

  async #rename(): Promise<void> {
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
        this.#tell(new Failure(`cannot rotate ${path}: ${messageOf(error)}`));
    }
  }

  async close(): Promise<void> {
    clearInterval(this.#idleCheck);
    this.#write();
    this.#closed = true;
    await this.#renaming;
    await this.#compressing;
    process.off("exit", this.#atExit);
    await this.#file.close();
  }

  #write(): void {
    if (this.#closed || (this.#lost > 0 && !this.#writeLoss())) return;
    const text = this.#backlog + this.#pending;
    if (text === "") return;
    const { rest, size, error } = this.#file.append(text);
    this.#backlog = "";
    this.#pending = rest;
    this.#failedAt = undefined;
    if (error !== undefined) this.#failed(error);
    // a log of runs is rotated between runs
    else if (this.#run === noRun && size >= this.#rotateAt && !this.#compressing)
      void this.rotate();
  }

  /** Write the lines that waited, and how many were lost after them: the count holds until it is in the file. */
  #writeLoss(): boolean {
    const head = lineHead(new Date().toISOString(), this.#run, "log");
    const notice = `${head}${this.#lost} lines are missing here: they could not be written\n`;
    const first = this.#file.append(this.#backlog);
    this.#backlog = first.rest;
    const { error } = first.error === undefined ? this.#file.append(notice) : first;
    if (error === undefined) this.#lost = 0;
    else this.#failed(error);
    return error === undefined;
  }

  #failed(error: unknown): void {
    this.#failedAt = Date.now();
    this.#keepPending();
    this.#tell(
      new Failure(`cannot write ${this.#file.path}: ${messageOf(error)}; going on without`),
    );
  }

  #tell(error: unknown): void {
    if (!this.#told) this.#onTrouble(error);
    this.#told = true;
  }

  /** What is pending joins the backlog as far as there is room; the rest is counted. */
  #keepPending(): void {
    const room = backlogSize - this.#backlog.length;
    const fits = this.#lost === 0 && this.#pending.length <= room;
    const cut = fits || this.#lost > 0 ? 0 : this.#pending.lastIndexOf("\n", room - 1) + 1;
    const kept = fits ? this.#pending : this.#pending.slice(0, cut);
    this.#backlog += kept;
    this.#lost += this.#pending.slice(kept.length).split("\n").length - 1;
    this.#pending = "";
  }
}

/**
 * A file that several processes append to and that may be renamed at any time (lib/log/rotate.ts).
 * Before each write, and after each opening, the name is checked: nobody ever starts to write to a part
 * that was rotated, and a part that is open nowhere is final.
 */
class LogFile {
  readonly path: string;
  #mode: number;
  #fd: number | undefined;
  #inode = 0;
  #device = 0;

  /** @param mode permissions of a new file, less the umask; later ones take those of the one before. */
  constructor(path: string, mode: number) {
    this.path = path;
    this.#mode = mode;
  }

  /**
   * Write whole lines, starting on a line of their own where another writer was killed within its write.
   * @returns the file's size, or the error and the lines that are not in the file.
   */
  append(text: string): { rest: string; size: number; error?: unknown } {
    if (text === "") return { rest: "", size: 0 };
    let data = Buffer.from(text);
    let size = 0;
    let written = 0;
    try {
      const fd = this.open();
      size = fstatSync(fd).size;
      if (isTorn(fd)) data = Buffer.from(`\n${text}`);
      while (written < data.length) written += writeSync(fd, data, written, data.length - written);
      return { rest: "", size: size + written };
    } catch (error) {
      written ||= this.#fd === undefined ? 0 : writtenSilently(this.#fd, size, data);
      // a line that was written in part will stand in the log once torn and once whole
      const whole = written === 0 ? 0 : data.lastIndexOf(newline, written - 1) + 1;
      return { rest: whole === 0 ? text : data.toString("utf8", whole), size, error };
    }
  }

  /** The open descriptor of the file that the name leads to. */
  open(): number {
    while (this.#fd === undefined || !this.#isCurrent()) {
      this.#release();
      const { O_RDWR, O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK } = constants;
      // a link could lead the log anywhere, and a pipe would wait for a reader
      const flags = O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK;
      const fd = openSync(this.path, flags, this.#mode);
      const opened = fstatSync(fd);
      if (!opened.isFile()) {
        closeSync(fd);
        throw new Failure(`${this.path} is not a plain file`);
      }
      this.#fd = fd;
      this.#inode = opened.ino;
      this.#device = opened.dev;
      this.#mode = opened.mode & 0o777;
    }
    return this.#fd;
  }

  #isCurrent(): boolean {
    const current = statSync(this.path, { throwIfNoEntry: false });
    return current?.ino === this.#inode && current.dev === this.#device;
  }

  /** Close a file that was renamed, so that it can be compressed. The next append opens the new one. */
  closeIfRenamed(): void {
    if (this.#fd !== undefined && !this.#isCurrent()) this.#release();
  }

  #release(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  /** Wait until all is on the disk, and close. */
  async close(): Promise<void> {
    if (this.#fd !== undefined) await promisify(fdatasync)(this.#fd).catch(() => {});
    this.#release();
  }
}

const newline = 10;

/** Whether the file ends within a line, and not because another writer is at it this very moment. */
function isTorn(fd: number): boolean {
  const last = Buffer.alloc(1);
  for (let before = -1; ; ) {
    const { size } = fstatSync(fd);
    if (size === 0 || readSync(fd, last, 0, 1, size - 1) === 0 || last[0] === newline) return false;
    if (size === before) return true;
    before = size;
    Atomics.wait(pause, 0, 0, 1);
  }
}

const pause = new Int32Array(new SharedArrayBuffer(4));

/**
 * How much of `data` is in the file although the call failed: Deno makes several write(2) of one call,
 * and tells of the last one only.
 */
function writtenSilently(fd: number, from: number, data: Buffer): number {
  try {
    const found = Buffer.alloc(data.length);
    const count = readSync(fd, found, 0, data.length, from);
    return found.subarray(0, count).equals(data.subarray(0, count)) ? count : 0;
  } catch {
    return 0;
  }
}
