// All lines of a log, its rotated parts first, in order.
import { readFile } from "node:fs/promises";
import { gunzipSync } from "node:zlib";
import { listParts } from "../../lib/log/parts.ts";

/** The whole lines of a log and its parts; a part that is there twice counts once. */
export async function contentOf(file: string): Promise<string[]> {
  let lines: string[] = [];
  for (const { plain, packed } of listParts(file)) {
    const bytes = plain ? await readFile(plain) : gunzipSync(await readFile(packed ?? ""));
    lines = lines.concat(linesOf(bytes.toString()));
  }
  const live = await readFile(file, "utf8").catch(() => "");
  return lines.concat(linesOf(live));
}

function linesOf(text: string): string[] {
  // an empty line is what a writer puts after one that was torn off
  return text.split("\n").filter((line) => line !== "");
}
