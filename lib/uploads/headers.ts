import { extname } from "node:path";
import type { S3Headers } from "../s3/s3.ts";

/** The content type of a path, by its name; `application/octet-stream` where that says nothing. */
export type ContentTypes = (path: string) => string;

const withCharset = /^text\/|[/+]xml$/;
const archives: Readonly<Record<string, string>> = { ".tgz": "application/gzip", ".zst": "application/zstd" };

/** The types of the package `mime`, which are IANA's. Text is UTF-8, as everything that the toolkit makes. */
export async function contentTypes(): Promise<ContentTypes> {
  const { default: mime } = await import("mime");
  return (path) => {
    // of a name without a dot `mime` takes the whole for an extension
    const extension = extname(path).toLowerCase();
    const type = archives[extension] ?? mime.getType(extension) ?? "application/octet-stream";
    return withCharset.test(type) ? `${type}; charset=utf-8` : type;
  };
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

/** The headers of every path, as `cache:` and `types:` say. Pure. */
export function headersFor({ cache, types, acl }: HeaderRules, typeOf: ContentTypes): (path: string) => S3Headers {
  const ownTypeOf = firstMatch(types);
  const cacheOf = firstMatch(cache);
  return (path) => ({
    contentType: ownTypeOf(path) ?? typeOf(path),
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
    if (token.length > 1 && token.startsWith("{")) return `(?:${token.slice(1, -1).split(",").map(escaped).join("|")})`;
    return escaped(token);
  });
  const whole = new RegExp(`^${pattern.includes("/") ? "" : "(?:.*/)?"}${source}$`, "su");
  return (path) => whole.test(path);
}

/** From `[pattern, value]` pairs: the value of the first pattern that fits a path. */
function firstMatch(pairs: readonly (readonly [string, string])[]): (path: string) => string | undefined {
  const tests = pairs.map(([pattern, value]) => [compilePattern(pattern), value] as const);
  return (path) => tests.find(([fits]) => fits(path))?.[1];
}

function escaped(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|/]/g, "\\$&");
}
