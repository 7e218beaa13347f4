// A fleet whose machines are not all updated at once: Boatyard 0.1, built from the revision it was, beside this one.
import { readdir, readFile, symlink, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { writeKey } from "../../lib/fleet/keys.ts";
import { freePort } from "../helpers/ports.ts";
import { makeRepo } from "../helpers/repos.ts";
import { runCommand, type Running, scriptArgv, startCommand } from "../helpers/run.ts";
import { current, root } from "../helpers/runtime.ts";
import { testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";

/** The last revision before requests named their slave. */
const revision = "a7b5aaf";
const has = (await runCommand(["git", "-C", root, "cat-file", "-e", `${revision}^{commit}`])).code;
const lacks = has === 0 ? undefined : `needs the history of the repository, with ${revision}`;

/** The bundles of 0.1 that a fleet has. */
async function oldBundles(): Promise<string> {
  const dir = tempDir("old-");
  const scripts = ["server-update", "slave-server", "slave-activate"];
  const paths = ["lib", "tools", "package.json", ...scripts.map((name) => `scripts/${name}.ts`)];
  const archive = `git -C ${root} archive ${revision} ${paths.join(" ")} | tar -x -C ${dir}`;
  await runCommand(["sh", "-c", archive], { expect: 0 });
  await symlink(join(root, "node_modules"), join(dir, "node_modules"));
  const argv = ["node", "--import", import.meta.resolve("tsx"), "tools/bundle.ts"];
  await runCommand(argv, { cwd: dir, expect: 0, timeout: 120_000 });
  return join(dir, "dist");
}

async function setUp() {
  const dir = tempDir("versions-");
  const dist = await oldBundles();
  const secret = join(dir, "secret");
  await writeFile(secret, "0123456789abcdef0123456789abcdef\n", { mode: 0o600 });
  const { publicKey } = await writeKey(join(dir, "key"));
  const repo = await makeRepo({ files: { "index.html": "one" } });
  const base = `file://${dirname(repo.bare)}`;
  const argvOf = (name: string, old: boolean) =>
    old ? current.argv(join(dist, `${name}.mjs`)) : scriptArgv(name);
  const started: Running[] = [];
  return {
    ...{ dir, repo, publicKey, started },
    async slave(name: string, old: boolean, more = "") {
      const config = join(dir, `${name}.yml`);
      const own = old ? "" : `name: ${name}\n`;
      await writeFile(config, `${own}base: ${base}\nsecret_file: secret\n${more}`);
      const address = `127.0.0.1:${await freePort()}`;
      const flags = ["--config", config, "--repos", join(dir, name), "--listen", address];
      const server = startCommand([...argvOf("slave-server", old), ...flags]);
      started.push(server);
      await server.until(/listens on/);
      return old ? address : `${address} name=${name}`;
    },
    async update(lines: string[], old: boolean, args: string[] = []) {
      const list = join(dir, "list");
      await writeFile(list, `${lines.join("\n")}\n`);
      const own = old ? [] : ["--base", base];
      const all = ["site", "--list", list, "--secret-file", secret, "--json", ...own, ...args];
      const env = { XDG_STATE_HOME: dir, HOME: dir };
      const done = await runCommand([...argvOf("server-update", old), ...all], { env });
      const objects = done.stdout
        .trim()
        .split("\n")
        .filter((line) => line !== "");
      return {
        ...done,
        objects: objects.map((line) => JSON.parse(line) as Record<string, string>),
      };
    },
    served: (name: string) => readFile(join(dir, name, "site/index.html"), "utf8"),
  };
}

testUnless(test, lacks)(
  "0.1 and this version update each other's slaves, one side after the other",
  async () => {
    const world = await setUp();
    const { repo, update, slave, started, served, dir, publicKey } = world;
    try {
      // the slaves first: an old master is taken where slave.yml says so
      const loose = await slave("loose", false, "accept_unbound: true\n");
      const strict = await slave("strict", false);
      const bare = (line: string) => line.split(" ")[0] ?? "";
      const first = await update([bare(loose), bare(strict)], true, ["--wait"]);
      assert.is(first.code, 1);
      const byName = Object.fromEntries(first.objects.map((each) => [each["target"], each]));
      assert.is(byName[bare(loose)]?.["ok"] as unknown, true);
      assert.match(byName[bare(strict)]?.["error"] ?? "", "server-update is of 0.1; update it");
      assert.is(await served("loose"), "one");
      assert.equal(await readdir(join(dir, "strict/.boatyard/.server/jobs")), []);

      // then the master, which still meets an old slave: it alone gets the old header
      const old = await slave("old", true);
      await repo.push({ "index.html": "two" });
      const all = [old, strict, loose];
      const second = await update(all, false, ["--wait", "--key-file", join(dir, "key")]);
      assert.is(second.code, 0, second.stdout + second.stderr);
      assert.match(second.stderr, `1 slave took only the signature of Boatyard 0.1`);
      assert.match(second.stderr, bare(old));
      for (const name of ["old", "strict", "loose"]) assert.is(await served(name), "two", name);
      const status = await update(all, false, ["--status"]);
      assert.is(status.code, 0, status.stdout);
      assert.match(status.stderr, `accept_unbound is set on ${bare(loose)}:`);

      // at last the keys: a slave without the secret takes orders alone
      const keyed = await slave("keyed", false, `master_key: ${publicKey}\n`);
      const onlyKey = join(dir, "keyed.yml");
      const text = (await readFile(onlyKey, "utf8")).replace(/^secret_file.*\n/m, "");
      await writeFile(onlyKey, text);
      await started.at(-1)?.stop();
      const flags = ["--config", onlyKey, "--repos", join(dir, "keyed"), "--listen", bare(keyed)];
      const server = startCommand([...scriptArgv("slave-server"), ...flags]);
      started.push(server);
      await server.until(/listens on/);
      const unsigned = await update([keyed], false, ["--wait"]);
      assert.match(unsigned.objects[0]?.["error"] ?? "", "401");
      const third = await update([keyed], false, ["--wait", "--key-file", join(dir, "key")]);
      assert.is(third.code, 0, third.stdout);
      assert.is(await served("keyed"), "two");
    } finally {
      await Promise.all(started.map((each) => each.stop("SIGKILL")));
    }
  },
);

test.run();
