import { extname } from "node:path";
import type { S3Headers } from "../s3/s3.ts";

/**
 * The headers that a file is published with: its content type by its name, and what the patterns of `cache:` and
 * `types:` say. Pure. Source of the types: the IANA media types, RFC 9239 for JavaScript, RFC 8081 for fonts.
 * Text is UTF-8, as everything that the toolkit makes.
 */
const byExtension: Readonly<Record<string, string>> = {
  html: "text/html",
  htm: "text/html",
  xhtml: "application/xhtml+xml",
  css: "text/css",
  js: "text/javascript",
  mjs: "text/javascript",
  json: "application/json",
  map: "application/json",
  jsonld: "application/ld+json",
  geojson: "application/geo+json",
  webmanifest: "application/manifest+json",
  xml: "application/xml",
  rss: "application/rss+xml",
  atom: "application/atom+xml",
  svg: "image/svg+xml",
  txt: "text/plain",
  md: "text/markdown",
  csv: "text/csv",
  ics: "text/calendar",
  vcf: "text/vcard",
  vtt: "text/vtt",
  yml: "application/yaml",
  yaml: "application/yaml",
  png: "image/png",
  jpg: "image/jpeg",
  jpeg: "image/jpeg",
  gif: "image/gif",
  webp: "image/webp",
  avif: "image/avif",
  ico: "image/vnd.microsoft.icon",
  bmp: "image/bmp",
  tif: "image/tiff",
  tiff: "image/tiff",
  woff: "font/woff",
  woff2: "font/woff2",
  ttf: "font/ttf",
  otf: "font/otf",
  mp3: "audio/mpeg",
  m4a: "audio/mp4",
  ogg: "audio/ogg",
  opus: "audio/ogg",
  wav: "audio/wav",
  flac: "audio/flac",
  mp4: "video/mp4",
  m4v: "video/mp4",
  webm: "video/webm",
  mov: "video/quicktime",
  ogv: "video/ogg",
  pdf: "application/pdf",
  epub: "application/epub+zip",
  wasm: "application/wasm",
  zip: "application/zip",
  gz: "application/gzip",
  tgz: "application/gzip",
  zst: "application/zstd",
  xz: "application/x-xz",
  tar: "application/x-tar",
  asc: "application/pgp-keys",
  sig: "application/pgp-signature",
};

const withCharset = /^text\/|[/+]xml$/;

/** For a file that no rule names, `application/octet-stream`. */
export function contentTypeOf(path: string): string {
  const extension = extname(path).slice(1).toLowerCase();
  const type = Object.hasOwn(byExtension, extension) ? byExtension[extension] : undefined;
  if (type === undefined) return "application/octet-stream";
  return withCharset.test(type) ? `${type}; charset=utf-8` : type;
}

/**
 * Whether a file is a page: something that names other files, and so must come after them.
 * Feeds and site maps are pages too, since they lead to pages; so is the VERSION of a release folder.
 */
export function isPage(path: string, contentType: string): boolean {
  return (
    /^(?:text\/html|application\/(?:xhtml|rss|atom)\+xml|application\/xml)\b/.test(contentType) ||
    /\.webmanifest$|(?:^|\/)VERSION(?:\.sig)?$/.test(path)
  );
}

/** What an S3 target's config says of headers. */
export interface HeaderRules {
  /** Pattern → Cache-Control; the first that fits. */
  cache: readonly (readonly [string, string])[];
  /** Pattern → content type; the first that fits. */
  types: readonly (readonly [string, string])[];
  acl?: string | undefined;
}

/** The headers of every path. */
export function headersFor({ cache, types, acl }: HeaderRules): (path: string) => S3Headers {
  const typeOf = firstMatch(types);
  const cacheOf = firstMatch(cache);
  return (path) => ({
    contentType: typeOf(path) ?? contentTypeOf(path),
    cacheControl: cacheOf(path),
    acl,
  });
}

/** Headers in one line, for the record. */
export function headerLine({ contentType, cacheControl, acl }: S3Headers): string {
  return [contentType, cacheControl ?? "", acl ?? ""].join(" | ");
}

/** What is wrong with a pattern, if anything. */
export function patternProblem(pattern: string): string | undefined {
  if (pattern === "") return "a pattern is empty";
  if (pattern.startsWith("/")) return `"${pattern}": leave the first / out; paths start in from:`;
  if (/\{[^}]*$|^[^{]*\}|\{[^}]*\{/.test(pattern)) return `"${pattern}": braces do not match`;
  return undefined;
}

/**
 * The test that a pattern stands for: `*` and `?` stay within a folder, `**` crosses folders, `{a,b}` is either.
 * A pattern without `/` fits a file's name in any folder, as in .gitignore.
 */
export function compilePattern(pattern: string): (path: string) => boolean {
  const source = pattern.replace(/\*\*\/|\*\*|\*|\?|\{[^}]*\}|[^*?{]/gs, (token) => {
    if (token === "**/") return "(?:.*/)?";
    if (token === "**") return ".*";
    if (token === "*") return "[^/]*";
    if (token === "?") return "[^/]";
    if (token.length > 1 && token.startsWith("{"))
      return `(?:${token.slice(1, -1).split(",").map(escaped).join("|")})`;
    return escaped(token);
  });
  const whole = new RegExp(`^${pattern.includes("/") ? "" : "(?:.*/)?"}${source}$`, "su");
  return (path) => whole.test(path);
}

/** From `[pattern, value]` pairs: the value of the first pattern that fits a path. */
function firstMatch(
  pairs: readonly (readonly [string, string])[],
): (path: string) => string | undefined {
  const tests = pairs.map(([pattern, value]) => [compilePattern(pattern), value] as const);
  return (path) => tests.find(([fits]) => fits(path))?.[1];
}

function escaped(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
}
