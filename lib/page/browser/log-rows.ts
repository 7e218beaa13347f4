import type { Span } from "../ansi.ts";

/** What a window on a log shows: rows, of which some are lines and some are heads of stages that fold. Pure. */

/** A stage in the log; lines are numbered from 0, `to` is the line after its last. */
export interface Fold {
  readonly name: string;
  readonly result: string | undefined;
  readonly seconds: number | undefined;
  readonly from: number;
  readonly to: number | undefined;
}

export type Row = { readonly line: number } | { readonly fold: Fold; readonly isClosed: boolean };

interface Segment {
  /** The number of its first row. */
  readonly row: number;
  readonly rows: number;
  readonly line?: number;
  readonly fold?: Fold;
}

/** Rows by number, for lines with some stages folded. */
export class Rows {
  #folds: readonly Fold[] = [];
  #closed = new Set<string>();
  #segments: Segment[] = [];
  #total = 0;
  count = 0;

  /** How many lines there are. */
  set total(total: number) {
    this.#total = total;
    this.build();
  }

  get total(): number {
    return this.#total;
  }

  get folds(): readonly Fold[] {
    return this.#folds;
  }

  /** @param isFirst fold what went well: only at the start, as nothing may move under a reader's eyes later. */
  setFolds(folds: readonly Fold[], isFirst: boolean): void {
    this.#folds = folds;
    if (isFirst && folds.some(({ result }) => result === "failed" || result === "timeout"))
      for (const fold of folds) if (fold.result === "ok") this.#closed.add(keyOf(fold));
    this.build();
  }

  toggle(fold: Fold): void {
    const key = keyOf(fold);
    if (!this.#closed.delete(key)) this.#closed.add(key);
    this.build();
  }

  foldAll(isClosed: boolean): void {
    this.#closed = new Set(isClosed ? this.#folds.map(keyOf) : []);
    this.build();
  }

  private build(): void {
    const segments: Segment[] = [];
    let row = 0;
    let line = 0;
    const lines = (to: number) => {
      if (to > line) {
        segments.push({ row, rows: to - line, line });
        row += to - line;
      }
      line = Math.max(line, to);
    };
    for (const fold of this.#folds) {
      const from = Math.min(fold.from, this.#total);
      const to = Math.min(fold.to ?? this.#total, this.#total);
      if (from < line || to < from) continue;
      lines(from);
      segments.push({ row, rows: 1, fold });
      row += 1;
      if (this.#closed.has(keyOf(fold))) line = to;
      else lines(to);
    }
    lines(this.#total);
    this.#segments = segments;
    this.count = row;
  }

  at(row: number): Row | undefined {
    const segment = this.#segments.findLast((each) => each.row <= row);
    if (!segment || row >= segment.row + segment.rows) return undefined;
    if (segment.fold)
      return { fold: segment.fold, isClosed: this.#closed.has(keyOf(segment.fold)) };
    return { line: (segment.line ?? 0) + row - segment.row };
  }

  /** The row of a line; a stage that hides it is opened. */
  rowOf(line: number): number {
    const hidden = this.#folds.find(
      (fold) =>
        this.#closed.has(keyOf(fold)) && fold.from <= line && line < (fold.to ?? this.#total),
    );
    if (hidden) this.toggle(hidden);
    const segment = this.#segments.find(
      (each) => each.line !== undefined && each.line <= line && line < each.line + each.rows,
    );
    return segment ? segment.row + line - (segment.line ?? 0) : Math.max(0, this.count - 1);
  }
}

function keyOf({ name, from }: Fold): string {
  return `${from} ${name}`;
}

/** A line as elements: text is text, and classes come from a list that `spansOf` makes. */
export function lineElements(spans: readonly Span[]): Node[] {
  return spans.map(([text, classes]) => {
    if (classes === "") return document.createTextNode(text);
    const element = document.createElement("span");
    element.className = classes;
    element.textContent = text;
    return element;
  });
}
