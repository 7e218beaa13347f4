import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { awaitHealth } from "../../../lib/launch/health.ts";
import { slowness } from "../../helpers/wait.ts";

test("a clock that jumps by a day makes no health check fail, and none last a day", async () => {
  const { now } = Date;
  const day = 86_400_000;
  // long enough for the command to be started, here and now
  const within = Math.ceil(300 * slowness());
  const check = { within, timeout: within, every: 1000 };
  const question = (command: string) => ({
    check: { ...check, command },
    cwd: "/",
    env: { PATH: process.env["PATH"] ?? "" },
  });
  const how = { gone: new Promise<{ how: string }>(() => {}), signal: new AbortController().signal };
  try {
    for (const jump of [day, -day]) {
      const start = performance.now();
      let asked = 0;
      // the day changes after the first look at the clock
      Date.now = () => now() + (asked++ > 0 ? jump : 0);
      assert.match(
        String(await awaitHealth(question("sleep 0.05; false"), how)),
        /no good answer within [\d.]+ s: the health/,
      );
      assert.ok(performance.now() - start >= within - 10, "it had its whole time");
      assert.is(await awaitHealth(question("sleep 0.05"), how), undefined);
    }
  } finally {
    Date.now = now;
  }
});

test("an answer with an error is no good one, and what it says is told", async () => {
  let status = 500;
  const server = createServer((_, answer) =>
    answer.writeHead(status).end(status === 500 ? "no table\n\u001b[2Jusers" : ""),
  );
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
  const surroundings = { gone: new Promise<never>(() => {}), signal: new AbortController().signal };
  const check = { url, within: 1000, timeout: 1000, every: 1000 };
  const ask = () => awaitHealth({ check, cwd: "/", env: {} }, surroundings);
  assert.match((await ask()) ?? "", /^no good answer within 1 s: status 500: no table.*users$/);
  status = 204;
  assert.is(await ask(), undefined);
  await new Promise((done) => server.close(done));
});

test("the good answer of an app that has ended meanwhile counts for nothing", async () => {
  let exit: ((end: { how: string }) => void) | undefined;
  const gone = new Promise<{ how: string }>((resolve) => (exit = resolve));
  const result = await awaitHealth(
    { check: { url: "http://127.0.0.1/", within: 5000, timeout: 1000, every: 1000 }, cwd: "/", env: {} },
    {
      gone,
      signal: new AbortController().signal,
      async ask() {
        exit?.({ how: "exit code 3" });
        return undefined;
      },
    },
  );
  assert.is(result, "it ended with exit code 3");
});

test.run();
