/// <reference lib="dom" />
/// <reference lib="dom.iterable" />
import type { Ansi, Span, Style } from "./ansi.ts";
import type { Fold, Lines as Part } from "./log.ts";
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

  // A run's log: blocks of lines, of which those near the part in sight are loaded. The browser scrolls.

  interface Block {
    /** The numbers of its first line and of the one after its last, from 0. */
    readonly from: number;
    to: number;
    readonly element: HTMLElement;
    /** Its first lines, as far as they were loaded. */
    rows: HTMLElement[];
    /** The colours after its last row; undefined: not known. */
    style: Style | undefined;
    isLoading: boolean;
    isNear: boolean;
  }

  const blockSize = 500;
  const maxLoaded = 40;
  const rowHeight = 20;
  /** Browsers' elements can be only so high (Firefox 17.9 million pixels): what is not loaded takes less room then. */
  const maxHeight = 8_000_000;

  async function startLog(section: HTMLElement): Promise<void> {
    const box = section.querySelector<HTMLElement>(".lines");
    if (!box) return;
    const address = `/runs/${section.dataset["run"]}`;
    const isLive = section.dataset["live"] === "yes";
    const served = [...box.querySelectorAll<HTMLElement>(".row")];
    const firstServed = Number(served[0]?.querySelector<HTMLElement>(".n")?.dataset["n"] ?? 1) - 1;
    let blocks: Block[] = [];
    let total = 0;
    let error: number | undefined;
    /** Lines that are marked, from 0: the link's, the search's. */
    let marked: readonly [from: number, to: number] = [-1, -1];
    let hits = new Set<number>();
    let isFollowing = isLive && location.hash === "";

    const ask = async <T>(what: string, signal?: AbortSignal): Promise<T> => {
      const answer = await fetch(`${address}/${what}`, signal ? { signal } : {});
      if (!answer.ok) throw new Error(`the log cannot be had: the server answered ${answer.status}`);
      return (await answer.json()) as T;
    };
    let lastTop = 0;
    const isAtEnd = () => box.scrollTop + box.clientHeight >= box.scrollHeight - 4;
    const toEnd = (willMove = isFollowing) => {
      if (willMove) box.scrollTop = box.scrollHeight;
      lastTop = box.scrollTop;
    };
    const paint = (row: HTMLElement, line: number) => {
      row.classList.toggle("marked", line >= marked[0] && line <= marked[1]);
      row.classList.toggle("hit", hits.has(line));
      row.classList.toggle("error", line === error);
    };
    const paintAll = () => {
      for (const { rows, from } of blocks) for (const [n, row] of rows.entries()) paint(row, from + n);
    };

    function makeRow(line: number, spans: readonly Span[]): HTMLElement {
      const n = String(line + 1);
      const link = make("a", { className: "n", href: `#L${n}`, ariaLabel: `line ${n}`, tabIndex: -1 });
      link.dataset["n"] = n;
      // text is text, and classes come from a list that `spansOf` makes
      const parts = spans.map(([text, className]) => (className === "" ? text : make("span", { className }, text)));
      return make("div", { className: "row", id: `L${n}` }, link, make("span", { className: "t" }, ...parts));
    }

    /** Put rows at a block's end. Inside its own fold the name of a stage does not stand before each line. */
    function put(block: Block, rows: readonly HTMLElement[]): void {
      const name = `${block.element.closest("details")?.dataset["name"]} | `;
      for (const row of rows) {
        paint(row, block.from + block.rows.length);
        const text = row.querySelector(".t")?.firstChild;
        if (text?.nodeValue?.startsWith(name)) text.nodeValue = text.nodeValue.slice(name.length);
        block.rows.push(row);
      }
      block.element.append(...rows);
      pad(block);
    }

    /** Keep room for what is not loaded. */
    function pad({ element, rows, from, to }: Block): void {
      const height = Math.min(rowHeight, maxHeight / Math.max(1, total));
      element.style.paddingBottom = `${(to - from - rows.length) * height}px`;
      element.style.setProperty("contain-intrinsic-size", `auto ${rows.length * rowHeight}px`);
    }

    function render(block: Block, lines: readonly string[], style: Style): void {
      // lines take more room than what was kept for them: whoever has gone to the end stays there
      const staysAtEnd = isLive ? isFollowing : isAtEnd();
      let now = style;
      const from = block.from + block.rows.length;
      const rows = lines.map((line, n) => {
        const { spans, style: next } = ansi.spansOf(line, now);
        now = next;
        return makeRow(from + n, spans);
      });
      put(block, rows);
      block.style = now;
      toEnd(staysAtEnd);
      // lines that are folded to the width of a phone are higher once they are drawn
      requestAnimationFrame(() => toEnd(isFollowing || (staysAtEnd && !isLive)));
    }

    async function load(block: Block): Promise<void> {
      if (block.isLoading) return;
      block.isLoading = true;
      try {
        while (block.element.isConnected && block.rows.length < block.to - block.from) {
          const from = block.from + block.rows.length;
          const part = await ask<Part>(`lines?from=${from}&count=${block.to - from}`);
          if (part.from !== from || part.lines.length === 0) break;
          render(block, part.lines, ansi.parseStyle(part.style));
        }
        unload();
      } catch (problem) {
        say(String(problem));
        setTimeout(() => block.isNear && void load(block), 2000);
      } finally {
        block.isLoading = false;
      }
    }

    /** Let go of blocks that are far away. */
    function unload(): void {
      const loaded = blocks.slice(0, -1).filter(({ rows, isNear }) => rows.length > 0 && !isNear);
      for (const block of loaded.slice(0, -maxLoaded)) {
        Object.assign(block, { rows: [], style: undefined });
        block.element.replaceChildren();
        pad(block);
      }
    }

    const near = new IntersectionObserver(
      (entries) => {
        for (const { target, isIntersecting } of entries) {
          const block = blocks.find(({ element }) => element === target);
          if (!block) continue;
          block.isNear = isIntersecting;
          if (isIntersecting) void load(block);
        }
      },
      { root: box, rootMargin: "800px" },
    );

    function addBlock(parent: HTMLElement, from: number, to: number): Block {
      const element = make("div", { className: "block" });
      const block = { from, to, element, rows: [], style: undefined, isLoading: false, isNear: false };
      blocks.push(block);
      parent.append(element);
      near.observe(element);
      return block;
    }

    /** Divide the lines into stages, and these into blocks; what was loaded is not asked for again. */
    function divide(folds: readonly Fold[], known: ReadonlyMap<number, HTMLElement>): void {
      const styles = new Map(blocks.map(({ from, rows, style }) => [from + rows.length, style]));
      const before = new Map([...box!.querySelectorAll("details")].map((each) => [each.dataset["at"], each.open]));
      const top = box!.scrollTop;
      blocks = [];
      near.disconnect();
      box!.replaceChildren();
      const isFailed = folds.some(({ result }) => result === "failed" || result === "timeout");
      let line = 0;
      const lines = (parent: HTMLElement, to: number) => {
        while (line < to) {
          // the part that the page came with is one block
          const end = Math.min(to, line + blockSize - ((line - firstServed + blockSize * total) % blockSize));
          const block = addBlock(parent, line, end);
          const rows: HTMLElement[] = [];
          for (; line < end && known.has(line); line++) rows.push(known.get(line) as HTMLElement);
          put(block, rows);
          block.style = styles.get(line);
          line = end;
        }
      };
      for (const fold of folds) {
        if (fold.from < line) continue;
        lines(box!, Math.min(fold.from, total));
        const details = foldElement(fold);
        details.open = before.get(details.dataset["at"]) ?? !(isFailed && fold.result === "ok");
        box!.append(details);
        lines(details, Math.min(fold.to ?? total, total));
      }
      lines(box!, total);
      box!.scrollTop = top;
      toEnd();
    }

    /** Lines that were written now. */
    function append(lines: string[]): void {
      for (let at = 0; at < lines.length; ) {
        let last = blocks.at(-1);
        const parent = [...box!.children].at(-1);
        if (!last || last.to - last.from >= blockSize) {
          const style = !last ? ansi.plainStyle : last.rows.length === last.to - last.from ? last.style : undefined;
          const isOpen = parent instanceof HTMLDetailsElement && parent.dataset["to"] === "";
          last = Object.assign(addBlock(isOpen ? parent : box!, total, total), { style });
        }
        const more = lines.slice(at, at + blockSize - (last.to - last.from));
        const isWhole = !last.isLoading && last.style !== undefined && last.rows.length === last.to - last.from;
        at += more.length;
        last.to += more.length;
        total += more.length;
        if (isWhole && last.style) render(last, more, last.style);
        else pad(last);
        toEnd();
        if (last.isNear || isFollowing) void load(last);
      }
    }

    /**
     * Read which stages there are, and at first how many lines; returns where a stream of what comes after them begins.
     */
    async function readFolds(isFirst = false): Promise<string> {
      const answer = await ask<Part & { at: string; folds: Fold[]; error?: number }>("lines?folds=1");
      const known = new Map(served.map((row, n) => [firstServed + n, row]));
      for (const { from, rows } of blocks) for (const [n, row] of rows.entries()) known.set(from + n, row);
      served.length = 0;
      if (isFirst) ({ total } = answer);
      error = answer.error;
      divide(answer.folds, known);
      return answer.at;
    }

    /** Show a line with some before it; the page itself stays where it is. */
    async function show(wanted: number): Promise<void> {
      isFollowing = false;
      tools.paint();
      const line = Math.max(0, Math.min(wanted, total - 1));
      const block = blocks.find(({ from, to }) => from <= line && line < to);
      if (!block) return;
      const details = block.element.closest("details");
      if (details) details.open = true;
      const go = () => {
        const y = scrollY;
        (block.rows[line - block.from] ?? block.element).scrollIntoView({ block: "center", inline: "nearest" });
        box!.scrollLeft = 0;
        scrollTo(scrollX, y);
      };
      go();
      await load(block);
      // what is near it is loaded and drawn first
      for (let frames = 0; frames < 3; frames++) await new Promise(requestAnimationFrame).then(go);
    }

    /** Mark lines, and have the address lead to them. */
    function mark(from: number, to: number): void {
      marked = [from, to];
      const url = new URL(location.href);
      url.hash = from === to ? `L${from + 1}` : `L${from + 1}-L${to + 1}`;
      history.replaceState(null, "", url);
      paintAll();
    }

    const tools = startTools();

    /** Search, the error, folds, following. */
    function startTools(): { paint: () => void; search: () => Promise<void> } {
      const bar = section.querySelector<HTMLElement>("[data-tools]");
      const label = "Search the log";
      const url = new URL(location.href);
      const search = make("input", { type: "search", placeholder: label, ariaLabel: label });
      search.value = url.searchParams.get("q") ?? "";
      const status = make("output", {});
      let found: { lines: number[]; count: number; at: number } = { lines: [], count: 0, at: -1 };
      let asking = new AbortController();
      const button = (text: string, title: string, act: () => void, ariaLabel = text) => {
        const element = make("button", { type: "button", className: "quiet", title, ariaLabel }, text);
        element.addEventListener("click", act);
        return element;
      };
      const step = (by: number) => {
        if (found.lines.length === 0) return;
        found.at = (found.at + by + found.lines.length) % found.lines.length;
        const line = found.lines[found.at] ?? 0;
        marked = [line, line];
        paintAll();
        status.textContent = `${found.at + 1} of ${found.count}`;
        void show(line);
      };
      const look = async () => {
        asking.abort();
        asking = new AbortController();
        const text = search.value;
        found = { lines: [], count: 0, at: -1 };
        status.textContent = text === "" ? "" : "searching…";
        const now = new URL(location.href);
        if (text === "") now.searchParams.delete("q");
        else now.searchParams.set("q", text);
        history.replaceState(null, "", now);
        try {
          const query = new URLSearchParams({ q: text, case: exact.ariaPressed === "true" ? "1" : "" });
          const answer = await ask<{ lines: number[]; count: number }>(`search?${query}`, asking.signal);
          found = { ...answer, at: -1 };
          hits = new Set(answer.lines);
          paintAll();
          status.textContent = text === "" ? "" : answer.count === 0 ? "none" : `${answer.count}`;
          step(1);
        } catch (problem) {
          if (!(problem instanceof DOMException)) status.textContent = String(problem);
        }
      };
      let timer: ReturnType<typeof setTimeout> | undefined;
      const soon = () => {
        clearTimeout(timer);
        timer = setTimeout(() => void look(), 300);
      };
      search.addEventListener("input", soon);
      search.addEventListener("keydown", (event) => {
        if (event.key !== "Enter") return;
        event.preventDefault();
        if (found.lines.length > 0) step(event.shiftKey ? -1 : 1);
        else void look();
      });
      const exact = button("Aa", "Capital letters count", () => {
        exact.ariaPressed = String(exact.ariaPressed !== "true");
        soon();
      });
      exact.ariaPressed = "false";
      const next = button("↓", "Next (n)", () => step(1), "Next match");
      const previous = button("↑", "Previous (p)", () => step(-1), "Previous match");
      const first = button("Error", "What the run failed by (e)", () => {
        if (error === undefined) status.textContent = "no error";
        else {
          mark(error, error);
          void show(error);
        }
      });
      const fold = button("Fold all", "Fold or unfold all stages", () => {
        const all = [...box!.querySelectorAll("details")];
        const isOpen = !all.some(({ open }) => open);
        for (const each of all) each.open = isOpen;
        fold.textContent = fold.ariaLabel = isOpen ? "Fold all" : "Unfold all";
      });
      const follow = button("Follow", "Keep the end in sight (f)", () => {
        isFollowing = !isFollowing;
        toEnd();
        paint();
      });
      const paint = () => (follow.ariaPressed = String(isFollowing));
      paint();
      bar?.replaceChildren(search, exact, previous, next, status, first, fold, follow);
      if (bar) bar.hidden = false;
      startShortcuts([
        ["/", "search the log", () => search.focus()],
        ["n", "next match", () => step(1)],
        ["p", "previous match", () => step(-1)],
        ["e", "what the run failed by", () => first.click()],
        ["f", "follow the end", () => follow.click()],
      ]);
      return { paint, search: async () => void (search.value !== "" && (await look())) };
    }

    // a browser that is busy with a long log may lose these keys, or not come as far
    box.addEventListener("keydown", (event) => {
      if ((event.key !== "End" && event.key !== "Home") || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      void show(event.key === "End" ? total - 1 : 0);
    });
    // a click on a line's number links to it and moves nothing; with shift it is a range
    box.addEventListener("click", (event) => {
      const number = (event.target as HTMLElement).closest<HTMLElement>("a.n")?.dataset["n"];
      if (number === undefined) return;
      event.preventDefault();
      const line = Number(number) - 1;
      const start = event.shiftKey && marked[0] >= 0 ? marked[0] : line;
      mark(Math.min(start, line), Math.max(start, line));
    });
    // the table of stages may be another one by then
    document.addEventListener("click", (event) => {
      const at = (event.target as HTMLElement).closest<HTMLElement>("#stages a[data-at]")?.dataset["at"];
      const details = box.querySelector<HTMLDetailsElement>(`details[data-at="${at}"]`);
      if (!details) return;
      event.preventDefault();
      void show(Number(details.dataset["from"]));
    });
    // the end is followed for as long as it is in sight
    box.addEventListener("scroll", () => {
      const wasFollowing = isFollowing;
      if (box.scrollTop < lastTop - 2 && !isAtEnd()) isFollowing = false;
      else if (isLive && isAtEnd()) isFollowing = true;
      lastTop = box.scrollTop;
      if (isFollowing !== wasFollowing) tools.paint();
    });
    const fromHash = () => {
      const [, from, to] = /^#L(\d+)(?:-L(\d+))?$/.exec(location.hash) ?? [];
      if (from === undefined) return false;
      const first = Math.max(0, Number(from) - 1);
      marked = [first, Math.max(first, Number(to ?? from) - 1)];
      paintAll();
      box.scrollIntoView({ block: "nearest" });
      void show(first);
      return true;
    };
    addEventListener("hashchange", fromHash);

    let at = await readFolds(true);
    box.classList.add("window");
    if (!fromHash()) {
      if (isFollowing) for (const block of blocks.slice(-1)) void load(block);
      else if (location.search.includes("from=")) void show(firstServed);
      else if (error !== undefined) void show(error);
    }
    void tools.search();
    if (!isLive) return;
    let willRead = false;
    const close = openStream(() => `${address}/log?follow=1&at=${encodeURIComponent(at)}`, {
      message: (data, id) => {
        at = id;
        append(data.split("\n"));
      },
      restart: (_, id) => {
        at = id;
        total = 0;
        divide([], new Map());
      },
      about: (data) => {
        if (!swapParts(parsed(data)) || willRead) return;
        willRead = true;
        setTimeout(() => {
          willRead = false;
          void readFolds();
        }, 500);
      },
      end: (state) => {
        close();
        say(`The run has ended: ${state}`);
        // many may look at it: they do not all ask at once
        setTimeout(() => void showEnd().then(() => readFolds()), Math.random() * 1000);
      },
    });
  }

  function foldElement({ name, seconds, from, to, at, ...fold }: Fold): HTMLDetailsElement {
    const result = fold.result ?? "running";
    const count = to === undefined ? "" : counted(to - from, "line");
    const took = seconds === undefined ? "" : shortDuration(seconds);
    const summary = make(
      "summary",
      { className: `fold ${result}` },
      make("span", { className: "name" }, name),
      make("span", { className: "result" }, result),
      make("span", { className: "soft" }, [took, count].filter(Boolean).join(" · ")),
    );
    const details = make("details", {}, summary);
    Object.assign(details.dataset, { name, at, from, to: to ?? "" });
    return details;
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
    const icon = "link[rel=icon]";
    find(icon)?.setAttribute("href", fresh.querySelector(icon)?.getAttribute("href") ?? "/page/icon.svg");
    const parts = ["summary", "stages"];
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
