import { createHash } from "node:crypto";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { openS3, type S3Store } from "../../../lib/s3/s3.ts";
import { explainS3, isPassing } from "../../../lib/s3/errors.ts";
import { makeBucket, needsS3, s3, s3Env, type TestBucket } from "../../helpers/s3.ts";
import { testUnless } from "../../helpers/skip.ts";
import { tempDir } from "../../helpers/tmp.ts";

const s3Test = testUnless(test, needsS3);
let bucket: TestBucket;
let store: S3Store;
test.before(async () => {
  if (needsS3) return;
  Object.assign(process.env, s3Env(tempDir()));
  bucket = await makeBucket();
  store = await openS3({ bucket: bucket.name, endpoint: s3.url });
});
test.after(async () => {
  if (needsS3) return;
  store.close();
  await bucket.remove();
});

async function read(body: AsyncIterable<unknown>): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of body) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}

s3Test("an object is fetched whole, or from a byte on while its ETag is the same", async () => {
  await bucket.put("a b/c+d.txt", "0123456789");
  const whole = await store.get("a b/c+d.txt");
  assert.equal([whole.size, whole.start], [10, 0]);
  assert.is(await read(whole.body), "0123456789");
  const rest = await store.get("a b/c+d.txt", { from: 4, ifMatch: `"${whole.etag}"` });
  assert.equal([rest.size, rest.start], [10, 4]);
  assert.is(await read(rest.body), "456789");
  await bucket.put("a b/c+d.txt", "other");
  const error = await store.get("a b/c+d.txt", { from: 4, ifMatch: `"${whole.etag}"` }).then(
    () => assert.unreachable("the old ETag still matched"),
    (caught: unknown) => caught,
  );
  assert.not(isPassing(error));
});

s3Test("a missing object has a sentence of its own", async () => {
  const error = await store.get("nothing").catch((caught: unknown) => caught);
  const asked = { bucket: bucket.name, endpoint: s3.url };
  assert.match(explainS3(error, asked).message, /there is no such object in bucket/);
});

s3Test("the second put goes the short way and is stored like the first", async () => {
  for (const key of ["one", "two", "three (é+).txt"]) {
    const bytes = Buffer.from(`content of ${key}`);
    const md5 = createHash("md5").update(bytes).digest("hex");
    const sha256 = createHash("sha256").update(bytes).digest("hex");
    const headers = { contentType: "text/plain", cacheControl: "max-age=5" };
    assert.is(await store.put(key, { bytes, md5, sha256 }, headers), md5);
    assert.is((await bucket.get(key)).toString(), `content of ${key}`);
    const { type, cache, encoding } = await bucket.head(key);
    assert.equal([type, cache, encoding], ["text/plain", "max-age=5", undefined]);
    const wrong = {
      bytes,
      md5,
      sha256: sha256.replace(/^./, (digit) => (digit === "0" ? "1" : "0")),
    };
    const error = await store
      .put(`${key}-wrong`, wrong, headers)
      .catch((caught: unknown) => caught);
    assert.ok(
      isPassing(error),
      "a body that does not match its hash is refused, and worth a retry",
    );
  }
  assert.equal([...(await bucket.list("t")).keys()].sort(), ["three (é+).txt", "two"]);
});

test("which failures are worth another try", () => {
  const answer = (Code: string, httpStatusCode: number) => ({
    Code,
    $metadata: { httpStatusCode },
  });
  for (const passing of [
    ...[answer("SlowDown", 503), answer("InternalError", 500), answer("BadDigest", 400)],
    ...[{ code: "ECONNRESET" }, { name: "TimeoutError" }, answer("Unknown", 429)],
  ])
    assert.ok(isPassing(passing), JSON.stringify(passing));
  for (const lasting of [
    ...[
      answer("AccessDenied", 403),
      answer("InvalidAccessKeyId", 403),
      answer("NoSuchBucket", 404),
    ],
    ...[answer("QuotaExceeded", 403), answer("XMinioStorageFull", 507), { code: "ENOTFOUND" }],
  ])
    assert.not(isPassing(lasting), JSON.stringify(lasting));
});

test.run();
