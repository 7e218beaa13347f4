// Slaves under pressure: fifty of them while somebody pushes, and hostile requests.
// SOAK_SCALE=1 is the full size.
import { readdir, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { dirname, join } from "node:path";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { numberedRepo } from "../helpers/numbered.ts";
import { git } from "../helpers/repos.ts";
import { type Running, runScript, startScript } from "../helpers/run.ts";
import { tempDir } from "../helpers/tmp.ts";

const scale = Number(process.env["SOAK_SCALE"] ?? 1);
const scaled = (count: number) => Math.max(2, Math.round(count * scale));

const servers: Running[] = [];
test.after(async () => {
  await Promise.all(servers.map((server) => server.stop("SIGKILL")));
});

test("a push every 100 ms while 50 slaves update: one commit on all of them afterwards", async () => {
  const { repo, push } = await numberedRepo();
  const base = `file://${dirname(repo.bare)}`;
  const slaves = await Promise.all(
    Array.from({ length: scaled(50) }, async () => {
      const repos = join(tempDir("slave-"), "repos");
      const server = startScript("slave-server", [
        "--insecure",
        "--repos",
        repos,
        "--base",
        base,
        "--listen",
        "127.0.0.1:0",
        "--quiet",
        "--json",
      ]);
      servers.push(server);
      const [, port = ""] = await server.until(/127\.0\.0\.1:(\d+)/, { timeout: 120_000 });
      return { repos, name: `127.0.0.1:${port}` };
    }),
  );
  const list = join(tempDir(), "list");
  await writeFile(list, slaves.map(({ name }) => `${name}\n`).join(""));
  const update = (more: string[] = []) =>
    runScript("server-update", ["site", "--list", list, "--base", base, "--quiet", ...more], {
      timeout: 300_000,
      env: { XDG_STATE_HOME: dirname(list) },
    });
  let pushing = true;
  const pushes = (async () => {
    for (let round = 0; round < scaled(60); round++) {
      await push();
      await sleep(100);
    }
    pushing = false;
  })();
  // some follow to the end, some only ask, and they overlap
  while (pushing) await Promise.all([update(["--wait"]), update()]);
  await pushes;
  const last = await update(["--wait"]);
  assert.is(last.code, 0, last.stdout);
  const head = await repo.git("rev-parse", "HEAD");
  for (const { repos } of slaves) {
    assert.is(await git(join(repos, "site"), "rev-parse", "HEAD"), head);
  }
  assert.is((await update(["--status", "--sha", head])).code, 0);
});

test("1,000 hostile names and queries make no file, no process and no crash", async () => {
  const outside = tempDir();
  const repos = join(outside, "repos");
  const server = startScript("slave-server", [
    "--insecure",
    "--repos",
    repos,
    "--base",
    "file:///x",
    "--allow",
    "none-*",
    "--listen",
    "127.0.0.1:0",
  ]);
  servers.push(server);
  const [, port] = await server.until(/127\.0\.0\.1:(\d+)/);
  const bits = [
    "..",
    "/",
    "%2e",
    "%00",
    "$(id)",
    "`id`",
    "-",
    "--",
    "ext::",
    ";",
    "|",
    "&",
    "repo=",
    "?",
    "#",
    "\\",
    "%",
    "site",
    ".git",
    ".lock",
    "é",
    "\u202e",
    "{}",
    "[]",
    "__proto__",
  ];
  let seed = 7;
  const random = (below: number) => {
    seed = (seed * 1103515245 + 12345) % 2147483648;
    return seed % below;
  };
  for (let round = 0; round < scaled(1000); round++) {
    const bitsOf = Array.from({ length: 1 + random(6) }, () => bits[random(bits.length)]).join("");
    const name = random(2) === 0 ? encodeURIComponent(bitsOf) : encodeURI(bitsOf).replaceAll("#", "%23");
    const path = [`/get/?repo=${name}`, `/?repo=${name}`, `/status?repo=${name}`, `/${name}`][random(4)] ?? "/";
    const [status, text] = await new Promise<[number, string]>((done, fail) => {
      request({ port: Number(port), path, agent: false }, (response) => {
        let body = "";
        response.setEncoding("utf8").on("data", (chunk: string) => (body += chunk));
        response.on("end", () => done([response.statusCode ?? 0, body]));
      })
        .on("error", fail)
        .end();
    });
    // a name that is one is asked for in vain
    if (status !== 200 || !text.includes('"repos":[]')) assert.ok(status >= 400 && status < 500, `${path}: ${status}`);
  }
  assert.equal(await readdir(repos), [".boatyard"]);
  assert.equal(await readdir(join(repos, ".boatyard")), [".server"]);
  assert.equal(await readdir(outside), ["repos"]);
});

test.run();
