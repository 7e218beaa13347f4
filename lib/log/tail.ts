import { constants } from "node:fs";
import { open } from "node:fs/promises";

/**
 * The last whole lines of a part of a file; none when it is not a plain file, which is never
 * waited for: whoever may write it can put a pipe in its place.
 * @param part in bytes; default: all of it.
 * @param maxBytes so many are read from its end.
 */
export async function lastLines(
  path: string,
  part: { from?: number | undefined; to?: number | undefined } = {},
  maxBytes = 64 * 1024,
): Promise<string[]> {
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
  const file = await open(path, flags).catch(() => undefined);
  if (!file) return [];
  try {
    const found = await file.stat();
    if (!found.isFile()) return [];
    const end = Math.min(part.to ?? found.size, found.size);
    const begin = Math.max(part.from ?? 0, 0);
    const start = Math.max(begin, end - maxBytes);
    if (end <= start) return [];
    const { buffer, bytesRead } = await file.read(Buffer.alloc(end - start), 0, end - start, start);
    const text = buffer.subarray(0, bytesRead).toString("utf8");
    // the first line may have begun before what was read
    const whole = start > begin ? text.slice(text.indexOf("\n") + 1) : text;
    return whole.split("\n").filter((line) => line.trim() !== "");
  } finally {
    await file.close();
  }
}
