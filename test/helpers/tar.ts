// Archives written byte by byte, also such as no honest tool makes.
import { gzipSync } from "node:zlib";

export type RawEntry = {
  name?: string | Buffer;
  /** One character: 0 file, 1 hard link, 2 symbolic link, 3 and 4 devices, 5 folder, 6 fifo, S sparse, x pax, L long name. */
  type?: string;
  mode?: number;
  link?: string;
  content?: string | Buffer;
  /** What the header says; default: the content's size. */
  size?: number;
};

/** One header and its content. */
export function tarEntry({ name = "file", type = "0", mode = 0o644, link = "", content = "", size }: RawEntry): Buffer {
  const body = Buffer.from(content as string);
  const header = Buffer.alloc(512);
  Buffer.from(name as string).copy(header, 0, 0, 100);
  header.write(`${mode.toString(8).padStart(7, "0")}\0`, 100);
  header.write("0000000\0", 108);
  header.write("0000000\0", 116);
  header.write(`${(size ?? body.length).toString(8).padStart(11, "0")}\0`, 124);
  header.write("00000000000\0", 136);
  header.write(type, 156);
  header.write(link, 157, 100);
  header.write("ustar\0" + "00", 257);
  header.write("        ", 148);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return Buffer.concat([header, body, Buffer.alloc((512 - (body.length % 512)) % 512)]);
}

/** A pax header for the entry after it (type x), or for all that follow (g). */
export function paxEntry(records: Record<string, string>, type: "x" | "g" = "x"): Buffer {
  const content = Object.entries(records)
    .map(([key, value]) => {
      const rest = Buffer.byteLength(` ${key}=${value}\n`);
      let length = rest + String(rest).length;
      length = rest + String(length).length;
      return `${length} ${key}=${value}\n`;
    })
    .join("");
  return tarEntry({ name: "PaxHeader/x", type, content });
}

/** A tar.gz of these pieces and the end mark. */
export function tarGz(...pieces: (Buffer | RawEntry)[]): Buffer {
  const blocks = pieces.map((piece) => (Buffer.isBuffer(piece) ? piece : tarEntry(piece)));
  return gzipSync(Buffer.concat([...blocks, Buffer.alloc(1024)]));
}
