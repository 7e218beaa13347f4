import type { Lines } from "./log-lines.ts";
import type { Rows } from "./log-rows.ts";
import type { LogView } from "./log-view.ts";
import { startShortcuts } from "./shortcuts.ts";

/** Search, the first error, folds, following, and links to lines. */
export function startTools(
  section: HTMLElement,
  { address, lines, rows, view }: { address: string; lines: Lines; rows: Rows; view: LogView },
): void {
  const bar = section.querySelector<HTMLElement>("[data-tools]");
  if (!bar) return;
  const found: { lines: number[]; count: number; at: number } = { lines: [], count: 0, at: -1 };

  const search = document.createElement("input");
  search.type = "search";
  search.placeholder = "Search the log";
  search.ariaLabel = "Search the log";
  const status = document.createElement("output");
  const button = (text: string, hint: string, act: () => void) => {
    const element = document.createElement("button");
    element.type = "button";
    element.className = "quiet";
    element.textContent = text;
    element.title = hint;
    element.addEventListener("click", act);
    return element;
  };

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
  const error = button("First error", "Jump to the first error (e)", () => {
    firstError().catch(sayWhy);
  });
  let areClosed = false;
  const fold = button("Fold all", "Fold or unfold all stages", () => {
    areClosed = !areClosed;
    fold.textContent = areClosed ? "Unfold all" : "Fold all";
    rows.foldAll(areClosed);
    view.draw();
  });
  const follow = button("Follow", "Keep the end in sight (f)", () =>
    view.setFollowing(!view.isFollowing),
  );
  const showFollow = () => (follow.ariaPressed = String(view.isFollowing));
  view.onFollow = showFollow;
  showFollow();
  bar.replaceChildren(search, previous, next, status, error, fold, follow);
  bar.hidden = false;

  const find = async () => {
    const text = search.value;
    const answer = await ask<{ lines: number[]; count: number }>(
      `search?q=${encodeURIComponent(text)}`,
    );
    Object.assign(found, answer, { at: -1 });
    view.hits = new Set(answer.lines);
    status.textContent = text === "" ? "" : answer.count === 0 ? "none" : `${answer.count}`;
    if (answer.count > 0) step(1);
    else view.draw();
  };
  let timer: ReturnType<typeof setTimeout> | undefined;
  search.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => void find().catch(sayWhy), 300);
  });
  search.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    if (found.lines.length > 0) step(event.shiftKey ? -1 : 1);
    else find().catch(sayWhy);
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
      .then(({ line }) => view.show(Math.min(line, Math.max(0, lines.total - 1))));
  });

  const fromHash = () => {
    const [, from, to] = /^#L(\d+)(?:-L(\d+))?$/.exec(location.hash) ?? [];
    if (from === undefined) return;
    const first = Math.max(0, Number(from) - 1);
    view.marked = [first, Math.max(first, Number(to ?? from) - 1)];
    view.show(Math.min(first, Math.max(0, lines.total - 1)));
  };
  addEventListener("hashchange", fromHash);
  fromHash();
}
