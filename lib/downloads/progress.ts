import { clearInterval, setInterval } from "node:timers";
import { cleanLine } from "../core/clean.ts";
import type { Progress as Bar } from "../core/terminal.ts";

/** Milliseconds between two drawings. */
const redrawEvery = 100;

/** A file's way. */
interface Way {
  started: number;
  done: number;
  total: number | undefined;
}

/** How far the files have come, all together, drawn as one bar. */
export class Progress {
  readonly #bar: Bar;
  readonly #clock: NodeJS.Timeout | undefined;
  readonly #files: number;
  readonly #running = new Map<string, Way>();
  readonly #ended = { files: 0, bytes: 0 };

  constructor(bar: Bar, files: number) {
    this.#bar = bar;
    this.#files = files;
    if (files > 0) this.#clock = setInterval(() => this.draw(), redrawEvery).unref();
  }

  /** One file is started. */
  start(path: string): void {
    this.#running.set(path, { started: Date.now(), done: 0, total: undefined });
  }

  /** More of a file is there. A try that starts over goes back. */
  advance(path: string, done: number, total: number | undefined): void {
    const way = this.#running.get(path);
    if (way) [way.done, way.total] = [done, total];
  }

  /** @returns how many seconds it took. */
  finish(path: string): number {
    const { started = Date.now(), done = 0 } = this.#running.get(path) ?? {};
    this.#running.delete(path);
    this.#ended.files += 1;
    this.#ended.bytes += done;
    return (Date.now() - started) / 1000;
  }

  end(): void {
    clearInterval(this.#clock);
    this.#bar.end();
  }

  private draw(): void {
    const { files, bytes } = this.#ended;
    const ways = [...this.#running.values()];
    const sized = ways.filter(({ total }) => total !== undefined);
    const sum = (of: Way[], what: "done" | "total") => of.reduce((all, way) => all + (way[what] ?? 0), bytes);
    // the others are taken to be as large as these on average
    const known = files + sized.length;
    const average = known > 0 ? sum(sized, "total") / known : 0;
    this.#bar.setTotal(Math.round(average * this.#files));
    this.#bar.update(sum(ways, "done"), `${files}/${this.#files} files${this.slowest()}`);
  }

  /** The two files that have been under way the longest, named once they take noticeably long. */
  private slowest(): string {
    // a map keeps the order of insertion: the first ones were started first
    const names = [...this.#running]
      .slice(0, 2)
      .filter(([, { started }]) => Date.now() - started >= 2000)
      .map(([path, { done, total }]) => path.split("/").pop() + (total ? ` ${Math.floor((done / total) * 100)}%` : ""));
    return names.length > 0 ? `, slow: ${cleanLine(names.join(", "))}` : "";
  }
}
