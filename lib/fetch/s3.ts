import process from "node:process";
import { FetchFailed } from "./retry.ts";
import type { Connections, SendRequest, SendResponse } from "./send.ts";
import { openS3, type S3Get, type S3Store } from "../s3/s3.ts";
import { explainS3, isTransient, retryAfterOf } from "../s3/errors.ts";

/**
 * `s3://bucket/key`, answered as a web server would. Credentials and region come from the AWS chain, the
 * address of a store that is not AWS from AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL.
 */
export function openBuckets(): Connections {
  const endpoint = process.env["AWS_ENDPOINT_URL_S3"] || process.env["AWS_ENDPOINT_URL"];
  const stores = new Map<string, Promise<S3Store>>();

  async function send({ url, headers, signal }: SendRequest): Promise<SendResponse> {
    const bucket = url.hostname;
    let store = stores.get(bucket);
    if (!store) stores.set(bucket, (store = openS3({ bucket, endpoint })));
    const key = keyOf(url);
    const from = Number(/^bytes=(\d+)-$/.exec(headers["range"] ?? "")?.[1] ?? 0);
    const ifMatch = headers["if-range"]?.replaceAll('"', "");
    try {
      const get = async (range: { from?: number; ifMatch?: string }) =>
        await (await store).get(key, { signal, ...range });
      const object =
        from > 0 && ifMatch !== undefined
          ? await get({ from, ifMatch }).catch((error: unknown) => {
              if (!hasChanged(error)) throw error;
              return get({});
            })
          : await get({});
      return answer(object, headers["if-none-match"]);
    } catch (error) {
      if (signal.aborted) throw signal.reason;
      const retryAfter = retryAfterOf(error);
      throw new FetchFailed(explainS3(error, { bucket, endpoint }).message, {
        again: isTransient(error),
        retryAfter,
      });
    }
  }

  return {
    send,
    close() {
      for (const store of stores.values())
        void store.then(
          (open) => open.close(),
          () => {},
        );
    },
  };
}

/** The object is another than the one whose rest was asked for: 412, or 416 when it has become shorter. */
function hasChanged(error: unknown): boolean {
  const status = (error as { $metadata?: { httpStatusCode?: number } }).$metadata?.httpStatusCode;
  return status === 412 || status === 416;
}

function answer({ body, size, etag, start }: S3Get, known: string | undefined): SendResponse {
  const headers = { etag: `"${etag}"`, "content-length": String(size - start) };
  const isKnown = known === headers.etag;
  // nothing of it is wanted after all
  if (isKnown) body.on("error", () => {}).destroy();
  const range = start > 0 ? { "content-range": `bytes ${start}-${size - 1}/${size}` } : {};
  const status = isKnown ? 304 : start > 0 ? 206 : 200;
  return { status, reason: "", headers: { ...headers, ...range }, body };
}

function keyOf(url: URL): string {
  try {
    return decodeURIComponent(url.pathname.slice(1));
  } catch {
    throw new FetchFailed("the key has a % that encodes nothing; write %25");
  }
}
