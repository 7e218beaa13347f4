import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createServer, connect, type Server } from "node:net";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { prepare } from "../helpers/prepare.ts";
import { git, makeRepo, writeFiles } from "../helpers/repos.ts";
import { processesOf } from "../helpers/leftovers.ts";
import { type RunOptions, runCommand, runScript, startScript } from "../helpers/run.ts";
import { isRoot, testUnless } from "../helpers/skip.ts";
import { needsSshd, startSshd, type TestSshd } from "../helpers/sshd.ts";
import { tempDir } from "../helpers/tmp.ts";
import { waitFor } from "../helpers/wait.ts";

const sshTest = testUnless(test, needsSshd);
const home = tempDir();
let sshd: TestSshd;
prepare(test, async () => {
  if (!needsSshd) sshd = await startSshd();
});
test.after(async () => {
  if (!needsSshd) await sshd.stop();
});

async function makeSite(files: Record<string, string | Uint8Array>, config: string) {
  const dir = tempDir();
  await mkdir(join(dir, "upload"));
  await writeFiles(join(dir, "upload"), files);
  await writeFile(join(dir, "uploads.yml"), config);
  return dir;
}

function uploads(dir: string, args: string[] = [], options: RunOptions = {}) {
  return runScript("uploads", [dir, ...args], {
    ...options,
    env: { HOME: home, GIT_CONFIG_GLOBAL: "/dev/null", ...options.env },
  });
}

const login = (knownHosts = sshd.knownHosts, port = sshd.port) =>
  `key: ${sshd.key}, known_hosts: "${knownHosts}", port: ${port}`;

sshTest("rsync goes over ssh with its own key and known hosts, names of every kind included", async () => {
  const out = tempDir("out put-");
  const files = {
    "index.html": "<p>",
    "a b/$(id).txt": "1",
    "quote's": "2",
    "⛵": "3",
    "-n": "4",
  };
  const target = `{ rsync: "${sshd.user}@127.0.0.1:${out}/w w w", ${login()} }`;
  const dir = await makeSite(files, `to: { web: ${target} }\n`);
  await uploads(dir, [], { expect: 0 });
  for (const [name, content] of Object.entries(files))
    assert.is(await readFile(join(out, "w w w", name), "utf8"), content);
  assert.equal((await readdir(join(out, "w w w"))).sort(), ["-n", "a b", "index.html", "quote's", "⛵"].sort());
  const again = JSON.parse((await uploads(dir, ["--json"], { expect: 0 })).stdout);
  assert.is(again.unchanged, 5);
});

sshTest("an unknown and a changed host key are refused, each with what to do", async () => {
  const out = tempDir();
  const unknown = join(tempDir(), "known hosts");
  await writeFile(unknown, "");
  const place = `rsync: "${sshd.user}@127.0.0.1:${out}/www"`;
  const dir = await makeSite({ "a.txt": "1" }, `to: { web: { ${place}, ${login(unknown)} } }\n`);
  const first = await uploads(dir, [], { expect: 1 });
  assert.match(first.stderr, /the host key of 127\.0\.0\.1 is not known in .*ssh-keyscan -p \d+/);
  const other = sshd.hostLine.replace(
    /ssh-ed25519 .*/,
    (await readFile(`${sshd.key}.pub`, "utf8")).split(" ").slice(0, 2).join(" "),
  );
  await writeFile(unknown, `${other}\n`);
  const second = await uploads(dir, [], { expect: 1 });
  assert.match(second.stderr, /the host key of 127\.0\.0\.1 has changed \(now SHA256:/);
  assert.equal(await readdir(out), []);
});

sshTest("a key that the server does not take is named, and tried once", async () => {
  const stranger = await startSshd();
  const out = tempDir();
  const config = `to: { web: { rsync: "${sshd.user}@127.0.0.1:${out}/www", key: ${stranger.key}, known_hosts: ${sshd.knownHosts}, port: ${sshd.port} } }\n`;
  const dir = await makeSite({ "a.txt": "1" }, config);
  const { stderr } = await uploads(dir, [], { expect: 1 });
  assert.match(stderr, /127\.0\.0\.1 does not let this key in \(.*id\)/);
  await stranger.stop();
});

sshTest("when the line drops, rsync is tried again until all is there", async () => {
  const out = tempDir();
  const line = await startFrailLine(sshd.port);
  line.breakNext(300_000);
  const content = Buffer.alloc(1_000_000, "not quite compressible 0123456789");
  const dir = await makeSite(
    { "big.bin": content, "index.html": "<p>" },
    `to: { web: { rsync: "${sshd.user}@127.0.0.1:${out}/www", ${line.login} } }\n`,
  );
  await uploads(dir, [], { expect: 0, timeout: 60_000 });
  assert.is(line.connections(), 2);
  assert.ok((await readFile(join(out, "www/big.bin"))).equals(content));
  assert.equal((await readdir(join(out, "www"))).sort(), ["big.bin", "index.html"]);
  await line.stop();
});

sshTest(
  "a reader who asks all the time never gets a page whose assets are not there, also when the line breaks",
  async () => {
    const out = tempDir();
    const www = join(out, "www");
    const names = Array.from({ length: 120 }, (_, index) => `assets/${index}`);
    const version = (number: number) => ({
      "about.html": `${number}`,
      "index.html": `${number}`,
      ...Object.fromEntries(names.map((name) => [`${name}-${number}.js`, "x".repeat(2000)])),
    });
    const line = await startFrailLine(sshd.port);
    const target = `rsync: "${sshd.user}@127.0.0.1:${www}", ${line.login}`;
    const dir = await makeSite(version(1), `to: { web: { ${target}, delete: true } }\n`);
    await uploads(dir, [], { expect: 0 });
    await rm(join(dir, "upload"), { recursive: true });
    await writeFiles(join(dir, "upload"), version(2));

    const seen: string[] = [];
    let over = false;
    const read = async () => {
      while (!over) {
        const page = await readFile(join(www, "index.html"), "utf8");
        const lacks = names.filter((name) => !existsSync(join(www, `${name}-${page}.js`)));
        // a page that was replaced while we looked for its assets is another page
        if ((await readFile(join(www, "index.html"), "utf8")) !== page) continue;
        if (lacks.length > 0) assert.unreachable(`page ${page} lacks ${lacks.length} assets`);
        if (seen.at(-1) !== page) seen.push(page);
      }
    };
    const reader = read();
    reader.catch(() => {}); // reported when it is awaited
    line.breakNext(200_000);
    await uploads(dir, ["--retries", "0"], { expect: 1 });
    assert.equal(seen, ["1"]);
    const { stdout } = await uploads(dir, ["--json"], { expect: 0 });
    await waitFor(() => seen.at(-1) === "2");
    over = true;
    await reader;
    assert.equal(seen, ["1", "2"]);
    assert.is(JSON.parse(stdout).counts.delete, names.length);
    assert.is(line.connections(), 3, "all passes go over one connection");
    assert.equal((await readdir(join(www, "assets"))).length, names.length);
    await line.stop();
  },
);

sshTest("killed by -9 it leaves no rsync running on, and what it leaves no visitor can guess", async () => {
  const out = tempDir();
  const line = await startFrailLine(sshd.port, 5_000_000);
  const target = `rsync: "${sshd.user}@127.0.0.1:${out}/www", ${line.login}`;
  const dir = await makeSite({ "a.bin": Buffer.alloc(50_000_000, randomBytes(999)) }, `to: { web: { ${target} } }\n`);
  const running = startScript("uploads", [dir], { env: { HOME: home, TMPDIR: tempDir() } });
  const rsyncs = async () => (await processesOf(out)).filter(({ command }) => command.startsWith("rsync "));
  await waitFor(async () => existsSync(join(out, "www")) && (await rsyncs()).length >= 2);
  running.kill("SIGKILL");
  await running.exited;
  await waitFor(async () => (await rsyncs()).length === 0);
  for (const name of await readdir(join(out, "www"))) assert.match(name, /^\.a\.bin\.\w{6}$/);
  await line.stop();
});

const full = isRoot ? undefined : "needs root, to mount a small disk";
testUnless(test, needsSshd ?? full)("a full disk on the other side is called that, by rsync and by git", async () => {
  const disk = tempDir();
  await runCommand(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], { expect: 0 });
  try {
    await runCommand(["git", "init", "--quiet", "--bare", join(disk, "site.git")], { expect: 0 });
    const there = `${sshd.user}@127.0.0.1`;
    const dir = await makeSite(
      { "big.bin": randomBytes(4_000_000), "index.html": "<p>" },
      `to:\n  web: { rsync: "${there}:${disk}/www", ${login()} }\n  pages: { git: "ssh://${there}:${sshd.port}${disk}/site.git", key: ${sshd.key}, known_hosts: "${sshd.knownHosts}" }\n`,
    );
    for (const to of ["web", "pages"]) {
      const { stderr } = await uploads(dir, ["--to", to, "--retries", "1"], { expect: 1 });
      assert.match(stderr, new RegExp(`${to}: the disk of 127\\.0\\.0\\.1 is full`));
    }
    assert.not(existsSync(join(disk, "www/index.html")));
  } finally {
    await runCommand(["umount", disk], { expect: 0 });
  }
});

sshTest("git goes over ssh with its own key and known hosts", async () => {
  const site = await makeRepo({ files: { "old.txt": "1" } });
  const url = `ssh://${sshd.user}@127.0.0.1:${sshd.port}${site.bare}`;
  const config = (hosts: string) => `to: { pages: { git: "${url}", key: ${sshd.key}, known_hosts: "${hosts}" } }\n`;
  const dir = await makeSite({ "a.txt": "1" }, config(sshd.knownHosts));
  await uploads(dir, [], { expect: 0 });
  assert.is(await git(site.bare, "show", "gh-pages:a.txt"), "1");
  const empty = join(tempDir(), "known hosts");
  await writeFile(empty, "");
  await writeFile(join(dir, "uploads.yml"), config(empty));
  const { stderr } = await uploads(dir, [], { expect: 1 });
  assert.match(stderr, /the host key of 127\.0\.0\.1 is not known/);
});

/**
 * A way to a port. A connection breaks after so many bytes when that was asked for before it was made.
 * @param rate bytes a second that pass.
 */
async function startFrailLine(to: number, rate = Number.POSITIVE_INFINITY) {
  let connections = 0;
  let nextBreak: number | undefined;
  const server: Server = createServer((client) => {
    connections++;
    const breakAfter = nextBreak ?? Number.POSITIVE_INFINITY;
    nextBreak = undefined;
    const onward = connect(to, "127.0.0.1");
    let passed = 0;
    const end = () => {
      client.destroy();
      onward.destroy();
    };
    client.on("error", end).on("close", end);
    onward.on("error", end).on("close", end);
    client.on("data", (chunk) => {
      passed += chunk.length;
      if (passed > breakAfter) return end();
      onward.write(chunk);
      if (rate === Number.POSITIVE_INFINITY) return;
      client.pause();
      setTimeout(() => client.resume(), (chunk.length / rate) * 1000);
    });
    onward.pipe(client);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  const knownHosts = join(tempDir(), "known_hosts");
  await writeFile(knownHosts, `${sshd.hostLine.replace(/^\S+/, `[127.0.0.1]:${port}`)}\n`);
  return {
    login: login(knownHosts, port),
    connections: () => connections,
    breakNext: (bytes: number) => void (nextBreak = bytes),
    stop: () => new Promise<void>((resolve) => server.close(() => resolve())),
  };
}

test.run();
