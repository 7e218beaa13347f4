import process from "node:process";
import type { Readable } from "node:stream";
import type { S3Client, S3ClientConfig } from "@aws-sdk/client-s3";
import { tunnellingAgent } from "../http/tunnel.ts";
import { createDirectPut } from "./direct.ts";
import { listingReader, urlDecoded } from "./listing.ts";

/**
 * The one door to S3 and to what speaks its language. The SDK is loaded when a store is opened, never before.
 * Each call is one request: retries belong to the caller, who knows what is worth one (lib/s3/errors.ts).
 * Bodies are whole buffers with their hashes, never streams: with streams the SDK frames the body in chunks,
 * which some servers store as content and which leaves a flipped bit unnoticed.
 * Source: https://docs.aws.amazon.com/AmazonS3/latest/API/
 */
export interface S3Where {
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
  size: number;
}

export interface S3Upload {
  key: string;
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

/** A bucket that is open. Every method throws the SDK's own errors. */
export interface S3Store {
  /** Everything under a prefix, in as few requests as the server allows. */
  list(prefix: string, options?: Signal): Promise<S3Object[]>;
  /** Store an object; gives its ETag. */
  put(key: string, body: S3Body, headers: S3Headers, options?: Signal): Promise<string>;
  /** Fetch an object, from byte `from` on if it still has the ETag `ifMatch`. */
  get(key: string, options?: Signal & { from?: number; ifMatch?: string }): Promise<S3Get>;
  remove(key: string, options?: Signal): Promise<void>;
  /** Begin a multipart upload; gives its id. */
  beginUpload(key: string, headers: S3Headers, options?: Signal): Promise<string>;
  putPart(key: string, id: string, number: number, body: S3Body, options?: Signal): Promise<string>;
  /** Make the object of its parts; gives its ETag. */
  endUpload(key: string, id: string, parts: S3Part[], options?: Signal): Promise<string>;
  abortUpload(key: string, id: string, options?: Signal): Promise<void>;
  parts(key: string, id: string, options?: Signal): Promise<S3Part[]>;
  /** The unfinished multipart uploads of one key. */
  uploadsOf(key: string, options?: Signal): Promise<S3Upload[]>;
  /** By how many milliseconds the server's clock is ahead of ours, once it has told. */
  clockOffset(): number;
  close(): void;
}

/** Load the SDK ahead of its use: it takes a tenth of a second. */
export async function loadSdk() {
  // the SDK tells of its end of support for Node 20 as it starts: nothing that a user of ours could act on
  process.env["AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED"] ??= "true";
  return await import("@aws-sdk/client-s3");
}

/** Load the SDK and open a bucket. Nothing is sent yet. */
export async function openS3(where: S3Where): Promise<S3Store> {
  const sdk = await loadSdk();
  const Bucket = where.bucket;
  const client = await configured(where, (config) => new sdk.S3Client(config));
  const direct = createDirectPut(client, Bucket);
  const with_ = ({ signal }: Signal) => (signal ? { abortSignal: signal } : {});

  return {
    async list(Prefix, options = {}) {
      const found: S3Object[] = [];
      let ContinuationToken: string | undefined;
      do {
        const command = new sdk.ListObjectsV2Command({
          ...{ Bucket, Prefix, ContinuationToken, EncodingType: "url" },
        });
        const reader = listingReader();
        command.middlewareStack.add(reader.middleware, { step: "deserialize", priority: "low" });
        await client.send(command, with_(options));
        found.push(...reader.page().objects);
        ContinuationToken = reader.page().next;
      } while (ContinuationToken !== undefined);
      return found;
    },
    async put(Key, body, headers, options = {}) {
      const ContentMD5 = base64(body.md5);
      const plain = plainHeaders(headers, body, ContentMD5);
      const etag = await direct.put(Key, body.bytes, plain, options.signal);
      if (etag !== undefined) return bare(etag);
      const command = new sdk.PutObjectCommand({
        ...{ Bucket, Key, Body: body.bytes, ContentMD5 },
        ...given(headers),
      });
      command.middlewareStack.add(hashed(body.sha256), { step: "build" });
      command.middlewareStack.add(direct.learn(Key) as never, { step: "finalizeRequest" });
      return bare((await client.send(command, with_(options))).ETag);
    },
    async get(Key, { from = 0, ifMatch, ...options } = {}) {
      const answer = await client.send(
        new sdk.GetObjectCommand({
          ...{ Bucket, Key, IfMatch: ifMatch },
          ...(from > 0 ? { Range: `bytes=${from}-` } : {}),
        }),
        with_(options),
      );
      const range = /^bytes (\d+)-\d+\/(\d+)$/.exec(answer.ContentRange ?? "");
      return {
        body: answer.Body as Readable,
        size: Number(range?.[2] ?? answer.ContentLength ?? 0),
        etag: bare(answer.ETag),
        start: Number(range?.[1] ?? 0),
      };
    },
    async remove(Key, options = {}) {
      await client.send(new sdk.DeleteObjectCommand({ Bucket, Key }), with_(options));
    },
    async beginUpload(Key, headers, options = {}) {
      const command = new sdk.CreateMultipartUploadCommand({ Bucket, Key, ...given(headers) });
      return (await client.send(command, with_(options))).UploadId ?? "";
    },
    async putPart(Key, UploadId, PartNumber, body, options = {}) {
      const command = new sdk.UploadPartCommand({
        ...{ Bucket, Key, UploadId, PartNumber, Body: body.bytes, ContentMD5: base64(body.md5) },
      });
      command.middlewareStack.add(hashed(body.sha256), { step: "build" });
      return bare((await client.send(command, with_(options))).ETag);
    },
    async endUpload(Key, UploadId, parts, options = {}) {
      const Parts = parts.map(({ number, etag }) => ({ PartNumber: number, ETag: `"${etag}"` }));
      const command = new sdk.CompleteMultipartUploadCommand({
        ...{ Bucket, Key, UploadId, MultipartUpload: { Parts } },
      });
      return bare((await client.send(command, with_(options))).ETag);
    },
    async abortUpload(Key, UploadId, options = {}) {
      const command = new sdk.AbortMultipartUploadCommand({ Bucket, Key, UploadId });
      await client.send(command, with_(options));
    },
    async parts(Key, UploadId, options = {}) {
      const found: S3Part[] = [];
      let PartNumberMarker: string | undefined;
      do {
        const page = await client.send(
          new sdk.ListPartsCommand({ Bucket, Key, UploadId, PartNumberMarker }),
          with_(options),
        );
        for (const { PartNumber, ETag, Size } of page.Parts ?? [])
          found.push({ number: PartNumber ?? 0, etag: bare(ETag), size: Size ?? 0 });
        PartNumberMarker = page.IsTruncated ? page.NextPartNumberMarker : undefined;
      } while (PartNumberMarker !== undefined);
      return found;
    },
    async uploadsOf(key, options = {}) {
      const page = await client.send(
        new sdk.ListMultipartUploadsCommand({ Bucket, Prefix: key, EncodingType: "url" }),
        with_(options),
      );
      return (page.Uploads ?? [])
        .map(({ Key, UploadId, Initiated }) => ({
          key: page.EncodingType === "url" ? urlDecoded(Key ?? "") : (Key ?? ""),
          id: UploadId ?? "",
          started: Initiated?.getTime() ?? 0,
        }))
        .filter((upload) => upload.key === key);
    },
    clockOffset: () => client.config.systemClockOffset,
    close: () => client.destroy(),
  };
}

async function configured(
  where: S3Where,
  make: (config: S3ClientConfig) => S3Client,
): Promise<S3Client> {
  const { region, endpoint, pathStyle, profile, connections = 32 } = where;
  const agent = { keepAlive: true, maxSockets: connections };
  const httpsAgent = await tunnellingAgent(agent);
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
      httpsAgent,
    },
  };
  const client = make(config);
  const found = await client.config.region().catch(() => "");
  return found === "" ? make({ ...config, region: "us-east-1" }) : client;
}

/** Puts the hash of the body, known already, where the signer looks for it. */
function hashed(sha256: string) {
  // biome-ignore lint/suspicious/noExplicitAny: the SDK's middleware is generic over every command
  return (next: any) => (args: any) => {
    args.request.headers["x-amz-content-sha256"] = sha256;
    return next(args);
  };
}

function given({ contentType, cacheControl, acl }: S3Headers) {
  return {
    ContentType: contentType,
    ...(cacheControl === undefined ? {} : { CacheControl: cacheControl }),
    ...(acl === undefined ? {} : { ACL: acl as "public-read" }),
  };
}

/** The same as a request has them. */
function plainHeaders({ contentType, cacheControl, acl }: S3Headers, body: S3Body, md5: string) {
  return {
    "content-type": contentType,
    "content-length": String(body.bytes.length),
    "content-md5": md5,
    "x-amz-content-sha256": body.sha256,
    ...(cacheControl === undefined ? {} : { "cache-control": cacheControl }),
    ...(acl === undefined ? {} : { "x-amz-acl": acl }),
  };
}

function bare(etag: string | undefined): string {
  return (etag ?? "").replace(/^"|"$/g, "");
}

function base64(hex: string): string {
  return Buffer.from(hex, "hex").toString("base64");
}
