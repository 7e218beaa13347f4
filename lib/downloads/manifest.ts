import { cleanLine } from "../core/clean.ts";
import { Refused, UsageError } from "../core/errors.ts";
import { checkPath, twinKey } from "./paths.ts";

/**
 * The manifest: lines `URL PATH`, `URL`, or `URL#sha256-HEX MIRROR… PATH`. Reading it is pure; nothing here looks at
 * the disk or the network.
 */

/** One file that is wanted. */
export interface Entry {
  /** `manifest.txt:12`, for messages. */
  where: string;
  /** The address without its fragment. May hold a login: show `shownUrl` instead. */
  url: string;
  /** Other addresses of the same bytes, tried in their order; only of what is pinned. */
  mirrors?: readonly string[];
  /** Under `downloads/`. */
  path: string;
  /** From the fragment `#3`. */
  version?: string;
  /** From the fragment `#sha256-HEX`, in lower case. */
  sha256?: string;
}

/** A wrong line. */
export interface Fault {
  where: string;
  reason: string;
  /** true: refused for safety (exit 4) rather than wrong (exit 2). */
  unsafe: boolean;
}

/** What a list asks for, and its wrong lines. */
export interface List {
  entries: Entry[];
  faults: Fault[];
}

/** Read manifest.txt. `name` is the file's, for messages. */
export function parseManifest(text: string, name: string): List {
  return parseLines(text, name, (line, where) => {
    if (line.startsWith(" ")) throw new UsageError("the line starts with a space; the URL comes first");
    const [, address = "", others = "", path] = /^(\S+)((?: (?:https?|file|s3):\S+)*)(?: (.*))?$/s.exec(line) ?? [];
    if (line.includes("\t") && path === undefined)
      throw new UsageError("no space between URL and path (a tab is not one); write URL PATH");
    const mirrors = others.split(" ").filter((each) => each !== "");
    return [makeEntry(address, path ?? lastPart(address), where, mirrors)];
  });
}

/** The file's name in a URL, where a line has no path. @throws {UsageError} when it names none. */
function lastPart(address: string): string {
  const [url = ""] = address.split("#", 1);
  checkUrl(url);
  const name = decodeURIComponent(parseUrl(url).pathname.split("/").at(-1) ?? "");
  if (name === "") throw new UsageError("the URL ends without a file's name; write URL PATH");
  return name;
}

/**
 * A manifest whose lines are pinned to what was saved: `#sha256-HEX` behind each URL. Pure.
 * @param shaOf what is known of a line's file; undefined: nothing.
 * @returns the text, the lines that were pinned, and those of which nothing is known.
 */
export function pinLines(text: string, name: string, shaOf: (entry: Entry) => string | undefined) {
  const [pinned, unknown]: [Entry[], Entry[]] = [[], []];
  const entries = new Map(parseManifest(text, name).entries.map((entry) => [entry.where, entry]));
  const lines = text.split("\n").map((line, index) => {
    const entry = entries.get(`${name}:${index + 1}`);
    if (entry === undefined || entry.sha256 !== undefined) return line;
    const sha256 = shaOf(entry);
    (sha256 === undefined ? unknown : pinned).push(entry);
    if (sha256 === undefined) return line;
    return line.replace(/^\S+/, (address) => `${address}${address.includes("#") ? "," : "#"}sha256-${sha256}`);
  });
  return { text: lines.join("\n"), pinned, unknown };
}

/** Read a list's lines, as editors of all systems write them; for one that is wrong, `parse` throws. */
export function parseLines(text: string, name: string, parse: (line: string, where: string) => Entry[]): List {
  const list: List = { entries: [], faults: [] };
  for (const [index, line] of text
    .replace(/^\ufeff/, "")
    .split(/\r?\n/)
    .entries()) {
    if (isComment(line)) continue;
    const where = `${name}:${index + 1}`;
    collect(list.faults, where, () => list.entries.push(...parse(line, where)));
  }
  return list;
}

/** Do what throws for a wrong line, which then is one of the faults. */
export function collect(faults: Fault[], where: string, check: () => void): void {
  try {
    check();
  } catch (error) {
    if (!(error instanceof UsageError || error instanceof Refused)) throw error;
    faults.push({ where, reason: error.message, unsafe: error instanceof Refused });
  }
}

/** Blank lines and lines that start with `#` say nothing. */
export function isComment(line: string): boolean {
  return line.startsWith("#") || line.trim() === "";
}

/**
 * An entry from its two fields.
 * @throws {UsageError | Refused} when one of them is wrong.
 */
export function makeEntry(address: string, path: string, where: string, mirrors: readonly string[] = []): Entry {
  checkPath(path);
  const [, url = "", fragment] = /^([^#]*)(?:#(.*))?$/s.exec(address) ?? [];
  checkUrl(url);
  const entry: Entry = { where, url, path, ...(mirrors.length > 0 ? { mirrors } : {}) };
  for (const mirror of mirrors) {
    checkUrl(mirror);
    if (mirror.includes("#")) throw new UsageError("version and pin stand behind the first URL; take off the other #");
  }
  for (const word of fragment?.split(",") ?? []) {
    const [pin] = /(?<=^sha256-).*/i.exec(word) ?? [];
    if (pin !== undefined) {
      if (!/^[0-9a-f]{64}$/i.test(pin)) throw new UsageError("sha256- needs 64 hex digits");
      if (entry.sha256 !== undefined) throw new UsageError("two sha256 pins");
      entry.sha256 = pin.toLowerCase();
    } else {
      if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(word))
        throw new UsageError(
          "what follows the # is not a version: letters, digits, dots and dashes; write %23 for a # in the URL",
        );
      if (entry.version !== undefined) throw new UsageError("two versions in one fragment");
      entry.version = word;
    }
  }
  if (mirrors.length > 0 && entry.sha256 === undefined)
    throw new UsageError("several URLs need a pin, by which they are known to be one file: URL#sha256-HEX URL PATH");
  return entry;
}

/** @throws {UsageError} for a URL that is not fetched, which is not repeated: it may hold a login. */
function checkUrl(url: string): void {
  const wrong = (reason: string) => new UsageError(reason);
  const { protocol, host, pathname } = parseUrl(url);
  if (!["http:", "https:", "file:", "s3:"].includes(protocol))
    throw wrong(`${protocol} is not fetched; use http, https, file or s3`);
  if (!url.slice(protocol.length).startsWith("//"))
    throw wrong(`what stands before the space is not a URL; write ${protocol}//…`);
  if (protocol === "file:" && host !== "") throw wrong("a file: URL names no host; write file:///path");
  if (protocol === "file:" && /%2f/i.test(pathname))
    throw wrong("%2F is no part of a file's name; write a file: URL's slashes as they are");
  if (protocol === "s3:" && (host === "" || pathname.length < 2)) throw wrong("an s3: URL is s3://bucket/key");
}

function parseUrl(url: string): URL {
  try {
    return new URL(url);
  } catch {
    throw new UsageError("what stands before the space is not a URL; write https://host/file");
  }
}

/** A URL that can be shown and recorded: without the login it may hold. */
export function shownUrl(url: string): string {
  return url.replace(/^([a-z0-9+.-]+:\/*)[^/?#]*@/i, "$1");
}

/** The line of a manifest that an entry stands for. */
export function formatEntry({ url, mirrors = [], path, version, sha256 }: Entry): string {
  const words = [version, sha256 && `sha256-${sha256}`].filter((word) => word !== undefined);
  return [`${url}${words.length > 0 ? `#${words.join(",")}` : ""}`, ...mirrors, path].join(" ");
}

/** Two lines that would write one file: the same path, a twin by case or Unicode form, a file inside a file. */
export function clashes(entries: readonly Entry[]): Fault[] {
  const faults: Fault[] = [];
  const files = new Map<string, Entry>();
  for (const entry of entries) {
    const key = twinKey(entry.path);
    const first = files.get(key);
    if (first === undefined) files.set(key, entry);
    else {
      const how = first.path === entry.path ? "the same path" : `on some file systems the path of ${first.path},`;
      faults.push({ where: entry.where, reason: `${entry.path}: ${how} as ${first.where}`, unsafe: false });
    }
  }
  for (const [key, entry] of files) {
    for (let slash = key.indexOf("/"); slash > 0; slash = key.indexOf("/", slash + 1)) {
      const above = files.get(key.slice(0, slash));
      if (!above) continue;
      const reason = `${entry.path}: ${above.path} is a file at ${above.where}`;
      faults.push({ where: entry.where, reason, unsafe: false });
    }
  }
  return faults;
}

/**
 * All wrong lines as one error, in their order.
 * @throws {Refused} when one of them would leave the folder.
 * @throws {UsageError} when they are merely wrong.
 */
export function throwFaults(faults: readonly Fault[]): void {
  if (faults.length === 0) return;
  const text = faults.map(({ where, reason }) => cleanLine(`${where}: ${reason}`)).join("\n");
  throw faults.some(({ unsafe }) => unsafe) ? new Refused(text) : new UsageError(text);
}
