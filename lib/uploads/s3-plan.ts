import type { S3Headers, S3Object } from "../s3/s3.ts";
import type { S3Target } from "./config.ts";
import type { Content } from "./content.ts";
import type { LocalFile } from "./folder.ts";
import { type ContentTypes, headerLine, headersFor, isPage } from "./headers.ts";
import type { Change } from "./outcome.ts";
import type { S3Entry } from "./state.ts";

/** What has to be done to an S3 target. Pure: the folder, the listing and the record in, decisions out. */
export interface S3Plan {
  sends: Send[];
  /** Paths, in their order, of objects that no file stands for; none unless the target deletes. */
  stray: string[];
}

/** A file that has to be sent. */
export interface Send {
  file: LocalFile;
  headers: S3Headers;
  action: Exclude<Change["action"], "delete">;
  /** What is there, of the same size and with the same headers: the file is sent only if its content differs. */
  compare?: S3Object | undefined;
}

/** The plan, made without reading a file. */
export function planTarget(
  target: S3Target,
  files: readonly LocalFile[],
  listing: readonly S3Object[],
  record: ReadonlyMap<string, S3Entry>,
  typeOf: ContentTypes,
): S3Plan {
  const { prefix } = target.address;
  const objects = new Map(listing.map((object) => [object.key, object]));
  const headersOf = headersFor(target, typeOf);
  const sends = files.map((file): Send => {
    const headers = headersOf(file.path);
    const object = objects.get(prefix + file.path);
    if (!object) return { file, headers, action: "new" };
    const recorded = record.get(file.path);
    if (object.size !== file.size) return { file, headers, action: "replace" };
    // what somebody else put there since has other headers too, for all we know
    if (recorded?.etag === object.etag && recorded.headers !== headerLine(headers))
      return { file, headers, action: "headers" };
    return { file, headers, action: "replace", compare: object };
  });
  const paths = new Set(files.map(({ path }) => prefix + path));
  // markers of folders (`a/`, empty) are left alone
  const stray = listing.filter(({ key, size }) => !paths.has(key) && !(key.endsWith("/") && size === 0));
  return { sends, stray: target.delete ? stray.map(({ key }) => key.slice(prefix.length)).sort() : [] };
}

/**
 * Whether the object there has this content: by its ETag, or by our record of what we sent, which counts
 * only while the ETag is still the one that we were given for it.
 */
export function isSame(content: Content, object: S3Object, recorded: S3Entry | undefined): boolean {
  if (object.etag === content.etag) return true;
  return recorded?.etag === object.etag && recorded.sha256 === content.sha256;
}

/**
 * In which order things are sent: what others refer to first, then the pages, so that whoever reads a new
 * page finds all that it names. Large files go first in their group, since they take longest.
 */
export function inOrder<T extends Pick<Send, "file" | "headers">>(sends: readonly T[]): { assets: T[]; pages: T[] } {
  const bySize = [...sends].sort((a, b) => b.file.size - a.file.size);
  const page = ({ file, headers }: T) => isPage(file.path, headers.contentType);
  return { assets: bySize.filter((each) => !page(each)), pages: bySize.filter(page) };
}
