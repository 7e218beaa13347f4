import type { Agent } from "node:https";
import process from "node:process";
import type { Readable } from "node:stream";
import type { S3Client, S3ClientConfig } from "@aws-sdk/client-s3";
import { openAgents } from "../http/proxy.ts";

/**
 * Buckets of S3 and of what speaks its language, by the AWS SDK, which is loaded when a bucket is opened.
 * Each call is one request, a listing one a page: retries belong to the caller, who knows what is worth one
 * (errors.ts). Bodies are whole buffers with their hashes, never streams: with streams the SDK frames the body
 * in chunks, which some servers store as content and which leaves a flipped bit unnoticed.
 * Source: https://docs.aws.amazon.com/AmazonS3/latest/API/
 */
export interface S3Location {
  bucket: string;
  /** Default: the AWS chain's (AWS_REGION, the profile), else us-east-1. */
  region?: string | undefined;
  /** The address of a store that is not AWS. */
  endpoint?: string | undefined;
  /** Bucket in the path instead of the host name; default: with an endpoint of one's own. */
  pathStyle?: boolean | undefined;
  /** A profile of ~/.aws; default: the AWS chain's. */
  profile?: string | undefined;
  /** How many connections at once; default 32. */
  connections?: number | undefined;
}

/** One object of a listing. */
export interface S3Object {
  key: string;
  /** Bytes. */
  size: number;
  /** Without quotes: the MD5 of the content in hex, `MD5-N` after a multipart upload, or something opaque. */
  etag: string;
}

/** Bytes with the hashes by which the other side checks them. */
export interface S3Body {
  bytes: Uint8Array;
  /** Hex. */
  md5: string;
  /** Hex. */
  sha256: string;
}

export interface S3Headers {
  contentType: string;
  cacheControl?: string | undefined;
  /** A canned ACL: `public-read`. */
  acl?: string | undefined;
}

/** A part that arrived. */
export interface S3Part {
  number: number;
  etag: string;
  /** Bytes. */
  size: number;
}

/** A multipart upload that is neither completed nor aborted. */
export interface S3Upload {
  id: string;
  /** Milliseconds since 1970, by the server's clock. */
  started: number;
}

export interface S3Get {
  body: Readable;
  /** The whole object's size in bytes, also when only a range of it comes. */
  size: number;
  etag: string;
  /** The first byte that comes; 0 unless a range was asked for and given. */
  start: number;
}

type Signal = { signal?: AbortSignal | undefined };

/** An open bucket. Every method throws the SDK's own errors; errors.ts explains them. */
export interface S3Store {
  /** Everything under a prefix, in as few requests as the server allows. */
  list(prefix: string, options?: Signal): Promise<S3Object[]>;
  /** Store an object; gives its ETag. */
  put(key: string, body: S3Body, headers: S3Headers, options?: Signal): Promise<string>;
  /** Fetch an object, from byte `from` on if it still has the ETag `ifMatch`. */
  get(key: string, options?: Signal & { from?: number; ifMatch?: string }): Promise<S3Get>;
  remove(key: string, options?: Signal): Promise<void>;
  /** Start a multipart upload; gives its id. */
  createUpload(key: string, headers: S3Headers, options?: Signal): Promise<string>;
  putPart(key: string, id: string, number: number, body: S3Body, options?: Signal): Promise<string>;
  /** Make the object of its parts; gives its ETag. */
  completeUpload(key: string, id: string, parts: S3Part[], options?: Signal): Promise<string>;
  abortUpload(key: string, id: string, options?: Signal): Promise<void>;
  /** The parts of an upload that arrived. */
  parts(key: string, id: string, options?: Signal): Promise<S3Part[]>;
  /** The unfinished multipart uploads of one key. */
  uploadsOf(key: string, options?: Signal): Promise<S3Upload[]>;
  /** By how many milliseconds the server's clock is ahead of ours, once it has told. */
  clockOffset(): number;
  close(): void;
}

/** Load the SDK and open a bucket. Nothing is sent yet. */
export async function openS3(location: S3Location): Promise<S3Store> {
  // the SDK warns of the end of its support for Node 20 at its start: nothing that a user of ours could act on
  process.env["AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED"] ??= "true";
  const sdk = await import("@aws-sdk/client-s3");
  const client = await createClient(location, (config) => new sdk.S3Client(config));
  const Bucket = location.bucket;
  const aborting = ({ signal }: Signal) => (signal ? { abortSignal: signal } : {});

  return {
    async list(Prefix, options = {}) {
      const found: S3Object[] = [];
      // keys may hold characters that XML cannot
      const input = { Bucket, Prefix, EncodingType: "url" as const };
      let last: string | undefined;
      for await (const page of sdk.paginateListObjectsV2({ client }, input, aborting(options))) {
        // an empty answer is read as an empty listing by the SDK; a real one always names its bucket
        const isListing = page.Name !== undefined || page.IsTruncated !== undefined;
        // neither a part for the whole, nor the same page for ever
        const { IsTruncated, NextContinuationToken: next } = page;
        if (!isListing || (IsTruncated && (next === undefined || next === last)))
          throw Object.assign(new Error("the answer is not a listing"), page);
        last = next;
        for (const { Key, Size = 0, ETag } of page.Contents ?? [])
          found.push({ key: keyOf(Key, page), size: Size, etag: unquoted(ETag) });
      }
      return found;
    },
    async put(Key, body, headers, options = {}) {
      const command = new sdk.PutObjectCommand({ Bucket, Key, ...bodyInput(body), ...headersInput(headers) });
      command.middlewareStack.add(signedHash(body.sha256), { step: "build" });
      return unquoted((await client.send(command, aborting(options))).ETag);
    },
    async get(Key, { from = 0, ifMatch, ...options } = {}) {
      const Range = from > 0 ? `bytes=${from}-` : undefined;
      const command = new sdk.GetObjectCommand({ Bucket, Key, IfMatch: ifMatch, Range });
      const answer = await client.send(command, aborting(options));
      const range = /^bytes (\d+)-\d+\/(\d+)$/.exec(answer.ContentRange ?? "");
      return {
        body: answer.Body as Readable,
        size: Number(range?.[2] ?? answer.ContentLength ?? 0),
        etag: unquoted(answer.ETag),
        start: Number(range?.[1] ?? 0),
      };
    },
    async remove(Key, options = {}) {
      await client.send(new sdk.DeleteObjectCommand({ Bucket, Key }), aborting(options));
    },
    async createUpload(Key, headers, options = {}) {
      const command = new sdk.CreateMultipartUploadCommand({ Bucket, Key, ...headersInput(headers) });
      return (await client.send(command, aborting(options))).UploadId ?? "";
    },
    async putPart(Key, UploadId, PartNumber, body, options = {}) {
      const command = new sdk.UploadPartCommand({ Bucket, Key, UploadId, PartNumber, ...bodyInput(body) });
      command.middlewareStack.add(signedHash(body.sha256), { step: "build" });
      return unquoted((await client.send(command, aborting(options))).ETag);
    },
    async completeUpload(Key, UploadId, parts, options = {}) {
      const Parts = parts.map(({ number, etag }) => ({ PartNumber: number, ETag: `"${etag}"` }));
      const command = new sdk.CompleteMultipartUploadCommand({ Bucket, Key, UploadId, MultipartUpload: { Parts } });
      return unquoted((await client.send(command, aborting(options))).ETag);
    },
    async abortUpload(Key, UploadId, options = {}) {
      const command = new sdk.AbortMultipartUploadCommand({ Bucket, Key, UploadId });
      await client.send(command, aborting(options));
    },
    async parts(Key, UploadId, options = {}) {
      const found: S3Part[] = [];
      let PartNumberMarker: string | undefined;
      // not the SDK's pages: they go by the marker, which stores give on the last page too
      do {
        const command = new sdk.ListPartsCommand({ Bucket, Key, UploadId, PartNumberMarker });
        const page = await client.send(command, aborting(options));
        for (const { PartNumber = 0, ETag, Size = 0 } of page.Parts ?? [])
          found.push({ number: PartNumber, etag: unquoted(ETag), size: Size });
        PartNumberMarker = page.IsTruncated ? page.NextPartNumberMarker : undefined;
      } while (PartNumberMarker !== undefined);
      return found;
    },
    async uploadsOf(key, options = {}) {
      const command = new sdk.ListMultipartUploadsCommand({ Bucket, Prefix: key, EncodingType: "url" });
      const page = await client.send(command, aborting(options));
      return (page.Uploads ?? [])
        .filter(({ Key }) => keyOf(Key, page) === key)
        .map((upload) => ({ id: upload.UploadId ?? "", started: Number(upload.Initiated ?? 0) }));
    },
    clockOffset: () => client.config.systemClockOffset,
    close: () => client.destroy(),
  };
}

async function createClient(
  { region, endpoint, pathStyle, profile, connections = 32 }: S3Location,
  create: (config: S3ClientConfig) => S3Client,
): Promise<S3Client> {
  const agent = { keepAlive: true, maxSockets: connections };
  const config: S3ClientConfig = {
    ...(region === undefined ? {} : { region }),
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(profile === undefined ? {} : { profile }),
    forcePathStyle: pathStyle ?? endpoint !== undefined,
    maxAttempts: 1,
    // Content-MD5 and the signed SHA-256 are ours; checksums of the SDK's own break other stores
    requestChecksumCalculation: "WHEN_REQUIRED",
    responseChecksumValidation: "WHEN_REQUIRED",
    requestHandler: {
      connectionTimeout: 10_000,
      // a line that is dead, and one that is merely slow
      socketTimeout: 60_000,
      requestTimeout: 600_000,
      throwOnRequestTimeout: true,
      socketAcquisitionWarningTimeout: 3_600_000,
      httpAgent: agent,
      httpsAgent: (await openAgents(agent))["https:"] as Agent,
    },
  };
  const client = create(config);
  const known = await client.config.region().catch(() => "");
  return known === "" ? create({ ...config, region: "us-east-1" }) : client;
}

/** Gives the signer the hash of the body, which is known already. */
function signedHash(sha256: string) {
  return <Args, Output>(next: (args: Args) => Promise<Output>) =>
    (args: Args & { request?: unknown }) => {
      const { headers } = args.request as { headers: Record<string, string> };
      headers["x-amz-content-sha256"] = sha256;
      return next(args);
    };
}

function headersInput({ contentType, cacheControl, acl }: S3Headers) {
  return { ContentType: contentType, CacheControl: cacheControl, ACL: acl as "public-read" };
}

function bodyInput({ bytes, md5 }: S3Body) {
  return { Body: bytes, ContentMD5: Buffer.from(md5, "hex").toString("base64") };
}

/** A key of a listing, which stores encode as asked: a blank is `+` or `%20`. */
function keyOf(key = "", { EncodingType }: { EncodingType?: string | undefined }): string {
  return EncodingType === "url" ? decodeURIComponent(key.replaceAll("+", " ")) : key;
}

function unquoted(etag = ""): string {
  return etag.replace(/^"|"$/g, "");
}
