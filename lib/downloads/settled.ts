import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { bootId } from "../core/id.ts";
import { isComment, urlFault } from "./manifest.ts";
import { journalName, lookAt, plainPath, recordName } from "./paths.ts";
import { cloudinaryName, manifestName } from "./read.ts";
import { readUnflushed } from "./record.ts";

/**
 * The usual run has nothing to do, and should cost next to nothing. V8 interprets what it runs for the first
 * time, so every step counts that is taken for each of a thousand lines: here a line of saved.txt is one match,
 * a line of manifest.txt one look into a map, and no plan is made of them.
 *
 * It is safe since it only ever says yes, and only where the plan would say "keep" for every line: a line of the
 * manifest counts when it is, letter for letter, what a line of the record stands for, and that one is of the
 * plainest kind. Whatever is unusual (a pin, a login, a wrong line, two lines of one path, a file of another
 * size) is left to the plan, which knows what to say of it.
 */

/**
 * The number of files, when all that manifest.txt lists is here as saved.txt has it; undefined when that takes
 * a closer look.
 */
export function settledFiles(dir: string, root: string): number | undefined {
  const manifest = join(dir, manifestName);
  const record = join(root, recordName);
  if (!existsSync(manifest) || !existsSync(record)) return undefined;
  if (existsSync(join(dir, cloudinaryName)) || existsSync(join(root, journalName)))
    return undefined;
  const lines = readFileSync(manifest, "utf8").split("\n");
  return countSettled(lines, readFileSync(record, "utf8"), root);
}

/** A line of the record: size, version; then, as the manifest has it, the URL with its host apart, and the path. */
const plainRecord = new RegExp(
  String.raw`^[0-9a-f]{64} (\d{1,15}) \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ` +
    String.raw`(-|(?!sha256-)[A-Za-z0-9][A-Za-z0-9._-]{0,63}) \S+ ` +
    String.raw`(([a-z0-9]+://[^\s/?#@]+/)[!"$-~]+ (${plainPath}))$`,
);

type PlainRecord = [
  line: string,
  size: string,
  version: string,
  asked: string,
  host: string,
  path: string,
];

function countSettled(lines: string[], record: string, root: string): number | undefined {
  const unflushed = readUnflushed(record);
  if (unflushed && unflushed.boot !== bootId()) return undefined;
  const wanted = new Set(lines);
  const isRepeated = wanted.size < lines.length;
  const folders = new Map();
  const paths = new Set<string>();
  let recorded = 0;
  let settled = 0;
  let knownHost: string | undefined;
  for (const line of record.split("\n")) {
    const match = plainRecord.exec(line) as PlainRecord | null;
    if (match === null) {
      if (isComment(line)) continue;
      return undefined;
    }
    // by number, since taking it apart with [a, b] = match would cost as much again
    const path = match[5];
    // plain paths are ASCII: these are all the twins that there may be
    paths.add(path.toLowerCase());
    recorded += 1;
    const asked = match[2] === "-" ? match[3] : match[3].replace(" ", `#${match[2]} `);
    if (!wanted.delete(asked)) continue;
    if (match[4] !== knownHost && urlFault(`${match[4]}x`) !== undefined) return undefined;
    knownHost = match[4];
    if (lookAt(root, path, folders) !== Number(match[1])) return undefined;
    settled += 1;
  }
  // two lines of the record about one file, or about twins
  if (paths.size < recorded) return undefined;
  for (const line of wanted) if (!isComment(line)) return undefined;
  // a repeated line is an error, unless it says nothing
  if (isRepeated && lines.filter((line) => !isComment(line)).length > settled) return undefined;
  return settled;
}
