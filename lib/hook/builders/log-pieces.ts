import { constants } from "node:fs";
import { open } from "node:fs/promises";
import type { Mask } from "../../core/mask.ts";
import { cutOf } from "../log-events.ts";

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
