// launchfit under what systemd gives a service of Type=notify with WatchdogSec=.
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { deploy, webApp } from "../helpers/launch.ts";
import { noNotifySocket, startNotifySocket } from "../helpers/notify-socket.ts";
import { makePublisher } from "../helpers/publisher.ts";
import { runCommand, startScript } from "../helpers/run.ts";
import { testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";
import { waitFor } from "../helpers/wait.ts";

testUnless(test, noNotifySocket)(
  "systemd hears when the app is up, is fed while it is healthy, not while it is not, and hears the end",
  async () => {
    const publisher = await makePublisher();
    await publisher.publish("1", webApp("1"));
    const folder = tempDir();
    const ill = join(folder, "ill");
    const app = await deploy(publisher, {
      app: [`health: { command: "test ! -e ${ill}", every: 100ms }`, `exec: env > ${folder}/env; exec node server.js`],
    });
    const systemd = await startNotifySocket();
    const env = { NOTIFY_SOCKET: systemd.path, WATCHDOG_USEC: "400000" };
    const running = startScript("launchfit", ["--dir", app.folder], { env });
    const fed = () => systemd.stdout().split("WATCHDOG=1").length - 1;
    await systemd.until(/READY=1/);
    assert.match(systemd.stdout(), /STATUS=running 1/);
    await waitFor(() => fed() >= 3, { what: "the watchdog's food" });
    writeFileSync(ill, "");
    await waitFor(async () => /exit code 1/.test(String((await app.status())["health"])), {
      what: "the bad health",
    });
    // one may have been on its way
    const before = fed() + 1;
    await new Promise((resolve) => setTimeout(resolve, 700));
    assert.ok(fed() <= before, "an app that is ill is not vouched for");
    rmSync(ill);
    await waitFor(() => fed() > before, { what: "food again" });
    assert.is((await running.stop()).code, 0);
    await systemd.until(/STOPPING=1/);
    const { stdout } = await runCommand(["cat", join(folder, "env")]);
    assert.not.match(stdout, /NOTIFY_SOCKET|WATCHDOG/);
    systemd.kill("SIGKILL");
    await publisher.close();
  },
);

testUnless(test, noNotifySocket)(
  "an app that takes longer to start than the watchdog waits is not taken for one that hangs",
  async () => {
    const publisher = await makePublisher();
    await publisher.publish("1", webApp("1"));
    const folder = tempDir();
    const up = join(folder, "up");
    const app = await deploy(publisher, {
      app: [`health: { command: "test -e ${up}", every: 100ms, within: 60s }`],
    });
    const systemd = await startNotifySocket();
    const env = { NOTIFY_SOCKET: systemd.path, WATCHDOG_USEC: "400000" };
    const running = startScript("launchfit", ["--dir", app.folder], { env });
    await systemd.until(/(?:WATCHDOG=1[\s\S]*){3}/);
    assert.is((await app.status())["health"], "starting");
    writeFileSync(up, "");
    await waitFor(async () => (await app.status())["health"] === "well", { what: "good health" });
    await running.stop();
    systemd.kill("SIGKILL");
    await publisher.close();
  },
);

test.run();
