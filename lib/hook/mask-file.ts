import { createReadStream } from "node:fs";
import { open, rename, rm } from "node:fs/promises";
import { StringDecoder } from "node:string_decoder";
import { temporaryBeside } from "../files/files.ts";
import type { Mask } from "../config/secrets.ts";

/** So much of an endless line is kept back at most. */
const longestPiece = 256 * 1024;

/** Masks a text that comes in pieces: it gives out whole lines, so that a secret over two pieces is caught. */
export class MaskedStream {
  readonly #mask: Mask;
  readonly #decoder = new StringDecoder("utf8");
  #rest = "";

  constructor(mask: Mask) {
    this.#mask = mask;
  }

  write(chunk: Buffer): string {
    this.#rest += this.#decoder.write(chunk);
    let end = this.#rest.lastIndexOf("\n") + 1;
    // an endless line goes out in pieces, less a tail in which a secret may have begun
    if (this.#rest.length - end > longestPiece) {
      this.#rest = this.#mask(this.#rest);
      end = this.#rest.length - 4096;
    }
    const ready = this.#rest.slice(0, end);
    this.#rest = this.#rest.slice(end);
    return this.#mask(ready);
  }

  end(): string {
    const text = this.#mask(this.#rest + this.#decoder.end());
    this.#rest = "";
    return text;
  }
}

/** Mask a file in place, when there is anything in it to mask. Its size does not matter: it is read in pieces. */
export async function maskFile(path: string, mask: Mask): Promise<void> {
  let found = false;
  const look = new MaskedStream((text) => {
    found ||= mask(text) !== text;
    return "";
  });
  for await (const chunk of createReadStream(path)) look.write(chunk as Buffer);
  look.end();
  if (!found) return;
  const temporary = temporaryBeside(path);
  const out = await open(temporary, "wx", 0o600);
  try {
    const masked = new MaskedStream(mask);
    for await (const chunk of createReadStream(path))
      await out.write(masked.write(chunk as Buffer));
    await out.write(masked.end());
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  } finally {
    await out.close();
  }
  await rename(temporary, path);
}
