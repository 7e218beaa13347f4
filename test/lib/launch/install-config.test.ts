// What launchify.yml says, which files win, and what an install adds to it.
import { copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { readLaunchConfig } from "../../../lib/launch/config.ts";
import { completeLaunchFile } from "../../../lib/launch/launch-file.ts";
import { root } from "../../helpers/runtime.ts";
import { tempDir } from "../../helpers/tmp.ts";

const fingerprint = "0123456789ABCDEF0123456789ABCDEF01234567";

function folder(files: Record<string, string>): string {
  const path = tempDir("config-");
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(join(path, name, ".."), { recursive: true });
    writeFileSync(join(path, name), text);
  }
  return path;
}

test("launchify.example.yml is good, and names every key", async () => {
  const path = tempDir("config-");
  copyFileSync(join(root, "launchify.example.yml"), join(path, "launchify.yml"));
  const { config, origins } = await readLaunchConfig(path);
  assert.equal(
    Object.entries(origins).filter(([, where]) => where === "default"),
    [],
  );
  assert.is(config.app.name, "my-app");
  assert.is(config.updates.max_size, 4 * 1024 ** 3);
  assert.equal(config.updates.gpg.key, [fingerprint]);
  assert.is(config.app.health?.within, 30_000);
});

test("an address that nobody could listen on or ask, and a signal that is none, are told where they stand, not when the app starts", async () => {
  for (const [line, said] of [
    ["listen: 99999", '"99999" is not an address to listen on'],
    ["health: http://", '"http://" is not a URL'],
    ["kill: SIGFOO", '"SIGFOO" is not a signal'],
    ["health: { url: 'http://a b/' }", '"http://a b/" is not a URL'],
  ]) {
    const path = folder({ "launchify.yml": `app:\n  exec: x\n  ${line}\n` });
    const { message } = await readLaunchConfig(path).then(
      () => new Error(),
      (error: Error) => error,
    );
    assert.match(message, /launchify\.yml:3:\d+: /, line);
    assert.match(message, said ?? "");
  }
});

test("the directory wins over the release key by key, and the release's pin never counts", async () => {
  const own = folder({
    "launchify.yml": "app: { exec: mine }\n",
    "config/app.json": '{"app": {"exec": "json", "name": "my-app"}}',
  });
  const release = folder({
    "launchify.yml": `app: { exec: theirs, kill: INT }\nupdates: { every: 5m, gpg: { key: ${fingerprint} } }\n`,
  });
  const { config, origins } = await readLaunchConfig(own, release);
  assert.is(config.app.exec, "mine");
  assert.is(config.app.name, "my-app");
  assert.is(config.app.kill, "INT");
  assert.is(config.updates.every, 300_000);
  assert.equal(config.updates.gpg.key, []);
  assert.match(origins["app.name"] ?? "", /config\/app\.json:1:/);
  assert.match(origins["app.kill"] ?? "", `${release}/launchify.yml:1:`);
  assert.is(origins["updates.keep"], "default");
});

test("keep takes false or a number, health a URL, a command or a map", async () => {
  const read = async (text: string) => (await readLaunchConfig(folder({ "launchify.yml": text }))).config;
  assert.is((await read("updates: { keep: false }")).updates.keep, false);
  assert.is((await read("updates: { keep: 0 }")).updates.keep, 0);
  assert.is((await read("app: { health: http://127.0.0.1/ }")).app.health?.url, "http://127.0.0.1/");
  assert.is((await read("app: { health: ./ok.sh }")).app.health?.command, "./ok.sh");
  assert.equal((await read("app: { health: { url: http://127.0.0.1/, within: 1s } }")).app.health, {
    url: "http://127.0.0.1/",
    within: 1000,
    every: 30_000,
    timeout: 5000,
    failures: 3,
  });
  for (const [text, reason] of [
    ["updates: { keep: yes }", /launchify\.yml:1:18: .*false, or how many/],
    ["app: { health: { within: 3s } }", /either url or command/],
    ["app: { env: { 'a b': x } }", /not the name of an environment variable/],
    ["updates: { server: ftp://x }", /https, http or file/],
    ["updates: { gpg: { key: nonsense! } }", /fingerprint/],
    ["app: { name: ../x }", /app's name/],
  ] as const) {
    try {
      await read(text);
      assert.unreachable(text);
    } catch (error) {
      assert.is((error as Error).name, "UsageError", text);
      assert.match((error as Error).message, reason);
    }
  }
});

test("an install adds what is missing below its section, and leaves the rest as it was written", () => {
  const parts = { name: "my-app", server: "https://x.example/u/", pins: [fingerprint] };
  assert.is(
    completeLaunchFile("", parts),
    `app:\n  name: my-app\nupdates:\n  server: https://x.example/u/\n  gpg:\n    key: "${fingerprint}"\n`,
  );
  assert.is(
    completeLaunchFile("# top\nupdates: # mine\n    every: 1h\n", { server: "https://x.example/" }),
    "# top\nupdates: # mine\n    server: https://x.example/\n    every: 1h\n",
  );
  assert.is(completeLaunchFile("app:\n  name: x\n", {}), "app:\n  name: x\n");
  // sections on one line
  const inline = completeLaunchFile("app: { exec: ./run }\nupdates: {} # mine\n", parts);
  assert.is(
    inline,
    `app: { name: my-app, exec: ./run }\nupdates: { server: https://x.example/u/, gpg: { key: "${fingerprint}" } } # mine\n`,
  );
  // a name that YAML would read as something else
  assert.match(completeLaunchFile("", { name: "true" }), 'name: "true"');
});

test.run();
