import { cleanLine } from "../core/clean.ts";
import { Refused, UsageError } from "../core/errors.ts";
import { pathFault, twinKey } from "./paths.ts";

/** The manifest: lines `URL PATH`. Reading it is pure; nothing here looks at the disk or the network. */

/** One file that is wanted. */
export interface Entry {
  /** `manifest.txt:12`, for messages. */
  where: string;
  /** The address without its fragment. May hold a login: show `shownUrl` instead. */
  url: string;
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

/** The entries of a text and its wrong lines. `name` is the file's, for messages. */
export function parseManifest(text: string, name: string): { entries: Entry[]; faults: Fault[] } {
  const entries: Entry[] = [];
  const faults: Fault[] = [];
  manifestLines(text).forEach((line, index) => {
    if (isComment(line)) return;
    const where = `${name}:${index + 1}`;
    const entry = parseLine(line, where);
    if ("reason" in entry) faults.push(entry);
    else entries.push(entry);
  });
  return { entries, faults };
}

/** The lines of a file as editors of all systems write them. */
export function manifestLines(text: string): string[] {
  return text.replace(/^\ufeff/, "").split(/\r?\n/);
}

/** Blank lines and lines that start with `#` say nothing. */
export function isComment(line: string): boolean {
  return line.startsWith("#") || line.trim() === "";
}

function parseLine(line: string, where: string): Entry | Fault {
  const space = line.indexOf(" ");
  if (space === 0) return fault(where, "the line starts with a space; the URL comes first");
  const tab = line.includes("\t") ? " (a tab is not one)" : "";
  if (space < 0) return fault(where, `no space between URL and path${tab}; write URL PATH`);
  return makeEntry(line.slice(0, space), line.slice(space + 1), where);
}

/** An entry from its two fields, or what is wrong with them. */
export function makeEntry(address: string, path: string, where: string): Entry | Fault {
  const wrong = pathFault(path);
  if (wrong) return { where, ...wrong };
  const hash = address.indexOf("#");
  const url = hash < 0 ? address : address.slice(0, hash);
  const reason = urlFault(url);
  if (reason) return fault(where, reason);
  const entry: Entry = { where, url, path };
  for (const word of hash < 0 ? [] : address.slice(hash + 1).split(",")) {
    if (/^sha256-/i.test(word)) {
      const pin = word.slice(7).toLowerCase();
      if (!/^[0-9a-f]{64}$/.test(pin)) return fault(where, "sha256- needs 64 hex digits");
      if (entry.sha256) return fault(where, "two sha256 pins");
      entry.sha256 = pin;
    } else {
      if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(word))
        return fault(
          where,
          "what follows the # is not a version: letters, digits, dots and dashes; write %23 for a # in the URL",
        );
      if (entry.version !== undefined) return fault(where, "two versions in one fragment");
      entry.version = word;
    }
  }
  return entry;
}

const schemes = ["http:", "https:", "file:", "s3:"];

/** What is wrong with a URL; undefined when it may be fetched. A wrong one is not repeated: it may hold a login. */
function urlFault(url: string): string | undefined {
  let parsed: URL;
  try {
    parsed = new URL(url);
  } catch {
    return "what stands before the space is not a URL; write https://host/file";
  }
  if (!schemes.includes(parsed.protocol))
    return `${parsed.protocol} is not fetched; use http, https, file or s3`;
  if (!url.slice(parsed.protocol.length).startsWith("//"))
    return `what stands before the space is not a URL; write ${parsed.protocol}//…`;
  if (parsed.protocol === "file:" && parsed.host !== "")
    return "a file: URL names no host; write file:///path";
  if (parsed.protocol === "file:" && /%2f/i.test(parsed.pathname))
    return "%2F is no part of a file's name; write a file: URL's slashes as they are";
  if (parsed.protocol === "s3:" && (parsed.host === "" || parsed.pathname.length < 2))
    return "an s3: URL is s3://bucket/key";
  return undefined;
}

/** A URL that can be shown and recorded: without the login it may hold. */
export function shownUrl(url: string): string {
  return url.replace(/^([a-z0-9+.-]+:\/*)[^/?#]*@/i, "$1");
}

/** The line of a manifest that an entry stands for. */
export function formatEntry({ url, path, version, sha256 }: Entry): string {
  const words = [version, sha256 && `sha256-${sha256}`].filter((word) => word !== undefined);
  return `${url}${words.length > 0 ? `#${words.join(",")}` : ""} ${path}`;
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
      const how =
        first.path === entry.path
          ? "the same path"
          : `on some file systems the path of ${first.path},`;
      faults.push(fault(entry.where, `${entry.path}: ${how} as ${first.where}`));
    }
  }
  for (const [key, entry] of files) {
    for (let slash = key.indexOf("/"); slash > 0; slash = key.indexOf("/", slash + 1)) {
      const above = files.get(key.slice(0, slash));
      if (above)
        faults.push(fault(entry.where, `${entry.path}: ${above.path} is a file at ${above.where}`));
    }
  }
  return faults;
}

export function fault(where: string, reason: string): Fault {
  return { where, reason, unsafe: false };
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
