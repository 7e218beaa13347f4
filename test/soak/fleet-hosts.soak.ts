// A fleet of several hosts, one of which is cut off: network namespaces with their own addresses, as root.
import { readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { numberedRepo } from "../helpers/numbered.ts";
import { git } from "../helpers/repos.ts";
import { type Running, runCommand, scriptArgv, startCommand } from "../helpers/run.ts";
import { needsRoot, testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";

const secret = "0123456789abcdef0123456789abcdef";

testUnless(test, needsRoot)(
  "several hosts: one is cut off in the middle; it is named in time, and healed with the failed list",
  async () => {
    const { repo, push } = await numberedRepo();
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
          ["ip", "-n", master, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", space],
          { expect: 0 },
        );
        await runCommand(["ip", "-n", master, "link", "set", port, "master", "br0", "up"], {
          expect: 0,
        });
        await runCommand(["ip", "-n", space, "addr", "add", `10.231.7.1${index}/24`, "dev", "eth0"], { expect: 0 });
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
          `name: 10.231.7.1${index}\nsecret_file: secret\nbase: git://10.231.7.1/\nrepos: repos-${index}\n${after}`,
        );
        const server = startCommand(inside(space, [...scriptArgv("slave-server"), "--config", config]));
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
            "--base",
            "git://10.231.7.1/",
            "--wait-limit",
            "15s",
            "--failed",
            join(folder, "failed"),
          ]),
          { env: { XDG_STATE_HOME: folder } },
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
