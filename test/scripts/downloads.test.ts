import { createHash, randomBytes } from "node:crypto";
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { type BadServer, file, startBadServer } from "../helpers/bad-server.ts";
import { makeSite, type Site, writeTree } from "../helpers/downloads.ts";
import { type Nginx, noNginx, startNginx } from "../helpers/nginx.ts";
import { runScript, startScript } from "../helpers/run.ts";
import { root } from "../helpers/runtime.ts";
import { testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";

const test = suite<{ server: BadServer; site: Site }>();
const sha256 = (data: string | Uint8Array) => createHash("sha256").update(data).digest("hex");
/** Serves a text that a test may change; its ETag follows it. */
const text = (content: () => string) =>
  file(
    () => Buffer.from(content()),
    () => `"${sha256(content()).slice(0, 9)}"`,
  );

test.before.each(async (context) => {
  context.server = await startBadServer();
  context.site = makeSite();
});
test.after.each(async ({ server }) => await server.stop());

test("a mirror is asked when the first address fails or has other bytes, and the record stays quiet about it", async ({
  server,
  site,
}) => {
  server.on(
    "/other",
    text(() => "other bytes"),
  );
  server.on(
    "/good",
    text(() => "right"),
  );
  const pin = `#sha256-${sha256("right")}`;
  site.manifest(`${server.url}/gone${pin} ${server.url}/good a\n${server.url}/other${pin} ${server.url}/good b`);
  const { stderr } = await site.run([], { expect: 0 });
  assert.equal([site.read("a"), site.read("b")], ["right", "right"]);
  assert.match(stderr, /^a: .*; trying http.*\/good$/m);
  assert.match(stderr, /^b: .*; trying http.*\/good$/m);
  assert.match((await site.run([], { expect: 0 })).stdout, /fetched 0, kept 2/);
  site.manifest(`${server.url}/gone${pin} ${server.url}/other c`);
  assert.match((await site.run([], { expect: 1 })).stderr, /^manifest.txt:1: c: /m);
});

test("--keep-going fetches the good lines of a bad manifest, and names the others", async ({ server, site }) => {
  server.on(
    "/f",
    text(() => "good"),
  );
  site.manifest(`${server.url}/f f\nnonsense here\n${server.url}/f F\n`);
  await site.run([], { expect: 2 });
  assert.equal(site.files(), []);
  const { stderr, stdout } = await site.run(["--keep-going"], { expect: 1 });
  assert.is(site.read("f"), "good");
  assert.match(stderr, /^manifest.txt:2: what stands before the space is not a URL.*; left out$/m);
  assert.match(stderr, /^manifest.txt:3: F: on some file systems.*; left out$/m);
  assert.match(stdout, /fetched 1 /);
  site.manifest(`${server.url}/f ../f\n`);
  await site.run(["--keep-going"], { expect: 4 });
});

test("--pin writes what was saved into the manifest; other bytes are then refused", async ({ server, site }) => {
  let content = "one";
  server.on(
    "/f.txt",
    text(() => content),
  );
  site.manifest("# files", `${server.url}/f.txt#2 a b`, `${server.url}/f.txt`);
  assert.match((await site.run(["--pin"], { expect: 1 })).stderr, /^manifest.txt:2: a b is not saved yet/m);
  await site.run([], { expect: 0 });
  assert.match((await site.run(["--pin"], { expect: 0 })).stdout, /^pinned 2, not saved yet 0$/m);
  const pin = `sha256-${sha256("one")}`;
  const manifest = readFileSync(join(site.dir, "manifest.txt"), "utf8");
  assert.is(manifest, `# files\n${server.url}/f.txt#2,${pin} a b\n${server.url}/f.txt#${pin}\n`);
  assert.match((await site.run([], { expect: 0 })).stdout, /fetched 0, kept 2/);
  content = "two";
  assert.match((await site.run(["--force"], { expect: 1 })).stderr, /sha256/);
  assert.is(site.read("f.txt"), "one");
});

test("a new version is fetched whole, and only then the one before goes to old/ under its version", async ({
  server,
  site,
}) => {
  let content = "two";
  server.on(
    "/f.txt",
    text(() => content),
  );
  site.manifest(`${server.url}/f.txt#2 dir/file.ext`);
  await site.run([], { expect: 0 });
  assert.is(site.read("dir/file.ext"), "two");
  content = "three";
  await site.run([], { expect: 0 });
  assert.is(site.read("dir/file.ext"), "two", "the version is the same, so nobody asks");
  site.manifest(`${server.url}/f.txt#3 dir/file.ext`);
  const { stdout } = await site.run([], { expect: 0 });
  assert.match(stdout, /fetched 1 \(5 B\), kept 0, moved to old 1, failed 0/);
  assert.equal(site.files(), ["dir/file.ext", "old/dir/file.2.ext"]);
  assert.is(site.read("dir/file.ext"), "three");
  assert.is(site.read("old/dir/file.2.ext"), "two");
  assert.is(server.asked.length, 2);
});

test("a name and a version as long as they may be have a place in old/", async ({ server, site }) => {
  let content = "one";
  server.on(
    "/f.txt",
    text(() => content),
  );
  const name = `${"n".repeat(196)}.txt`;
  site.manifest(`${server.url}/f.txt#${"v".repeat(64)} ${name}`);
  await site.run([], { expect: 0 });
  content = "two";
  site.manifest(`${server.url}/f.txt#2 ${name}`);
  await site.run([], { expect: 0 });
  assert.is(site.read(name), "two");
  const old = `old/${"n".repeat(196)}.sha256-${sha256("one").slice(0, 12)}.txt`;
  assert.is(site.read(old), "one");
});

test("a path from a stranger's manifest acts on no terminal", async ({ server, site }) => {
  server.on(
    "/f.txt",
    text(() => "1"),
  );
  const odd = "a\u009b2J\u202etxt";
  site.manifest(`${server.url}/f.txt ${odd}`, `${server.url}/none x${odd}`);
  const { stdout, stderr } = await site.run([], { expect: 1 });
  assert.match(stderr, /fetched a<202e>txt/);
  assert.match(stderr, /manifest\.txt:2: xa<202e>txt: the server answered 404/);
  site.manifest(`${server.url}/f.txt ${odd}`, `${server.url}/none ${odd}`);
  const twice = await site.run([], { expect: 2 });
  assert.match(twice.stderr, /a<202e>txt: the same path/);
  for (const shown of [stdout, stderr, twice.stderr]) assert.not.match(shown, /[\u009b\u202e]/);
});

test("a version that cannot be fetched leaves the one before in its place", async ({ server, site }) => {
  server.on(
    "/f",
    text(() => "two"),
  );
  site.manifest(`${server.url}/f#2 f`);
  await site.run([], { expect: 0 });
  site.manifest(`${server.url}/gone#3 f`);
  const { stderr } = await site.run(["--retries", "0"], { expect: 1 });
  assert.match(stderr, /manifest\.txt:1: f: the server answered 404/);
  assert.equal(site.files(), ["f"]);
  assert.is(site.read("f"), "two");
});

test("going back to a version keeps every one that was there", async ({ server, site }) => {
  for (const [version, content] of [
    ["1", "one"],
    ["2", "two"],
    ["1", "one"],
    ["2", "two, corrected"],
    ["3", "three"],
  ] as const) {
    server.on(
      "/f",
      text(() => content),
    );
    site.manifest(`${server.url}/f#${version} f`);
    await site.run([], { expect: 0 });
    assert.is(site.read("f"), content);
  }
  const kept = site.files().map((path) => site.read(path));
  assert.equal(kept.sort(), ["one", "three", "two", "two, corrected"]);
  assert.is(site.read("old/f.1"), "one");
  assert.is(site.read("old/f.2"), "two");
});

test("a line without a version is fetched anew when its URL changes", async ({ server, site }) => {
  server.on(
    "/a",
    text(() => "a"),
  );
  server.on(
    "/b",
    text(() => "b"),
  );
  site.manifest(`${server.url}/a f.txt`);
  await site.run([], { expect: 0 });
  site.manifest(`${server.url}/b f.txt`);
  await site.run([], { expect: 0 });
  assert.is(site.read("f.txt"), "b");
  assert.is(site.read(`old/f.sha256-${sha256("a").slice(0, 12)}.txt`), "a");
});

test("what is recorded and there is not asked for", async ({ server, site }) => {
  server.on(
    "/f",
    text(() => "x"),
  );
  site.manifest(`${server.url}/f f`);
  await site.run([], { expect: 0 });
  const before = site.state();
  assert.match((await site.run([], { expect: 0 })).stdout, /fetched 0, kept 1/);
  assert.is(server.asked.length, 1);
  assert.is(site.state(), before);
  rmSync(site.path("f"));
  await site.run([], { expect: 0 });
  assert.is(site.read("f"), "x");
});

test("all wrong lines of both files are named, and nothing is asked for", async ({ server, site }) => {
  site.manifest(`${server.url}/a a`, "nonsense", `${server.url}/b a`);
  writeFileSync(join(site.dir, "cloudinary.txt"), `${server.url}\nx.jpg w_{1,2} x.jpg\n`);
  const { stderr } = await site.run([], { expect: 2 });
  assert.match(stderr, /manifest\.txt:2: /);
  assert.match(stderr, /manifest\.txt:3: a: the same path as manifest\.txt:1/);
  assert.match(stderr, /cloudinary\.txt:2: /);
  site.manifest(`${server.url}/a a`, `${server.url}/b ../evil`);
  rmSync(join(site.dir, "cloudinary.txt"));
  assert.match((await site.run([], { expect: 4 })).stderr, /manifest\.txt:2: .*leaves the folder/);
  assert.is(server.asked.length, 0);
  assert.not.ok(existsSync(join(site.dir, "downloads")));
});

test("a path through a link is refused; downloads itself may be a link to another disk", async ({ server, site }) => {
  server.on(
    "/f",
    text(() => "x"),
  );
  const elsewhere = tempDir();
  mkdirSync(join(elsewhere, "disk"));
  symlinkSync(join(elsewhere, "disk"), join(site.dir, "downloads"));
  symlinkSync(elsewhere, join(elsewhere, "disk/dir"));
  site.manifest(`${server.url}/f dir/f`);
  assert.match((await site.run([], { expect: 4 })).stderr, /manifest\.txt:1: the path goes through a link \(dir\)/);
  site.manifest(`${server.url}/f f`);
  await site.run([], { expect: 0 });
  assert.is(readFileSync(join(elsewhere, "disk/f"), "utf8"), "x");
  // nor does what downloads keeps for itself lead elsewhere: a line of ours in a file that a shell reads
  server.on(
    "/f?$(id)",
    text(() => "x"),
  );
  site.manifest(`${server.url}/f?$(id) g`);
  const lead = (name: string) => {
    rmSync(join(elsewhere, "disk", name), { force: true });
    symlinkSync(join(elsewhere, "profile"), join(elsewhere, "disk", name));
  };
  lead(".lock");
  assert.match((await site.run([], { expect: 1 })).stderr, ".lock is a link; remove it");
  rmSync(join(elsewhere, "disk/.lock"));
  lead("saved.txt");
  await site.run([], { expect: 0 });
  assert.ok(lstatSync(site.path("saved.txt")).isFile());
  assert.not.ok(existsSync(join(elsewhere, "profile")));
});

test("links that a repository has where partial files are made lead nowhere", async ({ server, site }) => {
  const content = Buffer.alloc(2 * 1024 * 1024, "x");
  server.on("/f", (_, reply) => reply.send(200, { etag: '"1"' }, content));
  const [elsewhere, partial] = [tempDir(), site.path(".partial")];
  writeFileSync(join(elsewhere, "mine"), "mine");
  mkdirSync(site.path(""), { recursive: true });
  symlinkSync(elsewhere, partial);
  site.manifest(`${server.url}/f f`);
  assert.match((await site.run([], { expect: 4 })).stderr, ".partial is a link; remove it");
  rmSync(partial);
  mkdirSync(partial);
  const name = sha256("f").slice(0, 32);
  symlinkSync(join(elsewhere, "mine"), join(partial, name));
  symlinkSync(join(elsewhere, "new"), join(partial, `${name}.json`));
  await site.run([], { expect: 0 });
  assert.ok(lstatSync(site.path("f")).isFile());
  assert.is(site.read("f"), content.toString());
  assert.is(readFileSync(join(elsewhere, "mine"), "utf8"), "mine");
  assert.equal(readdirSync(elsewhere), ["mine"]);
});

test("--check asks with conditions, hashes again, and fixes what has changed on either side", async ({
  server,
  site,
}) => {
  let content = "first";
  const asked = () => server.asked.slice(-2).map(({ path, headers }) => [path, headers["if-none-match"] !== undefined]);
  server.on(
    "/a",
    text(() => content),
  );
  server.on(
    "/b",
    text(() => "b"),
  );
  server.on(
    "/pinned",
    text(() => "pinned"),
  );
  site.manifest(`${server.url}/a#1 a`, `${server.url}/b b`, `${server.url}/pinned#sha256-${sha256("pinned")} p`);
  await site.run([], { expect: 0 });
  assert.match((await site.run(["--check"], { expect: 0 })).stdout, /fetched 0, kept 3/);
  assert.is(server.asked.length, 5, "pinned content needs no question");
  assert.equal(asked().sort(), [
    ["/a", true],
    ["/b", true],
  ]);
  content = "second";
  await site.run(["--check"], { expect: 0 });
  assert.is(site.read("a"), "second");
  assert.is(site.read("old/a.1"), "first");
  writeFileSync(site.path("b"), "B");
  const { stderr } = await site.run(["--check"], { expect: 0 });
  assert.match(stderr, /b .*its bytes had changed here/);
  assert.is(site.read("b"), "b");
  assert.is(site.read(`old/b.sha256-${sha256("B").slice(0, 12)}`), "B");
});

test("--force fetches everything again and leaves what is the same as it was", async ({ server, site }) => {
  server.on(
    "/f",
    text(() => "x"),
  );
  site.manifest(`${server.url}/f#1 f`);
  await site.run([], { expect: 0 });
  assert.match((await site.run(["--force"], { expect: 0 })).stdout, /kept 1, moved to old 0/);
  assert.is(server.asked.length, 2);
  assert.equal(site.files(), ["f"]);
});

test("--prune puts away what is no longer listed, and only that", async ({ server, site }) => {
  for (const name of ["a", "b"])
    server.on(
      `/${name}`,
      text(() => name),
    );
  site.manifest(`${server.url}/a#1 dir/a.txt`, `${server.url}/b b`);
  await site.run([], { expect: 0 });
  writeFileSync(site.path("mine"), "not downloaded");
  site.manifest(`${server.url}/b b`);
  await site.run([], { expect: 0 });
  assert.is(site.read("dir/a.txt"), "a");
  const { stderr } = await site.run(["--prune"], { expect: 0 });
  assert.match(stderr, /moved dir\/a\.txt to old\/dir\/a\.1\.txt/);
  assert.equal(site.files(), ["b", "mine", "old/dir/a.1.txt"]);
  assert.not.ok(existsSync(site.path("dir")));
  assert.not.match(site.read("saved.txt") ?? "", /dir\/a/);
  rmSync(join(site.dir, "manifest.txt"));
  await site.run(["--prune"], { expect: 2 });
  assert.is(site.read("b"), "b");
});

test("a lost record is rebuilt from the files: recognised where the server's word allows it", async ({
  server,
  site,
}) => {
  const time = "Tue, 03 Nov 2026 10:00:00 GMT";
  const bytes = randomBytes(3000);
  server.on("/dated", ({ method }, reply) => {
    reply.head(200, { "content-length": bytes.length, "last-modified": time, etag: '"d"' });
    if (method !== "HEAD") reply.write(bytes);
  });
  server.on(
    "/plain",
    text(() => "plain"),
  );
  site.manifest(
    `${server.url}/dated dated`,
    `${server.url}/plain#2 plain`,
    `${server.url}/pinned#sha256-${sha256("pinned")} pinned`,
  );
  server.on(
    "/pinned",
    text(() => "pinned"),
  );
  await site.run([], { expect: 0 });
  const before = site.state();
  for (const damage of [
    () => rmSync(site.path("saved.txt")),
    () => writeFileSync(site.path("saved.txt"), randomBytes(99)),
  ]) {
    damage();
    server.asked.length = 0;
    const { stdout } = await site.run([], { expect: 0 });
    assert.match(stdout, /fetched 0, kept 3, moved to old 0/);
    assert.equal(
      site.state().replace(/"d"|-(?= http)/g, ""),
      before.replace(/"d"|-(?= http)/g, "").replace(/"\S+"(?= \S+\/pinned)/, ""),
    );
    const requests = server.asked.map(({ method, path }) => `${method} ${path}`).sort();
    assert.equal(requests, ["GET /plain", "HEAD /dated", "HEAD /plain"]);
  }
});

test("after a restart of the machine, new files are hashed again: the disk may have lost them", async ({
  server,
  site,
}) => {
  for (const name of ["a", "b"])
    server.on(
      `/${name}`,
      text(() => name.repeat(5)),
    );
  site.manifest(`${server.url}/a a`, `${server.url}/b#1 b`);
  await site.run([], { expect: 0 });
  const saved = site.path("saved.txt");
  // as if saved under another start of the machine, which then lost the bytes of one file
  writeFileSync(saved, readFileSync(saved, "utf8").replace(/in boot \S+:/, "in boot another:"));
  writeFileSync(site.path("b"), Buffer.alloc(5));
  assert.match((await site.run([], { expect: 0 })).stdout, /fetched 1 .*kept 1/);
  assert.is(site.read("b"), "bbbbb");
  assert.is(server.asked.length, 3);
  assert.match((await site.run([], { expect: 0 })).stdout, /fetched 0, kept 2/);
});

test("a file that is not what the record says is put aside, not lost", async ({ server, site }) => {
  server.on(
    "/f",
    text(() => "theirs"),
  );
  site.manifest(`${server.url}/f f`);
  mkdirSync(site.path("."), { recursive: true });
  writeFileSync(site.path("f"), "mine");
  utimesSync(site.path("f"), 1, 1);
  await site.run([], { expect: 0 });
  assert.is(site.read("f"), "theirs");
  assert.is(site.read(`old/f.sha256-${sha256("mine").slice(0, 12)}`), "mine");
});

test("--print shows the manifest that both files stand for, and --manifest - reads one", async ({ server, site }) => {
  server.on(
    "*",
    text(() => "picture"),
  );
  site.manifest("# comment", `${server.url}/a#2 a b`);
  writeFileSync(join(site.dir, "cloudinary.txt"), `${server.url}/up\nv1/s.jpg#3 w_{1,2}/q_auto img/s-{}.webp\n`);
  const { stdout } = await site.run(["--print"], { expect: 0 });
  const lines = [
    `${server.url}/a#2 a b`,
    `${server.url}/up/w_1/q_auto/v1/s.webp#3 img/s-1.webp`,
    `${server.url}/up/w_2/q_auto/v1/s.webp#3 img/s-2.webp`,
  ];
  assert.is(stdout, `${lines.join("\n")}\n`);
  assert.is(server.asked.length, 0);
  const other = makeSite();
  await other.run(["--manifest", "-"], { input: stdout, expect: 0 });
  assert.equal(other.files(), ["a b", "img/s-1.webp", "img/s-2.webp"]);
  const paths = server.asked.map(({ path }) => path).sort();
  assert.equal(paths, ["/a", "/up/w_1/q_auto/v1/s.webp", "/up/w_2/q_auto/v1/s.webp"]);
  assert.match((await other.run(["--manifest", "-"], { input: "x", expect: 2 })).stderr, /stdin:1: /);
  await other.run(["--manifest", "none.txt"], { expect: 2 });
});

test("--json gives one object a file and a summary, and nothing else on stdout", async ({ server, site }) => {
  server.on(
    "/a",
    text(() => "a"),
  );
  site.manifest(`${server.url}/a#1 a`, `${server.url}/none b`);
  const { stdout } = await site.run(["--json"], { expect: 1 });
  const objects = stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line));
  const [a, b] = objects.slice(0, 2).sort((left, right) => (left.path < right.path ? -1 : 1));
  assert.is(a.result, "fetched");
  assert.is(a.size, 1);
  assert.is(b.result, "failed");
  assert.is(b.where, "manifest.txt:2");
  assert.is(objects[2].summary.failed, 1);
});

test("a number of files at once that makes no sense is a usage error", async ({ site }) => {
  for (const args of [
    ["--jobs", "0"],
    ["--per-host", "1.5"],
    ["--retries", "-1"],
    ["--job", "3"],
  ])
    await site.run(args, { expect: 2 });
});

test("no list at all is nothing to do", async ({ site }) => {
  assert.match((await site.run([], { expect: 0 })).stderr, /nothing to do/);
  assert.not.ok(existsSync(join(site.dir, "downloads")));
  await runScript("downloads", [join(site.dir, "none")], { expect: 2 });
});

test("a second run in one folder is told so, or waits", async ({ server, site }) => {
  let release = () => {};
  const released = new Promise<void>((resolve) => (release = resolve));
  server.on("/f", async (_, reply) => {
    await released;
    reply.send(200, {}, "x");
  });
  site.manifest(`${server.url}/f f`);
  const first = startScript("downloads", [site.dir]);
  while (server.asked.length === 0) await new Promise((resolve) => setTimeout(resolve, 10));
  assert.match((await site.run([], { expect: 3 })).stderr, new RegExp(`process ${first.pid}`));
  const second = site.run(["--wait"], { expect: 0 });
  release();
  assert.is((await first.exited).code, 0);
  assert.match((await second).stdout, /kept 1/);
  assert.is(server.asked.length, 1);
});

test("a login neither shows nor is recorded", async ({ server, site }) => {
  server.on("/f", (_, reply) => reply.send(401, {}, ""));
  server.on(
    "/g",
    text(() => "g"),
  );
  const withLogin = server.url.replace("//", "//me:secret@");
  site.manifest(`${withLogin}/f f`, `${withLogin}/g g`);
  const { stdout, stderr } = await site.run([], { expect: 1 });
  assert.not.match(stdout + stderr + site.read("saved.txt"), /secret/);
  assert.match((await site.run(["--print", "--json"], { expect: 0 })).stdout, /"url":"http:\/\/127/);
  const netrc = join(site.dir, "netrc");
  writeFileSync(netrc, "machine 127.0.0.1 login you password hidden");
  chmodSync(netrc, 0o644);
  site.manifest(`${server.url}/f f2`);
  assert.match((await site.run([], { expect: 1, env: { NETRC: netrc } })).stderr, /others can read/);
});

test("the example manifest is right and shows every form", async ({ site }) => {
  const { stdout } = await site.run(["--print", "--manifest", join(root, "manifest.example.txt")], {
    expect: 0,
  });
  for (const form of [/^https:/m, /^http:/m, /^file:/m, /^s3:/m, /#\d+ /, /#sha256-/, /#[^,\s]+,sha256-/, / \S+ \S+$/m])
    assert.match(stdout, form);
});

test("a file of this machine is copied", async ({ site }) => {
  const from = tempDir();
  writeFileSync(join(from, "a b.txt"), "local");
  site.manifest(`${pathToFileURL(join(from, "a b.txt")).href}#1 f.txt`);
  await site.run([], { expect: 0 });
  assert.is(site.read("f.txt"), "local");
});

testUnless(test as never, noNginx)("a real nginx: 300 files, all kept on a second look, resumed when cut", async () => {
  const www = tempDir("www-");
  chmodSync(www, 0o755);
  const files = Object.fromEntries(
    Array.from({ length: 300 }, (_, index) => [
      `d${index % 7}/${index}.bin`,
      randomBytes(1 + ((index * 977) % 20_000)),
    ]),
  );
  writeTree(www, { ...files, "large.bin": randomBytes(5_000_000) });
  const nginx: Nginx = await startNginx(www);
  try {
    const site = makeSite();
    site.manifest(...[...Object.keys(files), "large.bin"].map((name) => `${nginx.url}/${name}#1 ${name}`));
    await site.run([], { expect: 0 });
    for (const [name, bytes] of Object.entries(files)) assert.ok(readFileSync(site.path(name)).equals(bytes), name);
    assert.ok(readFileSync(site.path("large.bin")).equals(readFileSync(join(www, "large.bin"))));
    assert.is(
      Math.floor(statSync(site.path("large.bin")).mtimeMs / 1000),
      Math.floor(statSync(join(www, "large.bin")).mtimeMs / 1000),
    );
    assert.match((await site.run(["--check"], { expect: 0 })).stdout, /fetched 0, kept 301/);
    rmSync(site.path("saved.txt"));
    assert.match((await site.run([], { expect: 0 })).stdout, /fetched 0, kept 301/);
  } finally {
    await nginx.stop();
  }
});

test.run();
