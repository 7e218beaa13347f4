import { mkdir, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { prepare } from "../helpers/prepare.ts";
import { writeFiles } from "../helpers/repos.ts";
import { runScript } from "../helpers/run.ts";
import { current } from "../helpers/runtime.ts";
import { makeBucket, needsS3, s3, s3Env, startS3Proxy, type TestBucket } from "../helpers/s3.ts";
import { makeSite } from "../helpers/s3-site.ts";
import { testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";

const s3Test = testUnless(test, needsS3);
const home = tempDir();
let bucket: TestBucket;
prepare(test, async () => {
  if (!needsS3) bucket = await makeBucket();
});
test.after(async () => {
  if (!needsS3) await bucket.remove();
});

const page = "<!doctype html><p>";

s3Test("files of every name arrive byte for byte, with their content types", async () => {
  const files: Record<string, string> = {
    "index.html": page,
    "style.css": "p{}",
    empty: "",
    "a b/c+d%20e.txt": "1",
    'quote\'s "and".txt': "2",
    "line\nend.txt": "3",
    "⛵ sail/été.json": "{}",
    "x/y": "4",
    "x.y/z": "5",
    "dots..and~/.hidden": "6",
    "back\\slash&amp;<tag>": "7",
  };
  const site = await makeSite(bucket, files);
  await site.uploads([], { expect: 0 });
  assert.equal(await site.there(), files);
  const head = await bucket.head(`${site.prefix}/index.html`);
  assert.is(head.type, "text/html; charset=utf-8");
  assert.is(head.encoding, undefined);
  const again = await site.uploads(["--json"], { expect: 0 });
  assert.is(JSON.parse(again.stdout).unchanged, Object.keys(files).length);
});

s3Test("a rebuild that touches every file sends nothing, with or without the record", async () => {
  const proxy = await startS3Proxy();
  const files = Object.fromEntries(Array.from({ length: 30 }, (_, index) => [`f${index}.txt`, `${index}`]));
  const site = await makeSite(bucket, files, { endpoint: proxy.url });
  await site.uploads([], { expect: 0 });
  assert.is(proxy.writes().length, 30);
  for (const forget of [false, true]) {
    proxy.seen.length = 0;
    if (forget) await rm(join(site.dir, ".boatyard"), { recursive: true });
    await writeFiles(join(site.dir, "upload"), files);
    await site.uploads([], { expect: 0 });
    assert.equal(proxy.writes(), []);
    assert.is(proxy.seen.length, 1, "one listing is all that is asked");
  }
  await proxy.stop();
});

s3Test("a changed byte with the old size and the old time is sent", async () => {
  const site = await makeSite(bucket, { "a.txt": "old content", "b.txt": "stays" });
  const old = new Date("2020-01-01");
  await utimes(site.file("a.txt"), old, old);
  await site.uploads([], { expect: 0 });
  await site.uploads([], { expect: 0 });
  await writeFile(site.file("a.txt"), "new content");
  await utimes(site.file("a.txt"), old, old);
  const { stdout } = await site.uploads(["--json"], { expect: 0 });
  assert.equal(JSON.parse(stdout).counts, { new: 0, replace: 1, headers: 0, delete: 0 });
  assert.is((await site.there())["a.txt"], "new content");
});

s3Test("what another hand changed there is put right again", async () => {
  const site = await makeSite(bucket, { "a.txt": "ours!" });
  await site.uploads([], { expect: 0 });
  await bucket.put(`${site.prefix}/a.txt`, "their");
  await site.uploads([], { expect: 0 });
  assert.is((await site.there())["a.txt"], "ours!");
});

s3Test("Cache-Control follows the patterns, and a new rule is applied to what is there", async () => {
  const files = { "index.html": page, "assets/a.js": "1", "plain.txt": "2" };
  const site = await makeSite(bucket, files, {
    more: ', cache: { "*.html": 60, "assets/**": 31536000 }',
  });
  await site.uploads([], { expect: 0 });
  const cacheOf = async (path: string) => (await bucket.head(`${site.prefix}/${path}`)).cache;
  assert.is(await cacheOf("index.html"), "max-age=60");
  assert.is(await cacheOf("assets/a.js"), "max-age=31536000");
  assert.is(await cacheOf("plain.txt"), undefined);
  const config = join(site.dir, "uploads.yml");
  await writeFile(
    config,
    `to:\n  cdn: { s3: "s3://${bucket.name}/${site.prefix}", endpoint: "${s3.url}", cache: { "*.html": "no-cache", "assets/**": 31536000 } }\n`,
  );
  const { stdout } = await site.uploads(["--json"], { expect: 0 });
  assert.is(JSON.parse(stdout).counts.headers, 1);
  assert.is(await cacheOf("index.html"), "no-cache");
});

s3Test("assets come first, then pages, then deletions", async () => {
  const proxy = await startS3Proxy();
  const files: Record<string, string> = {};
  for (let index = 0; index < 20; index++) {
    files[`a${index}/page.html`] = `${page}${index}`;
    files[`zz/late${index}.css`] = `p{order:${index}}`;
    files[`img/i${index}.svg`] = `<svg id="${index}"/>`;
    files[`p${index}.html`] = `${page}p${index}`;
  }
  files["index.html"] = page;
  const site = await makeSite(bucket, files, { endpoint: proxy.url });
  await bucket.put(`${site.prefix}/gone.html`, "old");
  await bucket.put(`${site.prefix}/zz/gone.css`, "old");
  await site.uploads(["--delete"], { expect: 0 });
  const kinds = proxy.writes().map(({ method, key }) => {
    if (method === "DELETE") return "delete";
    return key.endsWith(".html") ? "page" : "asset";
  });
  const runs = kinds.filter((kind, index) => kind !== kinds[index - 1]);
  assert.equal(runs, ["asset", "page", "delete"]);
  assert.equal(await site.there(), files);
  await proxy.stop();
});

s3Test("with one asset failing for good, no page is touched and nothing is deleted", async () => {
  const proxy = await startS3Proxy();
  const site = await makeSite(bucket, { "index.html": page, "a.css": "1", "zz/b.css": "2" }, { endpoint: proxy.url });
  await bucket.put(`${site.prefix}/gone.html`, "old");
  proxy.meddle = ({ method, key }) =>
    method === "PUT" && key.endsWith("zz/b.css") ? { status: 400, code: "InvalidArgument" } : undefined;
  const { stderr, stdout } = await site.uploads(["--delete"], { expect: 1 });
  assert.match(stderr, /cdn: "zz\/b\.css": .* refused the request \(400 InvalidArgument\)/);
  assert.match(stderr, /1 pages were held back/);
  assert.match(stdout, /cdn +s3 +FAILED/);
  assert.equal(await site.there(), { "a.css": "1", "gone.html": "old" });
  assert.not(proxy.writes().some(({ method }) => method === "DELETE"));
  proxy.meddle = () => undefined;
  proxy.seen.length = 0;
  await site.uploads(["--delete"], { expect: 0 });
  assert.is(proxy.writes().length, 3, "only what was missing is sent, then one deletion");
  await proxy.stop();
});

s3Test("deletions wait for --delete, and spare what is beside our prefix", async () => {
  const site = await makeSite(bucket, { "a.txt": "1" });
  await bucket.put(`${site.prefix}/b.txt`, "2");
  await bucket.put(`${site.prefix}-other/c.txt`, "3");
  await site.uploads([], { expect: 0 });
  assert.equal(Object.keys(await site.there()), ["a.txt", "b.txt"]);
  const dry = await site.uploads(["--delete", "--dry-run"], { expect: 0 });
  assert.match(dry.stdout, /cdn: delete +b\.txt/);
  assert.equal(Object.keys(await site.there()), ["a.txt", "b.txt"]);
  await site.uploads(["--delete"], { expect: 0 });
  assert.equal(Object.keys(await site.there()), ["a.txt"]);
  assert.is((await bucket.list(`${site.prefix}-other/`)).size, 1);
});

s3Test("a name that is a folder there, and a folder that is a name there, both arrive", async () => {
  const site = await makeSite(bucket, { was: "a file", "turned/inner.txt": "in a folder" });
  await site.uploads([], { expect: 0 });
  for (const name of ["was", "turned"]) await rm(site.file(name), { recursive: true });
  await mkdir(site.file("was"));
  await writeFile(site.file("was/now.txt"), "in a folder");
  await writeFile(site.file("turned"), "a file");
  await site.uploads([], { expect: 0 });
  const now = { "was/now.txt": "in a folder", turned: "a file" };
  assert.equal(await site.there(), { was: "a file", "turned/inner.txt": "in a folder", ...now });
  await site.uploads(["--delete"], { expect: 0 });
  assert.equal(await site.there(), now);
});

s3Test("links are followed inside the folder, and refused when they lead out of it", async () => {
  const site = await makeSite(bucket, { "real/a.txt": "1" });
  await symlink("real", site.file("alias"));
  await symlink("real/a.txt", site.file("b.txt"));
  await site.uploads([], { expect: 0 });
  assert.equal(await site.there(), { "real/a.txt": "1", "alias/a.txt": "1", "b.txt": "1" });
  await symlink("/etc/passwd", site.file("out"));
  const { stderr } = await site.uploads([], { expect: 4 });
  assert.match(stderr, /cannot publish "out": the link leads out of the folder/);
});

s3Test("passing troubles are tried again: 503, throttling, a cut connection", async () => {
  const proxy = await startS3Proxy();
  const files = { "a.txt": "1", "b.txt": "2", "c.txt": "3", "index.html": page };
  const site = await makeSite(bucket, files, { endpoint: proxy.url });
  const troubles: Record<string, "cut" | { status: number; code?: string; body?: string }> = {
    "a.txt": { status: 503, body: "<html>busy</html>" },
    "b.txt": { status: 503, code: "SlowDown" },
    "c.txt": "cut",
    "index.html": { status: 500, code: "InternalError" },
  };
  const met = new Set<string>();
  proxy.meddle = ({ method, key }) => {
    const name = key.slice(site.prefix.length + 1);
    if (method !== "PUT" || met.has(name)) return undefined;
    met.add(name);
    return troubles[name];
  };
  await site.uploads([], { expect: 0 });
  assert.is(met.size, 4);
  assert.equal(await site.there(), files);
  await proxy.stop();
});

s3Test("each lasting trouble has its own sentence, and a wrong credential is tried once", async () => {
  const proxy = await startS3Proxy();
  const site = await makeSite(bucket, { "a.txt": "1" }, { endpoint: proxy.url });
  const wrongKey = await site.uploads([], { expect: 1, env: { AWS_ACCESS_KEY_ID: "nobody" } });
  assert.match(wrongKey.stderr, /does not know this access key/);
  assert.is(proxy.seen.length, 1);
  const secret = "not-the-secret-but-secret";
  const wrongSecret = await site.uploads([], {
    expect: 1,
    env: { AWS_SECRET_ACCESS_KEY: secret },
  });
  assert.match(wrongSecret.stderr, /the secret key is wrong/);
  assert.not.match(wrongSecret.stderr + wrongSecret.stdout, secret);
  const none = await site.uploads([], {
    expect: 1,
    env: { AWS_ACCESS_KEY_ID: undefined, AWS_SECRET_ACCESS_KEY: undefined },
  });
  assert.match(none.stderr, /no S3 credentials were found/);
  const cases: [number, string, RegExp][] = [
    [403, "AccessDenied", /denies access to bucket/],
    [403, "QuotaExceeded", /has no room left/],
    [507, "XMinioStorageFull", /has no room left/],
    [403, "RequestTimeTooSkewed", /set this machine's clock/],
    [301, "PermanentRedirect", /in another region/],
  ];
  for (const [status, code, sentence] of cases) {
    proxy.meddle = () => ({ status, code });
    const { stderr } = await site.uploads([], { expect: 1 });
    assert.match(stderr, sentence);
  }
  await proxy.stop();
  const gone = await site.uploads(["--retries", "1"], { expect: 1 });
  assert.match(gone.stderr, /refuses connections; is it running/);
});

testUnless(test, needsS3 ?? (current.kind === "deno" && "Deno has no NODE_OPTIONS to shift a clock by"))(
  "a clock that is an hour off is told of, and does not stop the work",
  async () => {
    const dir = tempDir();
    const late = join(dir, "late.mjs");
    await writeFile(
      late,
      "const { now } = Date; Date.now = () => now() - 3600_000;" +
        "globalThis.Date = new Proxy(Date, { construct: (D, a) => new D(...(a.length ? a : [D.now()])) });",
    );
    const site = await makeSite(bucket, { "a.txt": "1" });
    const env = { NODE_OPTIONS: `--import=${late}` };
    const { stderr } = await site.uploads([], { expect: 0, env });
    assert.match(stderr, /cdn: the clock here is (?:59|60|61) minutes off from the server's/);
    assert.equal(await site.there(), { "a.txt": "1" });
  },
);

s3Test("a missing bucket is named", async () => {
  const dir = tempDir();
  await writeFiles(dir, {
    "upload/a.txt": "1",
    "uploads.yml": `to: { cdn: { s3: "s3://no-such-bucket-here/x", endpoint: "${s3.url}" } }\n`,
  });
  const { stderr } = await runScript("uploads", [dir], { env: s3Env(home), expect: 1 });
  assert.match(stderr, /there is no bucket "no-such-bucket-here"/);
});

test.run();
