// launchfit deploy: a folder becomes a release, without a web folder or a key.
import { mkdirSync, readdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { askPort, webApp } from "../helpers/launch.ts";
import { freePort } from "../helpers/ports.ts";
import { runScript, startScript } from "../helpers/run.ts";
import { needsCommand, testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";
import { waitFor } from "../helpers/wait.ts";

const noRsync = needsCommand("rsync");

/** A deploy directory, and a folder that a build made. */
async function prepare(more = "") {
  const [directory, folder, port] = [tempDir(), tempDir(), await freePort()];
  const health = `health: { url: "http://127.0.0.1:${port}/", within: 20s }`;
  const app = `app:\n  name: my-app\n  exec: exec node server.js\n  env: { PORT: "${port}" }\n  ${health}\n`;
  writeFileSync(join(directory, "launchify.yml"), `${app}updates: { enabled: false, watch: 200ms }\n${more}`);
  mkdirSync(join(folder, ".git"));
  mkdirSync(join(folder, "assets"));
  writeFileSync(join(folder, "assets/same.txt"), "the same");
  const build = (version: string, extra = "") =>
    writeFileSync(join(folder, "server.js"), webApp(version, extra)["server.js"] ?? "");
  const deploy = (...words: string[]) => runScript("launchfit", ["deploy", directory, folder, ...words]);
  const inode = (version: string, file: string) => statSync(join(directory, `releases/my-app-${version}`, file)).ino;
  return { directory, folder, port, build, deploy, inode };
}

testUnless(test, noRsync)(
  "a folder becomes a release that the running launchfit changes to; what has not changed is a link to the release before",
  async () => {
    const { directory, folder, port, build, deploy, inode } = await prepare();
    build("1");
    const first = await deploy("--as", "1");
    assert.is(first.code, 0, first.stderr);
    assert.match(first.stdout, "installed 1; the next start of the app uses it");
    assert.equal(readdirSync(join(directory, "current")).sort(), ["assets", "server.js"]);
    const running = startScript("launchfit", ["--dir", directory]);
    await waitFor(async () => (await askPort(port)) === "1", { what: "version 1" });
    build("2");
    const second = await deploy("--as", "2", "--json");
    assert.is(second.code, 0, second.stderr);
    assert.equal(JSON.parse(second.stdout), {
      ...{ version: "2", folder: join(directory, "releases/my-app-2"), result: "updated 1 → 2" },
    });
    assert.is(await askPort(port), "2");
    assert.is(inode("2", "assets/same.txt"), inode("1", "assets/same.txt"));
    assert.is.not(inode("1", "assets/same.txt"), statSync(join(folder, "assets/same.txt")).ino, "never to the folder");
    assert.is.not(inode("2", "server.js"), inode("1", "server.js"));

    // one that is unhealthy is undone, and what it said is told
    const sick =
      'require("http").createServer((_, r) => r.writeHead(500).end("no table users")).listen(process.env.PORT);';
    writeFileSync(join(folder, "server.js"), sick);
    const config = readFileSync(join(directory, "launchify.yml"), "utf8");
    writeFileSync(join(directory, "launchify.yml"), config.replace("within: 20s", "within: 3s"));
    const third = await deploy();
    assert.is(third.code, 1);
    assert.match(
      third.stderr,
      /\d{8}\.\d{6} did not hold up: no good answer within 3 s: status 500: no table users; 2 runs again/,
    );
    assert.is(readlinkSync(join(directory, "current")), "releases/my-app-2");
    await waitFor(async () => (await askPort(port)) === "2", { what: "version 2 again" });
    const back = await runScript("launchfit", ["rollback", "1", "--dir", directory]);
    assert.is(back.code, 0, back.stderr);
    assert.is(await askPort(port), "1");
    await running.stop();

    // where none runs
    build("4");
    const last = await deploy("--as", "4");
    assert.is(last.code, 0, last.stderr);
    assert.match(last.stdout, "updated 1 → 4; the next start of the app uses it");
  },
);

testUnless(test, noRsync)("what cannot be deployed is told, and nothing is made", async () => {
  const { directory, folder, build, deploy } = await prepare();
  build("1");
  const tried = async (...words: string[]) => {
    const { code, stderr } = await runScript("launchfit", ["deploy", ...words]);
    assert.is(code, 2, stderr);
    assert.not.ok(readdirSync(directory).includes("current"));
    return stderr;
  };
  assert.match(await tried(directory, join(folder, "nothing")), "is not a folder; name what the build made");
  assert.match(await tried(join(folder, "nothing"), folder), "is not there; name the deploy directory");
  assert.match(await tried(directory, folder, "--as", "../x"), '"../x" is not a version');
  writeFileSync(join(directory, "launchify.yml"), "updates: { server: https://example.com/web }\n");
  assert.match(await tried(directory, folder), "follows https://example.com/web; write updates: false");
  writeFileSync(join(directory, "launchify.yml"), "updates: false\n");
  assert.match(await tried(directory, folder), "does not tell the app's name; write app.name");
  writeFileSync(join(directory, "launchify.yml"), "app: { name: my-app }\nupdates: false\n");
  assert.is((await deploy("--as", "1")).code, 0);
  const again = await deploy("--as", "1");
  assert.is(again.code, 2);
  assert.match(again.stderr, "version 1 is installed already; give another with --as");
});

test.run();
