import process from "node:process";

/** Bytes that are searched for. */
export interface Needle {
  bytes: Buffer;
  /** The same, one character a byte. */
  text: string;
}

export function needleOf(text: string): Needle {
  const bytes = Buffer.from(text);
  return { bytes, text: bytes.toString("latin1") };
}

/** Finds needles in a block: where the first one from a place on begins, or -1. */
export type Finder = (needle: Needle, from: number) => number;

// Deno searches buffers for more than one byte in JavaScript, five times slower than text made of them
const searchAsText = process.versions["deno"] !== undefined;

export function finderIn(bytes: Buffer): Finder {
  if (!searchAsText) return ({ bytes: needle }, from) => bytes.indexOf(needle, from);
  const text = bytes.toString("latin1");
  return ({ text: needle }, from) => text.indexOf(needle, from);
}
