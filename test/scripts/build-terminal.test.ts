// What a person sees of a build who watches it, on terminals of two widths, through script(1).
import { chmod, copyFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { stripVTControlCharacters } from "node:util";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { git, gitEnv, makeRepo, writeFiles } from "../helpers/repos.ts";
import { scriptArgv, startCommand } from "../helpers/run.ts";
import { root } from "../helpers/runtime.ts";
import { needsCommand, testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";

const terminalTest = testUnless(test, needsCommand("script"));

/** Starts a command on a terminal of so many columns. */
function onTerminal(columns: number, argv: string[], env: NodeJS.ProcessEnv = {}) {
  const command = `stty cols ${columns}; ${argv.map((word) => `'${word}'`).join(" ")}`;
  return startCommand(["script", "-qefc", command, "/dev/null"], { env: { TERM: "xterm", ...env } });
}

/** What stands on the screen at the end, all that was ever drawn, and the widest of that. */
function screenOf(output: string): { lines: string[]; states: string[]; widest: number } {
  const drawn = output.split("\n").map((line) => line.split("\r\u001B[K").flatMap((part) => part.split("\r")));
  const plain = drawn.map((states) => states.map((state) => stripVTControlCharacters(state)));
  return {
    lines: plain.map((states) => states.filter(Boolean).at(-1) ?? ""),
    states: plain.flat(),
    widest: Math.max(...plain.flat().map((text) => [...text].length)),
  };
}

for (const columns of [80, 120]) {
  terminalTest(`at ${columns} columns one line tells the stage, its command and for how long it runs`, async () => {
    const dir = tempDir();
    const wait = "until [ -e go ]; do sleep 0.05; done";
    await writeFiles(dir, {
      "build.yml": `stages: [install, wait, test]\ncommands: { wait: '${wait}; echo ${"x".repeat(30)}', test: "true" }\n`,
    });
    const running = onTerminal(columns, [...scriptArgv("build"), dir]);
    await running.until(/\r\u001B\[K2\/3 wait [12]\.?0?s \$ until \[ -e go \]; do/);
    await writeFile(join(dir, "go"), "");
    const { code, stdout } = await running.exited;
    assert.is(code, 0, stdout);
    const { lines, states } = screenOf(stdout);
    for (const state of states.filter((each) => each.startsWith("2/3"))) assert.ok(state.length < columns, state);
    assert.not.match(lines.join("\n"), /2\/3 wait/, "the line is gone in the end");
    assert.match(lines.join("\n"), /^wait +ok +\S+$/m);
    assert.match(lines.join("\n"), /^skipped: install$/m);
  });

  terminalTest(`at ${columns} columns the table of a failed build and the list of runs fit`, async () => {
    const dir = tempDir();
    const stage = "pages-of-the-handbook";
    await writeFiles(dir, {
      "build.yml": `stages: [${stage}]\ncommands: { ${stage}: sleep 60 }\ntimeout: { ${stage}: 1s }\n`,
    });
    const { code, stdout } = await onTerminal(columns, [...scriptArgv("build"), dir]).exited;
    assert.is(code, 1, stdout);
    const at = stdout.indexOf("stage ");
    assert.ok(screenOf(stdout.slice(at)).widest <= columns, stdout.slice(at));
    assert.match(
      stripVTControlCharacters(stdout.slice(at)),
      /^pages-of-the-handbook +timeout +1\S+ +took longer than its/m,
    );
    const list = await onTerminal(columns, [...scriptArgv("logs"), "--list", dir]).exited;
    assert.ok(screenOf(list.stdout).widest <= columns, list.stdout);
    assert.match(list.stdout, /timeout/);
  });

  terminalTest(`at ${columns} columns the last that a pusher reads is why, and that the push is stored`, async () => {
    const repo = await makeRepo({ name: "ada/site" });
    const hook = join(repo.bare, "hooks/post-receive");
    await copyFile(join(root, "hooks/post-receive"), hook);
    await chmod(hook, 0o755);
    const program = join(tempDir("bin-"), "build");
    await writeFile(program, `#!/bin/sh\nexec ${scriptArgv("build").join(" ")} "$@"\n`, { mode: 0o755 });
    await git(repo.bare, "config", "boatyard.dir", join(tempDir(), "site"));
    await git(repo.bare, "config", "boatyard.build", program);
    await repo.commit({ "build.yml": "stages: [pull, test]\ncommands: { test: 'echo one; exit 1' }\n" });
    const push = onTerminal(columns, ["git", "-C", repo.work, "push", "origin", "main"], gitEnv);
    const { code, stdout } = await push.exited;
    assert.is(code, 0, stdout);
    const remote = screenOf(stdout).lines.filter((line) => line.startsWith("remote: ") && line.trim() !== "remote:");
    assert.match(remote.at(-1) ?? "", /FAILED: test: exit code 1; the push itself is stored, so git push exits 0/);
    assert.not.match(stdout, /2\/2 test/, "no line is redrawn through git's pipe");
  });
}

test.run();
