import { statfs } from "node:fs/promises";
import { systemCode } from "../../core/errors.ts";
import { ProcessOutput } from "../../exec/exec.ts";

/** There is no room on the disk: a second attempt, which needs more, is not made. */
export class FullDisk extends Error {
  override name = "FullDisk";
  constructor() {
    super("the disk is full");
  }
}

/** Less free space than this, in bytes, is none: git may end by a signal then, and say nothing. */
const leastRoom = 1024 * 1024;

/** What failed for want of room as a FullDisk, by its own words or by the room that is left in `folder`; else as it is. */
export async function toFullDisk(error: unknown, folder: string): Promise<unknown> {
  if (["ENOSPC", "EDQUOT"].includes(systemCode(error) ?? "")) return new FullDisk();
  if (!(error instanceof ProcessOutput)) return error;
  if (/No space left on device|Disk quota exceeded/i.test(error.stderr)) return new FullDisk();
  const room = await statfs(folder).catch(() => undefined);
  return room && room.bavail * room.bsize < leastRoom ? new FullDisk() : error;
}
