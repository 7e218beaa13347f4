// Who reads while something is replaced sees the old or the new, never neither and never a mixture.
import { readdirSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { dirname, join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { installInto } from "../../lib/launch/launch.ts";
import { readWhile } from "../helpers/reader.ts";
import { makeRepo, writeFiles } from "../helpers/repos.ts";
import { runScript } from "../helpers/run.ts";
import { tarGz } from "../helpers/tar.ts";
import { tempDir } from "../helpers/tmp.ts";
import { publish, publisher, serveFolder } from "../helpers/web-folder.ts";

/** Fails for a content that is not one of a whole version, and when too little was seen to say anything. */
function assertWhole(
  { rounds, seen, switches }: { rounds: number; seen: Record<string, number>; switches: number },
  whole: RegExp,
): void {
  for (const [content, count] of Object.entries(seen)) assert.match(content, whole, `${count} of ${rounds} readings`);
  assert.ok(rounds > 100 && switches > 1, `${rounds} readings of ${switches} switches`);
}

test("a repo on a slave, while it is updated", async () => {
  const files = (round: number) => ({ "a.txt": `${round}`, "docs/b.txt": `${round}` });
  const repo = await makeRepo({ files: files(0) });
  const repos = join(tempDir(), "repos");
  const args = ["site", "--repos", repos, "--base", `file://${dirname(repo.bare)}`];
  await runScript("slave-activate", args, { expect: 0 });
  const found = await readWhile({ folder: join(repos, "site"), files: Object.keys(files(0)) }, async (round) => {
    await repo.push(files(round + 1));
    await runScript("slave-activate", args, { expect: 0 });
  });
  assertWhole(found, /^(\d+)\|\1$/);
});

test("an app's current, while it is updated", async () => {
  const by = await publisher();
  const web = await serveFolder(join(tempDir(), "web"));
  const release = (round: number) =>
    publish(web.path, by, `1.${round}`, {
      archive: tarGz(
        { name: "launchify.yml", content: "app:\n  name: my-app\n" },
        { name: "a.txt", content: `${round}` },
        { name: "docs/b.txt", content: `${round}` },
      ),
      date: new Date(Date.now() + 1000 * round),
    });
  await release(0);
  const dir = join(tempDir(), "app");
  const options = { key: by.fingerprint, note: () => {} };
  await installInto(dir, web.url, options);
  const found = await readWhile({ folder: join(dir, "current"), files: ["a.txt", "docs/b.txt"] }, async (round) => {
    await release(round + 1);
    await installInto(dir, web.url, options);
  });
  await web.close();
  assertWhole(found, /^(\d+)\|\1$/);
});

test("a download's final name, while newer files are fetched", async () => {
  const dir = tempDir();
  const text = (url = "") => url.slice(1).repeat(20_000);
  const server = createServer((request, answer) => answer.end(text(request.url)));
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const { port } = server.address() as AddressInfo;
  const fetchVersion = async (round: number) => {
    const line = `http://127.0.0.1:${port}/${round % 10}#${round} chart.svg\n`;
    await writeFile(join(dir, "manifest.txt"), line);
    await runScript("downloads", [dir], { expect: 0 });
  };
  await fetchVersion(0);
  const found = await readWhile({ files: [join(dir, "downloads/chart.svg")] }, (round) => fetchVersion(round + 1));
  server.close();
  assertWhole(found, /^(\d)\1{19999}$/);
});

test("VERSION beside VERSION.sig, while a release is packed: the signature is there first", async () => {
  const dir = tempDir();
  await writeFiles(dir, { "site/index.html": "page" });
  const key = join(dir, "key.asc");
  await runScript("release", ["keygen", "--out", key], { expect: 0 });
  const web = join(dir, "web");
  const what = ["--app", "site", "--from", join(dir, "site"), "--out", web, "--key", key];
  const pack = (round: number) => runScript("release", ["pack", "--version", `1.${round}`, ...what], { expect: 0 });
  await pack(0);
  const found = await readWhile({ files: [join(web, "VERSION")] }, (round) => pack(round + 1));
  assertWhole(found, /^[\s\S]*CURRENT 1\.\d+ site-1\.\d+\.tar\.gz[\s\S]*\n$/);
  assert.ok(readdirSync(web).includes("VERSION.sig"));
});

test.run();
