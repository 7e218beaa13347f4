import { createHash } from "node:crypto";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { openS3, type S3Store } from "../../../lib/s3/s3.ts";
import { explainS3, isTransient } from "../../../lib/s3/errors.ts";
import { prepare } from "../../helpers/prepare.ts";
import { makeBucket, needsS3, s3, s3Env, type TestBucket } from "../../helpers/s3.ts";
import { testUnless } from "../../helpers/skip.ts";
import { tempDir } from "../../helpers/tmp.ts";

const s3Test = testUnless(test, needsS3);
let bucket: TestBucket;
let store: S3Store;
prepare(test, async () => {
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
  assert.not(isTransient(error));
});

s3Test("a missing object has a sentence of its own", async () => {
  const error = await store.get("nothing").catch((caught: unknown) => caught);
  const asked = { bucket: bucket.name, endpoint: s3.url };
  assert.match(explainS3(error, asked).message, /there is no such object in bucket/);
});

s3Test("what is put is stored with its headers; a body that does not match its hash is refused", async () => {
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
    const error = await store.put(`${key}-wrong`, wrong, headers).catch((caught: unknown) => caught);
    assert.ok(isTransient(error), "a body that does not match its hash is refused, and worth a retry");
  }
  assert.equal([...(await bucket.list("t")).keys()].sort(), ["three (é+).txt", "two"]);
});

/** The listing of a bucket whose server gives these answers, one after the other. */
async function listFrom(...answers: string[]) {
  Object.assign(process.env, s3Env(tempDir()));
  const tokens: (string | null)[] = [];
  const server = createServer((request, response) => {
    tokens.push(new URL(request.url ?? "", "http://x").searchParams.get("continuation-token"));
    response.end(answers.shift());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const endpoint = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const store = await openS3({ bucket: "b", endpoint });
  try {
    return { objects: await store.list(""), tokens };
  } finally {
    store.close();
    await new Promise((resolve) => server.close(resolve));
  }
}
const page = (inner: string) =>
  `<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Prefix></Prefix>${inner}</ListBucketResult>\n`;
const entry = (key: string, etag = "&quot;e&quot;") =>
  `<Contents><Key>${key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>${etag}</ETag><Size>7</Size><Owner><ID>o</ID></Owner></Contents>`;

test("keys come back as they were stored, url-encoded or escaped", async () => {
  const url = page(`<EncodingType>url</EncodingType>${entry("a+b%2Bc%0A%E2%9B%B5/d%25")}`);
  assert.equal((await listFrom(url)).objects, [{ key: "a b+c\n⛵/d%", size: 7, etag: "e" }]);
  const plain = page(entry("a+b%2B&amp;&lt;&#10;&#x26F5;", '"md5-3"'));
  assert.equal((await listFrom(plain)).objects, [{ key: "a+b%2B&<\n⛵", size: 7, etag: "md5-3" }]);
  assert.equal((await listFrom(page(""))).objects, []);
});

test("a listing of several pages is read to its end", async () => {
  const more = "<IsTruncated>true</IsTruncated><NextContinuationToken>t&amp;1</NextContinuationToken>";
  const last = "<IsTruncated>false</IsTruncated>";
  const { objects, tokens } = await listFrom(page(more + entry("a")), page(entry("b") + last));
  assert.equal(
    objects.map(({ key }) => key),
    ["a", "b"],
  );
  assert.equal(tokens, [null, "t&1"]);
});

test("a listing that does not go on is no whole listing, and is not asked for without end", async () => {
  const more = "<IsTruncated>true</IsTruncated>";
  const token = "<NextContinuationToken>same</NextContinuationToken>";
  const same = Array.from({ length: 9 }, () => page(more + token + entry("a")));
  for (const answers of [[page(more + entry("a"))], [...same, page("")]])
    await listFrom(...answers).then(
      () => assert.unreachable("a part was taken as the whole"),
      (error: unknown) => assert.match(explainS3(error, { bucket: "b" }).message, /answer of AWS could not be read/),
    );
});

test("a cut or foreign answer is no empty listing, and worth another try", async () => {
  const whole = page(entry("a") + entry("b"));
  for (const answer of ["", "busy", "<html>busy</html>", whole.slice(0, -30), whole.slice(0, -180)])
    await listFrom(answer).then(
      () => assert.unreachable(`"${answer}" was taken as a listing`),
      (error: unknown) => {
        assert.ok(isTransient(error), String(error));
        assert.match(explainS3(error, { bucket: "b" }).message, /answer of AWS could not be read/);
      },
    );
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
    assert.ok(isTransient(passing), JSON.stringify(passing));
  for (const lasting of [
    ...[answer("AccessDenied", 403), answer("InvalidAccessKeyId", 403), answer("NoSuchBucket", 404)],
    ...[answer("QuotaExceeded", 403), answer("XMinioStorageFull", 507), { code: "ENOTFOUND" }],
  ])
    assert.not(isTransient(lasting), JSON.stringify(lasting));
});

test.run();
