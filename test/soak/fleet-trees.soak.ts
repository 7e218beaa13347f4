// Trees under pressure: readers in a tight loop, kill -9 at any instant, bad git servers, a full disk.
// SOAK_SCALE=1 is the full size; the check with a mount needs root.
import { lstat, mkdir, readdir, readFile, rm } from "node:fs/promises";
import { createServer as createHttpsServer } from "node:https";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { numberedRepo, readWhole } from "../helpers/numbered.ts";
import { freePort } from "../helpers/ports.ts";
import { git, type TestRepo } from "../helpers/repos.ts";
import { runCommand, runScript, startScript, timed } from "../helpers/run.ts";
import { needsRoot, testUnless } from "../helpers/skip.ts";
import { fakeSlave, silentSlave } from "../helpers/slaves.ts";
import { changingCalls, injected, needsStrace } from "../helpers/strace.ts";
import { tempDir } from "../helpers/tmp.ts";
import { slowness } from "../helpers/wait.ts";

const scale = Number(process.env["SOAK_SCALE"] ?? 1);
const scaled = (count: number) => Math.max(2, Math.round(count * scale));
/** Every step at full size, every tenth at 0.1. */
const stride = Math.max(1, Math.round(1 / scale));

test("a reader in a tight loop sees no missing file and no mixed tree during 200 updates", async () => {
  const { args, push, site } = await numberedRepo();
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
  const { repo, repos, args, push, site } = await numberedRepo();
  await runScript("slave-activate", args, { expect: 0 });
  await push();
  const usual = await timed(() => runScript("slave-activate", args, { expect: 0 }));
  const outcomes = { old: 0, new: 0 };
  for (let round = 0; round < scaled(50); round++) {
    const before = await readWhole(site);
    await push();
    const victim = startScript("slave-activate", args);
    await sleep(Math.random() * 1.2 * usual);
    victim.kill("SIGKILL");
    await victim.exited;
    const after = await readWhole(site);
    assert.ok(after === before || Number(after) === Number(before) + 1, `${before} then ${after}`);
    outcomes[after === before ? "old" : "new"] += 1;
    await runScript("slave-activate", [...args, "--wait"], { expect: 0 });
    await checkClean(repo, repos, site);
  }
  console.log(`killed runs left the old tree ${outcomes.old} times, the new one ${outcomes.new} times`);
});

testUnless(test, needsStrace)(
  "killed at any step that changes a folder, it or its git: the old or new tree, and the next update works",
  async () => {
    const { repo, repos, args, push, site } = await numberedRepo();
    // until a former tree is used again, as on any slave after its fourth update
    for (let round = 0; round < 4; round++) {
      await push();
      await runScript("slave-activate", args, { expect: 0 });
    }
    const outcomes = { old: 0, new: 0 };
    let kills = 0;
    const kinds = Object.entries({ ...changingCalls, link: "link,linkat" });
    for (const [index, [name, calls]] of kinds.entries()) {
      // each kind begins elsewhere, so that a small scale sees late steps, too
      for (let step = 1 + ((2 * index) % stride); step <= 40; step += stride) {
        const before = await readWhole(site);
        await push();
        const fault = `signal=KILL:when=${step}`;
        const { code } = await runCommand(injected("slave-activate", args, calls, fault));
        const after = await readWhole(site);
        assert.ok([before, String(Number(before) + 1)].includes(after), `${name} ${step}: ${after}`);
        outcomes[after === before ? "old" : "new"] += 1;
        await runScript("slave-activate", [...args, "--wait"], { expect: 0 });
        // a run that was killed when the new tree was in place leaves the oldest one to the next update
        await checkClean(repo, repos, site, 5);
        // nobody came so far
        if (code === 0) break;
        kills += 1;
      }
    }
    assert.ok(kills > 0);
    await push();
    await runScript("slave-activate", args, { expect: 0 });
    await checkClean(repo, repos, site);
    console.log(`killed at a step: the old tree ${outcomes.old} times, the new one ${outcomes.new} times`);
  },
);

async function checkClean(repo: TestRepo, repos: string, site: string, most = 4): Promise<void> {
  await readWhole(site);
  assert.is(await git(site, "rev-parse", "HEAD"), await repo.git("rev-parse", "HEAD"));
  assert.is(await git(site, "status", "--porcelain", "--ignored"), "");
  assert.equal((await readdir(repos)).sort(), [".boatyard", "site"]);
  const home = join(repos, ".boatyard/site");
  assert.equal((await readdir(home)).sort(), ["index", "lock", "state.json", "trees"]);
  const trees = await readdir(join(home, "trees"));
  assert.ok(trees.length <= most, `${trees.join(" ")} are more trees than are kept`);
  const left = await readdir(join(site, ".git"), { recursive: true });
  assert.equal(
    left.filter((name) => /tmp_|\.lock$|incoming/.test(name)),
    [],
  );
}

test("a git server that is silent, lies, or has a wrong certificate: the old tree stays, and the reason is told", async () => {
  const { args, site, repos } = await numberedRepo();
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
      `${Math.ceil(2 * slowness())}s`,
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

testUnless(test, needsRoot)("a full disk keeps the old tree, and room makes the next update work", async () => {
  const { args, push, site, repos } = await numberedRepo();
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
});

test.run();
