import { createHash, randomBytes } from "node:crypto";
import {
  closeSync,
  existsSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { createFetcher, type FetchRequest } from "../../../lib/fetch/fetch.ts";
import { type BadServer, cutOnce, file, startBadServer } from "../../helpers/bad-server.ts";
import { tempDir } from "../../helpers/tmp.ts";
import { slowness } from "../../helpers/wait.ts";

const test = suite<{ server: BadServer; dir: string }>();
// this process is the server, too: what it is slow at is no stall
const quick = { retries: 3, stall: Math.ceil(400 * slowness()), backoff: 5 };
const fetcher = createFetcher(quick);
const sha256 = (data: Uint8Array) => createHash("sha256").update(data).digest("hex");

test.before.each(async (context) => {
  context.server = await startBadServer();
  context.dir = tempDir("fetch-");
  process.env["NETRC"] = join(context.dir, "netrc");
});
test.after.each(async ({ server }) => await server.stop());
test.after(() => fetcher.close());

/** Fetches `path` of the server, or says why not. */
async function get(
  { server, dir }: { server: BadServer; dir: string },
  path: string,
  more: Partial<FetchRequest> = {},
) {
  const to = join(dir, "file");
  try {
    const fetched = await fetcher.toFile({ url: server.url + path, to, ...more });
    return { ...fetched, bytes: existsSync(to) ? readFileSync(to) : Buffer.alloc(0), error: "" };
  } catch (error) {
    return {
      error: (error as Error).message,
      bytes: Buffer.alloc(0),
      sha256: "",
      size: 0,
      changed: false,
    };
  }
}

/** What this process holds open. */
function openFiles(): string[] {
  return readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)];
    } catch {
      return [];
    }
  });
}

const small = randomBytes(5000);
const large = randomBytes(3 * 1024 * 1024);

test("a file comes with its hash, its size, its ETag and the server's time", async (context) => {
  const time = "Tue, 03 Nov 2026 10:00:00 GMT";
  for (const bytes of [small, large, Buffer.alloc(0)]) {
    context.server.on("/f", (_, reply) => reply.send(200, { etag: '"e"', "last-modified": time }, bytes));
    const fetched = await get(context, "/f");
    assert.is(fetched.error, "");
    assert.ok(fetched.bytes.equals(bytes));
    assert.is(fetched.sha256, sha256(bytes));
    assert.is(fetched.size, bytes.length);
    assert.is(fetched.changed && "etag" in fetched && fetched.etag, '"e"');
    assert.is(statSync(join(context.dir, "file")).mtimeMs, Date.parse(time));
  }
});

test("an error's page is no file", async (context) => {
  assert.is((await get(context, "/missing")).error, "the server answered 404 Said So");
  assert.is(context.server.asked.length, 1);
  assert.equal(readdirSync(context.dir), []);
});

test("an HTML page in place of another kind of file is refused, unless it is the pinned content", async (context) => {
  context.server.on("/f.zip", (_, reply) => reply.send(200, { "content-type": "text/html; charset=utf-8" }, small));
  context.server.on("/f.html", (_, reply) => reply.send(200, { "content-type": "text/html" }, small));
  assert.match((await get(context, "/f.zip")).error, /HTML page/);
  assert.is((await get(context, "/f.html")).error, "");
  assert.is((await get(context, "/f.zip", { sha256: sha256(small) })).error, "");
});

test("a body cut short of its length is taken up where it broke off", async (context) => {
  context.server.on("/large", cutOnce(large, 2 * 1024 * 1024));
  const fetched = await get(context, "/large");
  assert.is(fetched.sha256, sha256(large));
  const { range, "if-range": ifRange } = context.server.asked[1]?.headers ?? {};
  assert.match(range ?? "", /^bytes=\d{6,}-$/);
  assert.is(ifRange, '"whole"');
  assert.equal(readdirSync(context.dir), ["file"]);
});

test("a body cut for ever is a failure, with a chunked length too", async (context) => {
  context.server.on("/length", (_, reply) => {
    reply.head(200, { "content-length": 1000 });
    reply.write(small.subarray(0, 500));
    reply.cut();
  });
  context.server.on("/chunks", (_, reply) => {
    reply.head(200, { "transfer-encoding": "chunked" });
    reply.write("5\r\nhello\r\n");
    reply.cut();
  });
  assert.is((await get(context, "/length")).error, "the body was cut off after 500 of 1000 bytes");
  assert.match((await get(context, "/chunks")).error, /the body was cut off after \d bytes/);
  assert.is(context.server.asked.length, 8);
  assert.equal(readdirSync(context.dir), []);
});

test("a body of many megabytes is whole however it comes, and what follows it is not taken for it", async (context) => {
  const huge = randomBytes(20 * 1024 * 1024 + 7);
  const after = Buffer.from("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nbad");
  const later = () => new Promise((resolve) => setTimeout(resolve, 20));
  context.server.on("/huge", async (_, reply) => {
    reply.head(200, { "content-length": huge.length });
    // with the head, in small and in large pieces, with pauses
    reply.write(huge.subarray(0, 10));
    await later();
    reply.write(huge.subarray(10, 1000));
    await later();
    reply.write(huge.subarray(1000, 15_000_000));
    await later();
    reply.write(Buffer.concat([huge.subarray(15_000_000), after]));
  });
  const fetched = await get(context, "/huge");
  assert.is(fetched.error, "");
  assert.is(fetched.sha256, sha256(huge));
  assert.ok(fetched.bytes.equals(huge));
  context.server.on("/small", (_, reply) => reply.send(200, {}, small));
  assert.is((await get(context, "/small")).sha256, sha256(small), "the next one is not disturbed");
});

test("a body of many megabytes that is cut off or stalls is taken up where it ended", async (context) => {
  const huge = randomBytes(24 * 1024 * 1024);
  context.server.on("/cut", cutOnce(huge, 10_000_000));
  assert.is((await get(context, "/cut")).sha256, sha256(huge));
  const [, again] = context.server.asked;
  assert.match(again?.headers["range"] ?? "", /^bytes=\d{7,}-$/);
  context.server.on("/stall", (asked, reply, count) => {
    if (count > 1)
      return file(
        () => huge,
        () => '"whole"',
      )(asked, reply, count);
    reply.head(200, { "content-length": huge.length, etag: '"whole"' });
    reply.write(huge.subarray(0, 10_000_000));
  });
  assert.is((await get(context, "/stall")).sha256, sha256(huge));
  assert.equal(readdirSync(context.dir), ["file"]);
});

test("a body of many megabytes that is larger than allowed is refused on the way", async (context) => {
  context.server.on("/f", (_, reply) => reply.send(200, {}, randomBytes(12 * 1024 * 1024)));
  const { error } = await get(context, "/f", { maxSize: 10 * 1024 * 1024 });
  assert.match(error, /larger than 10/);
  assert.equal(readdirSync(context.dir), []);
});

test("a file that changed between two tries starts over: old and new bytes never mix", async (context) => {
  const other = randomBytes(large.length);
  context.server.on("/f", (asked, reply, count) => {
    if (count > 1)
      return file(
        () => other,
        () => '"new"',
      )(asked, reply, count);
    return cutOnce(large, 2 * 1024 * 1024, '"old"')(asked, reply, count);
  });
  assert.is((await get(context, "/f")).sha256, sha256(other));
});

test("a range other than the one asked for is not believed", async (context) => {
  for (const range of ["bytes 5-3145727/3145728", "bytes 0-3145727/3145728", "nonsense", undefined]) {
    let count = 0;
    context.server.on("/f", (asked, reply) => {
      count += 1;
      if (count === 1) return cutOnce(large, 2 * 1024 * 1024)(asked, reply, 1);
      if (count > 2)
        return file(
          () => large,
          () => '"whole"',
        )(asked, reply, count);
      return reply.send(206, { etag: '"whole"', ...(range ? { "content-range": range } : {}) }, large.subarray(5));
    });
    assert.is((await get(context, "/f")).sha256, sha256(large), range ?? "none");
    assert.is(count, 3);
  }
});

test("a rest that ends before the file does is not taken for the whole: what is missing is asked for", async (context) => {
  // servers may send less than the range that is asked for (RFC 9110, 15.3.7)
  for (const chunked of [false, true]) {
    context.server.on(`/${chunked}`, (asked, reply, count) => {
      const start = Number(/^bytes=(\d+)-$/.exec(asked.headers["range"] ?? "")?.[1] ?? 0);
      if (start === 0) return cutOnce(large, 2 * 1024 * 1024)(asked, reply, 1);
      const end = count === 2 ? start + 1000 : large.length;
      const range = `bytes ${start}-${end - 1}/${large.length}`;
      const piece = large.subarray(start, end);
      const about = { etag: '"whole"', "content-range": range };
      if (count > 2 || !chunked) return reply.send(206, about, piece);
      reply.head(206, { ...about, "transfer-encoding": "chunked" });
      reply.write(`${piece.length.toString(16)}\r\n`);
      reply.write(piece);
      reply.write("\r\n0\r\n\r\n");
    });
    const fetched = await get(context, `/${chunked}`);
    assert.is(fetched.error, "");
    assert.is(fetched.sha256, sha256(large));
  }
});

test("a rest that is not said to be of the same file is not joined to what is there", async (context) => {
  const other = randomBytes(large.length);
  const date = "Sun, 01 Nov 2026 10:00:00 GMT";
  const about = { "last-modified": date, date: "Sun, 01 Nov 2026 11:00:00 GMT" };
  for (const [before, after] of [
    [{ etag: '"old"' }, {}],
    [{ etag: '"old"' }, { etag: '"new"' }],
    [{ etag: '"old"' }, { "last-modified": date }],
    [about, {}],
    [about, { "last-modified": "Sun, 01 Nov 2026 10:30:00 GMT" }],
  ] as [Record<string, string>, Record<string, string>][]) {
    let count = 0;
    context.server.on("/f", ({ headers }, reply) => {
      count += 1;
      const start = Number(/^bytes=(\d+)-$/.exec(headers["range"] ?? "")?.[1] ?? 0);
      if (count === 1) {
        reply.head(200, { "content-length": large.length, ...before });
        reply.write(large.subarray(0, 2 * 1024 * 1024));
        return reply.cut();
      }
      // it knows ranges, but not If-Range
      const range = `bytes ${start}-${other.length - 1}/${other.length}`;
      if (start === 0) return reply.send(200, after, other);
      reply.send(206, { "content-range": range, ...after }, other.subarray(start));
    });
    const fetched = await get(context, "/f");
    assert.is(fetched.sha256, sha256(other), JSON.stringify(after));
    assert.is(count, 3);
  }
});

test("what a stopped run left is taken up by the next one, when the server still has the same", async (context) => {
  const { server, dir } = context;
  server.on("/f", (asked, reply, count) => {
    if (count > 1)
      return file(
        () => large,
        () => '"e"',
      )(asked, reply, count);
    reply.head(200, { "content-length": large.length, etag: '"e"' });
    reply.write(large.subarray(0, 2 * 1024 * 1024));
  });
  const abort = new AbortController();
  const onProgress = (done: number) => done > 1_900_000 && abort.abort(new Error("stopped"));
  const first = await get(context, "/f", {
    signal: abort.signal,
    onProgress: (done) => void onProgress(done),
  });
  assert.is(first.error, "stopped");
  assert.equal(readdirSync(dir).sort(), ["file", "file.json"]);
  const second = await get(context, "/f");
  assert.is(second.sha256, sha256(large));
  assert.match(server.asked[1]?.headers["range"] ?? "", /^bytes=\d{6,}-$/);
});

test("a partial file of another URL or another start of the machine is not gone on with", async (context) => {
  for (const note of [
    { url: "other", ifRange: '"e"' },
    { url: sha256(Buffer.from(`${context.server.url}/f`)), boot: "another", ifRange: '"e"' },
  ]) {
    context.server.on(
      "/f",
      file(
        () => large,
        () => '"e"',
      ),
    );
    writeFileSync(join(context.dir, "file"), randomBytes(100));
    writeFileSync(join(context.dir, "file.json"), JSON.stringify(note));
    assert.is((await get(context, "/f")).sha256, sha256(large));
  }
  assert.ok(context.server.asked.every(({ headers }) => headers["range"] === undefined));
});

test("a busy server is asked again, after the time it names", async (context) => {
  const waits: number[] = [];
  context.server.on("/f", (_, reply, count) =>
    count < 3 ? reply.send(503, { "retry-after": count === 1 ? 1 : "soon" }) : reply.send(200, {}, small),
  );
  const fetched = await get(context, "/f", { onRetry: (_, wait) => void waits.push(wait) });
  assert.is(fetched.sha256, sha256(small));
  assert.ok((waits[0] ?? 0) >= 1000 && (waits[1] ?? 0) < 100, waits.join());
});

test("a server that says to come back tomorrow is not waited for", async (context) => {
  context.server.on("/f", (_, reply) => reply.send(429, { "retry-after": 86_400 }));
  assert.match(
    (await get(context, "/f")).error,
    /answered 429 Said So, and asks to wait for 1d.*; run this again after 20\d\d-\d\d-\d\dT\d\d:\d\dZ$/,
  );
  assert.is(context.server.asked.length, 1);
});

test("a connection that brings nothing is given up, before and in the body", async (context) => {
  context.server.on("/silent", () => {});
  context.server.on("/half", (_, reply) => {
    reply.head(200, { "content-length": 100 });
    reply.write("x");
  });
  context.server.on("/drip", (_, reply) => {
    reply.head(200, { "content-length": 100_000 });
    const timer = setInterval(() => reply.write("xx"), 20);
    reply.socket.on("close", () => clearInterval(timer));
  });
  const impatient = createFetcher({ retries: 1, stall: Math.ceil(100 * slowness()), backoff: 5 });
  for (const [path, words] of [
    ["/silent", /^no answer for [\d.]+ s$/],
    ["/half", /^the server is too slow: 1 bytes in [\d.]+ s$|^nothing more came for [\d.]+ s$/],
    ["/drip", /^the server is too slow: \d+ bytes in [\d.]+ s$|^nothing more came for [\d.]+ s$/],
  ] as const) {
    const url = context.server.url + path;
    const error = await impatient.toFile({ url, to: join(context.dir, "f") }).catch((e: unknown) => e);
    assert.match((error as Error).message, words);
  }
  impatient.close();
  assert.is(context.server.asked.length, 6);
});

test("redirects are followed, but neither in a circle nor out of the web", async (context) => {
  const { server, dir } = context;
  writeFileSync(join(dir, "secret"), "secret");
  const to = (location: string) => server.on("/f", (_, reply) => reply.send(302, { location }));
  server.on("/real", (_, reply) => reply.send(200, {}, small));
  to("/real");
  assert.is((await get(context, "/f")).sha256, sha256(small));
  to("/\u00fcber");
  server.on("/%C3%BCber", (_, reply) => reply.send(200, {}, small));
  assert.is((await get(context, "/f")).sha256, sha256(small), "bytes that are not ASCII");
  to("/f");
  assert.match((await get(context, "/f")).error, /circle/);
  to(pathToFileURL(join(dir, "secret")).href);
  assert.match((await get(context, "/f")).error, /leads to file:/);
  to("s3://bucket/key");
  assert.match((await get(context, "/f")).error, /leads to s3:/);
  let hop = 0;
  server.on("*", (_, reply) => reply.send(302, { location: `/hop${hop++}` }));
  assert.match((await get(context, "/endless")).error, /more than 10 redirects/);
});

test("what a server says of an error acts on no terminal", async (context) => {
  const words = Buffer.from("HTTP/1.1 404 \u001b[31mGo\u009b2Jne\r\ncontent-length: 0\r\n\r\n", "latin1");
  context.server.on("/f", (_, reply) => reply.write(words));
  assert.is((await get(context, "/f")).error, "the server answered 404 Gone");
});

test("a redirect whose body has no end is left at once", async (context) => {
  let left: Promise<unknown> | undefined;
  context.server.on("/f", (_, { head, write, socket }) => {
    head(302, { location: "/real" });
    const more = setInterval(() => write(Buffer.alloc(1000)), 5);
    // not events.once: writing to what was left may be an error first
    left = new Promise((resolve) => socket.once("close", resolve)).then(() => clearInterval(more));
  });
  context.server.on("/real", (_, reply) => reply.send(200, {}, small));
  assert.is((await get(context, "/f")).sha256, sha256(small));
  const late = sleep(5000 * slowness(), "read on", { ref: false });
  assert.is(await Promise.race([left, late]), undefined);
});

test("a login from the URL or netrc goes to its own host and to no other", async (context) => {
  const { server, dir } = context;
  const other = await startBadServer({ "/f": (_, reply) => reply.send(200, {}, small) });
  server.on("/f", (_, reply) => reply.send(302, { location: `${other.url}/f` }));
  server.on("/own", (_, reply) => reply.send(302, { location: "/end" }));
  server.on("/end", (_, reply) => reply.send(200, {}, small));
  const withLogin = server.url.replace("//", "//me:p%40ss@");
  const to = join(dir, "file");
  await fetcher.toFile({ url: `${withLogin}/f`, to });
  await fetcher.toFile({ url: `${withLogin}/own`, to });
  const expected = `Basic ${Buffer.from("me:p@ss").toString("base64")}`;
  assert.equal(
    server.asked.map(({ path, headers }) => [path, headers["authorization"]]),
    ["/f", "/own", "/end"].map((path) => [path, expected]),
  );
  assert.is(other.asked[0]?.headers["authorization"], undefined);

  writeFileSync(join(dir, "netrc"), 'machine 127.0.0.1 login you password "se cret"\n', {
    mode: 0o600,
  });
  const fresh = createFetcher(quick);
  await fresh.toFile({ url: `${server.url}/end`, to });
  fresh.close();
  assert.is(server.asked.at(-1)?.headers["authorization"], `Basic ${Buffer.from("you:se cret").toString("base64")}`);
  await other.stop();
});

test("more bytes than allowed are refused, announced or not", async (context) => {
  context.server.on("/announced", (_, reply) => reply.send(200, {}, small));
  context.server.on("/endless", (_, reply) => {
    reply.head(200, { "transfer-encoding": "chunked" });
    const more = () => {
      if (reply.socket.writable) reply.socket.write(`8000\r\n${"x".repeat(0x8000)}\r\n`, more);
    };
    more();
  });
  assert.match((await get(context, "/announced", { maxSize: 4999 })).error, /larger than 4.9 kB/);
  assert.match((await get(context, "/endless", { maxSize: 2_000_000 })).error, /larger than/);
  assert.is((await get(context, "/announced", { maxSize: 5000 })).error, "");
  assert.is(context.server.asked.length, 3);
});

test("another content than the pinned one is fetched once more, then refused", async (context) => {
  context.server.on("/f", (_, reply, count) => reply.send(200, {}, count === 1 ? "stale" : small));
  context.server.on("/wrong", (_, reply) => reply.send(200, {}, "wrong"));
  assert.is((await get(context, "/f", { sha256: sha256(small) })).error, "");
  assert.is(context.server.asked[1]?.headers["cache-control"], "no-cache");
  assert.match((await get(context, "/wrong", { sha256: sha256(small) })).error, /not the pinned one/);
  assert.is(context.server.asked.length, 4);
  assert.equal(readdirSync(context.dir), []);
});

test("a file that is handed over is open: what was hashed is read from it, whatever the name says", async (context) => {
  for (const bytes of [small, large]) {
    context.server.on("/cut", cutOnce(bytes, bytes.length - 1000));
    context.server.on("/stale", (_, reply, count) => reply.send(200, {}, count === 1 ? "stale" : bytes));
    for (const path of ["/cut", "/stale"]) {
      const to = join(context.dir, "file");
      const url = context.server.url + path;
      const pin = sha256(bytes);
      const { fd = -1 } = await fetcher.toFile({ url, to, sha256: pin, handOver: true });
      writeFileSync(`${to}.other`, "another");
      renameSync(`${to}.other`, to);
      const content = Buffer.alloc(bytes.length + 1);
      const count = readSync(fd, content, 0, content.length, 0);
      closeSync(fd);
      assert.ok(content.subarray(0, count).equals(bytes));
    }
  }
  context.server.on("/wrong", (_, reply) => reply.send(200, {}, large));
  rmSync(join(context.dir, "file"));
  const { error } = await get(context, "/wrong", { sha256: sha256(small), handOver: true });
  assert.match(error, /not the pinned one/);
  assert.equal(readdirSync(context.dir), []);
  assert.equal(
    openFiles().filter((path) => path.startsWith(context.dir)),
    [],
    "and is closed",
  );
});

test("a body packed without being asked is unpacked, except where the packed bytes are the file", async (context) => {
  const packed = gzipSync(large);
  context.server.on("*", (_, reply) => reply.send(200, { "content-encoding": "gzip" }, packed));
  assert.is((await get(context, "/f.bin")).sha256, sha256(large));
  assert.is(context.server.asked[0]?.headers["accept-encoding"], "identity");
  assert.is((await get(context, "/f.tar.gz")).sha256, sha256(packed));
  context.server.on("/cut.bin", (_, reply) => reply.send(200, { "content-encoding": "gzip" }, packed.subarray(0, 999)));
  assert.ok((await get(context, "/cut.bin")).error !== "");
  context.server.on("/odd.bin", (_, reply) => reply.send(200, { "content-encoding": "zebra" }, packed));
  assert.match((await get(context, "/odd.bin")).error, /zebra/);
});

test("a server that has nothing newer sends nothing", async (context) => {
  context.server.on(
    "/f",
    file(
      () => small,
      () => '"e"',
    ),
  );
  const fetched = await get(context, "/f", { unless: { etag: '"e"' } });
  assert.is(fetched.error, "");
  assert.is(fetched.changed, false);
  assert.is((await get(context, "/f", { unless: { etag: '"old"' } })).sha256, sha256(small));
});

test("connections are used again", async (context) => {
  const sockets = new Set<number>();
  const server = createServer((request, response) => {
    sockets.add(request.socket.remotePort ?? 0);
    response.end(small);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  for (let count = 0; count < 5; count++)
    await fetcher.toFile({ url: `http://127.0.0.1:${port}/`, to: join(context.dir, "file") });
  assert.is(sockets.size, 1);
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

test("a kept connection that the server has closed meanwhile is no failure", async (context) => {
  context.server.on("/f", (_, reply) => {
    reply.send(200, {}, small);
    reply.cut();
  });
  for (let count = 0; count < 5; count++) assert.is((await get(context, "/f")).error, "");
});

test("a file of this machine is copied; a folder and a missing one are said to be so", async ({ dir }) => {
  const from = join(dir, "a b");
  writeFileSync(from, large);
  const to = join(dir, "copy");
  const fetched = await fetcher.toFile({ url: pathToFileURL(from).href, to });
  assert.is(fetched.sha256, sha256(large));
  assert.ok(readFileSync(to).equals(large));
  const unchanged = await fetcher.toFile({
    url: pathToFileURL(from).href,
    to,
    unless: { etag: fetched.etag },
  });
  assert.is(unchanged.changed, false);
  const fail = async (path: string) =>
    ((await fetcher.toFile({ url: pathToFileURL(path).href, to }).catch((e: unknown) => e)) as Error).message;
  assert.match(await fail(dir), /not a plain file/);
  assert.match(await fail(join(dir, "none")), /ENOENT/);
});

test("http goes through the environment's proxy, with its login, and past it where no_proxy says so", async ({
  server,
  dir,
}) => {
  const proxy = await startBadServer({ "*": (_, reply) => reply.send(200, {}, "from the proxy") });
  const to = join(dir, "file");
  server.on("/f", (_, reply) => reply.send(200, {}, small));
  process.env["http_proxy"] = proxy.url.replace("//", "//u:p@");
  try {
    await fetcher.toFile({ url: "http://far.test:81/f?q", to });
    assert.is(readFileSync(to, "utf8"), "from the proxy");
    assert.is(proxy.asked[0]?.path, "http://far.test:81/f?q");
    assert.is(proxy.asked[0]?.headers["host"], "far.test:81");
    assert.is(proxy.asked[0]?.headers["proxy-authorization"], `Basic ${Buffer.from("u:p").toString("base64")}`);
    process.env["no_proxy"] = "127.0.0.1";
    await fetcher.toFile({ url: `${server.url}/f`, to });
    assert.is(proxy.asked.length, 1);
  } finally {
    delete process.env["http_proxy"];
    delete process.env["no_proxy"];
    await proxy.stop();
  }
});

test.run();
