// Killed before any single step of a change, a folder is as it was or as it becomes, and the same command completes it.
import { cpSync, readdirSync, readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { dirname, join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { installInto } from "../../lib/launch/launch.ts";
import { contentOf } from "../helpers/log-content.ts";
import { runAt, sampleRun } from "../helpers/log-samples.ts";
import { git, makeRepo } from "../helpers/repos.ts";
import { runScript, scriptArgv } from "../helpers/run.ts";
import { testUnless } from "../helpers/skip.ts";
import { killAtEachStep, needsCompiler } from "../helpers/steps.ts";
import { tempDir } from "../helpers/tmp.ts";
import { snapshot } from "../helpers/trees.ts";
import { installedVersion, publish, publisher, serveFolder } from "../helpers/web-folder.ts";

const killTest = testUnless(test, needsCompiler);

/** A copy of a folder in a new place. */
function copyOf(template: string): string {
  const folder = join(tempDir("k-"), "copy");
  cpSync(template, folder, { recursive: true, verbatimSymlinks: true });
  return folder;
}

/** Fails unless the kills came before each of these. */
function assertSteps(steps: readonly string[], wanted: readonly RegExp[]): void {
  for (const each of wanted) {
    assert.ok(
      steps.some((step) => each.test(step)),
      `no step ${each} in:\n${steps.join("\n")}`,
    );
  }
}

killTest("launchfit, an update: current leads to a whole release of the old or the new version", async () => {
  const by = await publisher();
  const web = await serveFolder(join(tempDir(), "web"));
  const options = { key: by.fingerprint, note: () => {} };
  const template = join(tempDir(), "template");
  await publish(web.path, by, "1");
  await installInto(template, web.url, options);
  await publish(web.path, by, "2", { date: new Date(Date.now() + 10_000) });
  const check = async (deploy: string) => {
    assert.ok(["1", "2"].includes((await installedVersion(deploy)) ?? ""));
    for (const name of readdirSync(join(deploy, "releases"))) {
      assert.match(name, /^my-app-[12]$/);
      const release = join(deploy, "releases", name);
      assert.is(`my-app-${readFileSync(join(release, "version.txt"), "utf8")}`, name);
      assert.match(readFileSync(join(release, "bin/link"), "utf8"), "echo run");
    }
  };
  try {
    const steps = await killAtEachStep(
      async () => {
        const folder = copyOf(template);
        return { folder, argv: [...scriptArgv("launchfit"), web.url, "--dir", folder] };
      },
      async ({ folder }) => {
        await check(folder);
        await installInto(folder, web.url, options);
        assert.is(await installedVersion(folder), "2");
        assert.equal(readdirSync(join(folder, ".launchfit/temporary")), []);
        await check(folder);
      },
    );
    assertSteps(steps, [/^rename \/releases\/my-app-2$/, /^rename \/current$/, /^fsync /]);
  } finally {
    await web.close();
  }
});

killTest("slave-activate: what is served is a whole tree of the old or the new commit", async () => {
  const repo = await makeRepo({ files: { "a.txt": "1", "docs/b.txt": "1" } });
  const base = `file://${dirname(repo.bare)}`;
  const template = join(tempDir(), "repos");
  const args = (repos: string) => ["site", "--repos", repos, "--base", base];
  await runScript("slave-activate", args(template), { expect: 0 });
  const wanted: string[][] = [];
  for (const text of ["1", "2"]) {
    if (text === "2") await repo.push({ "a.txt": "2", "docs/b.txt": "2", "new.txt": "2" });
    const clone = join(tempDir(), "clone");
    await git("/", "clone", "--quiet", repo.url, clone);
    wanted.push(await snapshot(clone));
  }
  const [, after] = wanted.map((tree) => JSON.stringify(tree));
  const steps = await killAtEachStep(
    async () => {
      const folder = copyOf(template);
      return { folder, argv: [...scriptArgv("slave-activate"), ...args(folder)] };
    },
    async ({ folder, step }) => {
      const served = JSON.stringify(await snapshot(join(folder, "site")));
      assert.ok(wanted.map((tree) => JSON.stringify(tree)).includes(served), "neither tree");
      // a start for each would take too long
      if (Number.parseInt(step, 10) % 4 !== 0) return;
      await runScript("slave-activate", args(folder), { expect: 0 });
      assert.is(JSON.stringify(await snapshot(join(folder, "site"))), after);
    },
  );
  assertSteps(steps, [/^rename \/site$/]);
});

killTest("downloads: the name holds the old file or the new one, and the next run has the new one", async () => {
  const texts = ["the first chart\n".repeat(1000), "the second chart\n".repeat(1000)];
  const server = createServer((request, answer) => answer.end(texts[Number(request.url?.slice(1))]));
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address() as AddressInfo;
  const manifest = (version: number) => `http://127.0.0.1:${port}/${version}#${version} chart.svg\n`;
  const template = tempDir();
  await writeFile(join(template, "manifest.txt"), manifest(0));
  await runScript("downloads", [template], { expect: 0 });
  await writeFile(join(template, "manifest.txt"), manifest(1));
  const chart = (folder: string) => readFileSync(join(folder, "downloads/chart.svg"), "utf8");
  try {
    const steps = await killAtEachStep(
      async () => {
        const folder = copyOf(template);
        return { folder, argv: [...scriptArgv("downloads"), folder] };
      },
      async ({ folder, step }) => {
        assert.ok(texts.includes(chart(folder)), "neither file");
        if (Number.parseInt(step, 10) % 4 !== 0) return;
        await runScript("downloads", [folder], { expect: 0 });
        assert.is(chart(folder), texts[1]);
        assert.is(readFileSync(join(folder, "downloads/old/chart.0.svg"), "utf8"), texts[0]);
      },
    );
    assertSteps(steps, [/^link \/downloads\/old\//, /^rename \/downloads\/chart\.svg$/]);
  } finally {
    server.close();
  }
});

killTest("logs rotate: every line is in the log or in a part, once", async () => {
  const text = sampleRun(runAt("11:00:00"));
  const lines = text.split("\n").filter((line) => line !== "");
  const steps = await killAtEachStep(
    async () => {
      const folder = tempDir();
      await writeFile(join(folder, "logs.txt"), text);
      return { folder, argv: [...scriptArgv("logs"), "rotate", folder, "--max-size", "100"] };
    },
    async ({ folder }) => assert.equal(await contentOf(join(folder, "logs.txt")), lines),
  );
  assertSteps(steps, [/^rename \/logs\.txt\.[^/]*\.gz$/, /^unlink \/logs\.txt\.[^/]*Z$/]);
});

test.run();
