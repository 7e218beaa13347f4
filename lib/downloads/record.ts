import { isComment } from "./manifest.ts";

/**
 * The format of `downloads/saved.txt`: a line a file, six fields with a space between, then the path with
 * its spaces. A person can delete a line, and the file is looked at anew. Pure.
 */
export interface Saved {
  path: string;
  sha256: string;
  /** Bytes. */
  size: number;
  /** When it was saved: ISO 8601, UTC, whole seconds. */
  time: string;
  /** Where it came from, without fragment and login. */
  url: string;
  version?: string;
  /** The server's ETag as sent, or `lm:` and its Last-Modified in seconds when it gave no ETag. */
  tag?: string;
}

const head = `# What downloads saved, written by it. Delete a line to have that file looked at anew.
# SHA256 SIZE TIME VERSION ETAG URL PATH
`;

/** New files are not waited for until the disk has them: a restart of the machine may lose such ones. */
export interface Unflushed {
  /** The id of the machine's start under which they were saved. */
  boot: string;
  /** Files saved at this time or later: ISO 8601, as in the lines. */
  since: string;
}

/** The whole file, its lines in the order of their paths, so that two records compare with diff. */
export function formatRecord(saved: Iterable<Saved>, unflushed?: Unflushed): string {
  const lines = [...saved].sort(byPath).map((each) => formatSaved(each));
  const doubt = unflushed
    ? `# Saved since ${unflushed.since} in boot ${unflushed.boot}: hashed again after a restart of the machine.\n`
    : "";
  return head + doubt + lines.join("");
}

function byPath(a: Saved, b: Saved): number {
  return a.path < b.path ? -1 : a.path > b.path ? 1 : 0;
}

/** One line with its end. */
export function formatSaved({ sha256, size, time, version, tag, url, path }: Saved): string {
  return `${sha256} ${size} ${time} ${version ?? "-"} ${tag ?? "-"} ${url} ${path}\n`;
}

/**
 * Read a record. A line that cannot be understood is left out and its number given: its file will be
 * looked at anew.
 */
export function readRecord(text: string): {
  saved: Map<string, Saved>;
  wrong: number[];
  unflushed?: Unflushed;
} {
  const saved = new Map<string, Saved>();
  const wrong: number[] = [];
  text.split("\n").forEach((line, index) => {
    if (isComment(line)) return;
    const entry = readSaved(line);
    if (entry) saved.set(entry.path, entry);
    else wrong.push(index + 1);
  });
  const unflushed = readUnflushed(text);
  return { saved, wrong, ...(unflushed ? { unflushed } : {}) };
}

/** Which files of a record the machine may have lost in a restart; undefined: none. */
export function readUnflushed(text: string): Unflushed | undefined {
  const [, since, boot] = /^# Saved since (\S+) in boot (\S+): /m.exec(text.slice(0, 1000)) ?? [];
  return since && boot ? { since, boot } : undefined;
}

const line =
  /^([0-9a-f]{64}) (\d{1,15}) (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ) (\S+) (\S+) ([a-z][a-z0-9+.-]*:\/\/\S+) (.+)$/;

function readSaved(text: string): Saved | undefined {
  const match = line.exec(text);
  if (!match) return undefined;
  const [, sha256 = "", size = "", time = "", version = "", tag = "", url = "", path = ""] = match;
  return {
    path,
    sha256,
    size: Number(size),
    time,
    url,
    ...(version === "-" ? {} : { version }),
    ...(tag === "-" ? {} : { tag }),
  };
}

/** An ETag that a line can hold: one word. Others are not kept, which costs a fetch at --check. */
export function recordableTag(
  etag: string | undefined,
  lastModified: number | undefined,
): string | undefined {
  if (
    etag !== undefined &&
    /^[\u0021-\u007e\u0080-\u00ff]{2,300}$/.test(etag) &&
    !etag.startsWith("lm:")
  )
    return etag;
  return lastModified === undefined ? undefined : `lm:${Math.floor(lastModified / 1000)}`;
}
