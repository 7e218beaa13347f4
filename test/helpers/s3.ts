// The real S3 server that .ci/s3 starts, a bucket of our own on it, and a proxy that records and meddles.
import { randomBytes } from "node:crypto";
import { createServer, type IncomingMessage, request as httpRequest } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import process from "node:process";
import {
  CreateBucketCommand,
  DeleteBucketCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListMultipartUploadsCommand,
  ListObjectsV2Command,
  PutObjectCommand,
  S3Client,
} from "@aws-sdk/client-s3";

const url = process.env["BOATYARD_TEST_S3"];

/** Why there are no tests against S3 here; undefined when there are. */
export const needsS3 = url
  ? undefined
  : 'needs a real S3 server: eval "$(.ci/s3 start ROOTDIR PORT)" sets BOATYARD_TEST_S3';

/** Its address and credentials. */
export const s3 = {
  url: url ?? "",
  key: process.env["BOATYARD_TEST_S3_KEY"] ?? "boatyard-test",
  secret: process.env["BOATYARD_TEST_S3_SECRET"] ?? "boatyard-test-secret",
};

/** What a script gets to reach it, and nothing of whoever runs the tests. */
export function s3Env(home: string): Record<string, string> {
  return {
    HOME: home,
    AWS_ACCESS_KEY_ID: s3.key,
    AWS_SECRET_ACCESS_KEY: s3.secret,
    AWS_EC2_METADATA_DISABLED: "true",
  };
}

/** A bucket that only this test file uses. */
export type TestBucket = {
  name: string;
  client: S3Client;
  /** Key → size, all there is. */
  list: (prefix?: string) => Promise<Map<string, number>>;
  get: (key: string) => Promise<Buffer>;
  put: (key: string, body: string) => Promise<void>;
  head: (key: string) => Promise<{
    type: string | undefined;
    cache: string | undefined;
    encoding: string | undefined;
    etag: string | undefined;
  }>;
  /** Keys of multipart uploads that are neither ended nor given up. */
  openUploads: () => Promise<string[]>;
  /** Removes everything, then itself. */
  remove: () => Promise<void>;
};

/** Makes a bucket; call its `remove` at the end of the file. */
export async function makeBucket(): Promise<TestBucket> {
  process.env["AWS_SDK_JS_NODE_VERSION_SUPPORT_WARNING_DISABLED"] = "true";
  const name = `test-${randomBytes(6).toString("hex")}`;
  const client = new S3Client({
    region: "us-east-1",
    endpoint: s3.url,
    forcePathStyle: true,
    credentials: { accessKeyId: s3.key, secretAccessKey: s3.secret },
    requestChecksumCalculation: "WHEN_REQUIRED",
    responseChecksumValidation: "WHEN_REQUIRED",
  });
  await client.send(new CreateBucketCommand({ Bucket: name }));
  const bucket: TestBucket = {
    name,
    client,
    async list(Prefix = "") {
      const found = new Map<string, number>();
      let ContinuationToken: string | undefined;
      do {
        const page = await client.send(
          new ListObjectsV2Command({
            Bucket: name,
            Prefix,
            ContinuationToken,
            EncodingType: "url",
          }),
        );
        for (const { Key = "", Size = 0 } of page.Contents ?? [])
          found.set(decodeURIComponent(Key.replaceAll("+", " ")), Size);
        ContinuationToken = page.NextContinuationToken;
      } while (ContinuationToken !== undefined);
      return found;
    },
    async get(Key) {
      const { Body } = await client.send(new GetObjectCommand({ Bucket: name, Key }));
      return Buffer.from((await Body?.transformToByteArray()) ?? []);
    },
    async put(Key, Body) {
      await client.send(new PutObjectCommand({ Bucket: name, Key, Body }));
    },
    async head(Key) {
      const head = await client.send(new HeadObjectCommand({ Bucket: name, Key }));
      return {
        type: head.ContentType,
        cache: head.CacheControl,
        encoding: head.ContentEncoding,
        etag: head.ETag,
      };
    },
    async openUploads() {
      const page = await client.send(new ListMultipartUploadsCommand({ Bucket: name }));
      return (page.Uploads ?? []).map(({ Key = "" }) => Key);
    },
    async remove() {
      for (const Key of (await bucket.list()).keys()) await client.send(new DeleteObjectCommand({ Bucket: name, Key }));
      await client.send(new DeleteBucketCommand({ Bucket: name })).catch(() => {});
      client.destroy();
    },
  };
  return bucket;
}

/** One request as the proxy saw it. */
export type Seen = {
  method: string;
  /** Decoded, without the bucket. */
  key: string;
  query: URLSearchParams;
  body: Buffer;
  /** What the proxy answered. */
  status?: number;
};

/** `cut`: the connection breaks; `flip`: one bit of the body is changed; an answer: it is given instead. */
export type Meddling =
  | "cut"
  | "flip"
  | { status: number; code?: string; headers?: Record<string, string>; body?: string }
  | undefined;

export type S3Proxy = {
  url: string;
  /** All requests so far, in the order in which they came. */
  seen: Seen[];
  /** Puts of objects and parts, deletions and completions, by key. */
  writes: () => { method: string; key: string }[];
  /** What happens to a request; replaced at will. */
  meddle: (seen: Seen) => Meddling | Promise<Meddling>;
  stop: () => Promise<void>;
};

/** Starts a proxy in front of the S3 server. Signatures hold, since the Host header is passed on. */
export async function startS3Proxy(): Promise<S3Proxy> {
  const upstream = new URL(s3.url);
  const sockets = new Set<Socket>();
  const server = createServer((incoming, answer) => {
    void (async () => {
      const address = new URL(incoming.url ?? "/", "http://proxy");
      const [, , ...parts] = address.pathname.split("/");
      const seen: Seen = {
        method: incoming.method ?? "",
        key: decodeURIComponent(parts.join("/")),
        query: address.searchParams,
        body: await bodyOf(incoming),
      };
      proxy.seen.push(seen);
      const meddling = await proxy.meddle(seen);
      // whoever asked may have been killed meanwhile: an answer that nobody reads stays open for ever
      if (meddling === "cut" || incoming.socket.destroyed) {
        incoming.socket.destroy();
        return;
      }
      if (typeof meddling === "object") {
        const { status, code = "Meddled", headers = {}, body } = meddling;
        seen.status = status;
        answer.writeHead(status, { "content-type": "application/xml", ...headers });
        answer.end(body ?? `<?xml version="1.0"?><Error><Code>${code}</Code></Error>`);
        return;
      }
      let { body } = seen;
      if (meddling === "flip") {
        body = Buffer.from(body);
        const middle = body.length >> 1;
        body[middle] = (body[middle] ?? 0) ^ 1;
      }
      const { transfer: _, ...headers } = { ...incoming.headers, transfer: "" };
      const onward = httpRequest(
        {
          host: upstream.hostname,
          port: upstream.port,
          method: incoming.method,
          path: incoming.url,
          headers,
        },
        (reply) => {
          seen.status = reply.statusCode ?? 0;
          answer.writeHead(seen.status, reply.headers);
          reply.pipe(answer);
        },
      );
      onward.on("error", () => incoming.socket.destroy());
      onward.on("socket", (socket) => track(socket));
      answer.on("close", () => onward.destroy());
      onward.end(body);
    })().catch(() => incoming.socket.destroy());
  });
  const track = (socket: Socket) => {
    if (sockets.has(socket)) return;
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  };
  server.on("connection", track);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const proxy: S3Proxy = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen: [],
    writes: () =>
      proxy.seen
        .filter(({ method }) => method !== "GET" && method !== "HEAD")
        .map(({ method, key }) => ({ method, key })),
    meddle: () => undefined,
    async stop() {
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
  return proxy;
}

async function bodyOf(incoming: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of incoming) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}
