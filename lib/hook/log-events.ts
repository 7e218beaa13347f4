import type { Mask } from "../core/mask.ts";

/** A log as server-sent events: where it is cut, and what one looks like. All here is pure. */

/** Where a line without an end is cut: not in a character, and before a tail in which a secret may start. */
export function cutOf(read: Buffer, mask: Mask): number {
  const text = read.toString("utf8");
  const cut = text.length - 4096;
  const across = mask.spans(text).find(([from, to]) => from < cut && to > cut);
  return Buffer.byteLength(text.slice(0, across?.[0] || cut));
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
