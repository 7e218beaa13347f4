import { createHash } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { open } from "node:fs/promises";

const chunkSize = 1024 * 1024;

/** The sha256 of a file's content, in hex. */
export async function hashFile(path: string): Promise<string> {
  const hash = createHash("sha256");
  if (statSync(path).size <= chunkSize) return hash.update(readFileSync(path)).digest("hex");
  const file = await open(path, "r");
  try {
    const buffer = Buffer.allocUnsafe(chunkSize);
    for (;;) {
      const { bytesRead } = await file.read(buffer, 0, chunkSize, null);
      if (bytesRead === 0) return hash.digest("hex");
      hash.update(buffer.subarray(0, bytesRead));
    }
  } finally {
    await file.close();
  }
}
