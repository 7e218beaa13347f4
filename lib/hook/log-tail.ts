import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { parseLine } from "../log/format.ts";

/** So many bytes are read from the end. */
const maxBytes = 64 * 1024;

/**
 * The last lines of a part of a run's log, less the server's own; none when it is not a plain file.
 * @param part in bytes; default: the whole log.
 */
export async function logTail(
  path: string,
  count: number,
  part: { from?: number | undefined; to?: number | undefined } = {},
): Promise<string[]> {
  // a build with the server's own user can put anything in its place: a pipe would hold the server up
  const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
  const file = await open(path, flags).catch(() => undefined);
  if (!file) return [];
  try {
    const found = await file.stat();
    if (!found.isFile()) return [];
    const end = Math.min(part.to ?? found.size, found.size);
    const start = Math.max(part.from ?? 0, end - maxBytes, 0);
    if (end <= start) return [];
    const { buffer, bytesRead } = await file.read(Buffer.alloc(end - start), 0, end - start, start);
    const text = buffer.subarray(0, bytesRead).toString("utf8");
    // the first line may have begun before what was read
    const lines = (start > (part.from ?? 0) ? text.slice(text.indexOf("\n") + 1) : text).split(
      "\n",
    );
    return lines
      .filter((line) => line.trim() !== "" && parseLine(line)?.stage !== "hook-server")
      .slice(-count);
  } finally {
    await file.close();
  }
}
