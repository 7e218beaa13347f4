import { write } from "node:fs";

/** One write for all of them, on every runtime; a copy of what 32 deliveries bring costs less than the calls. */
export async function writeAll(fd: number, data: Buffer, position: number): Promise<void> {
  let written = 0;
  // a nearly full disk takes a part: the rest brings the error, or room has come meanwhile
  while (written < data.length) {
    written += await writeSome(fd, data.subarray(written), position + written);
  }
}

function writeSome(fd: number, data: Buffer, position: number): Promise<number> {
  return new Promise((resolve, reject) => {
    write(fd, data, 0, data.length, position, (error, written) => {
      if (error) reject(error);
      else if (written === 0) {
        reject(Object.assign(new Error("nothing could be written"), { code: "ENOSPC" }));
      } else resolve(written);
    });
  });
}
