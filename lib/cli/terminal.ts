import process from "node:process";
import { createInterface, type Interface } from "node:readline";
import { stripVTControlCharacters } from "node:util";
import { Chalk, type ChalkInstance } from "chalk";
import { cleanJson } from "../core/clean.ts";
import { Failure } from "../core/errors.ts";
import type { Progress, ProgressOptions, Terminal } from "../core/terminal.ts";
import { formatDuration, formatSize } from "../core/units.ts";

export interface TerminalOptions {
  json?: boolean;
  quiet?: boolean;
}

function colours(stream: "stdout" | "stderr"): ChalkInstance {
  const { NO_COLOR, FORCE_COLOR, TERM } = process.env;
  const forced = FORCE_COLOR !== undefined && FORCE_COLOR !== "0";
  const wanted = forced || (process[stream].isTTY === true && TERM !== "dumb");
  return new Chalk({ level: wanted && !NO_COLOR ? 1 : 0 });
}

/** How many columns a text takes, colours left out and East Asian wide characters counted twice. */
function textWidth(text: string): number {
  const plain = stripVTControlCharacters(text);
  return [...plain].length + (plain.match(wide)?.length ?? 0);
}

const wide =
  /[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1faff}]/gu;

/** Columns that a table takes from nobody. */
const narrowest = 12;

/** Columns of a terminal; one that tells no width (0) has the usual one. What is no terminal has all there are. */
function roomOf(stream: NodeJS.WriteStream): number {
  return stream.isTTY ? stream.columns || 80 : Number.POSITIVE_INFINITY;
}

function shortened(text: string, width: number): string {
  const characters = [...stripVTControlCharacters(text)].slice(0, width);
  while (textWidth(characters.join("")) >= width) characters.pop();
  return `${characters.join("")}…`;
}

export function createTerminal({ json = false, quiet = false }: TerminalOptions = {}): Terminal {
  const paint = colours("stdout");
  const paintNote = colours("stderr");
  const isTTY = process.stderr.isTTY === true && process.env.TERM !== "dumb";
  /** What is under way, and what is within that: the last one shows. */
  const under: LiveLine[] = [];

  function write(stream: NodeJS.WriteStream, line: string): void {
    under.at(-1)?.hide();
    stream.write(`${line}\n`);
    under.at(-1)?.show();
  }

  return {
    json,
    quiet,
    isTTY,
    stdoutIsTTY: process.stdout.isTTY === true,
    // stdin last: to look at it opens it
    canAsk: process.stderr.isTTY === true && process.stdin.isTTY === true,
    paint,
    paintNote,
    print(line = "") {
      if (!json) write(process.stdout, line);
    },
    printJson(value) {
      if (json) write(process.stdout, cleanJson(JSON.stringify(value)));
    },
    note(line) {
      if (!quiet) write(process.stderr, line);
    },
    warn(line) {
      write(process.stderr, paintNote.yellow(line));
    },
    table(rows, { header, right = [] } = {}) {
      const all = header ? [header, ...rows] : rows;
      const columns = Math.max(0, ...all.map((row) => row.length));
      const widths = Array.from({ length: columns }, (_, column) =>
        Math.max(...all.map((row) => textWidth(row[column] ?? ""))),
      );
      // on a terminal the widest column gives way
      let over = widths.reduce((sum, width) => sum + width + 2, -2) - roomOf(process.stdout);
      for (let widest = Math.max(...widths); over > 0 && widest > narrowest; widest = Math.max(...widths)) {
        const next = Math.max(narrowest, widest - over);
        widths[widths.indexOf(widest)] = next;
        over -= widest - next;
      }
      const lines = all.map((row) =>
        row
          .map((whole, column) => {
            const width = widths[column] ?? 0;
            const cell = textWidth(whole) > width ? shortened(whole, width) : whole;
            const space = " ".repeat(width - textWidth(cell));
            return right.includes(column) ? space + cell : cell + space;
          })
          .join("  ")
          .trimEnd(),
      );
      return header ? [paint.dim(lines[0] ?? ""), ...lines.slice(1)] : lines;
    },
    progress(options) {
      under.at(-1)?.hide();
      const line: LiveLine = new LiveLine({
        ...{ ...options, isTTY, quiet },
        isLast: () => under.at(-1) === line,
        onEnd: () => void (under.includes(line) && under.splice(under.indexOf(line), 1)),
      });
      under.push(line);
      return line;
    },
    async confirm(question) {
      const lines = createInterface({ input: process.stdin, output: process.stderr });
      return /^y(?:es)?$/i.test((await answerTo(lines, question)).trim());
    },
    async askSecret(question) {
      // Before the question, as this ends the terminal's own echo: what is typed ahead must not show either.
      const lines = createInterface({ input: process.stdin, terminal: true });
      process.stderr.write(question);
      return await answerTo(lines, "").finally(() => process.stderr.write("\n"));
    },
  };
}

/** Ctrl-C, Ctrl-D and the end of the input are no answer: @throws {Failure} */
function answerTo(lines: Interface, question: string): Promise<string> {
  return new Promise<string>((resolve, reject) => {
    lines.question(question, resolve);
    lines.once("close", () => reject(new Failure("nobody answered; nothing was changed")));
  }).finally(() => lines.close());
}

const redrawEvery = 90;
const plainLineEvery = 5000;

interface LineOptions extends ProgressOptions {
  isTTY: boolean;
  quiet: boolean;
  isLast: () => boolean;
  onEnd: () => void;
}

class LiveLine implements Progress {
  #done = 0;
  #detail = "";
  #total: number | undefined;
  #drawn = 0;
  #shown = false;
  #clock: NodeJS.Timeout | undefined;
  readonly #started = Date.now();
  readonly #options: LineOptions;

  constructor(options: LineOptions) {
    this.#options = options;
    this.#total = options.total;
    this.#drawn = options.isTTY ? 0 : Date.now();
    if (options.unit === "time" && options.isTTY) this.#clock = setInterval(() => this.update(0), 1000).unref();
  }

  update(done: number, detail?: string): void {
    this.#done = done;
    if (detail !== undefined) this.#detail = detail;
    const now = Date.now();
    if (this.#options.quiet || now - this.#drawn < (this.#options.isTTY ? redrawEvery : plainLineEvery)) return;
    this.#drawn = now;
    if (this.#options.isTTY) this.show();
    else if (this.#options.unit !== "time") process.stderr.write(`${this.text(false)}\n`);
  }

  add(count: number, detail?: string): void {
    this.update(this.#done + count, detail);
  }

  setTotal(total: number): void {
    this.#total = total;
  }

  end(text?: string): void {
    clearInterval(this.#clock);
    this.hide();
    this.#options.onEnd();
    if (text !== undefined && !this.#options.quiet) process.stderr.write(`${text}\n`);
  }

  show(): void {
    if (!this.#options.isTTY || this.#options.quiet || this.#drawn === 0 || !this.#options.isLast()) return;
    const columns = roomOf(process.stderr);
    // the words matter more than the bar
    const text = [this.text(true), this.text(false)].find((each) => textWidth(each) < columns);
    process.stderr.write(`\r\u001b[K${text ?? [...this.text(false)].slice(0, columns - 1).join("")}`);
    this.#shown = true;
  }

  hide(): void {
    if (!this.#shown) return;
    process.stderr.write("\r\u001b[K");
    this.#shown = false;
  }

  private text(withBar: boolean): string {
    const { label, unit = "count" } = this.#options;
    const amount = (value: number) => (unit === "bytes" ? formatSize(value) : String(Math.floor(value)));
    const seconds = (Date.now() - this.#started) / 1000;
    const rate = seconds > 0 ? this.#done / seconds : 0;
    const words = [label];
    const total = this.#total;
    if (unit === "time") words.push(formatDuration(1000 * Math.floor(seconds)));
    else if (total !== undefined && total > 0) {
      const share = Math.min(1, this.#done / total);
      if (withBar) words.push(bar(share));
      words.push(`${Math.floor(share * 100)}%`, `${amount(this.#done)}/${amount(total)}`);
      if (unit === "bytes") words.push(`${formatSize(rate)}/s`);
      if (rate > 0 && share < 1 && seconds > 1)
        words.push(`${formatDuration(((total - this.#done) / rate) * 1000)} left`);
    } else {
      words.push(amount(this.#done));
      if (unit === "bytes") words.push(`${formatSize(rate)}/s`);
    }
    if (this.#detail) words.push(this.#detail);
    return words.join(" ");
  }
}

function bar(share: number): string {
  const width = 20;
  const full = Math.round(share * width);
  return `[${"=".repeat(full)}${" ".repeat(width - full)}]`;
}
