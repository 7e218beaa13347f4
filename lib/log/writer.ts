import { mkdirSync, statSync } from "node:fs";
import { dirname } from "node:path";
import process from "node:process";
import { Failure, messageOf, Refused, systemCode } from "../core/errors.ts";
import { type AppendFailed, AppendFile } from "./append.ts";
import { columnName, formatMark, lineHead, type Mark, markStage, noRun } from "./format.ts";
import { beginRotation } from "./rotate.ts";
import { createMask, type Mask } from "../config/secrets.ts";

/**
 * The one writer of logs.txt. What it promises:
 * - Whole lines, in order, also from several processes (lib/log/append.ts).
 * - Nothing that was written before a crash is lost: lines are with the kernel when the turn of the
 *   event loop in which they were given ends; `close` has them on the disk.
 * - Rotation loses nothing: a log that was renamed stays good to write to, and is let go within a second.
 * - A full or failing disk stops nobody: lines wait in memory up to a limit, then are counted, and the
 *   log tells how many are missing as soon as it can be written again.
 */
export interface LogWriter {
  /** One line of a stage's output, or several when the text holds newlines. */
  line(stage: string, text: string): void;
  /** Many lines at once. */
  lines(stage: string, texts: readonly string[]): void;
  /** How the run, or one of its stages, began or ended. */
  mark(mark: Mark): void;
  /** Hand all lines to the kernel now; it happens by itself at the end of the turn. */
  flush(): void;
  /** Flush, wait for the disk and for a rotation under way, and let go of the file. */
  close(): Promise<void>;
}

export interface LogOptions {
  /** The run's id; none: `-`. */
  run?: string | undefined;
  /** Shown as `***`. */
  secrets?: Iterable<string> | undefined;
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
const idleLookEvery = 1000;

/**
 * Open a log for appending; it is made when it is not there, and rotated first when it is past `rotateAt`.
 * @throws {Failure} when it cannot be opened for a reason other than a full or failing disk.
 */
export async function openLog(file: string, options: LogOptions = {}): Promise<LogWriter> {
  const { rotateAt = 10 * 1024 * 1024, keep } = options;
  mkdirSync(dirname(file), { recursive: true });
  const writer = new Writer(file, options);
  let rotation: Promise<unknown> | undefined;
  const rotate = async () => {
    try {
      rotation = (await beginRotation(file, { maxSize: rotateAt, keep }))?.finished;
    } catch (error) {
      // what is no plain file cannot be opened either, and that says more
      if (!(error instanceof Refused))
        writer.tell(new Failure(`cannot rotate ${file}: ${messageOf(error)}`));
    }
  };
  await rotate();
  writer.open();
  const idle = setInterval(() => {
    writer.idle();
    // a log of runs is rotated between runs, one without runs whenever it has grown
    const size = options.run ? 0 : (statSync(file, { throwIfNoEntry: false })?.size ?? 0);
    if (size >= rotateAt) void rotate();
  }, idleLookEvery);
  idle.unref();
  return {
    line: (stage, text) => writer.add(stage, [text]),
    lines: (stage, texts) => writer.add(stage, texts),
    mark: (mark) => writer.add(markStage, [formatMark(mark)]),
    flush: () => writer.flush(),
    async close() {
      clearInterval(idle);
      writer.flush();
      await rotation;
      await writer.close();
    },
  };
}

class Writer {
  readonly #file: AppendFile;
  readonly #run: string;
  readonly #mask: Mask;
  readonly #onTrouble: (error: unknown) => void;
  #told = false;
  #closed = false;
  #pending = "";
  #scheduled = false;
  /** Whole lines that could not be written, and how many more there were. */
  #backlog = "";
  #lost = 0;
  #failedAt: number | undefined;
  readonly #atExit = () => this.#write();

  constructor(path: string, { run = noRun, secrets = [], mode = 0o644, onTrouble }: LogOptions) {
    this.#file = new AppendFile(path, mode);
    this.#run = columnName(run);
    this.#mask = createMask(secrets);
    this.#onTrouble = onTrouble ?? ((error) => process.stderr.write(`${messageOf(error)}\n`));
    process.on("exit", this.#atExit);
  }

  open(): void {
    try {
      this.#file.open();
    } catch (error) {
      if (["ENOSPC", "EDQUOT", "EIO"].includes(systemCode(error) ?? "")) return this.#failed(error);
      process.off("exit", this.#atExit);
      const link = systemCode(error) === "ELOOP";
      throw new Failure(
        `cannot write ${this.#file.path}: ${link ? "it is a link; put a plain file there" : messageOf(error)}`,
      );
    }
  }

  tell(error: unknown): void {
    if (!this.#told) this.#onTrouble(error);
    this.#told = true;
  }

  add(stage: string, texts: readonly string[]): void {
    if (this.#closed) return;
    const head = lineHead(new Date().toISOString(), this.#run, columnName(stage));
    for (const text of texts) {
      const masked = this.#mask(text);
      const lines = masked.includes("\n") ? masked.replace(/\n$/, "").split("\n") : [masked];
      // the end of a line as Windows programs write it is no text
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
    else this.#keep();
  }

  idle(): void {
    if (this.#failedAt !== undefined) this.#write();
    this.#file.letGoWhenRenamed();
  }

  #write(): void {
    const text = this.#backlog + this.#lossNotice() + this.#pending;
    if (text === "" || this.#closed) return;
    try {
      this.#file.append(text);
      this.#failedAt = undefined;
      this.#backlog = "";
      this.#lost = 0;
      this.#pending = "";
    } catch (error) {
      // a line that was written in part will stand in the log once torn and once whole
      const { written } = error as AppendFailed;
      const bytes = Buffer.from(text);
      this.#pending = bytes.toString(
        "utf8",
        written === 0 ? 0 : bytes.lastIndexOf(10, written - 1) + 1,
      );
      this.#backlog = "";
      this.#lost = 0;
      this.#failed(error);
    }
  }

  #lossNotice(): string {
    if (this.#lost === 0) return "";
    return `${lineHead(new Date().toISOString(), this.#run, "log")}${this.#lost} lines are missing here: they could not be written\n`;
  }

  #failed(error: unknown): void {
    this.#failedAt = Date.now();
    this.#keep();
    this.tell(
      new Failure(`cannot write ${this.#file.path}: ${messageOf(error)}; going on without`),
    );
  }

  /** What is pending joins the backlog as far as there is room; the rest is counted. */
  #keep(): void {
    const room = backlogSize - this.#backlog.length;
    const fits = this.#lost === 0 && this.#pending.length <= room;
    const cut = fits || this.#lost > 0 ? 0 : this.#pending.lastIndexOf("\n", room - 1) + 1;
    const kept = fits ? this.#pending : this.#pending.slice(0, cut);
    this.#backlog += kept;
    this.#lost += this.#pending.slice(kept.length).split("\n").length - 1;
    this.#pending = "";
  }

  async close(): Promise<void> {
    this.#write();
    this.#closed = true;
    process.off("exit", this.#atExit);
    await this.#file.close();
  }
}
