import { stat } from "node:fs/promises";
import { gzipSync } from "node:zlib";
import type { Objects } from "../../bus/bus.ts";
import type { Mask } from "../../core/mask.ts";
import { formatSize } from "../../core/units.ts";
import { nextPiece } from "./log-pieces.ts";

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
