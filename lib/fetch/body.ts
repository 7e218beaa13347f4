import type { IncomingMessage } from "node:http";
import { pipeline, type Readable, Transform } from "node:stream";
import { FetchFailed } from "./retry.ts";
import type { SendResponse } from "./send.ts";
import { takeStraight } from "./wire.ts";

/** What a body is: its length, its kind, and the file inside its packing. */

/** A header that is a whole number; undefined when it is none. */
export function headerNumber(value: string | undefined): number | undefined {
  return value !== undefined && /^\d{1,15}$/.test(value) ? Number(value) : undefined;
}

/** Whether an HTML page came where a file of another kind was wanted: the usual look of an error that says 200. Pure. */
export function isHtmlInstead(contentType: string | undefined, name: string): boolean {
  if (!/^\s*(?:text\/html|application\/xhtml\+xml)\b/i.test(contentType ?? "")) return false;
  const extension = /\.([A-Za-z0-9]+)$/.exec(name)?.[1]?.toLowerCase();
  return extension !== undefined && !/^(?:x?html?|shtml|php|aspx?|jsp|cgi)$/.test(extension);
}

/**
 * The content of a body. We ask for no packing; a server that packs all the same is undone, except where
 * the name says that the packed bytes are the file (servers send .tar.gz as `Content-Encoding: gzip`).
 * @returns with `sent` when the bytes on the wire are others than those of the content.
 */
export async function contentStream(
  { headers, body }: Pick<SendResponse, "headers" | "body">,
  name: string,
): Promise<{ stream: Readable; sent?: () => number }> {
  const encoding = (headers["content-encoding"] ?? "identity").toLowerCase().trim();
  const packedName = /\.(?:t?gz|gzip|br|zz|z|zst|tbz2?|bz2|xz)$/i.test(name);
  if (encoding === "identity" || encoding === "" || packedName) return { stream: body };
  const unpack = await unpackerOf(encoding);
  if (!unpack) {
    body.on("error", () => {}).destroy();
    throw new FetchFailed(`the server packed the body as ${encoding}, which is not understood`);
  }
  let bytes = 0;
  const counter = new Transform({
    transform(chunk: Uint8Array, _, done) {
      bytes += chunk.length;
      done(null, chunk);
    },
  });
  return { stream: pipeline(body, counter, unpack, () => {}), sent: () => bytes };
}

async function unpackerOf(encoding: string) {
  const { createBrotliDecompress, createGunzip, createInflate } = await import("node:zlib");
  if (encoding === "gzip" || encoding === "x-gzip") return createGunzip();
  if (encoding === "deflate") return createInflate();
  return encoding === "br" ? createBrotliDecompress() : undefined;
}

/**
 * Give each piece of a stream to `take`, to the end. For many small bodies this costs half of what `for await` does.
 * @param straight the stream again when its bytes can come past it (`takeStraight`), and how many are still to come.
 */
export async function drain(
  stream: Readable,
  take: (piece: Uint8Array, reused: boolean) => void,
  straight?: { wire: IncomingMessage; left: () => number },
): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    let isOver = false;
    const end = () => {
      isOver = true;
      resolve();
    };
    const fail = (error: unknown) => {
      isOver = true;
      reject(error as Error);
      stream.destroy();
    };
    const takeOrFail = (piece: Uint8Array, reused: boolean) => {
      try {
        take(piece, reused);
      } catch (error) {
        fail(error);
      }
    };
    stream.on("data", (piece: Uint8Array) => takeOrFail(piece, false));
    if (straight)
      takeStraight({
        body: straight.wire,
        left: straight.left,
        take: (piece) => takeOrFail(piece, true),
        done() {
          end();
          stream.destroy();
        },
      });
    stream.once("end", end);
    stream.on("error", fail);
    // broken off without a word
    stream.once("close", () => {
      if (!isOver) fail(new Error("closed"));
    });
  });
}
