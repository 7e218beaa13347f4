// What hook-server tells systemd, seen on the socket that systemd would name.
import process from "node:process";
import { test } from "uvu";
import { makeYard, startHooks } from "../helpers/hooks.ts";
import { noNotifySocket, startNotifySocket } from "../helpers/notify-socket.ts";
import { testUnless } from "../helpers/skip.ts";

testUnless(test, noNotifySocket)(
  "systemd is told when the server is ready, that it lives, when it reloads, and that it stops",
  async () => {
    const listener = await startNotifySocket();
    const server = await startHooks(await makeYard(), {
      env: { NOTIFY_SOCKET: listener.path, WATCHDOG_USEC: "400000" },
    });
    await listener.until(/got .*READY=1/);
    await listener.until(/WATCHDOG=1[^]*WATCHDOG=1/);
    process.kill(server.running.pid, "SIGHUP");
    await listener.until(/RELOADING=1[^]*READY=1/);
    await server.stop();
    await listener.until(/STOPPING=1/);
    listener.kill("SIGKILL");
    await listener.exited;
  },
);

test.run();
