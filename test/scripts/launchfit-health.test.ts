// An app that runs and does not answer is started again, without systemd, and not for ever.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { isAlive } from "../../lib/exec/process-tree.ts";
import { deploy, webApp } from "../helpers/launch.ts";
import { makePublisher } from "../helpers/publisher.ts";
import { tempDir } from "../helpers/tmp.ts";
import { waitFor } from "../helpers/wait.ts";

const publisher = await makePublisher();
await publisher.publish("1", webApp("1"));
test.after(() => publisher.close());

test("an app that hangs is started again after three bad answers in a row, and without forever it is not", async () => {
  const edit = (folder: string) => {
    const path = join(folder, "launchify.yml");
    const quick = "every: 100ms, timeout: 1s, within: 20s";
    writeFileSync(path, readFileSync(path, "utf8").replace("within: 20s", quick));
  };
  const [app, once] = [
    await deploy(publisher, { app: ["forever: true", "grace: 200ms"] }),
    await deploy(publisher, { app: ["grace: 200ms"] }),
  ];
  for (const each of [app, once]) edit(each.folder);
  const running = [await app.launch(), await once.launch()];
  for (const each of [app, once])
    await waitFor(async () => (await each.status())["health"] === "well", { what: "good health" });
  const [pid, other] = [(await app.status())["pid"], (await once.status())["pid"]].map(Number);
  for (const each of [pid, other]) process.kill(Number(each), "SIGSTOP");
  await running[0]?.until(/1 is not healthy \(no answer within 1 s\): it is started again\n/);
  await waitFor(async () => (await app.ask()) === "1", { what: "the app again" });
  const { restarts, lastEnd, pid: next } = await app.status();
  assert.is(restarts, 1);
  assert.is(lastEnd, "bad health (no answer within 1 s)");
  assert.is.not(next, pid);
  assert.not.ok(await isAlive(Number(pid)));
  await waitFor(async () => /no answer/.test(String((await once.status())["health"])));
  assert.is((await once.status())["pid"], other, "left as it is");
  await Promise.all(running.map((each) => each.stop()));
});

test("an app that stays ill is started again five times within an hour, then left; launchfit restart begins anew", async () => {
  const folder = tempDir();
  const starts = join(folder, "starts");
  const app = await deploy(publisher, {
    app: [
      "forever: true",
      `exec: echo >> ${starts}; exec node server.js`,
      `health: { command: "test -e ${folder}/well", every: 50ms, within: 50ms, failures: 1 }`,
    ],
  });
  const running = await app.launch();
  await running.until(/1 is not healthy .*, and was started again 5 times within an hour: it stays/);
  assert.is(readFileSync(starts, "utf8").length, 6);
  assert.is((await app.status())["state"], "running");
  assert.is((await app.tell("restart")).code, 0);
  await waitFor(() => readFileSync(starts, "utf8").length > 7, { what: "more restarts" });
  writeFileSync(join(folder, "well"), "");
  await waitFor(async () => (await app.status())["health"] === "well", { what: "good health" });
  assert.ok(existsSync(starts));
  await running.stop();
});

test.run();
