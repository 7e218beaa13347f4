import type { Mask } from "../core/mask.ts";

/** A log as server-sent events: where it is cut, and what one looks like. All here is pure. */

/** The end of a line that has none yet may be the beginning of a secret: so many bytes wait for what follows. */
const tail = 4096;

/** Where a line without an end is cut, in bytes: not in a character, and not in a secret. */
export function cutOf(read: Buffer, mask: Mask): number {
  let cut = read.length - tail;
  for (let back = 0; back < 3 && ((read[cut] ?? 0) & 0xc0) === 0x80; back++) cut -= 1;
  const text = read.toString("utf8");
  const length = read.toString("utf8", 0, cut).length;
  const across = mask.spans(text).find(([from, to]) => from < length && to > length);
  // found by its own bytes: what is not UTF-8 has other lengths as text
  const start = across ? read.lastIndexOf(text.slice(...across), cut) : 0;
  return start > 0 ? start : cut;
}

/** A text as one server-sent event, a field for each line. Of a line that redraws itself the last state is sent. */
export function eventOf(text: string, id: string | undefined, name?: string): string {
  const lines = text
    .replace(/\n$/, "")
    .split("\n")
    .map((line) => line.replace(/\r+$/, "").split("\r").at(-1) ?? "");
  const head = `${id === undefined ? "" : `id: ${id}\n`}${name === undefined ? "" : `event: ${name}\n`}`;
  return `${head}data: ${lines.join("\ndata: ")}\n\n`;
}
