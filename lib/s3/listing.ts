import { Readable } from "node:stream";

/**
 * The answer to ListObjectsV2, read straight from its text. The SDK reads the same by a general XML reader and
 * schemas, which takes 20 times as long: for thousands of objects more than all else that a run does.
 * Source: https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html
 */
export interface ListingPage {
  objects: { key: string; size: number; etag: string }[];
  /** Where the next page begins; undefined on the last one. */
  next: string | undefined;
}

const entities: Record<string, string> = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'" };

function unescaped(text: string): string {
  if (!text.includes("&")) return text;
  return text.replace(/&(?:#x([0-9a-f]+)|#(\d+)|(\w+));/gi, (whole, hex, decimal, name) => {
    if (hex !== undefined) return String.fromCodePoint(Number.parseInt(hex, 16));
    if (decimal !== undefined) return String.fromCodePoint(Number(decimal));
    return entities[name] ?? whole;
  });
}

function textOf(xml: string, tag: string): string | undefined {
  const begin = xml.indexOf(`<${tag}>`);
  const end = xml.indexOf(`</${tag}>`, begin);
  return begin < 0 || end < 0 ? undefined : unescaped(xml.slice(begin + tag.length + 2, end));
}

/** A key as `encoding-type=url` writes it: a blank is `+` or `%20`. */
export function urlDecoded(key: string): string {
  return key.includes("%") || key.includes("+")
    ? decodeURIComponent(key.replaceAll("+", " "))
    : key;
}

/** One page; undefined when the text is no whole listing. */
export function readListing(xml: string): ListingPage | undefined {
  if (!/<ListBucketResult[\s>]/.test(xml) || !/<\/ListBucketResult>\s*$/.test(xml))
    return undefined;
  const entries = xml.split("<Contents>");
  const head = entries.shift() ?? "";
  const last = entries.at(-1) ?? "";
  // what stands after the last object belongs to the page, like what stands before the first
  const page = head + last.slice(last.indexOf("</Contents>"));
  const isUrl = textOf(page, "EncodingType") === "url";
  const objects: ListingPage["objects"] = [];
  for (const entry of entries) {
    const key = textOf(entry, "Key");
    const size = Number(textOf(entry, "Size") ?? Number.NaN);
    if (key === undefined || Number.isNaN(size)) return undefined;
    const etag = (textOf(entry, "ETag") ?? "").replaceAll('"', "");
    objects.push({ key: isUrl ? urlDecoded(key) : key, size, etag });
  }
  const more = textOf(page, "IsTruncated") === "true";
  return { objects, next: more ? textOf(page, "NextContinuationToken") : undefined };
}

/** Reads a listing before the SDK does, and leaves it an empty one. */
export function listingReader() {
  let page: ListingPage | undefined;
  return {
    // biome-ignore lint/suspicious/noExplicitAny: the SDK's middleware is generic over every command
    middleware: (next: any) => async (args: any) => {
      const result = await next(args);
      const { response } = result;
      if (response?.statusCode !== 200) return result;
      const chunks: Buffer[] = [];
      for await (const chunk of response.body as Readable) chunks.push(chunk as Buffer);
      const text = Buffer.concat(chunks).toString("utf8");
      page = readListing(text);
      // what is no listing is the SDK's to complain about
      response.body = Readable.from([Buffer.from(page ? "<ListBucketResult/>" : text)]);
      return result;
    },
    page(): ListingPage {
      if (!page) throw new Error("Expected a listing in XML");
      return page;
    },
  };
}
