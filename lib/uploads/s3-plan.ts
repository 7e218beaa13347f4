import type { S3Headers, S3Object } from "../s3/s3.ts";
import type { S3Target } from "./config.ts";
import type { Content } from "./content.ts";
import { contentTypeOf, isPage } from "./content-type.ts";
import type { LocalFile } from "./folder.ts";
import { firstMatch } from "./patterns.ts";
import type { S3Entry } from "./state.ts";

/** What has to be done to an S3 place. Pure: the folder, the listing and the record in, decisions out. */

type Recorded = S3Entry | undefined;

/** The headers of every path, as the target's config has them. */
export function headersFor(target: S3Target): (path: string) => S3Headers {
  const typeOf = firstMatch(target.types);
  const cacheOf = firstMatch(target.cache);
  return (path) => ({
    contentType: typeOf(path) ?? contentTypeOf(path),
    cacheControl: cacheOf(path),
    acl: target.acl,
  });
}

/** Headers in one line, for the record. */
export function headerLine({ contentType, cacheControl, acl }: S3Headers): string {
  return [contentType, cacheControl ?? "", acl ?? ""].join(" | ");
}

/**
 * What can be told of a file without reading it. `compare`: its content decides (`isSame`).
 */
export function firstLook(
  file: LocalFile,
  remote: S3Object | undefined,
  recorded: Recorded,
  headers: string,
): "new" | "replace" | "headers" | "compare" {
  if (!remote) return "new";
  if (remote.size !== file.size) return "replace";
  // what another hand put there since has other headers too, for all we know
  if (recorded?.etag === remote.etag && recorded.headers !== headers) return "headers";
  return "compare";
}

/**
 * Whether the object there has this content: by its ETag, or by our record of what we sent, which counts
 * only while the ETag is still the one that we were given for it.
 */
export function isSame(content: Content, remote: S3Object, recorded: Recorded): boolean {
  if (remote.etag === content.etag) return true;
  return recorded?.etag === remote.etag && recorded.sha256 === content.sha256;
}

/** Keys under our prefix that no file stands for. Markers of folders (`a/`, empty) are left alone. */
export function strayKeys(
  listing: readonly S3Object[],
  prefix: string,
  paths: ReadonlySet<string>,
): string[] {
  return listing
    .filter(({ key, size }) => !(key.endsWith("/") && size === 0))
    .map(({ key }) => key.slice(prefix.length))
    .filter((path) => !paths.has(path));
}

/**
 * In which order things are sent: what others refer to first, then the pages, so that whoever reads a new
 * page finds all that it names. Large files go first in their group, since they take longest.
 */
export function inOrder<T extends { file: LocalFile; headers: S3Headers }>(
  sends: readonly T[],
): { assets: T[]; pages: T[] } {
  const bySize = [...sends].sort((a, b) => b.file.size - a.file.size);
  const page = ({ file, headers }: T) => isPage(file.path, headers.contentType);
  return { assets: bySize.filter((each) => !page(each)), pages: bySize.filter(page) };
}
