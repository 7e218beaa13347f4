import { counted, shortDuration } from "../times.ts";
import type { Lines } from "./log-lines.ts";
import { type Fold, lineElements, type Rows } from "./log-rows.ts";

/** A window on a log: so many rows as can be seen are in the page, however many there are. */

/** Pixels of a row, as in the stylesheet. */
const rowHeight = 20;
/** A browser's elements can be only so high (firefox 17.9 million pixels): beyond this the scale of the bar shrinks. */
const maxHeight = 8_000_000;

export class LogView {
  readonly #lines: Lines;
  readonly #rows: Rows;
  readonly #box: HTMLElement;
  readonly #spacer = document.createElement("div");
  readonly #shown = document.createElement("div");
  #first = 0;
  #isDrawing = false;
  /** Where we have put the scroll bar ourselves. */
  #set = -1;
  /** Whether the end is kept in sight. */
  isFollowing: boolean;
  onFollow: () => void = () => {};
  /** Lines that are marked, from 0: the link's, the search's. */
  marked: readonly [from: number, to: number] | undefined;
  hits = new Set<number>();

  constructor(box: HTMLElement, parts: { lines: Lines; rows: Rows; isFollowing: boolean }) {
    this.#box = box;
    this.#lines = parts.lines;
    this.#rows = parts.rows;
    this.isFollowing = parts.isFollowing;
    this.#spacer.className = "spacer";
    this.#shown.className = "shown";
    box.replaceChildren(this.#spacer, this.#shown);
    box.addEventListener("scroll", () => this.scrolled(), { passive: true });
    box.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    box.addEventListener("keydown", (event) => this.key(event));
    new ResizeObserver(() => this.draw()).observe(box);
    this.draw();
  }

  private get visible(): number {
    return Math.max(1, Math.floor(this.#box.clientHeight / rowHeight));
  }

  private get isScaled(): boolean {
    return this.#rows.count * rowHeight > maxHeight;
  }

  private get last(): number {
    return Math.max(0, this.#rows.count - this.visible);
  }

  /** Draw before the next frame. */
  draw(): void {
    if (this.#isDrawing) return;
    this.#isDrawing = true;
    requestAnimationFrame(() => {
      this.#isDrawing = false;
      this.drawNow();
    });
  }

  private drawNow(): void {
    const height = Math.min(maxHeight, this.#rows.count * rowHeight);
    if (this.#spacer.dataset["height"] !== String(height)) {
      this.#spacer.dataset["height"] = String(height);
      this.#spacer.style.height = `${height}px`;
    }
    this.#box.classList.toggle("empty", this.#rows.count === 0);
    if (this.isFollowing) this.#first = this.last;
    this.#first = Math.max(0, Math.min(this.#first, this.last));
    this.place();
    const elements: HTMLElement[] = [];
    for (let row = this.#first; row <= this.#first + this.visible + 1; row++) {
      const element = this.element(row);
      if (element) elements.push(element);
    }
    const focused = this.#shown.contains(document.activeElement)
      ? document.activeElement?.getAttribute("data-key")
      : undefined;
    this.#shown.replaceChildren(...elements);
    if (focused)
      this.#shown.querySelector<HTMLElement>(`[data-key="${CSS.escape(focused)}"]`)?.focus({
        preventScroll: true,
      });
  }

  /** Put the scroll bar where the first row is, and the rows where they can be seen. */
  private place(): void {
    const room = Math.max(0, this.#spacer.offsetHeight - this.#box.clientHeight);
    const wanted = this.isScaled
      ? Math.round((this.#first / Math.max(1, this.last)) * room)
      : this.isFollowing
        ? room
        : undefined;
    if (wanted !== undefined && Math.abs(this.#box.scrollTop - wanted) >= 1) {
      this.#box.scrollTop = wanted;
      this.#set = this.#box.scrollTop;
    }
    const top = this.isScaled ? this.#box.scrollTop : this.#first * rowHeight;
    this.#shown.style.transform = `translateY(${top}px)`;
  }

  private scrolled(): void {
    const at = this.#box.scrollTop;
    if (Math.abs(at - this.#set) < 1) return this.draw();
    this.#set = -1;
    const room = Math.max(1, this.#box.scrollHeight - this.#box.clientHeight);
    this.#first = this.isScaled ? Math.round((at / room) * this.last) : Math.floor(at / rowHeight);
    this.follow(at >= room - 2);
    this.draw();
  }

  private wheel(event: WheelEvent): void {
    if (event.deltaY < 0) this.follow(false);
    if (!this.isScaled || event.ctrlKey || event.deltaY === 0) return;
    event.preventDefault();
    const rows = event.deltaMode === 1 ? event.deltaY : event.deltaY / rowHeight;
    this.move(Math.sign(rows) * Math.max(1, Math.round(Math.abs(rows))));
  }

  private key(event: KeyboardEvent): void {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    // it presses a button that has the focus
    if (event.key === " " && event.target !== this.#box) return;
    const page = Math.max(1, this.visible - 2);
    const moves: Record<string, number> = {
      ArrowUp: -1,
      ArrowDown: 1,
      PageUp: -page,
      PageDown: page,
      " ": event.shiftKey ? -page : page,
      Home: -Number.MAX_SAFE_INTEGER,
      End: Number.MAX_SAFE_INTEGER,
    };
    const rows = moves[event.key];
    if (rows === undefined) return;
    event.preventDefault();
    this.move(rows);
  }

  private move(rows: number): void {
    const first = Math.max(0, Math.min(this.#first + rows, this.last));
    this.follow(first === this.last && rows > 0);
    this.goTo(first);
  }

  private goTo(first: number): void {
    this.#first = Math.max(0, Math.min(first, this.last));
    if (!this.isScaled) {
      this.#box.scrollTop = this.#first * rowHeight;
      this.#set = this.#box.scrollTop;
    }
    this.draw();
  }

  private follow(isFollowing: boolean): void {
    if (this.isFollowing === isFollowing) return;
    this.isFollowing = isFollowing;
    this.onFollow();
  }

  /** Keep the end in sight, or no longer. */
  setFollowing(isFollowing: boolean): void {
    this.follow(isFollowing);
    this.draw();
  }

  /** Show a line (from 0), with some before it. */
  show(line: number): void {
    this.follow(false);
    const row = this.#rows.rowOf(line);
    this.draw();
    this.goTo(row - Math.floor(this.visible / 3));
  }

  private element(number: number): HTMLElement | undefined {
    const row = this.#rows.at(number);
    if (!row) return undefined;
    if ("fold" in row)
      return foldElement(row.fold, row.isClosed, () => {
        this.follow(false);
        this.#rows.toggle(row.fold);
        this.draw();
      });
    const element = document.createElement("div");
    element.className = "row";
    const { line } = row;
    if (this.marked && line >= this.marked[0] && line <= this.marked[1])
      element.classList.add("marked");
    if (this.hits.has(line)) element.classList.add("hit");
    const link = document.createElement("a");
    link.className = "n";
    link.href = `#L${line + 1}`;
    link.dataset["n"] = String(line + 1);
    link.dataset["key"] = `L${line + 1}`;
    link.ariaLabel = `line ${line + 1}`;
    link.tabIndex = -1;
    const text = document.createElement("span");
    text.className = "t";
    text.append(...lineElements(this.#lines.get(line) ?? [["…", "x2"]]));
    element.append(link, text);
    return element;
  }
}

function foldElement(fold: Fold, isClosed: boolean, toggle: () => void): HTMLElement {
  const element = document.createElement("button");
  element.type = "button";
  element.className = `fold ${fold.result ?? "running"}`;
  element.ariaExpanded = String(!isClosed);
  element.dataset["key"] = `fold ${fold.from}`;
  const count = fold.to === undefined ? "" : counted(fold.to - fold.from, "line");
  const seconds = fold.seconds === undefined ? "" : shortDuration(fold.seconds);
  for (const [name, text] of [
    ["name", fold.name],
    ["result", fold.result ?? "running"],
    ["soft", [seconds, count].filter(Boolean).join(" · ")],
  ] as const) {
    const part = document.createElement("span");
    part.className = name;
    part.textContent = text;
    element.append(part);
  }
  element.addEventListener("click", toggle);
  return element;
}
