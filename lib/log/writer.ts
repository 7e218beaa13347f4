import * as fs from "node:fs";
import { dirname } from "node:path";
import process from "node:process";
import { promisify } from "node:util";
import { Failure, messageOf, systemCode } from "../core/errors.ts";
import { columnName, formatLine, formatMark, type Mark, markStage } from "./format.ts";
import { renameLog, rotateLog } from "./rotate.ts";

export interface LogOptions {
  /** The run's id; none: `-`. */
  run?: string | undefined;
  /** Bytes at which a part ends; default 10 MiB. */
  rotateAt?: number | undefined;
  /** How many rotated parts are kept; default 10. */
  keep?: number | undefined;
  /** Permissions of a new log, less the umask; default 644. Later ones take those of the one before. */
  mode?: number | undefined;
  /** Told once when the log cannot be written; the work goes on. Default: a line on stderr. */
  onTrouble?: ((error: unknown) => void) | undefined;
}

/** Characters: a batch is written as soon as it has so many. */
const batchSize = 64 * 1024;
/** Bytes that wait in memory while the log cannot be written. */
const backlogSize = 4 * 1024 * 1024;

/**
 * The one writer of a log: whoever opens it has its lock (a build, a release), and nobody else writes or rotates it.
 * - Nothing that was written before a crash is lost: lines are with the kernel when the turn of the
 *   event loop in which they were given ends; `close` has them on the disk.
 * - A part ends at `rotateAt`, also within a run; it is compressed while writing goes on.
 * - A full or failing disk stops nobody: lines wait in memory up to a limit, then are counted, and the
 *   log tells how many are missing as soon as it can be written again.
 */
export class LogWriter {
  readonly #path: string;
  readonly #options: LogOptions;
  #mode: number;
  #fd: number | undefined;
  #inode = 0;
  #size = 0;
  #pending = "";
  #scheduled = false;
  #closed = false;
  /** What is being written, and how far it is. Where that fails `pending` waits; lines beyond its limit are counted. */
  #batch = Buffer.alloc(0);
  #written = 0;
  #lost = 0;
  #told = false;
  /** Parts being compressed, one after the other. */
  #tidying: Promise<unknown> = Promise.resolve();
  readonly #atExit = () => this.flush();

  /**
   * Opens a log for appending; it is made when it is not there.
   * @throws {Failure} when it cannot be opened for a reason other than a full or failing disk.
   */
  constructor(path: string, options: LogOptions = {}) {
    this.#path = path;
    this.#options = options;
    this.#mode = options.mode ?? 0o644;
    fs.mkdirSync(dirname(path), { recursive: true });
    try {
      this.open();
    } catch (error) {
      const code = systemCode(error) ?? "";
      const why = code === "ELOOP" ? "it is a link; put a plain file there" : messageOf(error);
      if (!["ENOSPC", "EDQUOT", "EIO"].includes(code)) throw new Failure(`cannot write ${path}: ${why}`);
    }
    process.on("exit", this.#atExit);
  }

  /** One line of a stage's output, or several when the text holds newlines. */
  line(stage: string, text: string): void {
    if (this.#closed) return;
    // the disk may have room again
    if (this.#written < this.#batch.length) this.flush();
    const head = { time: new Date().toISOString(), run: columnName(this.#options.run ?? ""), stage: columnName(stage) };
    for (const each of text.replace(/\n$/, "").split("\n")) {
      // the end of a line as Windows programs write it is not part of the text
      const line = `${formatLine({ ...head, text: each.replace(/\r$/, "") })}\n`;
      const waiting = this.#batch.length - this.#written;
      if (waiting > 0 && (this.#lost > 0 || waiting + this.#pending.length + line.length > backlogSize))
        this.#lost += 1;
      else this.#pending += line;
      if (waiting === 0 && this.#pending.length >= batchSize) this.flush();
    }
    if (!this.#scheduled) queueMicrotask(() => this.flush());
    this.#scheduled = true;
  }

  /** How the run, or one of its stages, started or finished. */
  mark(mark: Mark): void {
    this.line(markStage, formatMark(mark));
  }

  /** Hand all lines to the kernel now; it happens by itself at the end of the turn. */
  flush(): void {
    this.#scheduled = false;
    try {
      while (this.#written < this.#batch.length || this.takePending()) {
        const fd = this.#written > 0 && this.#fd !== undefined ? this.#fd : this.open();
        const count = fs.writeSync(fd, this.#batch, this.#written);
        this.#written += count;
        this.#size += count;
      }
    } catch (error) {
      // Deno makes several write(2) of one call, and tells of the last one only
      const size = this.#fd === undefined ? this.#size : fs.fstatSync(this.#fd).size;
      this.#written += Math.max(0, Math.min(size - this.#size, this.#batch.length - this.#written));
      this.#size = size;
      this.tell(`cannot write ${this.#path}: ${messageOf(error)}; going on without`);
    }
  }

  /** What is to be written next: the lines, then how many are missing after them. */
  private takePending(): boolean {
    if (this.#pending === "" && this.#lost > 0) {
      const text = `${this.#lost} lines are missing here: they could not be written`;
      this.#lost = 0;
      this.line("log", text);
    }
    this.#batch = Buffer.from(this.#pending);
    this.#written = 0;
    this.#pending = "";
    return this.#batch.length > 0;
  }

  /** Flush, wait for the disk and for what is being compressed, and close the file. */
  async close(): Promise<void> {
    this.flush();
    this.#closed = true;
    process.off("exit", this.#atExit);
    await this.#tidying;
    if (this.#fd === undefined) return;
    await promisify(fs.fdatasync)(this.#fd).catch(() => {});
    fs.closeSync(this.#fd);
    this.#fd = undefined;
  }

  /** The log's descriptor: that of a new file when the old one is full, or somebody has removed it. */
  private open(): number {
    const { rotateAt = 10 * 1024 * 1024 } = this.#options;
    let there = fs.lstatSync(this.#path, { throwIfNoEntry: false });
    if (there?.isFile() && there.size >= rotateAt && this.rotate(there.mode)) there = undefined;
    if (this.#fd !== undefined && there?.ino === this.#inode) {
      // others may have truncated it, or written to it
      this.#size = there.size;
      return this.#fd;
    }
    // a link could lead the log anywhere, and a pipe would wait for a reader
    const { O_RDWR, O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK } = fs.constants;
    const fd = fs.openSync(this.#path, O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK, this.#mode);
    const found = fs.fstatSync(fd);
    if (!found.isFile()) {
      fs.closeSync(fd);
      throw new Failure("it is not a plain file");
    }
    if (this.#fd !== undefined) fs.closeSync(this.#fd);
    this.#fd = fd;
    this.#inode = found.ino;
    this.#size = found.size;
    this.#mode = found.mode & 0o777;
    // a writer that was killed may have left half a line
    const last = Buffer.alloc(1);
    if (fs.readSync(fd, last, 0, 1, Math.max(0, found.size - 1)) === 1 && last[0] !== 10)
      this.#size += fs.writeSync(fd, "\n");
    return fd;
  }

  /** End the part; it is compressed, and the oldest ones go, beside the writing. */
  private rotate(mode: number): boolean {
    try {
      renameLog(this.#path);
    } catch (error) {
      this.tell(`cannot rotate ${this.#path}: ${messageOf(error)}`);
      return false;
    }
    this.#mode = mode & 0o777;
    // what fails here is left to the next rotation, which tells of it
    const tidy = () => rotateLog(this.#path, { keep: this.#options.keep }).catch(() => {});
    this.#tidying = this.#tidying.then(tidy);
    return true;
  }

  private tell(trouble: string): void {
    const { onTrouble = (error) => process.stderr.write(`${messageOf(error)}\n`) } = this.#options;
    if (!this.#told) onTrouble(new Failure(trouble));
    this.#told = true;
  }
}
