import { closeSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { listParts } from "../log/parts.ts";
import { bytesOf, isAt, type LogFiles, openIfThere, type Place, readLog } from "./log-files.ts";

/** Milliseconds between two looks at a log. */
const lookEvery = 100;

/**
 * The whole lines of a log from a place on, then those that are added, each once and in order, also across rotations:
 * an old file is read to its end, then the parts that came after it, then the new one. Gives an empty text whenever all
 * there is was given.
 */
export async function* followLog(
  { file, sources, onDamage }: LogFiles,
  from: Place | undefined,
  signal: AbortSignal,
): AsyncGenerator<string> {
  const live = sources.find((source) => "fd" in source);
  const parts = sources.filter((source) => source !== live);
  yield* readLog({ file, sources: parts, onDamage }, { from });
  /** All parts up to this one are read. */
  let known = parts.at(-1)?.path ?? "";
  let tail = live && new Tail(live.fd, from?.source === parts.length ? from.offset : 0);
  while (!signal.aborted) {
    if (tail) yield* tail.grown();
    if (!tail || !isAt(file, tail.fd)) {
      const fd = openIfThere(file);
      // listed after the opening: what was rotated before it shows now
      const later = listParts(file).filter(({ path }) => path > known);
      known = later.at(-1)?.path ?? known;
      // the file that was read until now is the first of them, unless it was removed
      if (tail) later.shift();
      yield* tail?.end() ?? [];
      yield* readLog({ file, sources: later, onDamage }, {});
      tail = undefined;
      if (fd !== undefined && isAt(file, fd)) tail = new Tail(fd, 0);
      else if (fd !== undefined) closeSync(fd);
      if (tail) continue;
    }
    yield "";
    await sleep(lookEvery, undefined, { signal }).catch(() => {});
  }
}

/** A file that is read as it grows. */
class Tail {
  readonly fd: number;
  #position: number;
  /** The beginning of a line whose end has not come yet. */
  #rest = Buffer.alloc(0);

  constructor(fd: number, position: number) {
    this.fd = fd;
    this.#position = position;
  }

  /** The whole lines that have come since the last look. */
  *grown(): Generator<string> {
    for (const chunk of bytesOf(this.fd, this.#position)) {
      this.#position += chunk.length;
      const bytes = Buffer.concat([this.#rest, chunk]);
      const end = bytes.lastIndexOf(10) + 1;
      this.#rest = bytes.subarray(end);
      if (end > 0) yield bytes.toString("utf8", 0, end);
    }
  }

  /** What came last, when nothing is added any more; its last line may lack the newline. */
  *end(): Generator<string> {
    yield* this.grown();
    if (this.#rest.length > 0) yield `${this.#rest.toString("utf8")}\n`;
    closeSync(this.fd);
  }
}
