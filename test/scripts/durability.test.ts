// What a script tells, and what has its final name, is on the disk: seen by the order of its system calls.
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { basename, dirname, join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { keyOfSecret } from "../../lib/fleet/keys.ts";
import { letterHeader, seal } from "../../lib/fleet/letter.ts";
import {
  assertBefore,
  assertDurable,
  type Call,
  publishing,
  startTraced,
  syncAfter,
  traceDisk,
} from "../helpers/disk-trace.ts";
import { http, makeYard, sha, startHooks } from "../helpers/hooks.ts";
import { killProcessesOf } from "../helpers/leftovers.ts";
import { runAt, sampleRun } from "../helpers/log-samples.ts";
import { git, makeRepo, writeFiles } from "../helpers/repos.ts";
import { runScript, scriptArgv } from "../helpers/run.ts";
import { current, root } from "../helpers/runtime.ts";
import { testUnless } from "../helpers/skip.ts";
import { needsStrace } from "../helpers/strace.ts";
import { tempDir } from "../helpers/tmp.ts";
import { waitFor } from "../helpers/wait.ts";
import { publish, publisher, serveFolder } from "../helpers/web-folder.ts";

const traceTest = testUnless(test, needsStrace);

async function trace(name: string, args: string[]): Promise<Call[]> {
  const { calls } = await traceDisk([...scriptArgv(name), ...args], { expect: 0 });
  return calls;
}

const removal = (calls: readonly Call[], path: string) =>
  calls.find(({ name, paths }) => /^(?:unlink|rmdir)/.test(name) && paths[0] === path);

traceTest("logs rotate: the compressed part is on the disk before the plain one goes", async () => {
  const dir = tempDir();
  await writeFile(join(dir, "logs.txt"), sampleRun(runAt("11:00:00")));
  const calls = await trace("logs", ["rotate", dir, "--max-size", "100"]);
  const [part = ""] = (await readdir(dir)).filter((name) => name.endsWith(".gz"));
  const path = join(dir, part);
  assertDurable(calls, path, /compressed /);
  const named = publishing(calls, path).at(-1);
  const synced = calls.find(
    (call) => /^f(data)?sync$/.test(call.name) && call.paths[0] === dir && call.start > (named?.end ?? 0),
  );
  assertBefore(synced, removal(calls, path.slice(0, -3)), "the folder is synced, then the plain part goes");
});

traceTest("downloads: a file that replaces another is on the disk first, its name before the end is told", async () => {
  const dir = tempDir();
  const text = ["a chart ".repeat(10_000), "a newer one"];
  const server = createServer((_, answer) => answer.end(text.shift()));
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address() as AddressInfo;
  const manifest = join(dir, "manifest.txt");
  await writeFile(manifest, `http://127.0.0.1:${port}/a#1 sub/chart.svg\n`);
  await runScript("downloads", [dir], { expect: 0 });
  await writeFile(manifest, `http://127.0.0.1:${port}/a#2 sub/chart.svg\n`);
  const calls = await trace("downloads", [dir]);
  server.close();
  assertDurable(calls, join(dir, "downloads/sub/chart.svg"), /fetched 1/);
});

traceTest("release pack: archive, signature and VERSION.sig are on the disk before VERSION names them", async () => {
  const dir = tempDir();
  await writeFiles(dir, { "site/index.html": "page" });
  const key = join(dir, "key.asc");
  await runScript("release", ["keygen", "--out", key], { expect: 0 });
  const web = join(dir, "web");
  const what = ["--app", "site", "--from", join(dir, "site"), "--out", web, "--key", key];
  await runScript("release", ["pack", "--version", "1.0", ...what], { expect: 0 });
  const calls = await trace("release", ["pack", "--version", "1.1", ...what]);
  const named = (name: string) => publishing(calls, join(web, name)).at(-1);
  for (const name of ["site-1.1.tar.gz", "site-1.1.tar.gz.sig", "VERSION.sig", "VERSION"]) {
    assertDurable(calls, join(web, name));
    if (name !== "VERSION") assertBefore(named(name), named("VERSION"), `${name} before VERSION`);
  }
});

traceTest("launchfit: a release is on the disk as a whole before current leads to it", async () => {
  const web = await serveFolder(join(tempDir(), "web"));
  await mkdir(web.path);
  const who = await publisher();
  await publish(web.path, who, "1.0");
  const dir = join(tempDir(), "app");
  const calls = await trace("launchfit", [web.url, "--key", who.fingerprint, "--dir", dir]);
  await web.close();
  const release = join(dir, "releases", (await readdir(join(dir, "releases")))[0] ?? "");
  assertDurable(calls, release);
  assertDurable(calls, join(dir, "current"));
  const of = (path: string) => publishing(calls, path).at(-1);
  assertBefore(of(release), of(join(dir, "current")), "the release before current");
});

traceTest("build: what a pull overwrites is kept on the disk first", async () => {
  const repo = await makeRepo({ files: { "a.txt": "one\n" } });
  const dir = await repo.checkout(join(tempDir(), "site"));
  await writeFile(join(dir, "a.txt"), "edited\n");
  await repo.push({ "a.txt": "two\n" });
  const calls = await trace("build", [dir]);
  const blob = await git(dir, "rev-parse", "refs/stash:a.txt");
  // git's temporary file lies in the object's folder
  const temporary = `${join(dir, ".git/objects", blob.slice(0, 2))}/tmp_obj`;
  const synced = calls.find(({ name, paths }) => /^f(data)?sync$/.test(name) && paths[0]?.startsWith(temporary));
  const reset = calls.find(
    ({ name, paths, text }) => name === "openat" && paths[0] === join(dir, "a.txt") && text.includes("O_CREAT"),
  );
  assertBefore(synced, reset, "the changes, then git's reset");
  assertBefore(publishing(calls, join(dir, ".git/refs/stash")).at(-1), reset, "its ref, then git's reset");
});

traceTest("slave-activate: a tree's link is on the disk before it is told", async () => {
  const repo = await makeRepo({ files: { "index.html": "one" } });
  const repos = join(tempDir(), "repos");
  const args = ["site", "--repos", repos, "--base", `file://${dirname(repo.bare)}`];
  const calls = await trace("slave-activate", args);
  assertDurable(calls, join(repos, "site"));
  assert.is(await readFile(join(repos, "site/index.html"), "utf8"), "one");
  // git's files come to the disk with the tree, at once; then what is known of it, and the link
  const flushed = calls.filter(({ name }) => /sync/.test(name)).map(({ paths }) => paths[0] ?? "");
  assert.equal(
    flushed.map((path) => basename(path).replace(/\.tmp-.*/, "")),
    ["building", ".state.json", "site", "repos"],
  );
});

traceTest("hook-server: a delivery is on the disk before it is answered with 202", async () => {
  const dir = await makeYard({ job: "true" });
  let calls = (): Call[] => [];
  const server = await startHooks(dir, {
    wrap(args) {
      const traced = startTraced([...scriptArgv("hook-server"), ...args]);
      ({ calls } = traced);
      return traced.running;
    },
  });
  const { status, body } = await server.push("me/site", sha(1));
  assert.is(status, 202);
  await server.idle();
  // that kills strace, and the server goes on without it
  await server.kill();
  await killProcessesOf(dir);
  const file = join(server.state, "runs.jsonl");
  const wrote = calls().find(
    ({ name, paths, text }) => /write/.test(name) && paths[0] === file && text.includes(body.run),
  );
  const answered = calls().find(({ name, text }) => /^(?:write|send)/.test(name) && text.includes("HTTP/1.1 202"));
  assert.ok(wrote, "it is written");
  assertBefore(syncAfter(calls(), wrote), answered, "it is on the disk, then answered");
});

traceTest("hook-server's store: a rewritten file is on the disk before it has its name", async () => {
  const folder = tempDir();
  const writer = current.argv(join(root, "test/helpers/store-writer.ts"));
  const { calls } = await traceDisk([...writer, folder], { expect: 0 });
  assertDurable(calls, join(folder, "runs.jsonl"));
});

traceTest("slave-server: an order is on the disk before the 202", async () => {
  const repo = await makeRepo({ files: { "index.html": "one" } });
  const dir = tempDir();
  const repos = join(dir, "repos");
  const secret = "0123456789abcdef0123456789abcdef";
  await writeFile(join(dir, "secret"), secret, { mode: 0o600 });
  await writeFile(
    join(dir, "slave.yml"),
    `name: web-1\nlisten: 127.0.0.1:0\nsecret_file: ${dir}/secret\nbase: file://${dirname(repo.bare)}\n`,
  );
  const flags = ["--config", join(dir, "slave.yml"), "--repos", repos];
  const { running, calls } = startTraced([...scriptArgv("slave-server"), ...flags]);
  const [, port] = await running.until(/listens on [^ ]*:(\d+),/);
  const path = "/get/?repo=site";
  const at = Date.now();
  const order = { repo: "site", sha: await repo.git("rev-parse", "HEAD"), run: "20261120T100000Z-3f2a9c" };
  const text = seal({ ...order, kind: "order", to: "web-1", at, until: at + 60_000 }, keyOfSecret(secret, ""));
  const headers = { [letterHeader]: text };
  const { status } = await http({ port: Number(port) }, path, { headers });
  assert.is(status, 202);
  await waitFor(() => existsSync(join(repos, "site")));
  running.kill("SIGKILL");
  await running.exited;
  await killProcessesOf(dir);
  const made = calls();
  const answered = made.find(({ name, text }) => /^(?:write|send)/.test(name) && text.includes("HTTP/1.1 202"));
  const synced = (file: RegExp, after = 0) =>
    made.find(({ name, paths, start }) => /^f(data)?sync$/.test(name) && file.test(paths[0] ?? "") && start >= after);
  const desired = made.find(
    ({ name, paths }) => name.startsWith("rename") && paths[1]?.endsWith("/desired-state/site.json"),
  );
  assertBefore(synced(/\/desired-state\/[^/]*$/), desired, "the order is synced before it has its name");
  assertBefore(synced(/\/desired-state$/, desired?.end), answered, "its name is synced before the 202");
});

test.run();
