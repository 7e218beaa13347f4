// launchfit under what systemd gives a service of Type=notify with WatchdogSec=.
import { readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { isAlive } from "../../lib/exec/process-tree.ts";
import { deploy, webApp } from "../helpers/launch.ts";
import { noNotifySocket, startNotifySocket } from "../helpers/notify-socket.ts";
import { makePublisher } from "../helpers/publisher.ts";
import { runCommand, startCommand, startScript } from "../helpers/run.ts";
import { current, root } from "../helpers/runtime.ts";
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

testUnless(test, (await runCommand(["python3", "--version"])).code === 0 ? undefined : "needs python3")(
  "with the socket that systemd opened, connections wait while launchfit was killed with its app, and a program that only accepts serves them",
  async () => {
    const publisher = await makePublisher();
    const program = `import os, socket
web = socket.socket(fileno=3)
while True:
    peer, _ = web.accept()
    peer.recv(4096)
    text = os.environ["LAUNCHFIT_VERSION"] + " " + os.environ["LISTEN_FDS"]
    peer.sendall(("HTTP/1.1 200 OK\\r\\nConnection: close\\r\\nContent-Length: %d\\r\\n\\r\\n%s" % (len(text), text)).encode())
    peer.close()
`;
    await publisher.publish("1", { "serve.py": program });
    const app = await deploy(publisher, { listen: true, app: ["exec: exec python3 serve.py"] });
    // what systemd does with launchfit@.socket
    const opener = startCommand([
      "python3",
      "-c",
      `import os, signal, socket, subprocess, sys
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
web = socket.create_server(("127.0.0.1", int(sys.argv[1])))
os.dup2(web.fileno(), 3)
print("ready", flush=True)
while True:
    signal.sigwait({signal.SIGUSR1})
    subprocess.Popen(["sh", "-c", 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$@"', "sh"] + sys.argv[2:], pass_fds=[3], stdin=subprocess.DEVNULL)
`,
      `${app.port}`,
      ...current.argv(join(root, "scripts/launchfit.ts")),
      ...["--dir", app.folder],
    ]);
    await opener.until(/ready/);
    opener.kill("SIGUSR1");
    assert.is(await app.ask(), "1 1", "who came before the app was up has waited");
    await publisher.publish("2", { "serve.py": program });
    assert.is((await app.tell("check")).code, 0);
    assert.is(await app.ask(), "2 1");
    const lock = readFileSync(join(app.folder, ".launchfit/lock"), "utf8");
    const [launchfit] = /\d+/.exec(lock) ?? [];
    // systemd ends the whole cgroup
    const pids = [Number(launchfit), Number((await app.status())["pid"])];
    for (const pid of pids) process.kill(pid, "SIGKILL");
    for (const pid of pids) await waitFor(async () => !(await isAlive(pid)), { what: `the end of ${pid}` });
    const waiting = app.ask();
    opener.kill("SIGUSR1");
    assert.is(await waiting, "2 1");
    assert.is((await app.tell("stop")).code, 0);
    await opener.stop("SIGKILL");
    await publisher.close();
  },
);

test.run();
