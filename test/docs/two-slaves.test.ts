// docs/two-slaves.md typed in line by line, each server in a terminal of its own.
import { chmod, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { filledIn, shellBlocks } from "../helpers/pages.ts";
import { freePort } from "../helpers/ports.ts";
import { type Running, runCommand, scriptArgv, startCommand } from "../helpers/run.ts";
import { needsCommand, testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";

const scripts = ["server-update", "slave-activate", "slave-server"];

/** The scripts by their names, as they would be on PATH. */
async function makePath(dir: string): Promise<string> {
  const bin = join(dir, "bin");
  await mkdir(bin);
  for (const name of scripts) {
    const words = scriptArgv(name).map((word) => `'${word}'`);
    await writeFile(join(bin, name), `#!/bin/sh\nexec ${words.join(" ")} "$@"\n`);
    await chmod(join(bin, name), 0o755);
  }
  return `${bin}:${process.env["PATH"]}`;
}

testUnless(test, needsCommand("curl"))("two slaves by hand: the page's commands do what it says", async () => {
  const dir = tempDir("two-");
  const PATH = await makePath(dir);
  const [one, two] = [String(await freePort()), String(await freePort())];
  const env = {
    PATH,
    HOME: dir,
    XDG_STATE_HOME: join(dir, ".local/state"),
    // an account that has never used git, and whose name git does not guess
    GIT_CONFIG_GLOBAL: "/dev/null",
    GIT_CONFIG_SYSTEM: "/dev/null",
    GIT_CONFIG_COUNT: "1",
    GIT_CONFIG_KEY_0: "user.useConfigOnly",
    GIT_CONFIG_VALUE_0: "true",
  };
  const text = (await shellBlocks("two-slaves.md")).map((block) => block.text).join("");
  const lines = filledIn(text, {
    "127.0.0.1:9001": `127.0.0.1:${one}`,
    "127.0.0.1:9002": `127.0.0.1:${two}`,
  }).split("\n");

  const servers = new Map<string, Running>();
  let cwd = dir;
  /** The id in the page's example; each job has its own. */
  const shownJob = /"job":"([^"]+)"/.exec(text)?.[1] ?? "";
  let job = "";
  let last = "";
  const sh = async (command: string, expect = 0): Promise<void> => {
    const { stdout } = await runCommand(["sh", "-ec", `${command}\npwd >"$HOME/cwd"`], {
      cwd,
      env,
      expect,
    });
    last = stdout;
    if (expect === 0) cwd = (await runCommand(["cat", join(dir, "cwd")])).stdout.trim();
  };
  try {
    for (const line of lines) {
      const command = line.slice("$ ".length);
      if (line === "") continue;
      if (!line.startsWith("$ ")) {
        // what the page shows is what comes, but for ids, times and columns
        const shown = line.replace(/"job":"[^"]+"/, '"job":"');
        const first = shown.split(/ {2}|[;,]|[0-9a-f]{12}/)[0] ?? "";
        assert.match(last, first.trim());
      } else if (command.startsWith("slave-server ")) {
        const server = startCommand(["sh", "-c", `exec ${command}`], { cwd, env });
        await server.until(/listens on/);
        servers.set(command, server);
      } else if (command.includes("--converge")) {
        // "End the second slave with Ctrl-C, push once more, and see how it is told"
        const [start = "", server] = [...servers].at(-1) ?? [];
        assert.is((await server?.stop("SIGINT"))?.code, 0);
        await sh("cd work && echo three > index.html && git commit -qam three && git push -q && cd ..");
        await sh("server-update site --list slavelist.txt --wait", 1);
        assert.match(last, `127.0.0.1:${two}  FAILED`);
        servers.set(start, startCommand(["sh", "-c", `exec ${start}`], { cwd, env }));
        await servers.get(start)?.until(/listens on/);
        await sh(command);
      } else {
        await sh(command.includes(shownJob) ? filledIn(command, { [shownJob]: job }) : command);
        job = /"job":"([^"]+)"/.exec(last)?.[1] ?? job;
      }
      if (command.includes("--rollback")) {
        await sh("cat slave1/site/index.html");
        assert.is(last, "two\n", "the update before stands again");
      }
    }
    assert.match(last, '"state":"done"');
  } finally {
    for (const server of servers.values()) await server.stop();
  }
});

test.run();
