// The fleet under pressure: readers, kills, many slaves, cut lines, full disks.
// SOAK_SCALE=1 is the full size; the checks with namespaces and mounts need root.
import { lstat, mkdir, readdir, readFile, realpath, rm, writeFile } from "node:fs/promises";
import { createServer as createHttpsServer } from "node:https";
import { request } from "node:http";
import { dirname, join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { freePort } from "../helpers/ports.ts";
import { git, makeRepo, type TestRepo } from "../helpers/repos.ts";
import {
  type Running,
  runCommand,
  runScript,
  scriptArgv,
  startCommand,
  startScript,
} from "../helpers/run.ts";
import { needsRoot, testUnless } from "../helpers/skip.ts";
import { fakeSlave, silentSlave } from "../helpers/slaves.ts";
import { tempDir } from "../helpers/tmp.ts";

const scale = Number(process.env["SOAK_SCALE"] ?? 1);
const scaled = (count: number) => Math.max(2, Math.round(count * scale));
const fileCount = 60;
const secret = "0123456789abcdef0123456789abcdef";

const servers: Running[] = [];
test.after(async () => {
  await Promise.all(servers.map((server) => server.stop("SIGKILL")));
});

/** Every file of a version holds its number, so that a mixed tree shows. */
function version(number: number): Record<string, string> {
  const names = Array.from({ length: fileCount }, (_, index) => `d${index % 6}/f${index}`);
  return Object.fromEntries([...names, `only-${number}`].map((name) => [name, `${number}\n`]));
}

async function setUp() {
  const repo = await makeRepo({ files: version(0) });
  let number = 0;
  const push = async () => {
    number += 1;
    return await repo.push({ ...version(number), [`only-${number - 1}`]: null });
  };
  const repos = join(tempDir("slave-"), "repos");
  const args = ["site", "--repos", repos, "--base", `file://${dirname(repo.bare)}`];
  return { repo, repos, args, push, site: join(repos, "site") };
}

/** Reads a whole tree as one that resolves the link once; returns the version or fails. */
async function readWhole(site: string): Promise<string> {
  const tree = await realpath(site);
  const names = (await readdir(tree, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile() && !`${entry.parentPath}/`.startsWith(`${tree}/.git/`))
    .map((entry) => join(entry.parentPath, entry.name));
  const texts = await Promise.all(names.map((name) => readFile(name, "utf8")));
  const [number] = new Set(texts);
  assert.is(new Set(texts).size, 1, `a mixed tree: ${[...new Set(texts)].join()}`);
  assert.is(names.length, fileCount + 1);
  assert.ok(names.some((name) => name.endsWith(`/only-${number?.trim()}`)));
  return number?.trim() ?? "";
}

test("a reader in a tight loop sees no missing file and no mixed tree during 200 updates", async () => {
  const { args, push, site } = await setUp();
  await runScript("slave-activate", args, { expect: 0 });
  let running = true;
  let passes = 0;
  const seen = new Set<string>();
  const whole = (async () => {
    while (running) {
      seen.add(await readWhole(site));
      passes += 1;
    }
  })();
  const byPath = (async () => {
    while (running) {
      await readFile(join(site, "d0/f0"));
      await lstat(join(site, "d5/f5"));
    }
  })();
  const updates = (async () => {
    for (let round = 0; round < scaled(200); round++) {
      await push();
      await runScript("slave-activate", args, { expect: 0 });
    }
    running = false;
  })();
  await Promise.all([whole, byPath, updates]).finally(() => {
    running = false;
  });
  console.log(`${passes} passes over ${seen.size} versions`);
  assert.ok(passes > scaled(200));
});

test("killed at 50 random instants, the old or new tree stands whole, and the next update works", async () => {
  const { repo, repos, args, push, site } = await setUp();
  await runScript("slave-activate", args, { expect: 0 });
  const outcomes = { old: 0, new: 0 };
  for (let round = 0; round < scaled(50); round++) {
    const before = await readWhole(site);
    await push();
    const victim = startScript("slave-activate", args);
    await sleep(Math.random() * 900);
    victim.kill("SIGKILL");
    await victim.exited;
    const after = await readWhole(site);
    assert.ok(after === before || Number(after) === Number(before) + 1, `${before} then ${after}`);
    outcomes[after === before ? "old" : "new"] += 1;
    await runScript("slave-activate", [...args, "--wait"], { expect: 0 });
    await checkClean(repo, repos, site);
  }
  console.log(
    `killed runs left the old tree ${outcomes.old} times, the new one ${outcomes.new} times`,
  );
});

async function checkClean(repo: TestRepo, repos: string, site: string): Promise<void> {
  await readWhole(site);
  assert.is(await git(site, "rev-parse", "HEAD"), await repo.git("rev-parse", "HEAD"));
  assert.is(await git(site, "status", "--porcelain", "--ignored"), "");
  assert.equal((await readdir(repos)).sort(), [".boatyard", "site"]);
  const home = join(repos, ".boatyard/site");
  assert.equal((await readdir(home)).sort(), [
    "index",
    "lock",
    "mirror.git",
    "state.json",
    "trees",
  ]);
  assert.ok((await readdir(join(home, "trees"))).length <= 4);
  const left = await readdir(join(home, "mirror.git"), { recursive: true });
  assert.equal(
    left.filter((name) => /tmp_|\.lock$|incoming/.test(name)),
    [],
  );
}

test("a push every 100 ms while 50 slaves update: one commit on all of them afterwards", async () => {
  const { repo, push } = await setUp();
  const slaves = await Promise.all(
    Array.from({ length: scaled(50) }, async () => {
      const repos = join(tempDir("slave-"), "repos");
      const base = `file://${dirname(repo.bare)}`;
      const server = startScript("slave-server", [
        "--repos",
        repos,
        "--base",
        base,
        "--listen",
        "127.0.0.1:0",
        "--quiet",
        "--json",
      ]);
      servers.push(server);
      const [, port = ""] = await server.until(/127\.0\.0\.1:(\d+)/, { timeout: 120_000 });
      return { repos, name: `127.0.0.1:${port}` };
    }),
  );
  const list = join(tempDir(), "list");
  await writeFile(list, slaves.map(({ name }) => `${name}\n`).join(""));
  const update = (more: string[] = []) =>
    runScript("server-update", ["site", "--list", list, "--quiet", ...more], {
      timeout: 300_000,
      env: { XDG_STATE_HOME: dirname(list) },
    });
  let pushing = true;
  const pushes = (async () => {
    for (let round = 0; round < scaled(60); round++) {
      await push();
      await sleep(100);
    }
    pushing = false;
  })();
  // some follow to the end, some only ask, and they overlap
  while (pushing) await Promise.all([update(["--wait"]), update()]);
  await pushes;
  const last = await update(["--wait"]);
  assert.is(last.code, 0, last.stdout);
  const head = await repo.git("rev-parse", "HEAD");
  for (const { repos } of slaves) {
    assert.is(await git(join(repos, "site"), "rev-parse", "HEAD"), head);
  }
  assert.is((await update(["--status", "--sha", head])).code, 0);
});

test("1,000 hostile names and queries make no file, no process and no crash", async () => {
  const outside = tempDir();
  const repos = join(outside, "repos");
  const server = startScript("slave-server", [
    "--repos",
    repos,
    "--allow",
    "none-*",
    "--listen",
    "127.0.0.1:0",
  ]);
  servers.push(server);
  const [, port] = await server.until(/127\.0\.0\.1:(\d+)/);
  const bits = [
    "..",
    "/",
    "%2e",
    "%00",
    "$(id)",
    "`id`",
    "-",
    "--",
    "ext::",
    ";",
    "|",
    "&",
    "repo=",
    "?",
    "#",
    "\\",
    "%",
    "site",
    ".git",
    ".lock",
    "é",
    "\u202e",
    "{}",
    "[]",
    "__proto__",
  ];
  let seed = 7;
  const random = (below: number) => {
    seed = (seed * 1103515245 + 12345) % 2147483648;
    return seed % below;
  };
  for (let round = 0; round < scaled(1000); round++) {
    const text = Array.from({ length: 1 + random(6) }, () => bits[random(bits.length)]).join("");
    const name =
      random(2) === 0 ? encodeURIComponent(text) : encodeURI(text).replaceAll("#", "%23");
    const path =
      [`/get/?repo=${name}`, `/?repo=${name}`, `/jobs/${name}`, `/status?repo=${name}`, `/${name}`][
        random(5)
      ] ?? "/";
    const status = await new Promise<number>((done, fail) => {
      request({ port: Number(port), path, agent: false }, (response) => {
        response.resume();
        done(response.statusCode ?? 0);
      })
        .on("error", fail)
        .end();
    });
    assert.ok(status >= 400 && status < 500, `${path}: ${status}`);
  }
  assert.equal(await readdir(repos), [".boatyard"]);
  assert.equal(await readdir(join(repos, ".boatyard")), [".server"]);
  assert.equal(await readdir(outside), ["repos"]);
});

test("a git server that is silent, lies, or has a wrong certificate: the old tree stays, and the reason is told", async () => {
  const { args, site, repos } = await setUp();
  await runScript("slave-activate", args, { expect: 0 });
  const silent = await silentSlave();
  const lying = await fakeSlave(() => ({
    status: 200,
    body: "001e# service=git-upload-pack\n0000zzzz",
  }));
  const folder = tempDir();
  const [key, certificate] = [join(folder, "key"), join(folder, "crt")];
  await runCommand(
    [
      "openssl",
      "req",
      "-x509",
      "-newkey",
      "rsa:2048",
      "-nodes",
      "-keyout",
      key,
      "-out",
      certificate,
      "-days",
      "1",
      "-subj",
      "/CN=elsewhere",
    ],
    { expect: 0 },
  );
  const https = createHttpsServer({ key: await readFile(key), cert: await readFile(certificate) });
  await new Promise<void>((done) => https.listen(0, "127.0.0.1", done));
  const address = https.address();
  const httpsPort = typeof address === "object" && address ? address.port : 0;
  const cases: [string, RegExp][] = [
    [`git://${silent.name}`, /did not answer in time/],
    [`http://${silent.name}`, /did not answer in time/],
    [`http://${lying.name}`, /./],
    [`https://127.0.0.1:${httpsPort}`, /certificate/],
    [`http://127.0.0.1:${await freePort()}`, /onnect/],
  ];
  for (const [base, reason] of cases) {
    const { code, stderr } = await runScript("slave-activate", [
      "site",
      "--repos",
      repos,
      "--base",
      base,
      "--timeout",
      "2s",
    ]);
    assert.is(code, 1, `${base}: ${stderr}`);
    assert.match(stderr, reason);
    assert.match(stderr, /stays in place/);
    assert.is(await readWhole(site), "0");
  }
  https.closeAllConnections();
  https.close();
  await Promise.all([silent.close(), lying.close()]);
});

testUnless(test, needsRoot)(
  "a full disk keeps the old tree, and room makes the next update work",
  async () => {
    const { args, push, site, repos } = await setUp();
    await mkdir(repos);
    await runCommand(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", repos], { expect: 0 });
    try {
      await runScript("slave-activate", args, { expect: 0 });
      for (const room of [0, 20, 60, 200]) {
        const before = await readWhole(site);
        await push();
        await runCommand([
          "sh",
          "-c",
          `dd if=/dev/zero of=${repos}/.filler bs=1k 2>/dev/null; truncate -s -${room}k ${repos}/.filler`,
        ]);
        const { code, stderr } = await runScript("slave-activate", args);
        if (code !== 0) assert.match(stderr, /space|full|stays in place/i);
        assert.is(await readWhole(site), code === 0 ? String(Number(before) + 1) : before);
        await rm(join(repos, ".filler"));
        await runScript("slave-activate", args, { expect: 0 });
        await readWhole(site);
      }
    } finally {
      await runCommand(["umount", "--lazy", repos]);
    }
  },
);

testUnless(test, needsRoot)(
  "several hosts: one is cut off in the middle; it is named in time, and healed with the failed list",
  async () => {
    const { repo, push } = await setUp();
    const tag = process.pid % 10_000;
    const spaces = ["m", "a", "b", "c"].map((name) => `by${tag}${name}`);
    const [master = "", ...others] = spaces;
    const inside = (space: string, argv: string[]) => ["ip", "netns", "exec", space, ...argv];
    const folder = tempDir();
    await writeFile(join(folder, "secret"), secret, { mode: 0o600 });
    const gate = join(folder, "gate");
    const started: Running[] = [];
    try {
      for (const space of spaces) {
        await runCommand(["ip", "netns", "add", space], { expect: 0 });
        await runCommand(["ip", "-n", space, "link", "set", "lo", "up"], { expect: 0 });
      }
      await runCommand(["ip", "-n", master, "link", "add", "br0", "type", "bridge"], { expect: 0 });
      await runCommand(["ip", "-n", master, "addr", "add", "10.231.7.1/24", "dev", "br0"], {
        expect: 0,
      });
      await runCommand(["ip", "-n", master, "link", "set", "br0", "up"], { expect: 0 });
      for (const [index, space] of others.entries()) {
        const port = `p${index}`;
        await runCommand(
          [
            "ip",
            "-n",
            master,
            "link",
            "add",
            port,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            space,
          ],
          { expect: 0 },
        );
        await runCommand(["ip", "-n", master, "link", "set", port, "master", "br0", "up"], {
          expect: 0,
        });
        await runCommand(
          ["ip", "-n", space, "addr", "add", `10.231.7.1${index}/24`, "dev", "eth0"],
          { expect: 0 },
        );
        await runCommand(["ip", "-n", space, "link", "set", "eth0", "up"], { expect: 0 });
      }
      started.push(
        startCommand(
          inside(master, [
            "git",
            "daemon",
            "--export-all",
            "--listen=10.231.7.1",
            `--base-path=${dirname(repo.bare)}`,
            dirname(repo.bare),
          ]),
        ),
      );
      for (const [index, space] of others.entries()) {
        const config = join(folder, `${index}.yml`);
        const after = index === 1 ? `after: 'until test -e ${gate}; do sleep 0.1; done'\n` : "";
        await writeFile(
          config,
          `secret_file: secret\nbase: git://10.231.7.1/\nrepos: repos-${index}\n${after}`,
        );
        const server = startCommand(
          inside(space, [...scriptArgv("slave-server"), "--config", config]),
        );
        started.push(server);
        await server.until(/listens on 0\.0\.0\.0:9999/);
      }
      const list = join(folder, "list");
      await writeFile(list, "10.231.7.1[0-2]\n");
      const update = (from: string) =>
        startCommand(
          inside(master, [
            ...scriptArgv("server-update"),
            "site",
            "--list",
            from,
            "--wait",
            "--timeout",
            "2s",
            "--secret-file",
            join(folder, "secret"),
            "--failed",
            join(folder, "failed"),
          ]),
        );
      await writeFile(gate, "");
      assert.is((await update(list).exited).code, 0);
      await rm(gate);
      const sha = await push();
      const began = Date.now();
      const run = update(list);
      // the second one is at work, held by its after:
      for (let wait = 0; wait < 200; wait++) {
        const state = await readFile(join(folder, "repos-1/.boatyard/site/state.json"), "utf8");
        if (state.includes('"pending": true')) break;
        await sleep(50);
      }
      await runCommand(["ip", "-n", master, "link", "set", "p1", "down"], { expect: 0 });
      const { code, stdout } = await run.exited;
      assert.is(code, 1);
      assert.match(stdout, /10\.231\.7\.11 +FAILED: no (?:answer|connection)/);
      assert.match(stdout, /3 slaves: 2 ok, 1 failed/);
      console.log(`a cut line was told after ${Date.now() - began} ms`);
      await writeFile(gate, "");
      await runCommand(["ip", "-n", master, "link", "set", "p1", "up"], { expect: 0 });
      const healed = await update(join(folder, "failed")).exited;
      assert.is(healed.code, 0, healed.stdout + healed.stderr);
      for (const index of [0, 1, 2]) {
        assert.is(await git(join(folder, `repos-${index}/site`), "rev-parse", "HEAD"), sha);
      }
    } finally {
      for (const server of started) await server.stop("SIGTERM");
      for (const space of spaces) await runCommand(["ip", "netns", "del", space]);
    }
  },
);

test.run();
