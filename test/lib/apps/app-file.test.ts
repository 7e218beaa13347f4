// launchify.yml of an app that boatyard up runs: defaults, and mistakes with their line.
import { test } from "uvu";
import * as assert from "uvu/assert";
import { changedSince, specOf } from "../../../lib/apps/app.ts";
import { readAppFile } from "../../../lib/apps/app-file.ts";

const around = { folder: "My App", server: "app.example.com" };
const read = (text: string, more = {}) => readAppFile(text, { ...around, ...more });
const mistake = async (text: string, more = {}) =>
  await read(text, more).then(
    () => "none",
    (error: Error) => error.message,
  );

test("two lines are enough: the folder names the app, the server its host, package.json its command", async () => {
  const file = await read("app: { exec: node server.js }\n");
  assert.equal(
    [file.name, file.hosts, file.processes, file.health, file.socket, file.watch],
    ["my-app", ["app.example.com"], { web: "node server.js" }, { url: "/", within: 20_000 }, true, 10_000],
  );
  const started = await read("", { packageJson: '{ "scripts": { "start": "node x.js" } }' });
  assert.equal(started.processes, { web: "node x.js" });
});

test("a site of files names its folder, and limits are those that systemd knows", async () => {
  const file = await read("app: { root: build/site, limits: { memory: 512M, cpu: 150%, processes: 40 } }");
  assert.match(file.processes["web"] ?? "", /^caddy file-server .* --root build\/site$/);
  assert.equal(specOf(file, "main", []).limits, [
    "MemoryMax=536870912",
    "MemorySwapMax=0",
    "CPUQuota=150%",
    "TasksMax=40",
  ]);
  assert.match(await mistake("app: { root: ../etc }"), "launchify.yml:1:14: expected a folder of the repository");
  assert.match(await mistake("app: { root: a;b }"), "expected a folder of the repository");
  assert.match(await mistake("app: { root: a, exec: x }"), "takes neither app.exec nor app.socket");
  assert.match(await mistake("app: { exec: x, limits: { cpu: 0.5 } }"), "expected a share of one processor");
  assert.match(await mistake("app: { exec: x, limits: { memori: 1G } }"), 'did you mean "memory"');
});

test("health is a path, a URL, a command, or a map", async () => {
  const health = async (text: string) => (await read(`app: { exec: x, health: ${text} }`)).health;
  assert.equal(await health("/healthz"), { url: "/healthz", within: 20_000 });
  assert.equal(await health("./check --all"), { command: "./check --all", within: 20_000 });
  assert.equal(await health("{ url: /up, within: 1m }"), { url: "/up", within: 60_000 });
  assert.equal(await health("{ command: ./check }"), { command: "./check", within: 20_000 });
});

test("a mistake is told with its line, and the nearest key", async () => {
  assert.is(
    (await mistake("app:\n  exec: x\n  helth: /\n")).split("; ")[0],
    'launchify.yml:3:3: unknown key "helth" (did you mean "health"?)',
  );
  assert.match(await mistake("app:\n  exec: x\nhost: Two Words\n"), "launchify.yml:3:7: expected the name of a host");
  assert.match(
    await mistake("app: { name: x }\n"),
    /launchify.yml:1:\d+: app.exec is missing, and package.json has no/,
  );
  assert.match(await mistake("app: { exec: x, health: { within: 5s } }"), "app.health takes either url or command");
  assert.match(await mistake("app: { exec: x }", { server: "203.0.113.5" }), '"203.0.113.5" gets no certificate');
  assert.match(await mistake("app: { exec: x }", { folder: "___" }), "cannot be an app's name; write one");
});

test("nothing that a Caddyfile, a unit or a path would read otherwise gets through", async () => {
  for (const bad of [
    "a}b.example.com",
    "a b",
    "a/b",
    "..",
    "-a.example.com",
    "a\\nb",
    "A.example.com",
    "*.example.com",
  ])
    assert.match(await mistake(`app: { exec: x }\nhost: "${bad}"`), "expected the name of a host", bad);
  for (const bad of ["a}b", "a/b", "a b", "..", "web", "A", "a_b", "-a", "a\\nb"])
    assert.match(await mistake(`app: { exec: x, workers: { "${bad}": y } }`), "worker", bad);
  for (const bad of ["a/b", "root x", "A", "1a", "a.b", "a_b", "-a"])
    assert.match(await mistake(`app: { exec: x, name: "${bad}" }`), "expected small letters", bad);
  for (const bad of ["/a b", "a.pem", "/a}", "/a\\nb"])
    assert.match(
      await mistake(`app: { exec: x }\ntls: { cert: "${bad}", key: /k.pem }`),
      "expected the whole path",
      bad,
    );
});

test("what the server was made for and a push has otherwise is named", async () => {
  const spec = specOf(await read("app: { exec: x, workers: { mail: y } }"), "main", []);
  const changed = async (text: string) => changedSince(spec, await read(text));
  assert.equal(await changed("app: { exec: other, workers: { mail: z }, env: { A: b }, watch: 1s }"), []);
  assert.equal(await changed("app: { exec: x }\nhost: b.example.com"), ["host", "app.workers"]);
  assert.equal(await changed("app: { exec: x, workers: { mail: y }, socket: false }"), ["app.socket"]);
  assert.equal(await changed("app: { exec: x, workers: { mail: y }, health: ./check }"), ["app.health"]);
  assert.equal(await changed("app: { exec: x, workers: { mail: y }, name: b }\ntls: internal"), ["app.name", "tls"]);
});

test.run();
