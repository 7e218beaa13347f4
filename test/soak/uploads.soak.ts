import { createHash, randomBytes } from "node:crypto";
import { mkdir, open, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { prepare } from "../helpers/prepare.ts";
import { runCommand, runScript, startScript } from "../helpers/run.ts";
import { makeBucket, needsS3, s3, s3Env, startS3Proxy, type TestBucket } from "../helpers/s3.ts";
import { needsRoot, testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";
import { waitFor } from "../helpers/wait.ts";

const scale = Number(process.env["SOAK_SCALE"] ?? 1);
const scaled = (full: number, least: number) => Math.max(least, Math.round(full * scale));
const s3Test = testUnless(test, needsS3);
const home = tempDir();
let bucket: TestBucket;
prepare(test, async () => {
  if (!needsS3) bucket = await makeBucket();
});
test.after(async () => {
  if (!needsS3) await bucket.remove();
});

async function makeSite(prefix: string, endpoint = s3.url): Promise<string> {
  const dir = tempDir();
  await mkdir(join(dir, "upload"));
  const target = `{ s3: "s3://${bucket.name}/${prefix}", endpoint: "${endpoint}" }`;
  await writeFile(join(dir, "uploads.yml"), `to: { cdn: ${target} }\n`);
  return dir;
}

const uploads = (dir: string, args: string[] = []) =>
  runScript("uploads", [dir, "--json", ...args], { env: s3Env(home), timeout: 300_000 });

s3Test("thousands of files with names of every kind arrive, and the next run sends none", async () => {
  const dir = await makeSite("many");
  const odd = [" ", "+", "%", "'", '"', "\n", "⛵", "é", "&", "<", "=", "#", "?", "\\", "~", "*"];
  const count = scaled(10_000, 500);
  const names = new Set<string>();
  for (let index = 0; index < count; index++) {
    const mark = odd[index % odd.length] ?? "";
    const name = `d${index % 97}${mark}/f${mark}${index}${mark}.txt`;
    names.add(name);
    await mkdir(join(dir, "upload", `d${index % 97}${mark}`), { recursive: true });
    await writeFile(join(dir, "upload", name), index % 50 === 0 ? "" : `${index}`);
  }
  const first = await uploads(dir);
  assert.is(first.code, 0, first.stderr);
  const there = await bucket.list("many/");
  assert.equal(new Set([...there.keys()].map((key) => key.slice(5))), names);
  for (const name of [...names].filter((_, index) => index % 101 === 0))
    assert.equal(await bucket.get(`many/${name}`), await readFile(join(dir, "upload", name)), JSON.stringify(name));
  const again = JSON.parse((await uploads(dir)).stdout);
  assert.equal([again.unchanged, again.bytes], [count, 0]);
  await rm(join(dir, ".boatyard"), { recursive: true });
  const anew = JSON.parse((await uploads(dir)).stdout);
  assert.equal([anew.unchanged, anew.bytes], [count, 0], "without the record too");
});

s3Test("killed at any instant, no new page ever lacks its asset, and the next run sends what is missing", async () => {
  const proxy = await startS3Proxy();
  const dir = await makeSite("killed", proxy.url);
  const folder = join(dir, "upload");
  const pages = scaled(250, 40);
  const large = randomBytes(scaled(200, 24) * 1024 * 1024);
  await writeFile(join(folder, "a-video.mp4"), large);
  const assetOf = (version: number, index: number) => `zz-${version}-${index}.css`;
  const build = async (version: number) => {
    for (let index = 0; index < pages; index++) {
      await writeFile(join(folder, assetOf(version, index)), `p{order:${version}${index}}`);
      await writeFile(join(folder, `p${index}.html`), `<link href="${assetOf(version, index)}">`);
    }
  };
  const check = async () => {
    const there = await bucket.list("killed/");
    for (const key of there.keys()) {
      if (!key.endsWith(".html")) continue;
      const asset = /href="(.*?)"/.exec((await bucket.get(key)).toString())?.[1];
      assert.ok(there.has(`killed/${asset}`), `${key} needs ${asset}`);
    }
  };
  const kills = scaled(30, 3);
  let version = 1;
  await build(version);
  let instants = 0;
  while (instants < kills) {
    // the instant is a number of requests, so that a quick machine is killed in time as well
    const last = proxy.seen.length + 1 + Math.floor(Math.random() * 2 * pages);
    const running = startScript("uploads", [dir, "--delete"], { env: s3Env(home) });
    let done = false;
    const ended = running.exited.then(() => {
      done = true;
    });
    await waitFor(() => done || proxy.seen.length >= last, { timeout: 60_000 });
    if (done) {
      // it was through: the next version gives it work again, the large file too
      await build(++version);
      large.writeUInt32LE(version, 0);
      await writeFile(join(folder, "a-video.mp4"), large);
      continue;
    }
    running.kill("SIGKILL");
    await ended;
    instants++;
    await check();
  }
  console.log(`killed ${instants} times in the midst of it, version ${version}`);
  const md5 = (content: Buffer) => createHash("md5").update(content).digest("hex");
  const whole = new Map<string, string>();
  for (const key of (await bucket.list("killed/")).keys())
    if (!key.endsWith(".mp4")) whole.set(key, md5(await bucket.get(key)));
  proxy.seen.length = 0;
  const last = await uploads(dir, ["--delete"]);
  assert.is(last.code, 0, last.stderr);
  for (const { method, key, body } of proxy.seen)
    if (method === "PUT" && whole.has(key)) assert.is.not(md5(body), whole.get(key), `${key} was there already`);
  await check();
  assert.ok((await bucket.get("killed/a-video.mp4")).equals(large));
  assert.equal(await bucket.openUploads(), []);
  await proxy.stop();
});

s3Test("a large file that is rewritten while it is sent is whole in the end, or reported", async () => {
  const dir = await makeSite("busy");
  const size = 24 * 1024 * 1024;
  const path = join(dir, "upload/busy.bin");
  const content = (byte: number) => Buffer.alloc(size, byte);
  await writeFile(path, content(1));
  let rewriting = true;
  let byte = 1;
  const writer = (async () => {
    while (rewriting) {
      byte = (byte % 250) + 1;
      const file = await open(path, "r+");
      await file.write(content(byte), 0, size, 0);
      await file.close();
      await sleep(Math.random() * 400);
    }
  })();
  for (let round = 0; round < scaled(10, 2); round++) {
    const { code, stdout } = await uploads(dir);
    if (code !== 0) {
      assert.match(JSON.parse(stdout).problems.join("\n"), /changes while it is read/);
      continue;
    }
    const there = await bucket.get("busy/busy.bin");
    assert.is(there.length, size);
    assert.ok(there.equals(content(there[0] ?? 0)), "old and new bytes are mixed");
  }
  rewriting = false;
  await writer;
  assert.is((await uploads(dir)).code, 0);
  assert.ok((await bucket.get("busy/busy.bin")).equals(content(byte)));
  assert.equal(await bucket.openUploads(), []);
});

testUnless(test, needsRoot)("a full disk at the other end of rsync is named as that", async () => {
  const dir = tempDir();
  const disk = join(dir, "disk");
  await mkdir(disk);
  await mkdir(join(dir, "upload"));
  await writeFile(join(dir, "upload/big.bin"), randomBytes(3_000_000));
  await writeFile(join(dir, "uploads.yml"), `to: { web: { rsync: ${disk} } }\n`);
  await runCommand(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], { expect: 0 });
  try {
    const { stderr } = await runScript("uploads", [dir], { expect: 1 });
    assert.match(stderr, /web: the disk of this machine is full/);
  } finally {
    await runCommand(["umount", disk], { expect: 0 });
  }
});

test.run();
