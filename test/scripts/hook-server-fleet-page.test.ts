// /fleet and /releases: what server-update left of its last look, and what web folders offer.
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { startHooks } from "../helpers/hooks.ts";
import { get, pageYard, post, signIn } from "../helpers/page.ts";
import { freePort } from "../helpers/ports.ts";
import { makeRepo } from "../helpers/repos.ts";
import { runScript, startScript } from "../helpers/run.ts";

/** The cells of a table's rows, as text. */
const rowsOf = (text: string) =>
  [...text.matchAll(/<tr[^>]*>(.*?)<\/tr>/gs)]
    .slice(1)
    .map(([, row = ""]) =>
      [...row.matchAll(/<t[hd][^>]*>(.*?)<\/t[hd]>/gs)].map(([, cell = ""]) => cell.replace(/<[^>]*>/g, "").trim()),
    );

test("/fleet shows what --status and --converge saw last, drift first; strangers do not see it", async () => {
  const dir = await pageYard({
    top: "fleet: { list: fleet/list, state: server-update }",
    status: ", public: true",
  });
  const repo = await makeRepo({ files: { "index.html": "one" } });
  const base = `file://${dirname(repo.bare)}`;
  const list = join(dir, "fleet/list");
  await mkdir(dirname(list));
  const [one, two] = [`127.0.0.1:${await freePort()}`, `127.0.0.1:${await freePort()}`];
  const slaveAt = async (address: string) => {
    const config = join(dir, `${address}.yml`);
    await writeFile(config, `base: ${base}\n`);
    const flags = ["--insecure", "--config", config, "--repos", join(dir, address), "--listen", address];
    const slave = startScript("slave-server", flags);
    await slave.until(/listens on/);
    return slave;
  };
  const master = async (args: string[], expect: number) => {
    const flags = ["--base", base, "--retries", "0", "--connect-timeout", "20s", ...args];
    return await runScript("server-update", flags, { env: { XDG_STATE_HOME: dir }, expect });
  };
  await writeFile(list, `${one}\n${two}\n`);
  const server = await startHooks(dir);
  const cookie = await signIn(server);
  const shown = async () => rowsOf((await get(server, "/fleet", cookie)).text);
  assert.is((await get(server, "/fleet")).status, 401);
  assert.match((await get(server, "/fleet", cookie)).text, "Nothing is known yet");
  const slaves = [await slaveAt(one)];
  await master(["site", "--list", list, "--wait"], 1);
  await master(["--list", list, "--status"], 1);
  const sha = (await repo.git("rev-parse", "HEAD")).slice(0, 10);
  const [down, good] = await shown();
  assert.equal([down?.[0], down?.[2]], [two, "unreachable"]);
  assert.match(down?.[7] ?? "", "connection refused");
  assert.equal(good?.slice(0, 3), [one, "site", "ok"]);
  assert.equal([good?.[3], good?.[5]], [`${sha} main`, sha]);
  // --converge brings the second one along, and says so to the page
  slaves.push(await slaveAt(two));
  await master(["--converge"], 0);
  assert.equal(
    (await shown()).map((row) => row.slice(0, 4)),
    [one, two].sort().map((host) => [host, "site", "ok", `${sha} main`]),
  );
  // what somebody set on one slave alone is drift
  const next = await repo.push({ "index.html": "two" });
  const answer = await fetch(`http://${two}/get/?repo=site&sha=${next}&branch=main`);
  assert.is(answer.status, 202);
  await fetch(`http://${two}/status?repo=site&wait=20s`);
  await runScript("server-update", ["--base", base, "site", "--list", list, "--status"], {
    env: { XDG_STATE_HOME: dir },
  });
  const { text } = await get(server, "/fleet", cookie);
  assert.match(text, "1 is not as it should be");
  assert.equal(rowsOf(text)[0]?.slice(0, 4), [two, "site", "differs", `${next.slice(0, 10)} main`]);
  // a file that is damaged, or names no hosts, is left out
  await writeFile(join(dir, "server-update/status/broken.json"), "{");
  await writeFile(join(dir, "server-update/status/other.json"), '{"time":"x","list":1,"hosts":[]}');
  const hosts = [{ target: "x", repos: [null, { repo: "site" }] }];
  await writeFile(join(dir, "server-update/status/null.json"), JSON.stringify({ time: "x", list, hosts }));
  assert.is((await shown()).length, 2);
  await Promise.all(slaves.map((slave) => slave.stop()));
  await server.stop();
});

test("/releases shows what each web folder offers, and which cannot be read", async () => {
  const dir = await pageYard({ top: "releases: [good, gone]" });
  await mkdir(join(dir, "good"));
  const archive = "harbour-gnu-linux-1.2.0.tar.gz";
  const lines = [
    `CURRENT 1.2.0 ${archive}`,
    "PLATFORM gnu-linux",
    `SHA256 ${"a".repeat(64)}`,
    "SIZE 1048576",
    "APP harbour",
    "RELEASE <b>icecream</b>",
    "DATE 2026-01-01T00:00:00Z",
    "EXPIRES 2026-02-01T00:00:00Z",
  ];
  await writeFile(join(dir, "good/VERSION"), `${lines.join("\n")}\n`);
  const server = await startHooks(dir);
  const cookie = await signIn(server);
  assert.is((await get(server, "/releases")).status, 401);
  const { status, text } = await get(server, "/releases", cookie);
  assert.is(status, 200);
  assert.equal(rowsOf(text)[0]?.slice(0, 3), ["1.2.0", "gnu-linux", archive]);
  assert.match(text, "harbour");
  assert.match(text, "expired");
  assert.not.match(text, "<b>icecream");
  assert.match(text, `<h2>${join(dir, "gone")}</h2>`);
  assert.match(text, /<p class="reason failed">.*VERSION/);
  assert.is((await post(server, "/releases", { cookie })).status, 404);
  await server.stop();
});

test.run();
