/// <reference lib="dom" />
/// <reference lib="dom.iterable" />
import type { Ansi, Span, Style } from "./ansi.ts";
import type { Lines as Part } from "./log-index.ts";
import type { Fold } from "./source.ts";
import type { counted, shortAge, shortDuration } from "./times.ts";

/** What the script has of the server's functions: the same text. */
interface Shared {
  ansi: Ansi;
  counted: typeof counted;
  shortAge: typeof shortAge;
  shortDuration: typeof shortDuration;
}

/**
 * The page's script: without it all can be read; with it clocks run, logs are live, and what changes shows. A browser
 * gets the text of this function (files.ts), so it names nothing outside of itself.
 */
export function client({ ansi, counted, shortAge, shortDuration }: Shared): void {
  const find = (selector: string) => document.querySelector<HTMLElement>(selector);

  function make<K extends keyof HTMLElementTagNameMap>(
    tag: K,
    properties: Partial<HTMLElementTagNameMap[K]>,
    ...children: readonly (Node | string)[]
  ): HTMLElementTagNameMap[K] {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  }

  function setText(element: Element | null, text: string): void {
    if (element && element.textContent !== text) element.textContent = text;
  }

  /** Say what has happened to those who look, and to screen readers. */
  function say(text: string): void {
    setText(find("#link-state"), text);
  }

  // What comes anew from the server: events, and parts of the page.

  /**
   * A stream of events that comes back, whatever ended it. One is open for a tab, and none while nobody looks at it.
   * @returns a function that closes it for good.
   */
  function openStream(address: () => string, on: Record<string, (data: string, id: string) => void>): () => void {
    let stream: EventSource | undefined;
    let timer: ReturnType<typeof setTimeout> | undefined;
    let isOver = false;
    let isLost = false;
    let wait = 500;
    const close = () => {
      clearTimeout(timer);
      stream?.close();
      stream = undefined;
    };
    const open = () => {
      close();
      if (isOver || document.hidden) return;
      const own = new EventSource(address());
      stream = own;
      own.onopen = () => {
        wait = 500;
        if (isLost) say("");
        isLost = false;
      };
      for (const [name, handle] of Object.entries(on))
        own.addEventListener(name, (event) => {
          if (stream === own) handle(event.data as string, event.lastEventId);
        });
      own.onerror = () => {
        // a browser gives up for good after an answer like 502: this does not, and says where it was
        if (stream !== own) return;
        isLost = true;
        say("Connection lost; trying again");
        if (own.readyState === EventSource.CLOSED) void reloadIfSignedOut();
        close();
        timer = setTimeout(open, wait + Math.random() * 300);
        wait = Math.min(wait * 2, 10_000);
      };
    };
    const look = () => (document.hidden ? close() : stream === undefined && open());
    document.addEventListener("visibilitychange", look);
    addEventListener("pagehide", close);
    addEventListener("pageshow", look);
    open();
    return () => {
      isOver = true;
      document.removeEventListener("visibilitychange", look);
      removeEventListener("pageshow", look);
      close();
    };
  }

  /** The stream was refused: whoever was signed out elsewhere, or by the clock, sees the form. */
  async function reloadIfSignedOut(): Promise<void> {
    const answer = await fetch(location.href, { method: "HEAD" }).catch(() => undefined);
    if (answer?.status === 401) location.reload();
  }

  const parsed = (text: string) => new DOMParser().parseFromString(text, "text/html");

  /**
   * Put a part in the place of the old one, keeping the focus. Where only times have moved on, the old one stays:
   * a reader is not disturbed for that. Returns whether it was put there.
   */
  function swap(old: Element | null, next: Element | null): boolean {
    if (!old || !next || timeless(old).isEqualNode(timeless(next))) return false;
    const focused = old.contains(document.activeElement) && document.activeElement?.closest("a")?.getAttribute("href");
    old.replaceWith(next);
    if (focused) next.querySelector<HTMLElement>(`a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
    return true;
  }

  function timeless(part: Element): Node {
    const copy = part.cloneNode(true) as Element;
    for (const time of copy.querySelectorAll("time")) time.textContent = "";
    return copy;
  }

  // Shortcuts.

  /**
   * Let single keys act, and list them at the page's end, where they can be turned off: who speaks to the computer, or
   * often hits a key by mistake, needs that (WCAG 2.1.4).
   */
  function startShortcuts(shortcuts: readonly (readonly [key: string, what: string, act: () => void])[]): void {
    const list = make("dl", {});
    for (const [key, what] of shortcuts) list.append(make("dt", {}, make("kbd", {}, key)), make("dd", {}, what));
    /** A browser may refuse to keep anything: then it holds for this page. */
    const remembered = <T>(act: () => T): T | undefined => {
      try {
        return act();
      } catch {
        return undefined;
      }
    };
    const name = "shortcuts";
    const checked = remembered(() => localStorage.getItem(name)) !== "off";
    const box = make("input", { type: "checkbox", id: name, checked });
    box.addEventListener("change", () => remembered(() => localStorage.setItem(name, box.checked ? "on" : "off")));
    const label = make("label", {}, box, " Use these keys");
    const summary = make("summary", {}, "Keyboard shortcuts");
    find("footer .version")?.after(make("details", { className: "shortcuts" }, summary, list, label));

    document.addEventListener("keydown", (event) => {
      const target = event.target as HTMLElement;
      const isTyped = event.isComposing || target.matches("input:not([type=checkbox]), select");
      if (!box.checked || isTyped || event.ctrlKey || event.metaKey || event.altKey) return;
      const found = shortcuts.find(([key]) => key === event.key);
      if (!found) return;
      event.preventDefault();
      found[2]();
    });
  }

  // The lines of a log that were fetched, in blocks; the oldest ones are let go.

  const blockSize = 500;
  const maxBlocks = 40;

  interface Block {
    readonly lines: string[];
    /** Of each line that was shown: its spans, and what the next one begins with. */
    readonly spans: Span[][];
    style: Style;
  }

  class Lines {
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

    private async fetch(from: number, count: number): Promise<Part & { at: string }> {
      const answer = await fetch(`${this.#address}/lines?from=${from}&count=${count}`);
      if (!answer.ok) throw new Error(`the log cannot be had: ${answer.status}`);
      return await answer.json();
    }

    /** The spans of a line; undefined when they are being fetched. */
    get(line: number): Span[] | undefined {
      const number = Math.floor(line / blockSize);
      const block = this.#blocks.get(number);
      const offset = line - number * blockSize;
      if (!block || offset >= block.lines.length) {
        void this.load(number);
        return undefined;
      }
      while (block.spans.length <= offset) {
        const { spans, style } = ansi.spansOf(block.lines[block.spans.length] ?? "", block.style);
        block.spans.push(spans);
        block.style = style;
      }
      return block.spans[offset];
    }

    private async load(number: number): Promise<void> {
      const known = this.#blocks.get(number);
      const from = number * blockSize + (known?.lines.length ?? 0);
      if (this.#loading.has(number) || from >= this.total) return;
      this.#loading.add(number);
      try {
        const { lines, style } = await this.fetch(from, (number + 1) * blockSize - from);
        // an answer without lines would be asked for again and again
        if (lines.length === 0) return;
        // of long lines an answer holds a part of a block: the rest is asked for after it
        if (!known) this.keep(number, { lines: [...lines], spans: [], style: ansi.parseStyle(style) });
        else if (from === number * blockSize + known.lines.length) known.lines.push(...lines);
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
        const number = Math.floor(this.total / blockSize);
        const offset = this.total - number * blockSize;
        const block = this.#blocks.get(number);
        if (block?.lines.length === offset) block.lines.push(line);
        else if (offset === 0) {
          const before = this.#blocks.get(number - 1);
          const isKnown = number === 0 || before?.lines.length === blockSize;
          // the colours it begins with come from the block before, or from the server
          if (isKnown) {
            if (before) this.get(this.total - 1);
            this.keep(number, { lines: [line], spans: [], style: before?.style ?? ansi.plainStyle });
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

  // What a window on a log shows: rows, of which some are lines and some are heads of stages that fold.

  interface Segment {
    /** The number of its first row. */
    readonly row: number;
    readonly rows: number;
    readonly line?: number;
    readonly fold?: Fold;
  }

  const keyOf = ({ name, from }: Fold) => `${from} ${name}`;

  /** Rows by number, for lines with some stages folded. */
  class Rows {
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

    at(row: number): { readonly line: number } | { readonly fold: Fold; readonly isClosed: boolean } | undefined {
      const segment = this.#segments.findLast((each) => each.row <= row);
      if (!segment || row >= segment.row + segment.rows) return undefined;
      if (segment.fold) return { fold: segment.fold, isClosed: this.#closed.has(keyOf(segment.fold)) };
      return { line: (segment.line ?? 0) + row - segment.row };
    }

    /** The row of a line; a stage that hides it is opened. */
    rowOf(line: number): number {
      const isIn = (fold: Fold) => fold.from <= line && line < (fold.to ?? this.#total);
      const hidden = this.#folds.find((fold) => this.#closed.has(keyOf(fold)) && isIn(fold));
      if (hidden) this.toggle(hidden);
      const segment = this.#segments.find(
        (each) => each.line !== undefined && each.line <= line && line < each.line + each.rows,
      );
      return segment ? segment.row + line - (segment.line ?? 0) : Math.max(0, this.count - 1);
    }
  }

  // A window on a log: so many rows as can be seen are in the page, however many there are.

  /** Pixels of a row, as in the stylesheet. */
  const rowHeight = 20;
  /** A browser's elements can be only so high (firefox 17.9 million pixels): beyond this the bar's scale shrinks. */
  const maxHeight = 8_000_000;

  class LogView {
    readonly #lines: Lines;
    readonly #rows: Rows;
    readonly #box: HTMLElement;
    readonly #spacer = make("div", { className: "spacer" });
    readonly #shown = make("div", { className: "shown" });
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
      const height = `${Math.min(maxHeight, this.#rows.count * rowHeight)}px`;
      if (this.#spacer.style.height !== height) this.#spacer.style.height = height;
      this.#box.classList.toggle("empty", this.#rows.count === 0);
      if (this.isFollowing) this.#first = this.last;
      this.#first = Math.max(0, Math.min(this.#first, this.last));
      this.place();
      const elements: HTMLElement[] = [];
      for (let row = this.#first; row <= this.#first + this.visible + 1; row++) {
        const element = this.element(row);
        if (element) elements.push(element);
      }
      const { activeElement } = document;
      const focused = this.#shown.contains(activeElement) && activeElement?.getAttribute("data-key");
      this.#shown.replaceChildren(...elements);
      const again = focused && this.#shown.querySelector<HTMLElement>(`[data-key="${CSS.escape(focused)}"]`);
      if (again) again.focus({ preventScroll: true });
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
      const { line } = row;
      const name = String(line + 1);
      const link = make("a", { className: "n", href: `#L${name}`, ariaLabel: `line ${name}`, tabIndex: -1 });
      Object.assign(link.dataset, { n: name, key: `L${name}` });
      // text is text, and classes come from a list that `spansOf` makes
      const spans = (this.#lines.get(line) ?? [["…", "x2"] as const]).map(([text, className]) =>
        className === "" ? text : make("span", { className }, text),
      );
      const element = make("div", { className: "row" }, link, make("span", { className: "t" }, ...spans));
      if (this.marked && line >= this.marked[0] && line <= this.marked[1]) element.classList.add("marked");
      if (this.hits.has(line)) element.classList.add("hit");
      return element;
    }
  }

  function foldElement(fold: Fold, isClosed: boolean, toggle: () => void): HTMLElement {
    const { name, seconds, from, to } = fold;
    const result = fold.result ?? "running";
    const count = to === undefined ? "" : counted(to - from, "line");
    const took = seconds === undefined ? "" : shortDuration(seconds);
    const element = make(
      "button",
      { type: "button", className: `fold ${result}`, ariaExpanded: String(!isClosed) },
      make("span", { className: "name" }, name),
      make("span", { className: "result" }, result),
      make("span", { className: "soft" }, [took, count].filter(Boolean).join(" · ")),
    );
    element.dataset["key"] = `fold ${from}`;
    element.addEventListener("click", toggle);
    return element;
  }

  /** Search, the first error, folds, following, and links to lines. */
  function startTools(
    section: HTMLElement,
    { address, lines, rows, view }: { address: string; lines: Lines; rows: Rows; view: LogView },
  ): void {
    const bar = section.querySelector<HTMLElement>("[data-tools]");
    if (!bar) return;
    const found: { lines: number[]; count: number; at: number } = { lines: [], count: 0, at: -1 };
    const label = "Search the log";
    const search = make("input", { type: "search", placeholder: label, ariaLabel: label });
    const status = make("output", {});
    const button = (text: string, title: string, act: () => void) => {
      const element = make("button", { type: "button", className: "quiet", title }, text);
      element.addEventListener("click", act);
      return element;
    };
    const showLine = (line: number) => view.show(Math.min(line, Math.max(0, lines.total - 1)));

    const step = (by: number) => {
      if (found.lines.length === 0) return;
      found.at = (found.at + by + found.lines.length) % found.lines.length;
      const line = found.lines[found.at] ?? 0;
      view.marked = [line, line];
      status.textContent = `${found.at + 1} of ${found.count}`;
      view.show(line);
    };
    let asking = new AbortController();
    /** Ask the server; what it was asked before is not wanted any more. */
    const ask = async <T>(what: string): Promise<T> => {
      asking.abort();
      asking = new AbortController();
      const answer = await fetch(`${address}/${what}`, { signal: asking.signal });
      if (!answer.ok) throw new Error(`the server answered ${answer.status}`);
      return (await answer.json()) as T;
    };
    const sayWhy = (error: unknown) => {
      if (!(error instanceof DOMException)) status.textContent = String(error);
    };
    const firstError = async () => {
      const { line } = await ask<{ line: number }>("error");
      if (line < 0) {
        status.textContent = "no error found";
        return;
      }
      mark(line, line);
      view.show(line);
    };
    /** Mark lines, and have the address lead to them. */
    const mark = (from: number, to: number) => {
      view.marked = [from, to];
      history.replaceState(null, "", from === to ? `#L${from + 1}` : `#L${from + 1}-L${to + 1}`);
    };
    const next = button("↓", "Next (n)", () => step(1));
    next.ariaLabel = "Next match";
    const previous = button("↑", "Previous (p)", () => step(-1));
    previous.ariaLabel = "Previous match";
    const error = button("First error", "Jump to the first error (e)", () => void firstError().catch(sayWhy));
    let areClosed = false;
    const fold = button("Fold all", "Fold or unfold all stages", () => {
      areClosed = !areClosed;
      fold.textContent = areClosed ? "Unfold all" : "Fold all";
      rows.foldAll(areClosed);
      view.draw();
    });
    const follow = button("Follow", "Keep the end in sight (f)", () => view.setFollowing(!view.isFollowing));
    view.onFollow = () => (follow.ariaPressed = String(view.isFollowing));
    view.onFollow();
    bar.replaceChildren(search, previous, next, status, error, fold, follow);
    bar.hidden = false;

    const searchLog = async () => {
      const text = search.value;
      const answer = await ask<{ lines: number[]; count: number }>(`search?q=${encodeURIComponent(text)}`);
      Object.assign(found, answer, { at: -1 });
      view.hits = new Set(answer.lines);
      status.textContent = text === "" ? "" : answer.count === 0 ? "none" : `${answer.count}`;
      if (answer.count > 0) step(1);
      else view.draw();
    };
    let timer: ReturnType<typeof setTimeout> | undefined;
    search.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => void searchLog().catch(sayWhy), 300);
    });
    search.addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      if (found.lines.length > 0) step(event.shiftKey ? -1 : 1);
      else searchLog().catch(sayWhy);
    });

    startShortcuts([
      ["/", "search the log", () => search.focus()],
      ["n", "next match", () => step(1)],
      ["p", "previous match", () => step(-1)],
      ["e", "first error", () => error.click()],
      ["f", "follow the end", () => follow.click()],
    ]);

    // a click on a line's number links to it and moves nothing; with shift it is a range
    section.addEventListener("click", (event) => {
      const number = (event.target as HTMLElement).closest<HTMLElement>("a.n")?.dataset["n"];
      if (number === undefined) return;
      event.preventDefault();
      const line = Number(number) - 1;
      const start = event.shiftKey && view.marked ? view.marked[0] : line;
      mark(Math.min(start, line), Math.max(start, line));
      view.draw();
    });
    // the table of stages may be another one by then
    document.addEventListener("click", (event) => {
      const link = (event.target as HTMLElement).closest<HTMLElement>("#stages a[data-at]");
      const at = link?.dataset["at"];
      if (at === undefined) return;
      event.preventDefault();
      void fetch(`${address}/line-at?at=${at}`)
        .then(async (answer) => (await answer.json()) as { line: number })
        .then(({ line }) => showLine(line));
    });

    const fromHash = () => {
      const [, from, to] = /^#L(\d+)(?:-L(\d+))?$/.exec(location.hash) ?? [];
      if (from === undefined) return;
      const first = Math.max(0, Number(from) - 1);
      view.marked = [first, Math.max(first, Number(to ?? from) - 1)];
      showLine(first);
    };
    addEventListener("hashchange", fromHash);
    fromHash();
  }

  /** The log of a run's page: a window on it, live while the run goes on. */
  async function startLog(section: HTMLElement): Promise<void> {
    const address = `/runs/${section.dataset["run"]}`;
    const isLive = section.dataset["live"] === "yes";
    const rows = new Rows();
    const lines = new Lines(address, () => view?.draw());
    let view = undefined as LogView | undefined;

    const readFolds = async (isFirst: boolean) => {
      const answer = await fetch(`${address}/folds`);
      if (!answer.ok) return;
      rows.setFolds(((await answer.json()) as { folds: Fold[] }).folds, isFirst);
      view?.draw();
    };

    let at = await lines.open();
    rows.total = lines.total;
    await readFolds(true);
    const plain = section.querySelector<HTMLElement>("[data-plain]");
    if (!plain) return;
    const box = make("div", { className: "lines window", tabIndex: 0, role: "region", ariaLabel: "Log lines" });
    plain.replaceWith(box);
    view = new LogView(box, { lines, rows, isFollowing: isLive && location.hash === "" });
    startTools(section, { address, lines, rows, view });
    if (!isLive) return;
    let willRead = false;
    const close = openStream(() => `${address}/log?follow=1&at=${encodeURIComponent(at)}`, {
      message: (data, id) => {
        at = id;
        lines.add(data.split("\n"));
        rows.total = lines.total;
        view?.draw();
      },
      restart: (_, id) => {
        at = id;
        lines.clear();
        rows.total = 0;
        view?.draw();
      },
      about: (data) => {
        if (!swapParts(parsed(data)) || willRead) return;
        willRead = true;
        setTimeout(() => {
          willRead = false;
          void readFolds(false);
        }, 500);
      },
      end: (state) => {
        close();
        say(`The run has ended: ${state}`);
        // many may look at it: they do not all ask at once
        setTimeout(() => void showEnd().then(() => readFolds(false)), Math.random() * 1000);
      },
    });
  }

  /** The run has ended: show its result without moving the log. */
  async function showEnd(): Promise<void> {
    const answer = await fetch(location.pathname, { headers: { accept: "text/html" } });
    if (!answer.ok) return;
    const fresh = parsed(await answer.text());
    swapParts(fresh);
    swap(find(".actions"), fresh.querySelector(".actions"));
  }

  /** Show what the server says of the run now; returns whether its stages are others. */
  function swapParts(fresh: Document): boolean {
    document.title = fresh.title;
    const parts = ["summary", "stagebar", "stages"];
    const changed = parts.filter((id) => swap(document.getElementById(id), fresh.getElementById(id)));
    return changed.includes("stages");
  }

  // The overview, and a repo's page.

  const filterBox = document.querySelector<HTMLInputElement>("input[data-filter]");

  /** Hide the rows that the filter box leaves out, as it is typed. */
  function filterRepos(box: HTMLInputElement): void {
    box.addEventListener("input", () => {
      const count = applyFilter(box);
      say(`${counted(count, "repo")} ${count === 1 ? "fits" : "fit"} the filter`);
    });
    // the form would load the page anew for what is done already
    box.form?.addEventListener("submit", (event) => event.preventDefault());
    startShortcuts([["/", "filter the repos", () => box.focus()]]);
  }

  /** Returns how many rows stay. */
  function applyFilter(box: HTMLInputElement): number {
    const text = box.value.trim().toLowerCase();
    for (const row of document.querySelectorAll<HTMLElement>("tr[data-words]"))
      row.hidden = text !== "" && row.dataset["words"]?.includes(text) !== true;
    const { length } = document.querySelectorAll("tr[data-words]:not([hidden])");
    const none = find("[data-none]");
    if (none) none.hidden = length > 0;
    return length;
  }

  /** Show what has changed on the server, without losing focus and filter. */
  function followChanges(): void {
    let isLoading = false;
    let isWanted = false;
    const load = async () => {
      isWanted = true;
      if (isLoading) return;
      isLoading = true;
      while (isWanted) {
        isWanted = false;
        await refresh().catch(() => {});
        await new Promise((resolve) => setTimeout(resolve, 1000));
      }
      isLoading = false;
    };
    let told: string | undefined;
    openStream(() => "/live", {
      hello: (data) => {
        // something may have happened while nobody listened
        if (told !== undefined && told !== data) void load();
        told = data;
      },
      change: (data) => {
        told = data;
        void load();
      },
    });
  }

  async function refresh(): Promise<void> {
    // what is typed into the filter box hides rows here; the server sends them all
    const url = new URL(location.href);
    url.searchParams.delete("q");
    const answer = await fetch(url, { headers: { accept: "text/html" }, cache: "no-store" });
    if (!answer.ok) return location.reload();
    const fresh = parsed(await answer.text());
    for (const selector of ["#problems", ".head .sum", "#live"]) swap(find(selector), fresh.querySelector(selector));
    if (filterBox) applyFilter(filterBox);
  }

  /** Keep clocks and ages moving. Who wants less motion gets them every ten seconds. */
  function keepTimes(): void {
    /** How far this machine's clock is before the server's, in ms. */
    const skew = Date.now() - Number(document.documentElement.dataset["now"] ?? Date.now());
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const tick = () => {
      if (document.hidden) return;
      const now = Date.now() - skew;
      for (const each of document.querySelectorAll<HTMLTimeElement>("time[data-clock]")) {
        const seconds = Math.max(0, now - Date.parse(each.dateTime)) / 1000;
        setText(each, shortDuration(calm ? Math.floor(seconds / 10) * 10 : Math.floor(seconds)));
      }
      for (const each of document.querySelectorAll<HTMLTimeElement>("time[data-ago]"))
        setText(each, shortAge(Date.parse(each.dateTime), now));
    };
    setInterval(tick, calm ? 10_000 : 1000);
    document.addEventListener("visibilitychange", tick);
  }

  keepTimes();
  if (filterBox) filterRepos(filterBox);
  const kind = document.body.dataset["kind"];
  if (kind === "overview" || kind === "repo") followChanges();
  const log = find("#log");
  if (kind === "run" && log)
    startLog(log).catch((error: unknown) => say(error instanceof Error ? error.message : String(error)));
}
