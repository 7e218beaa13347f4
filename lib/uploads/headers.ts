import { extname } from "node:path";
import type { S3Headers } from "../s3/s3.ts";

/**
 * The headers that a file is published with: its content type by its name, and what the patterns of `cache:` and
 * `types:` say. Pure. Source of the types: the IANA media types, RFC 9239 for JavaScript, RFC 8081 for fonts.
 * Text is UTF-8, as everything that the toolkit makes.
 */
const extensionsOf: Readonly<Record<string, string>> = {
  "text/html": "html htm",
  "application/xhtml+xml": "xhtml",
  "text/css": "css",
  "text/javascript": "js mjs",
  "application/json": "json map",
  "application/ld+json": "jsonld",
  "application/geo+json": "geojson",
  "application/manifest+json": "webmanifest",
  "application/xml": "xml",
  "application/rss+xml": "rss",
  "application/atom+xml": "atom",
  "image/svg+xml": "svg",
  "text/plain": "txt",
  "text/markdown": "md",
  "text/csv": "csv",
  "text/calendar": "ics",
  "text/vcard": "vcf",
  "text/vtt": "vtt",
  "application/yaml": "yml yaml",
  "image/png": "png",
  "image/jpeg": "jpg jpeg",
  "image/gif": "gif",
  "image/webp": "webp",
  "image/avif": "avif",
  "image/vnd.microsoft.icon": "ico",
  "image/bmp": "bmp",
  "image/tiff": "tif tiff",
  "font/woff": "woff",
  "font/woff2": "woff2",
  "font/ttf": "ttf",
  "font/otf": "otf",
  "audio/mpeg": "mp3",
  "audio/mp4": "m4a",
  "audio/ogg": "ogg opus",
  "audio/wav": "wav",
  "audio/flac": "flac",
  "video/mp4": "mp4 m4v",
  "video/webm": "webm",
  "video/quicktime": "mov",
  "video/ogg": "ogv",
  "application/pdf": "pdf",
  "application/epub+zip": "epub",
  "application/wasm": "wasm",
  "application/zip": "zip",
  "application/gzip": "gz tgz",
  "application/zstd": "zst",
  "application/x-xz": "xz",
  "application/x-tar": "tar",
  "application/pgp-keys": "asc",
  "application/pgp-signature": "sig",
};
const byExtension = new Map(
  Object.entries(extensionsOf).flatMap(([type, extensions]) =>
    extensions.split(" ").map((extension) => [extension, type] as const),
  ),
);

const withCharset = /^text\/|[/+]xml$/;

/** For a file that no rule names, `application/octet-stream`. */
export function contentTypeOf(path: string): string {
  const extension = extname(path).slice(1).toLowerCase();
  const type = byExtension.get(extension);
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

/** The patterns of which `patternProblem` says nothing, as editors are told. */
export const patterns = /^(?!\/)(?![\s\S]*\{[^}]*$)(?![^{]*\})(?![\s\S]*\{[^}]*\{)[\s\S]+$/;

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
