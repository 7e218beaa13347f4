import { test } from "uvu";
import * as assert from "uvu/assert";
import { readListing } from "../../../lib/s3/listing.ts";

const page = (inner: string) =>
  `<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Prefix></Prefix>${inner}</ListBucketResult>\n`;
const entry = (key: string, etag = "&quot;e&quot;") =>
  `<Contents><Key>${key}</Key><LastModified>x</LastModified><ETag>${etag}</ETag><Size>7</Size><Owner><ID>o</ID></Owner></Contents>`;

test("keys come back as they were stored, url-encoded or escaped", () => {
  const url = page(`<EncodingType>url</EncodingType>${entry("a+b%2Bc%0A%E2%9B%B5/d%25")}`);
  assert.equal(readListing(url)?.objects, [{ key: "a b+c\n⛵/d%", size: 7, etag: "e" }]);
  const plain = page(entry("a+b%2B&amp;&lt;&#10;&#x26F5;", '"md5-3"'));
  assert.equal(readListing(plain)?.objects, [{ key: "a+b%2B&<\n⛵", size: 7, etag: "md5-3" }]);
});

test("the next page is named before or after the objects, and only while there is one", () => {
  const more =
    "<IsTruncated>true</IsTruncated><NextContinuationToken>t&amp;1</NextContinuationToken>";
  assert.is(readListing(page(more + entry("a")))?.next, "t&1");
  assert.is(readListing(page(entry("a") + more))?.next, "t&1");
  assert.is(readListing(page(`<IsTruncated>false</IsTruncated>${entry("a")}`))?.next, undefined);
  assert.equal(readListing(page("")), { objects: [], next: undefined });
});

test("a cut or foreign answer is no listing", () => {
  const whole = page(entry("a") + entry("b"));
  assert.is(readListing(whole.slice(0, -30)), undefined);
  assert.is(readListing("<html>busy</html>"), undefined);
  assert.is(readListing(page("<Contents><Key>a</Key></Contents>")), undefined);
});

test.run();
