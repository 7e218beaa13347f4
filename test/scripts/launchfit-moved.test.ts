// A web folder that moves: the signed line SERVER takes its clients along.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { movedTo } from "../../lib/launch/install.ts";
import { deploy, webApp } from "../helpers/launch.ts";
import { makePublisher } from "../helpers/publisher.ts";
import { runScript } from "../helpers/run.ts";
import { serveFolder } from "../helpers/web-folder.ts";

test("clients follow the signed address, remember it, and stop when launchify.yml is edited", async () => {
  const publisher = await makePublisher();
  await publisher.publish("1", webApp("1"));
  const app = await deploy(publisher);
  const other = await serveFolder(publisher.folder);
  const words = ["refresh", "--out", publisher.folder, "--key", publisher.key, "--server"];
  assert.is((await runScript("release", [...words, "ftp://example.org/"])).code, 2);
  await runScript("release", [...words, other.url], { expect: 0 });
  const check = () => app.tell("check", "--once");
  const first = await check();
  assert.is(first.code, 0, first.stderr);
  assert.match(first.stderr, `names the SERVER ${other.url}: updates come from there now, until updates.server in`);
  // the old address is somebody else's by now; a new version keeps the line
  publisher.misbehave(() => ({ status: 500, body: "" }));
  await publisher.publish("2", webApp("2"));
  const second = await check();
  assert.match(second.stdout, "updated 1 → 2");
  assert.not.match(second.stderr, "SERVER", "it was said once");
  assert.match(readFileSync(join(publisher.folder, "VERSION"), "utf8"), `SERVER ${other.url}\n`);
  const config = join(app.folder, "launchify.yml");
  const text = readFileSync(config, "utf8");
  writeFileSync(config, text.replace(/server: .*/, `server: ["${publisher.url}", "${publisher.url}/x"]`));
  const third = await check();
  assert.is(third.code, 1, third.stderr);
  assert.match(third.stderr, "500");
  await other.close();
  await publisher.close();
});

test("https stays https, and an unsigned or odd line moves nobody", () => {
  const told: string[] = [];
  const move = (to: string | undefined, ...from: string[]) => movedTo(to, from, (line) => void told.push(line));
  assert.is(move(undefined, "https://a.org/"), undefined);
  assert.is(move("https://a.org", "https://a.org/"), undefined);
  assert.equal(told, []);
  assert.is(move("http://a.org/", "https://a.org/"), undefined);
  assert.match(told.pop() ?? "", "which is not https: it is not followed");
  assert.is(move("https://b.org/x", "http://a.org/"), "https://b.org/x/");
  assert.match(told.pop() ?? "", "VERSION of a.org names the SERVER https://b.org/x/: updates come from there now");
});

test.run();
