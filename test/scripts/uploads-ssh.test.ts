import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { createServer, connect, type Server } from "node:net";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { git, makeRepo, writeFiles } from "../helpers/repos.ts";
import { type RunOptions, runScript } from "../helpers/run.ts";
import { testUnless } from "../helpers/skip.ts";
import { needsSshd, startSshd, type TestSshd } from "../helpers/sshd.ts";
import { tempDir } from "../helpers/tmp.ts";

const sshTest = testUnless(test, needsSshd);
const home = tempDir();
let sshd: TestSshd;
test.before(async () => {
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

sshTest(
  "rsync goes over ssh with its own key and known hosts, names of every kind included",
  async () => {
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
    assert.equal(
      (await readdir(join(out, "w w w"))).sort(),
      ["-n", "a b", "index.html", "quote's", "⛵"].sort(),
    );
    const again = JSON.parse((await uploads(dir, ["--json"], { expect: 0 })).stdout);
    assert.is(again.unchanged, 5);
  },
);

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
  const line = await startFrailLine(sshd.port, 300_000);
  const hosts = join(tempDir(), "known_hosts");
  await writeFile(hosts, `${sshd.hostLine.replace(/^\S+/, `[127.0.0.1]:${line.port}`)}\n`);
  const content = Buffer.alloc(1_000_000, "not quite compressible 0123456789");
  const dir = await makeSite(
    { "big.bin": content, "index.html": "<p>" },
    `to: { web: { rsync: "${sshd.user}@127.0.0.1:${out}/www", ${login(hosts, line.port)} } }\n`,
  );
  await uploads(dir, [], { expect: 0, timeout: 60_000 });
  assert.ok(line.connections() > 1);
  assert.ok((await readFile(join(out, "www/big.bin"))).equals(content));
  assert.equal((await readdir(join(out, "www"))).sort(), ["big.bin", "index.html"]);
  await line.stop();
});

sshTest("git goes over ssh with its own key and known hosts", async () => {
  const site = await makeRepo({ files: { "old.txt": "1" } });
  const url = `ssh://${sshd.user}@127.0.0.1:${sshd.port}${site.bare}`;
  const config = (hosts: string) =>
    `to: { pages: { git: "${url}", key: ${sshd.key}, known_hosts: "${hosts}" } }\n`;
  const dir = await makeSite({ "a.txt": "1" }, config(sshd.knownHosts));
  await uploads(dir, [], { expect: 0 });
  assert.is(await git(site.bare, "show", "gh-pages:a.txt"), "1");
  const empty = join(tempDir(), "known hosts");
  await writeFile(empty, "");
  await writeFile(join(dir, "uploads.yml"), config(empty));
  const { stderr } = await uploads(dir, [], { expect: 1 });
  assert.match(stderr, /the host key of 127\.0\.0\.1 is not known/);
});

/** A way to a port whose first connection breaks after so many bytes. */
async function startFrailLine(to: number, bytes: number) {
  let connections = 0;
  const server: Server = createServer((client) => {
    connections++;
    const breaks = connections === 1;
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
      if (breaks && passed > bytes) end();
      else onward.write(chunk);
    });
    onward.pipe(client);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as { port: number }).port,
    connections: () => connections,
    stop: () => new Promise<void>((resolve) => server.close(() => resolve())),
  };
}

test.run();
