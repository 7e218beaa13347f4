// An update downloads what changed: members of the archive by Range, from servers good and bad.
import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { releaseYard } from "../helpers/publisher.ts";
import { runScript } from "../helpers/run.ts";
import { tempDir } from "../helpers/tmp.ts";

/** Text that no compressor makes small, the same each time. */
const text = (bytes: number, seed: string) =>
  Array.from({ length: bytes / 64 }, (_, at) => createHash("sha256").update(`${seed}${at}`).digest("hex")).join("");

const yard = releaseYard();
const fingerprint = await yard.makeKey("signing");
const files = { "dist/bundle.js": text(2_000_000, "a"), "lib/other.js": text(1_000_000, "b"), "small.js": "one\n" };
const versions: Record<string, Record<string, string>> = {
  "1": files,
  "2": { ...files, "small.js": "zero\none\n" },
  "3": {
    ...files,
    "dist/bundle.js": `${files["dist/bundle.js"].slice(0, 5000)}in\n${files["dist/bundle.js"].slice(5000)}`,
  },
  "4": { "dist/bundle.js": text(2_900_000, "c"), "small.js": "one\n" },
};

type Bad = (response: ServerResponse, content: Buffer, range: [number, number] | undefined) => boolean;
let bad: Bad | undefined;
let sent: { name: string; bytes: number }[] = [];

const server = createServer((request, response) => {
  const name = decodeURIComponent(new URL(request.url ?? "/", "http://x").pathname).slice(1);
  const path = join(yard.web, name);
  if (!existsSync(path)) return void response.writeHead(404).end();
  const content = readFileSync(path);
  const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") ?? [];
  const range: [number, number] | undefined = first === undefined ? undefined : [Number(first), Number(last)];
  if (name.endsWith(".tar.gz") && bad?.(response, content, range)) return;
  const body = range ? content.subarray(range[0], range[1] + 1) : content;
  sent.push({ name, bytes: body.length });
  const about = range ? { "content-range": `bytes ${range[0]}-${range[1]}/${content.length}` } : {};
  response.writeHead(range ? 206 : 200, { ...about, "content-length": body.length }).end(body);
});
await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
server.unref();
const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
test.after(() => server.closeAllConnections());

const publish = (version: string) => yard.publish(version, versions[version] ?? {}, ["signing"]);
const install = (dir: string) => {
  sent = [];
  return runScript("launchfit", [url, "--key", fingerprint, "--dir", dir], { expect: 0 });
};
const bytesSent = () => sent.reduce((sum, { bytes }) => sum + bytes, 0);
const archiveSize = (version: string) => readFileSync(join(yard.web, `my-app-${version}.tar.gz`)).length;

/** A deploy directory with version 1, and then 2 on the server. */
async function withOne(): Promise<string> {
  bad = undefined;
  const dir = tempDir("deploy-");
  await publish("1");
  await install(dir);
  await publish("2");
  return dir;
}

function assertInstalled(dir: string, version: string): void {
  for (const [name, content] of Object.entries(versions[version] ?? {}))
    assert.is(readFileSync(join(dir, "current", name), "utf8"), content);
}

test("of a changed line a small part of the archive is fetched, near the top of a large file too", async () => {
  const dir = await withOne();
  await install(dir);
  assertInstalled(dir, "2");
  assert.ok(bytesSent() < archiveSize("2") / 4, `${bytesSent()} bytes were sent`);
  await publish("3");
  await install(dir);
  assertInstalled(dir, "3");
  assert.ok(bytesSent() < archiveSize("3") / 4, `${bytesSent()} bytes were sent`);
});

test("an archive with hardly anything of the one before comes as a whole, without a word", async () => {
  const dir = await withOne();
  await publish("4");
  const { stderr } = await install(dir);
  assertInstalled(dir, "4");
  assert.not.match(stderr, "all of it is fetched");
  assert.ok(bytesSent() < archiveSize("4") * 1.1);
});

const servers: Record<string, Bad> = {
  "ignores Range": (response, content, range) => {
    if (range) response.writeHead(200, { "content-length": content.length }).end(content);
    return range !== undefined;
  },
  "cuts a part off": (response, content, range) => {
    if (!range) return false;
    const [first, last] = range;
    const about = { "content-range": `bytes ${first}-${last}/${content.length}`, "content-length": last - first + 1 };
    response.writeHead(206, about);
    response.write(content.subarray(first, first + 10), () => response.destroy());
    return true;
  },
  "gives other bytes": (response, content, range) => {
    if (!range) return false;
    const [first, last] = range;
    response.writeHead(206, { "content-range": `bytes ${first}-${last}/${content.length}` });
    response.end(Buffer.alloc(last - first + 1, 7));
    return true;
  },
  "gives another range": (response, content, range) => {
    if (!range) return false;
    response.writeHead(206, { "content-range": `bytes 0-${range[1] - range[0]}/${content.length}` });
    response.end(content.subarray(0, range[1] - range[0] + 1));
    return true;
  },
  "gives more than it was asked for": (response, content, range) => {
    if (!range) return false;
    response.writeHead(206, { "content-range": `bytes ${range[0]}-${range[1]}/${content.length}` });
    response.end(Buffer.alloc(5_000_000));
    return true;
  },
};

for (const [what, server] of Object.entries(servers))
  test(`from a server that ${what} the whole archive is fetched, and the log says why`, async () => {
    const dir = await withOne();
    bad = server;
    const { stderr } = await install(dir);
    assertInstalled(dir, "2");
    assert.match(stderr, /my-app-2\.tar\.gz: .*; all of it is fetched/);
  });

test("an index that VERSION does not name is not used, nor is a kept archive that somebody changed", async () => {
  const dir = await withOne();
  const index = join(yard.web, "my-app-2.tar.gz.index");
  const good = readFileSync(index);
  writeFileSync(index, good.toString().replace(/ [0-9a-f]{4}/, " 0000"));
  await install(dir);
  assertInstalled(dir, "2");
  assert.ok(bytesSent() > archiveSize("2"));
  writeFileSync(index, good);
  const other = await withOne();
  writeFileSync(join(other, ".launchfit", "archive", "archive"), "short");
  const { stderr } = await install(other);
  assertInstalled(other, "2");
  assert.match(stderr, "what was put together is not the archive; all of it is fetched");
});

test.run();
