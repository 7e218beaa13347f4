import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { promisify } from "node:util";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { type BadServer, file, startBadServer } from "../helpers/bad-server.ts";
import { killAtRandom } from "../helpers/downloads-kill.ts";
import { makeSite, type Site } from "../helpers/downloads.ts";
import { runCommand, scriptArgv, startScript } from "../helpers/run.ts";
import { isRoot, testUnless } from "../helpers/skip.ts";
import { waitFor } from "../helpers/wait.ts";

const test = suite<{ server: BadServer; site: Site }>();

test.before.each(async (context) => {
  context.server = await startBadServer();
  context.site = makeSite();
});
test.after.each(async ({ server }) => await server.stop());

const large = randomBytes(3 * 1024 * 1024);

test("a server's faults never leave a wrong file, and do not stop the right ones", async ({ server, site }) => {
  server.on("/cut-length", (_, reply) => {
    reply.head(200, { "content-length": 1000 });
    reply.write("x".repeat(999));
    reply.cut();
  });
  server.on("/cut-chunk", (_, reply) => {
    reply.head(200, { "transfer-encoding": "chunked" });
    reply.write("10\r\nhalf a chunk");
    reply.cut();
  });
  server.on("/loop", (_, reply) => reply.send(302, { location: "/loop" }));
  server.on("/busy", (_, reply, count) => (count < 3 ? reply.send(503, {}, "busy") : reply.send(200, {}, "at last")));
  server.on("/good", (_, reply) => reply.send(200, {}, "good"));
  site.manifest(
    ...["page", "cut-length", "cut-chunk", "loop", "busy", "good"].map((name) => `${server.url}/${name} ${name}.bin`),
  );
  const { stderr } = await site.run(["--retries", "2"], { expect: 1 });
  assert.equal(site.files(), ["busy.bin", "good.bin"]);
  assert.is(site.read("busy.bin"), "at last");
  for (const reason of [/txt:1: page\.bin: .*404/, /txt:2: .*999 of 1000/, /txt:3: .*cut off/, /txt:4: .*circle/])
    assert.match(stderr, reason);
  assert.not.ok(existsSync(site.path(".partial")));
});

/** Starts a run, and kills it when a small file is there and most of a large one has come. */
async function killHalfWay({ server, site }: { server: BadServer; site: Site }): Promise<void> {
  server.on("/small", (_, reply) => reply.send(200, {}, "small"));
  server.on("/large", async (_, reply) => {
    await waitFor(() => existsSync(site.path("small.bin")));
    reply.head(200, { "content-length": large.length, etag: '"one"' });
    reply.write(large.subarray(0, 2_900_000));
  });
  site.manifest(`${server.url}/small small.bin`, `${server.url}/large large.bin`);
  const running = startScript("downloads", [site.dir]);
  const partial = site.path(".partial");
  await waitFor(() => readdirSync(partial).some((name) => name.endsWith(".json")), {
    what: "a partial file",
  });
  running.kill("SIGKILL");
  await running.exited;
  assert.not.ok(existsSync(site.path("large.bin")));
  server.asked.length = 0;
}

test("a run killed half way is taken up where it ended", async (context) => {
  const { server, site } = context;
  await killHalfWay(context);
  server.on(
    "/large",
    file(
      () => large,
      () => '"one"',
    ),
  );
  await site.run([], { expect: 0 });
  assert.ok(readFileSync(site.path("large.bin")).equals(large));
  assert.equal(
    server.asked.map(({ path }) => path),
    ["/large"],
    "what was done is not asked for again",
  );
  assert.match(server.asked[0]?.headers["range"] ?? "", /^bytes=\d{6,}-$/);
  assert.not.ok(existsSync(site.path(".partial")));
});

test("a file that changed between the kill and the next run has no old byte in it", async (context) => {
  const { server, site } = context;
  await killHalfWay(context);
  const other = randomBytes(large.length);
  server.on(
    "/large",
    file(
      () => other,
      () => '"two"',
    ),
  );
  await site.run([], { expect: 0 });
  assert.ok(readFileSync(site.path("large.bin")).equals(other));
});

test("an interrupted run ends at once, without a wrong file, and gives the lock back", async ({ server, site }) => {
  server.on("/large", (_, reply) => {
    reply.head(200, { "content-length": large.length });
    reply.write(large.subarray(0, 2_900_000));
  });
  site.manifest(`${server.url}/large large.bin`);
  const running = startScript("downloads", [site.dir]);
  await waitFor(() => readdirSync(site.path(".partial")).length > 0);
  running.kill("SIGTERM");
  const { code, signal } = await running.exited;
  // Deno names the signal it sent, whatever code the child then gave
  assert.ok(code === 143 || signal === "SIGTERM", `${code} ${signal}`);
  assert.equal(site.files(), [], "without an ETag nothing could be gone on with");
  server.on("/large", (_, reply) => reply.send(200, {}, large));
  await site.run([], { expect: 0 });
});

test("killed at random instants and run again, it ends as if undisturbed", async () => {
  await killAtRandom({ kills: 3, files: 40 });
});

const noNamespace = isRoot
  ? undefined
  : await promisify(execFile)("unshare", ["-rm", "true"]).then(
      () => undefined,
      () => "needs root or user namespaces",
    );

testUnless(test as never, noNamespace)(
  "a full disk is named with its file; the old one is whole and nothing is left over",
  (async ({ server, site }: { server: BadServer; site: Site }) => {
    server.on("/1", (_, reply) => reply.send(200, {}, "version one"));
    server.on("/2", (_, reply) => reply.send(200, { etag: '"2"' }, large));
    server.on("/3", (_, reply) => reply.send(200, {}, "small"));
    const script = `
    mount -t tmpfs -o size=1500k tmpfs "$DIR" && cd "$DIR" || exit 99
    echo "$URL/1#1 file" > manifest.txt
    "$@" || exit 98
    echo "$URL/2#2 file" > manifest.txt
    "$@" --retries 1; echo "exit $?"
    cat downloads/file; echo; find downloads -type f | sort
    echo "$URL/3#3 file" > manifest.txt
    "$@"; echo "exit $?"; cat downloads/file downloads/old/file.1`;
    const { stdout, stderr } = await runCommand(
      ["unshare", isRoot ? "-m" : "-rm", "sh", "-c", script, "sh", ...scriptArgv("downloads")],
      { cwd: site.dir, env: { DIR: join(site.dir), URL: server.url }, expect: 0 },
    );
    assert.match(stderr, /manifest\.txt:1: file: no space left on the disk \(ENOSPC\)/);
    assert.match(stdout, /exit 1\nversion one\ndownloads\/\.lock\ndownloads\/file\ndownloads\/saved\.txt\n/);
    assert.match(stdout, /exit 0\nsmallversion one$/);
  }) as never,
);

test.run();
