// Large files, which go in parts: what is cut off, killed or damaged on its way.
import { rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { prepare } from "../helpers/prepare.ts";
import { startScript } from "../helpers/run.ts";
import { makeBucket, needsS3, s3Env, startS3Proxy, type TestBucket } from "../helpers/s3.ts";
import { makeSite } from "../helpers/s3-site.ts";
import { testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";
import { waitFor } from "../helpers/wait.ts";

const s3Test = testUnless(test, needsS3);
const home = tempDir();
let bucket: TestBucket;
prepare(test, async () => {
  if (!needsS3) bucket = await makeBucket();
});
test.after(async () => {
  if (!needsS3) await bucket.remove();
});

const large = Buffer.alloc(20 * 1024 * 1024, "0123456789abcdef!");

s3Test("a flipped bit on the way is never stored, in a small body or a part of a large one", async () => {
  const proxy = await startS3Proxy();
  const site = await makeSite(bucket, { "small.txt": "0".repeat(500), large }, { endpoint: proxy.url });
  const flipped = new Set<string>();
  proxy.meddle = ({ method, key, query }) => {
    const what = `${key} ${query.get("partNumber") ?? ""}`;
    if (method !== "PUT" || flipped.has(what)) return undefined;
    flipped.add(what);
    return "flip";
  };
  await site.uploads([], { expect: 0 });
  assert.is(flipped.size, 4, "one small body and three parts");
  assert.is((await bucket.get(`${site.prefix}/small.txt`)).toString(), "0".repeat(500));
  assert.ok((await bucket.get(`${site.prefix}/large`)).equals(large));
  proxy.meddle = ({ method }) => (method === "PUT" ? "flip" : undefined);
  await writeFile(site.file("small.txt"), "1".repeat(500));
  // tried once more, not six times: those wait about 10 s in all
  const { stderr } = await site.uploads(["--retries", "1"], { expect: 1 });
  assert.match(stderr, /damaged on its way/);
  assert.is((await bucket.get(`${site.prefix}/small.txt`)).toString(), "0".repeat(500));
  await proxy.stop();
});

s3Test("after SIGINT or a failure no multipart upload stays open", async () => {
  const proxy = await startS3Proxy();
  const site = await makeSite(bucket, { large }, { endpoint: proxy.url });
  let hold: (() => void) | undefined;
  const held = new Promise<undefined>((resolve) => {
    hold = () => resolve(undefined);
  });
  proxy.meddle = ({ query }) => (query.get("partNumber") === "2" ? held : undefined);
  const running = startScript("uploads", [site.dir], { env: s3Env(home) });
  await waitFor(() => proxy.seen.some(({ query }) => query.get("partNumber") === "2"));
  const { code, signal } = await running.stop("SIGINT");
  hold?.();
  assert.ok(code === 130 || signal === "SIGINT", `${code} ${signal}`);
  assert.equal(await bucket.openUploads(), []);
  proxy.meddle = ({ query }) => (query.get("partNumber") === "3" ? { status: 400, code: "InvalidPart" } : undefined);
  await site.uploads([], { expect: 1 });
  assert.equal(await bucket.openUploads(), []);
  await proxy.stop();
});

s3Test("a large upload that was killed goes on with the parts that are there", async () => {
  const proxy = await startS3Proxy();
  const site = await makeSite(bucket, { large }, { endpoint: proxy.url });
  const isLast = (query: URLSearchParams) => query.get("partNumber") === "3";
  let release: ((meddling: "cut") => void) | undefined;
  const held = new Promise<"cut">((resolve) => {
    release = resolve;
  });
  proxy.meddle = ({ query }) => (isLast(query) ? held : undefined);
  const running = startScript("uploads", [site.dir], { env: s3Env(home) });
  await waitFor(() => proxy.seen.filter(({ query, status }) => query.has("partNumber") && status === 200).length === 2);
  running.kill("SIGKILL");
  await running.exited;
  release?.("cut");
  assert.is((await bucket.openUploads()).length, 1);
  proxy.meddle = () => undefined;
  proxy.seen.length = 0;
  const { stderr } = await site.uploads([], { expect: 0 });
  assert.match(stderr, /going on with the 2 parts/);
  const parts = proxy.seen.filter(({ method, query }) => method === "PUT" && query.has("partNumber"));
  assert.equal(
    parts.map(({ query }) => query.get("partNumber")),
    ["3"],
  );
  assert.ok((await bucket.get(`${site.prefix}/large`)).equals(large));
  assert.equal(await bucket.openUploads(), []);
  await proxy.stop();
});

s3Test("an upload that was killed and is no longer wanted is ended by the next run", async () => {
  const proxy = await startS3Proxy();
  const site = await makeSite(bucket, { large, "a.txt": "1" }, { endpoint: proxy.url });
  for (const what of ["part", "begin"]) {
    // a kill in the middle of a part, and one before the upload's id can reach our disk
    let release: ((meddling: undefined) => void) | undefined;
    const held = new Promise<undefined>((resolve) => {
      release = resolve;
    });
    let isBegun = false;
    proxy.meddle = ({ query }) => {
      if (what === "part" && query.get("partNumber") === "1") {
        isBegun = true;
        return held;
      }
      return undefined;
    };
    if (what === "begin") await rm(join(site.dir, ".boatyard"), { recursive: true });
    await writeFile(site.file("large"), large);
    const running = startScript("uploads", [site.dir], { env: s3Env(home) });
    if (what === "part") await waitFor(() => isBegun);
    else await waitFor(() => proxy.seen.some(({ query, status }) => query.has("uploads") && status === 200));
    running.kill("SIGKILL");
    await running.exited;
    release?.(undefined);
    await rm(site.file("large"));
    proxy.meddle = () => undefined;
    await site.uploads([], { expect: 0 });
    assert.equal(await bucket.openUploads(), [], what);
    proxy.seen.length = 0;
  }
  await proxy.stop();
});

test.run();
