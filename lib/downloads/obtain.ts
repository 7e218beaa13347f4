import { createHash } from "node:crypto";
import { lstatSync } from "node:fs";
import { join } from "node:path";
import type { Fetched, Fetcher, FetchRequest } from "../fetch/fetch.ts";
import { hashFile } from "./hash.ts";
import { type Entry, shownUrl } from "./manifest.ts";
import { type Folders, partialFolder } from "./paths.ts";
import { placeFile } from "./place.ts";
import type { Step } from "./plan.ts";
import { recordableTag, type Saved } from "./record.ts";

/** One file, as its line wants it: recognised, asked for, or fetched and put in its place. */

export interface Obtained {
  saved: Saved;
  result: "fetched" | "kept";
  old?: string;
  reason?: string;
  touched: string[];
  /** A new file that the disk may not have yet. */
  unflushed?: boolean;
}

export interface ObtainContext {
  folders: Folders;
  fetcher: Fetcher;
  /** What all requests have in common: limits, signal, progress. */
  request: Pick<FetchRequest, "maxSize" | "signal" | "onProgress" | "onRetry">;
}

/** The name of a path's partial file: the same in every run. */
export function partialName(path: string): string {
  return createHash("sha256").update(path).digest("hex").slice(0, 32);
}

export async function obtain(
  { entry, action, isThere }: Step,
  before: Saved | undefined,
  context: ObtainContext,
): Promise<Obtained> {
  if (action === "adopt") {
    const adopted = await adopt(entry, before, context);
    if (adopted) return adopted;
  }
  if (action === "check" && before) return await check(entry, before, context);
  return await fetchAndPlace(entry, before, undefined, context, isThere);
}

/** Recognise a file without a record: by its pin, else by size and time as the server tells them. */
async function adopt(
  entry: Entry,
  before: Saved | undefined,
  { folders, fetcher, request }: ObtainContext,
): Promise<Obtained | undefined> {
  const target = join(folders.root, entry.path);
  const keep = async (about: Pick<Fetched, "etag" | "modified">): Promise<Obtained> => ({
    saved: savedOf(entry, await hashFile(target), lstatSync(target).size, about),
    result: "kept",
    reason: "recorded anew",
    touched: [],
  });
  if (entry.sha256 !== undefined)
    return (await hashFile(target)) === entry.sha256 ? await keep({}) : undefined;
  // the record knows another size: this file is not what was saved, whatever the server says
  if (before !== undefined || !/^https?:/.test(entry.url)) return undefined;
  try {
    const { size, etag, modified } = await fetcher.head(entry.url, request.signal);
    const info = lstatSync(target);
    const known = size === info.size && seconds(modified) === seconds(info.mtimeMs);
    return known
      ? await keep({ ...(etag ? { etag } : {}), ...(modified ? { modified } : {}) })
      : undefined;
  } catch {
    // whatever is wrong, the fetch will say it better
    return undefined;
  }
}

function seconds(ms: number | undefined): number | undefined {
  return ms === undefined ? undefined : Math.floor(ms / 1000);
}

/** Hash the file again and ask the server whether it has another. */
async function check(entry: Entry, before: Saved, context: ObtainContext): Promise<Obtained> {
  if ((await hashFile(join(context.folders.root, entry.path))) !== before.sha256) {
    const mended = await fetchAndPlace(entry, before, undefined, context);
    return { ...mended, reason: "its bytes had changed here" };
  }
  const kept: Obtained = { saved: before, result: "kept", touched: [] };
  // pinned content cannot have a newer one
  if (entry.sha256 !== undefined) return kept;
  const { tag } = before;
  const unless = tag?.startsWith("lm:")
    ? { modified: Number(tag.slice(3)) * 1000 }
    : tag === undefined
      ? undefined
      : { etag: tag };
  return await fetchAndPlace(entry, before, unless, context);
}

/** @param flush what replaces a file must be on the disk first; a new one can be fetched again. */
async function fetchAndPlace(
  entry: Entry,
  before: Saved | undefined,
  unless: FetchRequest["unless"],
  { folders, fetcher, request }: ObtainContext,
  flush = true,
): Promise<Obtained> {
  const temporary = join(folders.root, partialFolder, partialName(entry.path));
  const fetched = await fetcher.toFile({
    ...request,
    url: entry.url,
    to: temporary,
    name: entry.path,
    sha256: entry.sha256,
    unless,
    flush,
  });
  if (!fetched.changed && before) return { saved: before, result: "kept", touched: [] };
  const { path, version } = entry;
  const placed = await placeFile(folders, path, temporary, fetched.sha256, version, before);
  return {
    saved: savedOf(entry, fetched.sha256, fetched.size, fetched),
    result: placed.same ? "kept" : "fetched",
    ...(placed.moved === undefined ? {} : { old: placed.moved }),
    touched: placed.touched,
    unflushed: !flush,
  };
}

function savedOf(
  { path, url, version }: Entry,
  sha256: string,
  size: number,
  { etag, modified }: Pick<Fetched, "etag" | "modified">,
): Saved {
  const time = `${new Date().toISOString().slice(0, 19)}Z`;
  const saved: Saved = { path, sha256, size, time, url: shownUrl(url) };
  const tag = recordableTag(etag, modified);
  if (version !== undefined) saved.version = version;
  if (tag !== undefined) saved.tag = tag;
  return saved;
}
