import { constants } from "node:fs";
import { appendFile, mkdir, open, readdir, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { gunzipSync, gzipSync } from "node:zlib";
import type { Objects } from "../../bus/bus.ts";
import { messageOf } from "../../core/errors.ts";
import type { Mask } from "../../core/mask.ts";
import { formatSize } from "../../core/units.ts";
import { hasEnded, type Run } from "../../run-store/run-store.ts";
import { cutOf } from "../runs/log-events.ts";

/** Logs between builders: sent in pieces, copied where they are asked for, kept on the bus once their run has ended. */

/** A part of a run's log, masked, as it goes over the bus. */
export interface LogPiece {
  readonly text: string;
  /** The file, and the place in it behind the piece: where the next one begins. */
  readonly ino: number;
  readonly at: number;
  /** Nothing more comes. */
  readonly isEnd: boolean;
}

/** Where the reader of a log is: in which file, how far, and how many bytes were got so far. */
export interface LogPlace {
  readonly ino: number;
  readonly at: number;
  readonly got: number;
}

/** Bytes of a piece: as JSON six times as many at most, which is less than a message of the bus may have. */
const pieceSize = 128 * 1024;

/**
 * The next piece of a log: whole lines, so that a secret over two pieces is caught.
 * @param isEnd whether the run has ended: then its last line needs no end.
 */
export async function nextPiece(
  path: string,
  place: LogPlace,
  { mask, isEnd }: { mask: Mask; isEnd: boolean },
): Promise<LogPiece> {
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
  const file = await open(path, flags).catch(() => undefined);
  try {
    const found = await file?.stat();
    if (!file || !found?.isFile()) return { text: "", ino: 0, at: 0, isEnd };
    const { ino } = found;
    // at its end a log with secrets in it is replaced by a masked one: what was sent so far was masked as well
    const at = place.ino === 0 || place.ino === ino ? place.at : place.got;
    const buffer = Buffer.alloc(pieceSize);
    const { bytesRead } = await file.read(buffer, 0, pieceSize, at);
    const read = buffer.subarray(0, bytesRead);
    const isFull = bytesRead === pieceSize;
    let end = read.lastIndexOf(10) + 1;
    if (end === 0 && isFull) end = cutOf(read, mask);
    else if (!isFull && isEnd) end = bytesRead;
    const text = mask(read.toString("utf8", 0, end));
    return { text, ino, at: at + end, isEnd: isEnd && !isFull };
  } finally {
    await file?.close();
  }
}

/** So many bytes of a log's end are kept on the bus when its run has ended. */
const maxKept = 8 * 1024 * 1024;

/** Keep the end of a log on the bus for the time when this builder is gone. What is oldest there gives way. */
export async function keepLog(
  logs: Objects,
  { id, path, mask }: { id: string; path: string; mask: Mask },
): Promise<void> {
  const size = (await stat(path).catch(() => undefined))?.size ?? 0;
  let place = { ino: 0, at: Math.max(0, size - maxKept), got: 0 };
  const isCut = place.at > 0;
  let kept = "";
  for (;;) {
    const { text, ...next } = await nextPiece(path, place, { mask, isEnd: true });
    kept += text;
    place = { ...next, got: 0 };
    if (next.isEnd || text === "") break;
  }
  // the line in which it begins may hold the rest of a secret, which the mask does not know
  const begin = `[all before the last ${formatSize(maxKept)} is not kept here]\n`;
  const data = gzipSync(isCut ? begin + kept.slice(kept.indexOf("\n") + 1) : kept);
  try {
    await logs.put(id, data);
  } catch (error) {
    const names = await logs.names();
    if (names.length === 0) throw error;
    // it is full: a tenth of them makes room
    for (const name of names.slice(0, Math.ceil(names.length / 10))) await logs.remove(name);
    await logs.put(id, data);
  }
}

/** So many logs of other builders are kept in the state folder. */
const maxCopies = 50;

interface LogSource {
  /** The next piece, from the builder that has the log. @throws when that one does not answer */
  ask: (run: Run, place: LogPlace) => Promise<LogPiece>;
  /** What the bus kept of the log of a run that has ended, packed. */
  kept: (id: string) => Promise<Buffer | undefined>;
  /** Bytes that a log may have: a builder that sends more does not fill this disk. */
  max: () => number;
}

/** Copies of logs that were written elsewhere, each in a file that grows when it is asked for. */
export class LogCopies {
  readonly #folder: string;
  readonly #source: LogSource;
  /** How far each copy is. */
  readonly #copies = new Map<string, { place: LogPlace; isEnd: boolean; fence: number }>();
  readonly #copying = new Map<string, Promise<void>>();

  constructor(folder: string, source: LogSource) {
    this.#folder = folder;
    this.#source = source;
  }

  path(id: string): string {
    return join(this.#folder, id);
  }

  /** Whether more of a log is known to come. */
  isBehind(id: string): boolean {
    return this.#copies.get(id)?.isEnd === false;
  }

  /** Remove all. */
  async clear(): Promise<void> {
    await rm(this.#folder, { recursive: true, force: true });
  }

  /** Bring a copy up to date; those that ask at the same time share it. What went wrong stands in the copy. */
  async update(run: Run): Promise<void> {
    const { id } = run;
    let copying = this.#copying.get(id);
    if (!copying) {
      copying = this.copy(run)
        .catch((error: unknown) => writeFile(this.path(id), `${messageOf(error)}\n`, { flag: "wx", mode: 0o600 }))
        // there is a part of it already
        .catch(() => {})
        .finally(() => this.#copying.delete(id));
      this.#copying.set(id, copying);
    }
    await copying;
  }

  private async copy(run: Run): Promise<void> {
    const { id } = run;
    let copy = this.#copies.get(id);
    if (copy?.isEnd) return;
    const path = join(this.#folder, id);
    if (!copy) {
      await mkdir(this.#folder, { recursive: true, mode: 0o700 });
      await this.makeRoom();
    }
    const { fence = 0 } = run;
    copy ??= { place: { ino: 0, at: 0, got: 0 }, isEnd: false, fence };
    if (copy.fence !== fence) {
      await appendFile(path, `\n[builder ${run.builder} began it anew]\n`, { mode: 0o600 });
      copy = { ...copy, place: { ...copy.place, ino: 0, at: 0 }, fence };
    }
    for (;;) {
      let piece: LogPiece;
      try {
        piece = await this.#source.ask(run, copy.place);
      } catch (error) {
        const kept = hasEnded(run) ? await this.#source.kept(id) : undefined;
        if (!kept) throw error;
        const text = gunzipSync(kept, { maxOutputLength: 2 * maxKept });
        await writeFile(path, text, { mode: 0o600 });
        this.#copies.set(id, { ...copy, isEnd: true });
        return;
      }
      const { text, ino, at } = piece;
      await appendFile(path, text, { mode: 0o600 });
      const got: number = copy.place.got + Buffer.byteLength(text);
      const isFull = got > this.#source.max() + pieceSize;
      if (isFull) await appendFile(path, "\n[the log is longer than max_log; the rest is not copied]\n");
      const isEnd: boolean = piece.isEnd || isFull;
      copy = { ...copy, place: { ino, at, got }, isEnd };
      this.#copies.set(id, copy);
      if (isEnd || text === "") return;
    }
  }

  private async makeRoom(): Promise<void> {
    const names = await readdir(this.#folder);
    for (const name of names.sort().slice(0, Math.max(0, names.length - maxCopies))) {
      if (this.#copying.has(name)) continue;
      this.#copies.delete(name);
      await rm(join(this.#folder, name), { force: true });
    }
  }
}
