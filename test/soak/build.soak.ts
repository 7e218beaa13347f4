// `build` at length: a plugin from npm itself, bursts of builds in one folder, kills at random moments.
import { existsSync } from "node:fs";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { processesOf } from "../helpers/leftovers.ts";
import { git, makeRepo } from "../helpers/repos.ts";
import { runCommand, runScript, startScript, timed } from "../helpers/run.ts";
import { testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";
import { slowness } from "../helpers/wait.ts";

const scale = Number(process.env["SOAK_SCALE"] ?? "1");
const times = (full: number) => Math.max(2, Math.round(full * scale));
const env = { GIT_CONFIG_GLOBAL: "/dev/null", GIT_CONFIG_NOSYSTEM: "1" };

const online = await runCommand(["npm", "view", "litpro-jshint", "version"], {
  timeout: 30_000,
}).then(
  ({ code }) => code === 0,
  () => false,
);

testUnless(test, online ? undefined : "needs the npm registry")(
  "a literate program with litpro and a plugin from npm is what litpro alone makes",
  async () => {
    const repo = await makeRepo({
      files: {
        "package.json": JSON.stringify({
          name: "site",
          private: true,
          devDependencies: { litpro: "2.1.0", "litpro-jshint": "0.4.0" },
        }),
        ".gitignore": "node_modules/\nbuild/\n",
        "lprc.js":
          'module.exports = function (Folder, args) { require("litpro-jshint")(Folder, args); args.file = ["project.md", "tool.md"]; };\n',
        "project.md":
          '# P\n\n[count.js](#code "save:| jshint")\n[one](one.md "load:")\n\n## Code\n\n    var i;\n    for (i = 1; i <= 3; i += 1) {\n        _"body"\n    }\n\n### Body\n\n    console.log(i);\n',
        "tool.md":
          '# T\n\n[tool.js](#code "save:| jshint")\n\n## Code\n\n    var unused = 1;\n    console.log("tool")\n',
        "src/one.md": '# One\n\n[page.html](#html "save:")\n\n## HTML\n\n    <h1>Hello</h1>\n',
      },
    });
    await runCommand(["npm", "install", "--package-lock-only", "--no-audit"], {
      cwd: repo.work,
      expect: 0,
      timeout: 120_000,
    });
    await repo.push({}, { message: "Lock" });
    const dir = await repo.checkout(join(tempDir(), "site"));
    const { stdout } = await runScript("build", [dir], { env, expect: 0, timeout: 180_000 });
    assert.match(stdout, /install +ok .* npm ci\nlitpro +ok .* 3 saved/);
    const alone = await repo.checkout(join(tempDir(), "alone"));
    await runCommand(["npm", "ci", "--no-audit"], { cwd: alone, expect: 0, timeout: 180_000 });
    await runCommand(["node", "node_modules/.bin/litpro"], { cwd: alone, expect: 0 });
    await runCommand(["diff", "-r", "--exclude=.checksum", join(dir, "build"), join(alone, "build")], { expect: 0 });
    assert.match((await runScript("build", [dir], { env, expect: 0 })).stdout, /install +skipped +nothing changed/);
  },
);

test("builds that are started in a burst in one folder never overlap, and all run", async () => {
  const repo = await makeRepo({
    files: {
      "build.yml":
        "stages: [pull, make]\ncommands: { make: 'mkdir alone && sleep 0.05 && rmdir alone && echo x >> made' }\n",
    },
  });
  const dir = await repo.checkout(join(tempDir(), "site"));
  const count = times(40);
  const runs = Array.from({ length: count }, () => startScript("build", [dir, "--wait", "--quiet"], { env }));
  const results = await Promise.all(runs.map(({ exited }) => exited));
  assert.equal(
    results.map(({ code }) => code).filter((code) => code !== 0),
    [],
  );
  assert.is((await readFile(join(dir, "made"), "utf8")).length, 2 * count);
});

test("a build that is killed at any moment does not stop the next one, which is complete", async () => {
  const repo = await makeRepo({
    files: { "build.yml": "stages: [pull, make]\ncommands: { make: 'cp a.txt built' }\n" },
  });
  const dir = await repo.checkout(join(tempDir(), "site"));
  await repo.push({ "a.txt": "to pull\n" });
  const usual = await timed(() => runScript("build", [dir, "--quiet"], { env, expect: 0 }));
  for (let round = 0; round < times(60); round++) {
    const files = Object.fromEntries(
      Array.from({ length: 50 }, (_, index) => [`f/${index}.txt`, `${round} ${index}\n`]),
    );
    const sha = await repo.push({ ...files, "a.txt": `${round}\n` });
    const killed = startScript("build", [dir, "--quiet"], { env });
    await sleep(usual * (0.2 + Math.random()));
    killed.kill("SIGKILL");
    await killed.exited;
    // what it had started goes on by itself; hook-server would end it
    for (const { pid } of await processesOf(dir)) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // it has ended
      }
    }
    await runScript("build", [dir, "--quiet", "--wait"], { env, expect: 0 });
    assert.is(await git(dir, "rev-parse", "HEAD"), sha);
    assert.is(await readFile(join(dir, "built"), "utf8"), `${round}\n`);
    assert.is(await git(dir, "status", "--porcelain", "--untracked-files=no"), "");
  }
  const left = (await readdir(join(dir, ".git"))).filter((name) => name.endsWith(".lock"));
  assert.equal(left, []);
});

test("builds that hang are ended one after the other with all they started", async () => {
  const dir = tempDir();
  await writeFile(
    join(dir, "build.yml"),
    "stages: [hang]\ncommands:\n  hang: |\n    setsid sh -c 'sleep 1000 & sleep 1001 &' &\n    (trap '' TERM INT; setsid sleep 1002; sleep 1003) &\n    touch begun; wait\n" +
      // long enough for the command to begin, on a slow machine too
      `timeout: { hang: ${Math.ceil(500 * slowness())}ms }\n`,
  );
  for (let round = 0; round < times(10); round++) {
    await runScript("build", [dir, "--quiet"], { env, expect: 1, timeout: 60_000 });
    assert.ok(existsSync(join(dir, "begun")));
    assert.equal(await processesOf(dir), []);
  }
});

test.run();
