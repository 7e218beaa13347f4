import { createHash } from "node:crypto";
import { Failure } from "../core/errors.ts";

/**
 * `ARCHIVE.index`: what an archive is made of, by which a client that has another one fetches only what differs. A line
 * for each of its gzip members, in their order: bytes, and the first half of their SHA-256. VERSION's INDEX is the
 * SHA-256 of this file. Nothing hangs on it: what is put together must have the archive's own SHA-256 and signature.
 */
export interface Member {
  size: number;
  hash: string;
}

/** Bytes of an index that is read. */
export const maxIndex = 4 * 1024 * 1024;
/** Bytes that are read or asked for at a time. */
const maxPart = 1024 * 1024;

export function memberOf(bytes: Uint8Array): Member {
  return { size: bytes.length, hash: createHash("sha256").update(bytes).digest("hex").slice(0, 32) };
}

/** Of an index, as VERSION tells it. */
export function indexHash(text: string | Uint8Array): string {
  return createHash("sha256").update(text).digest("hex");
}

export function formatIndex(members: readonly Member[]): string {
  return members.map(({ size, hash }) => `${size} ${hash}\n`).join("");
}

/** @throws {Failure} when it is none. */
export function parseIndex(text: string): Member[] {
  const lines = text.replace(/\n$/, "").split("\n");
  return lines.map((line) => {
    const [, size, hash = ""] = /^([1-9]\d{0,6}) ([0-9a-f]{32})$/.exec(line) ?? [];
    if (size === undefined) throw new Failure("its index is not understood");
    return { size: Number(size), hash };
  });
}

/** Bytes at a place of the archive before, or of the one that the server has. */
export interface Part {
  isHere: boolean;
  at: number;
  size: number;
}

/** From where each part of an archive comes, given the members of the one that is here. Pure. */
export function planParts(members: readonly Member[], here: readonly Member[]): Part[] {
  const places = new Map<string, number>();
  let end = 0;
  for (const { size, hash } of here) {
    places.set(`${size} ${hash}`, end);
    end += size;
  }
  const parts: Part[] = [];
  let there = 0;
  for (const { size, hash } of members) {
    const place = places.get(`${size} ${hash}`);
    const isHere = place !== undefined;
    const at = place ?? there;
    const last = parts.at(-1);
    const follows = last?.isHere === isHere && last.at + last.size === at;
    if (follows && last.size + size <= maxPart) last.size += size;
    else parts.push({ isHere, at, size });
    there += size;
  }
  return parts;
}
