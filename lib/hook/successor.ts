import { type FileHandle, open, rename, rm } from "node:fs/promises";
import { encodeLine } from "./lines.ts";
import { pieceSize } from "./read-lines.ts";

/** A file of lines that is written beside another one, which goes on growing, and then takes its place. */
export class Successor {
  readonly #path: string;
  readonly #from: FileHandle;
  readonly #to: FileHandle;
  #length = 0;

  private constructor(path: string, from: FileHandle, to: FileHandle) {
    this.#path = path;
    this.#from = from;
    this.#to = to;
  }

  static async open(path: string, from: FileHandle): Promise<Successor> {
    return new Successor(path, from, await open(path, "ax", 0o600));
  }

  get length(): number {
    return this.#length;
  }

  /** Lines of its own; in pieces, so that the server does other work in between. */
  async add(heads: readonly object[]): Promise<void> {
    for (let n = 0; n < heads.length; n += 100)
      await this.#append(
        Buffer.concat(heads.slice(n, n + 100).flatMap((head) => encodeLine(head))),
      );
  }

  /** Bytes of the other file. */
  async copy(start: number, end: number): Promise<void> {
    for (let at = start; at < end; at += pieceSize) {
      const size = Math.min(pieceSize, end - at);
      const { buffer, bytesRead } = await this.#from.read(Buffer.alloc(size), 0, size, at);
      if (bytesRead < size) throw new Error(`it ends before byte ${at + size}`);
      await this.#append(buffer);
    }
  }

  async #append(bytes: Buffer): Promise<void> {
    await this.#to.appendFile(bytes);
    this.#length += bytes.length;
  }

  async sync(): Promise<void> {
    await this.#to.sync();
  }

  /** Take the place of `path`; returns this file, opened with `flags`. Its name is on disk when its folder is. */
  async replace(path: string, flags: number): Promise<FileHandle> {
    await this.sync();
    const file = await open(this.#path, flags);
    try {
      await rename(this.#path, path);
      return file;
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** To be called in the end; one that has taken no place is removed. */
  async close(): Promise<void> {
    await this.#to.close();
    await rm(this.#path, { force: true });
  }
}
