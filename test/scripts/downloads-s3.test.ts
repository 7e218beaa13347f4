import { suite } from "uvu";
import * as assert from "uvu/assert";
import { makeSite } from "../helpers/downloads.ts";
import { prepare } from "../helpers/prepare.ts";
import { makeBucket, needsS3, s3, s3Env, type TestBucket } from "../helpers/s3.ts";
import { testUnless } from "../helpers/skip.ts";

const test = suite();
const withS3 = testUnless(test as never, needsS3);
let bucket: TestBucket;
prepare(test, async () => {
  if (!needsS3) bucket = await makeBucket();
});
test.after(async () => {
  if (!needsS3) await bucket.remove();
});

withS3("an object is fetched with the credentials of the environment, and asked for only at --check", async () => {
  const site = makeSite();
  const env = { ...s3Env(site.dir), AWS_ENDPOINT_URL_S3: s3.url };
  const large = "0123456789abcdef".repeat(200_000);
  await bucket.put("dir/a b.txt", "first");
  await bucket.put("large.txt", large);
  site.manifest(`s3://${bucket.name}/dir/a%20b.txt a.txt`, `s3://${bucket.name}/large.txt#1 large.txt`);
  await site.run([], { expect: 0, env });
  assert.is(site.read("a.txt"), "first");
  assert.is(site.read("large.txt"), large);
  assert.match((await site.run(["--check"], { expect: 0, env })).stdout, /fetched 0, kept 2/);
  await bucket.put("dir/a b.txt", "second");
  assert.match((await site.run([], { expect: 0, env: {} })).stdout, /fetched 0, kept 2/);
  assert.match((await site.run(["--check"], { expect: 0, env })).stdout, /fetched 1 .*kept 1, moved to old 1/);
  assert.is(site.read("a.txt"), "second");
});

withS3("a missing object, a missing bucket and missing credentials are named", async () => {
  const site = makeSite();
  const env = { ...s3Env(site.dir), AWS_ENDPOINT_URL_S3: s3.url };
  site.manifest(`s3://${bucket.name}/none none`, `s3://no-such-bucket-here/x x`);
  const { stderr } = await site.run(["--retries", "0"], { expect: 1, env });
  assert.match(stderr, /manifest\.txt:1: none: /);
  assert.match(stderr, /manifest\.txt:2: x: .*no-such-bucket-here/);
  assert.not.match(stderr, new RegExp(s3.secret));
  assert.equal(site.files(), []);
});

test.run();
