// A clock that is wrong, or jumps: updates wait for a right one, the app goes on, and nothing wrong is remembered.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { deploy, webApp } from "../helpers/launch.ts";
import { makePublisher } from "../helpers/publisher.ts";
import { runScript, startScript } from "../helpers/run.ts";
import { testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";
import { waitFor } from "../helpers/wait.ts";

const library = ["x86_64", "aarch64"]
  .map((machine) => `/usr/lib/${machine}-linux-gnu/faketime/libfaketimeMT.so.1`)
  .find(existsSync);
const clockTest = testUnless(test, library === undefined ? "needs libfaketime" : undefined);

const publisher = await makePublisher();
test.after(() => publisher.close());
await publisher.publish("1", webApp("1"));

/** The environment of a process whose clock goes wrong by what the file says: `+1y`. */
function clockOf(file: string, shift: string): Record<string, string> {
  writeFileSync(file, `${shift}\n`);
  return {
    LD_PRELOAD: library ?? "",
    FAKETIME_TIMESTAMP_FILE: file,
    FAKETIME_NO_CACHE: "1",
    // as on a real machine: only the time of day jumps
    FAKETIME_DONT_FAKE_MONOTONIC: "1",
  };
}

clockTest("a clock that is a year ahead or behind takes no update, and spoils none", async () => {
  const clock = join(tempDir("clock-"), "shift");
  const app = await deploy(publisher);
  const remembered = () => readFileSync(join(app.folder, ".launchfit/state.json"), "utf8");
  await publisher.publish("2", webApp("2"));
  const before = remembered();
  for (const [shift, reason] of [
    ["+1y", /expired at .* \(freeze\), and by this machine's clock it is 20\d\d-.*Z: if that is right/],
    ["-1y", /from the future .*look at both clocks|is not valid now/],
    ["-20m", /from the future .*look at both clocks/],
  ] as const) {
    const { code, stderr } = await runScript("launchfit", ["check", "--once", "--dir", app.folder], {
      env: clockOf(clock, shift),
    });
    assert.is(code, 4, `${shift}: ${stderr}`);
    assert.match(stderr, reason);
    assert.is(app.current(), "releases/my-app-1");
    assert.is(remembered(), before);
  }
  // five minutes are forgiven, and the right time takes the update
  const { code, stderr } = await runScript("launchfit", ["check", "--once", "--dir", app.folder], {
    env: clockOf(clock, "-4m"),
  });
  assert.is(code, 0, stderr);
  assert.is(app.current(), "releases/my-app-2");
});

clockTest("a clock that jumps while the app runs disturbs neither the app nor the next looks", async () => {
  const clock = join(tempDir("clock-"), "shift");
  const app = await deploy(publisher, { listen: true, updates: ["every: 1s"] });
  const running = startScript("launchfit", ["--dir", app.folder], { env: clockOf(clock, "+0") });
  await running.until(/started .* process \d+/);
  let version = 3;
  for (const [shift, refusal] of [
    ["+1y", /freeze/],
    ["-1y", /from the future|in the future|not valid now/],
    ["+0", undefined],
  ] as const) {
    writeFileSync(clock, `${shift}\n`);
    const { uptime } = (await app.status()) as { uptime: number };
    assert.ok(uptime >= 0 && uptime < 60_000, `an uptime of ${uptime} ms at ${shift}`);
    // looked for by itself, not only when asked for; what a wrong clock refuses, the right one takes
    await publisher.publish(String(version), webApp(String(version)));
    await waitFor(
      async () => {
        const { lastCheck } = (await app.status()) as { lastCheck?: { result: string } };
        return refusal?.test(lastCheck?.result ?? "") ?? (await app.ask()) === String(version);
      },
      { what: `${version} at ${shift}` },
    );
    assert.is(await app.ask(), refusal ? "2" : String(version));
    version += 1;
  }
  await running.stop();
});

test.run();
