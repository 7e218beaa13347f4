import { setTimeout as sleep } from "node:timers/promises";
import { looksLikeError } from "../log/first-error.ts";
import { textOfLine } from "../log/format.ts";
import { withoutEscapes } from "../core/clean.ts";
import { Mutex } from "../core/mutex.ts";
import { LogIndex, spansIn } from "./log-index.ts";
import { type LogPart, plainLines } from "./run-page.ts";
import { type Fold, hasEnded, type PageSource, type Run } from "./source.ts";

/** What the script asks of a log: parts, searches, the first error. */

const maxIndexes = 20;
type Searcher = "known" | "strangers";

export class LogRequests {
  readonly #source: PageSource;
  /** Of the runs that were looked at last, by their logs' files: where one is, shows when the run starts. */
  readonly #indexes = new Map<string, LogIndex>();
  /** One search after the other: many at once in long logs hold up deliveries. Strangers wait for strangers alone. */
  readonly #searches = { known: new Mutex(), strangers: new Mutex() };

  constructor(source: PageSource) {
    this.#source = source;
  }

  private indexOf(run: Run): LogIndex {
    const path = this.#source.logFile(run.id);
    const known = this.#indexes.get(path) ?? new LogIndex(path);
    // the newest last
    this.#indexes.delete(path);
    this.#indexes.set(path, known);
    for (const oldest of this.#indexes.keys()) {
      if (this.#indexes.size <= maxIndexes) break;
      this.#indexes.delete(oldest);
    }
    return known;
  }

  /** The part of the log that stands in the page itself. Of a long one not asked for before, the first lines. */
  async part(run: Run, from: string | null): Promise<LogPart> {
    const index = this.indexOf(run);
    const isFirst = index.lines === 0;
    const mask = this.#source.mask();
    const updating = index.update();
    if (from === null && isFirst && hasEnded(run)) {
      // the first lines are known soon: the page does not wait for the rest
      let isDone = false;
      void updating.catch(() => {}).then(() => (isDone = true));
      while (!isDone && index.lines < plainLines) await sleep(5);
    } else await updating;
    const wanted = from === "end" ? -plainLines : Math.max(0, Math.trunc(Number(from) || 1) - 1);
    const part = await index.read(wanted, plainLines, mask);
    return {
      first: part.from + 1,
      lines: spansIn(part),
      more: part.from + part.lines.length < index.lines,
    };
  }

  /**
   * The answer to `lines`, `folds`, `search`, `error` and `line-at`; undefined for any other question.
   * @param by whose turn a search waits for.
   * @param signal nobody waits for the answer any more.
   */
  async answer(
    run: Run,
    what: string,
    { query, by, signal }: { query: URLSearchParams; by: Searcher; signal: AbortSignal },
  ): Promise<object | undefined> {
    if (!["lines", "search", "error", "line-at", "folds"].includes(what)) return undefined;
    const index = this.indexOf(run);
    await index.update();
    const mask = this.#source.mask();
    if (what === "lines") {
      const [from, count] = [numberOf(query, "from", 0), numberOf(query, "count", 500)];
      return { ...(await index.read(from, count, mask)), at: index.position };
    }
    if (what === "line-at") return { line: await index.lineAt(numberOf(query, "at", 0)) };
    if (what === "folds") return { folds: await this.folds(run.id, index) };
    if (what === "error") return { line: await this.firstError(run, index, { by, signal }) };
    const text = (query.get("q") ?? "").slice(0, 200).toLowerCase();
    if (text === "") return { lines: [], count: 0 };
    const fits = (line: string) => line.toLowerCase().includes(text);
    return await this.find(index, by, fits, { most: 5000, mask, signal });
  }

  /** Search what a reader sees: the text without its colours. */
  private find(
    index: LogIndex,
    by: Searcher,
    fits: (text: string) => boolean,
    options: Parameters<LogIndex["find"]>[1],
  ): ReturnType<LogIndex["find"]> {
    return this.#searches[by].run(() => index.find((line) => fits(withoutEscapes(line)), options));
  }

  private async folds(id: string, index: LogIndex): Promise<Fold[]> {
    const stages = (await this.#source.whole(id))?.stages ?? [];
    const folds: Fold[] = [];
    for (const { name, result, seconds, from, to } of stages) {
      if (from === undefined) continue;
      const first = await index.lineAt(from);
      const last = to === undefined ? undefined : await index.lineAt(to);
      if (last === first) continue;
      folds.push({ name, result, seconds, from: first, to: last });
    }
    return folds;
  }

  /** The first line of the stage that failed that looks like an error, else the first of all; -1 when there is none. */
  private async firstError(
    run: Run,
    index: LogIndex,
    { by, signal }: { by: Searcher; signal: AbortSignal },
  ): Promise<number> {
    const mask = this.#source.mask();
    const failed = run.stages?.find(({ result }) => result === "failed" || result === "timeout");
    const from = failed?.from === undefined ? 0 : await index.lineAt(failed.from);
    const looked = { from, most: 1, mask, signal };
    const found = await this.find(index, by, (text) => looksLikeError(textOfLine(text)), looked);
    return found.lines[0] ?? (failed ? from : -1);
  }
}

function numberOf(query: URLSearchParams, name: string, otherwise: number): number {
  const value = Number(query.get(name) ?? otherwise);
  return Number.isSafeInteger(value) ? value : otherwise;
}
