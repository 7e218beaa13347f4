import { parseStyle, type Span, spansOf, type Style } from "../ansi.ts";

/** The lines of a log that were fetched, in blocks; the oldest ones are let go. */

const size = 500;
const maxBlocks = 40;

interface Block {
  readonly lines: string[];
  /** Of each line that was shown: its spans, and what the next one begins with. */
  readonly spans: Span[][];
  style: Style;
}

interface Answer {
  total: number;
  from: number;
  style: string;
  lines: string[];
  at: string;
}

export class Lines {
  readonly #address: string;
  readonly #onLoad: () => void;
  readonly #blocks = new Map<number, Block>();
  readonly #loading = new Set<number>();
  total = 0;

  constructor(address: string, onLoad: () => void) {
    this.#address = address;
    this.#onLoad = onLoad;
  }

  /** Ask how many lines there are; returns where a stream of what comes after them begins. */
  async open(): Promise<string> {
    const answer = await this.fetch(Math.max(0, this.total), 0);
    this.total = answer.total;
    return answer.at;
  }

  private async fetch(from: number, count: number): Promise<Answer> {
    const answer = await fetch(`${this.#address}/lines?from=${from}&count=${count}`);
    if (!answer.ok) throw new Error(`the log cannot be had: ${answer.status}`);
    return (await answer.json()) as Answer;
  }

  /** The spans of a line; undefined when they are being fetched. */
  get(line: number): Span[] | undefined {
    const number = Math.floor(line / size);
    const block = this.#blocks.get(number);
    const offset = line - number * size;
    if (!block || offset >= block.lines.length) {
      void this.load(number);
      return undefined;
    }
    while (block.spans.length <= offset) {
      const { spans, style } = spansOf(block.lines[block.spans.length] ?? "", block.style);
      block.spans.push(spans);
      block.style = style;
    }
    return block.spans[offset];
  }

  private async load(number: number): Promise<void> {
    const known = this.#blocks.get(number);
    const from = number * size + (known?.lines.length ?? 0);
    if (this.#loading.has(number) || from >= this.total) return;
    this.#loading.add(number);
    try {
      const { lines, style } = await this.fetch(from, (number + 1) * size - from);
      // an answer without lines would be asked for again and again
      if (lines.length === 0) return;
      // of long lines an answer holds a part of a block: the rest is asked for after it
      if (!known) this.keep(number, { lines, spans: [], style: parseStyle(style) });
      else if (from === number * size + known.lines.length) known.lines.push(...lines);
      this.#onLoad();
    } catch {
      setTimeout(this.#onLoad, 2000);
    } finally {
      this.#loading.delete(number);
    }
  }

  private keep(number: number, block: Block): void {
    this.#blocks.delete(number);
    this.#blocks.set(number, block);
    for (const oldest of this.#blocks.keys()) {
      if (this.#blocks.size <= maxBlocks) break;
      this.#blocks.delete(oldest);
    }
  }

  /** Lines that were written now. */
  add(lines: readonly string[]): void {
    for (const line of lines) {
      const number = Math.floor(this.total / size);
      const offset = this.total - number * size;
      const block = this.#blocks.get(number);
      if (block?.lines.length === offset) block.lines.push(line);
      else if (offset === 0) {
        const before = this.#blocks.get(number - 1);
        const isKnown = number === 0 || before?.lines.length === size;
        // the colours it begins with come from the block before, or from the server
        if (isKnown) {
          if (before) this.get(this.total - 1);
          this.keep(number, {
            lines: [line],
            spans: [],
            style: before?.style ?? parseStyle("-1,-1,0"),
          });
        }
      } else if (block) this.#blocks.delete(number);
      this.total += 1;
    }
  }

  /** The log began anew. */
  clear(): void {
    this.#blocks.clear();
    this.total = 0;
  }
}
