import { constants } from "node:fs";
import { open, realpath } from "node:fs/promises";
import { dirname, extname, join, sep } from "node:path";
import { messageOf, UsageError } from "../../core/errors.ts";

/** A file that is served at `/`, for testing. */
export interface TestFile {
  body: Uint8Array;
  type: string;
}

const maxBytes = 10 * 1024 * 1024;

const types: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".json": "application/json; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".png": "image/png",
  ".svg": "image/svg+xml",
};

/**
 * Read the file, once: later changes do not show.
 * @throws {UsageError} for what is no plain file, too large, or a link to outside of its folder
 */
export async function readTestFile(path: string): Promise<TestFile> {
  const wrong = (why: string) => new UsageError(`${path} ${why}; name a plain file to serve`);
  try {
    const real = await realpath(path);
    const folder = await realpath(dirname(path));
    if (!real.startsWith(join(folder, sep))) throw wrong("is a link that leads out of its folder");
    // a FIFO is not waited for
    const file = await open(real, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const info = await file.stat();
      if (!info.isFile()) throw wrong("is not a plain file");
      if (info.size > maxBytes) throw wrong(`has more than ${maxBytes / 1024 / 1024} MiB`);
      const type = types[extname(path)] ?? "text/plain; charset=utf-8";
      return { body: (await file.readFile()).subarray(0, maxBytes), type };
    } finally {
      await file.close();
    }
  } catch (error) {
    throw error instanceof UsageError ? error : wrong(`cannot be read (${messageOf(error)})`);
  }
}
