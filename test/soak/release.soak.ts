// Kill -9 at every rename, symlink, unlink, fsync and mkdir of an update; a full disk at every step of it.
import { cpSync, mkdirSync, readdirSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { closeWeb, killAt, updateWithFault } from "../helpers/killed-install.ts";
import { runCommand, scriptArgv } from "../helpers/run.ts";
import { needsRoot, testUnless } from "../helpers/skip.ts";
import { changingCalls, needsStrace } from "../helpers/strace.ts";
import { tarGz } from "../helpers/tar.ts";
import { tempDir } from "../helpers/tmp.ts";
import { installedVersion, publish, publisher, serveFolder } from "../helpers/web-folder.ts";

const scale = Number(process.env["SOAK_SCALE"] ?? 1);
/** Every step at full size, every tenth at 0.1. */
const step = Math.max(1, Math.round(1 / scale));
/** The same for calls of which an update makes a dozen. */
const few = Math.min(4, step);
test.after(closeWeb);

for (const kind of Object.keys(changingCalls) as (keyof typeof changingCalls)[]) {
  testUnless(test, needsStrace)(`killed at every ${kind} of an update`, async () => {
    let killed = 0;
    for (let n = 1; n < 500; n += few) {
      if (!(await killAt(kind, n))) break;
      killed += 1;
    }
    console.log(`killed at ${killed} instants of ${kind}`);
    assert.ok(killed > 0);
  });
}

testUnless(test, needsStrace)("ENOSPC at every write, rename, mkdir and symlink of an update", async () => {
  let failed = 0;
  for (const calls of [
    "write,pwrite64,writev,pwritev",
    changingCalls.rename,
    changingCalls.mkdir,
    changingCalls.symlink,
    "fsync,fdatasync",
  ]) {
    // the first writes are the runtime's own, to its pipes and event descriptors: they may end it at once
    for (let n = 1; n < 150; n += calls.startsWith("write") ? step : few) {
      const result = await updateWithFault(calls, `error=ENOSPC:when=${n}`);
      if (!result) {
        if (n > 60 || calls !== "write,pwrite64,writev,pwritev") break;
        continue;
      }
      failed += 1;
    }
  }
  assert.ok(failed > 0);
  console.log(`${failed} updates met a full disk`);
});

testUnless(test, needsRoot)(
  "a disk of every small size: the old version stays, and with room it completes",
  async () => {
    const by = await publisher();
    const base = tempDir("full-");
    const web = await serveFolder(join(base, "web"));
    const deploy = join(base, "deploy");
    const content = Buffer.alloc(300_000, "0123456789abcdef");
    const archive = (version: string) =>
      tarGz(
        { name: "launchify.yml", content: "app:\n  name: my-app\n" },
        { name: "big", content },
        { name: "version.txt", content: version },
      );
    await publish(web.path, by, "1", { archive: archive("1") });
    mkdirSync(deploy);
    await runCommand(["mount", "-t", "tmpfs", "-o", "size=4m,mode=755", "tmpfs", deploy], {
      expect: 0,
    });
    try {
      const argv = [...scriptArgv("launchfit"), web.url, "--dir", deploy, "--key", by.fingerprint];
      await runCommand(argv, { expect: 0 });
      const kept = join(base, "kept");
      cpSync(deploy, kept, { recursive: true, verbatimSymlinks: true });
      await publish(web.path, by, "2", {
        archive: archive("2"),
        date: new Date(Date.now() + 10_000),
      });
      let full = 0;
      for (let size = 330; size < 760; size += 12 * step) {
        await runCommand(["sh", "-c", 'rm -rf "$1"/* "$1"/.launchfit', "sh", deploy], {
          expect: 0,
        });
        cpSync(kept, deploy, { recursive: true, verbatimSymlinks: true });
        await runCommand(["mount", "-o", `remount,size=${size}k`, deploy], { expect: 0 });
        const { code, stderr } = await runCommand(argv);
        assert.ok(code === 0 || code === 1, stderr);
        assert.is(await installedVersion(deploy), code === 0 ? "2" : "1");
        if (code === 1) full += 1;
        await runCommand(["mount", "-o", "remount,size=4m", deploy], { expect: 0 });
        await runCommand(argv, { expect: 0 });
        assert.is(await installedVersion(deploy), "2");
        assert.equal(readdirSync(join(deploy, ".launchfit", "temporary")), []);
      }
      console.log(`${full} installs met a full disk`);
      assert.ok(full > 0 || step > 1);
    } finally {
      await runCommand(["umount", deploy], { expect: 0 });
      await web.close();
    }
  },
);

test.run();
