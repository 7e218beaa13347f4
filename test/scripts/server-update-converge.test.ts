// What should run, kept by the master: the status compares with it, --converge brings slaves to it.
import { readdir, readFile, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { freePort } from "../helpers/ports.ts";
import { makeRepo } from "../helpers/repos.ts";
import { type Running, runScript, startScript } from "../helpers/run.ts";
import { fakeSlave } from "../helpers/slaves.ts";
import { tempDir } from "../helpers/tmp.ts";

const servers: Running[] = [];
test.after.each(async () => {
  await Promise.all(servers.splice(0).map((server) => server.stop("SIGKILL")));
});

async function setUp() {
  const dir = tempDir("converge-");
  const repo = await makeRepo({ files: { "index.html": "one" } });
  const base = `file://${dirname(repo.bare)}`;
  const list = join(dir, "list");
  return {
    ...{ dir, repo, list },
    /** Starts a slave at a fixed address. */
    async start(address: string, more = "") {
      const config = join(dir, `${address}.yml`);
      await writeFile(config, `base: ${base}\n${more}`);
      const flags = ["--insecure", "--config", config, "--repos", join(dir, address), "--listen", address];
      const server = startScript("slave-server", flags);
      servers.push(server);
      await server.until(/listens on/);
      return server;
    },
    async run(args: string[], expect?: number) {
      const flags = ["--base", base, "--retries", "0", "--connect-timeout", "20s", ...args];
      const env = { XDG_STATE_HOME: dir };
      return await runScript("server-update", flags, {
        env,
        ...(expect === undefined ? {} : { expect }),
      });
    },
    served: (address: string) => readFile(join(dir, address, "site/index.html"), "utf8"),
    desired: async () => {
      const text = await readFile(join(dir, "server-update/desired-state/site.json"), "utf8");
      const { entries } = JSON.parse(text) as { entries: { sha: string; branch: string; stopped?: boolean }[] };
      const [newest] = entries;
      if (!newest) throw new Error("nothing is set");
      return newest;
    },
  };
}

const address = async () => `127.0.0.1:${await freePort()}`;

test("a slave that was down is brought along once it is back, and is forgotten once it is off the list", async () => {
  const { dir, repo, list, start, run, served, desired } = await setUp();
  const [one, two, three] = [await address(), await address(), await address()];
  await start(one);
  await writeFile(list, `${one}\n${two}\n${three}\n`);
  assert.is((await run(["site", "--list", list, "--wait"])).code, 1);
  const sha = await repo.git("rev-parse", "HEAD");
  assert.equal([(await desired()).sha, (await desired()).branch], [sha, "main"]);
  // pushed meanwhile: what was set is brought about, not the newest
  await repo.push({ "index.html": "two" });
  assert.is((await run(["--converge"])).code, 1);
  await start(two);
  const still = await run(["--converge", "site"], 1);
  assert.match(still.stdout, new RegExp(`${two} +done`));
  assert.match(still.stdout, new RegExp(`${one} +up to date`));
  assert.match(still.stdout, new RegExp(`${three} +FAILED: connection refused`));
  assert.is(await served(two), "one");
  await writeFile(list, `${one}\n${two}\n`);
  await run(["--converge"], 0);
  const none = await run(["--converge", "other"], 2);
  assert.match(none.stderr, "nothing is set for other; run: server-update other");
  // a name that nobody knows leaves nothing, neither a lock nor a repo on hook-server's page
  await run(["--status", "other", "--list", list], 1);
  const state = await readdir(join(dir, "server-update"), { recursive: true });
  assert.equal(
    state.filter((name) => name.includes("other")),
    [],
  );
  // what should run cannot be read: to say nothing would be to say that all is well
  const env = { STATE_DIRECTORY: join(list, "below a file") };
  const { stderr, code } = await runScript("server-update", ["--converge"], { env });
  assert.is(code, 1);
  assert.match(stderr, /below a file.desired-state/);
});

test("a list with a wrong line, or a damaged file, keeps no other repo from its slaves", async () => {
  const { dir, list, start, run, served } = await setUp();
  const one = await address();
  const two = await address();
  await start(one);
  await writeFile(list, `${one}\n${two}\n`);
  await run(["site", "--list", list, "--wait"], 1);
  const folder = join(dir, "server-update/desired-state");
  const set = JSON.parse(await readFile(join(folder, "site.json"), "utf8")) as { entries: object[] };
  const bad = join(dir, "bad");
  await writeFile(bad, "not a host\n");
  await writeFile(join(folder, "apps.json"), JSON.stringify({ ...set, entries: [{ ...set.entries[0], list: bad }] }));
  await writeFile(join(folder, "blog.json"), "{");
  await writeFile(join(folder, "docs.json"), JSON.stringify({ ...set, entries: [{ sha: 1 }] }));
  await start(two);
  const { stderr } = await run(["--converge"], 1);
  assert.match(stderr, /apps: .*bad:1: "not a host" is not a slave/);
  assert.match(stderr, /blog: .*blog\.json is damaged/);
  assert.match(stderr, /docs: .*docs\.json is damaged/);
  assert.is(await served(two), "one");
  const mixed = await run(["--converge", "--failed", join(dir, "failed")], 2);
  assert.match(mixed.stderr, /--failed is about one repo/);
});

test("a run that was stopped is not spread further", async () => {
  const { dir, list, start, run, desired, served } = await setUp();
  const [one, two] = [await address(), await address()];
  await start(one, "check: 'false'\n");
  await start(two);
  await writeFile(list, `${one}\n${two}\n`);
  await run(["site", "--list", list, "--batch", "1,100%", "--pause", "1ms"], 1);
  assert.is((await desired()).stopped, true);
  const failed = join(dir, "server-update/site.failed.txt");
  const before = await readFile(failed, "utf8");
  const { stderr } = await run(["--converge"], 1);
  assert.match(stderr, "was stopped before it reached all; run server-update site again");
  assert.is(await readFile(failed, "utf8"), before);
  await served(two).then(
    () => assert.unreachable("the second one was told"),
    () => {},
  );
  await run(["site", "--list", list, "--wait"], 1);
  assert.is((await desired()).stopped, undefined);
  await run(["--converge"], 1);
  assert.is(await served(two), "one");
});

test("--status without a repo is an inventory; it exits 1 when one differs, with --verify also when one was written into", async () => {
  const { dir, repo, list, start, run } = await setUp();
  const [one, two] = [await address(), await address()];
  await start(one);
  await start(two);
  const old = await fakeSlave(() => ({ status: 400, body: { error: "no repo is named" } }));
  await writeFile(list, `${one}\n${two}\n`);
  await run(["site", "--list", list, "--wait"], 0);
  const first = await run(["--status", "--list", list], 0);
  assert.match(first.stdout, /^SLAVE +REPO +COMMIT +BRANCH +SINCE +BOATYARD +NODE +GIT +FREE +UP/m);
  const sha = await repo.git("rev-parse", "HEAD");
  assert.match(first.stdout, new RegExp(`${one} +site +${sha.slice(0, 12)} +main +\\d{4}-`));
  assert.match(first.stdout, "2 of 2 are as they should be, 0 are not");

  // what nobody asked for, a branch that is another, a failed update
  const next = await repo.push({ "index.html": "two" });
  const end = async (query: string) => {
    const asked = await fetch(`http://${two}/get/?${query}`);
    assert.is(asked.status, 202);
    await fetch(`http://${two}/status?${query.split("&")[0]}&wait=20s`);
  };
  for (const query of [`repo=site&sha=${next}&branch=side`, "repo=nothere"]) await end(query);
  await writeFile(list, `${one}\n${two}\n${old.name}\n`);
  const drift = await run(["--status", "--list", list, "--json"], 1);
  await old.close();
  const hosts = drift.stdout
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as Record<string, any>);
  assert.equal(
    hosts.map(({ ok }) => ok),
    [true, false, false],
  );
  assert.match(hosts[2]?.error, "no repo is named");
  const [nothere, site] = hosts[1]?.repos ?? [];
  assert.equal([nothere.repo, nothere.ok], ["nothere", false]);
  assert.match(nothere.error, /nothere\.git/);
  assert.equal([site.sha, site.branch, site.ok], [next, "side", false]);
  for (const key of ["name", "boatyard", "node", "git", "free", "uptime"]) assert.ok(hosts[0]?.[key], key);

  await writeFile(list, `${one}\n`);
  await writeFile(join(dir, one, "site/stray.txt"), "x");
  await run(["--status", "--list", list], 0);
  const verified = await run(["--status", "site", "--list", list, "--verify"], 1);
  assert.match(verified.stdout, /WRITTEN INTO/);
});

test("a branch that is another than what was set is said", async () => {
  const { repo, list, start, run } = await setUp();
  const one = await address();
  await start(one);
  await writeFile(list, `${one}\n`);
  await run(["site", "--list", list, "--wait"], 0);
  await repo.git("push", "--quiet", "origin", "HEAD:refs/heads/trunk");
  await run(["site", "--list", list, "--wait", "--branch", "trunk"], 0);
  await run(["--status", "site", "--list", list], 0);
  const sha = await repo.git("rev-parse", "HEAD");
  const asked = await fetch(`http://${one}/get/?repo=site&sha=${sha}&branch=main`);
  assert.is(asked.status, 202);
  await fetch(`http://${one}/status?repo=site&wait=20s`);
  const { stdout } = await run(["--status", "site", "--list", list], 1);
  assert.match(stdout, /DIFFERS: branch trunk is wanted/);
  await run(["--converge"], 0);
  await run(["--status", "--list", list], 0);
});

test.run();
