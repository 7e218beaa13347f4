// What hook-server tells systemd, seen on the socket that systemd would name.
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import { makeYard, startHooks } from "../helpers/hooks.ts";
import { runCommand, startCommand } from "../helpers/run.ts";
import { testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";

const there = async (argv: string[]) => (await runCommand(argv).catch(() => undefined))?.code === 0;
const missing =
  (await there(["systemd-notify", "--version"])) &&
  (await there(["perl", "-MIO::Socket::UNIX", "-e", "1"]))
    ? undefined
    : "systemd-notify or perl is missing";

const listen =
  '$| = 1; $s = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Local => $ARGV[0]) or die; print "ready\\n"; while (1) { $s->recv($m, 4096); print "got $m\\n"; }';

testUnless(test, missing)(
  "systemd is told when the server is ready, that it lives, when it reloads, and that it stops",
  async () => {
    const path = join(tempDir(), "notify");
    const listener = startCommand(["perl", "-MIO::Socket::UNIX", "-e", listen, path]);
    await listener.until(/ready/);
    const server = await startHooks(await makeYard(), {
      env: { NOTIFY_SOCKET: path, WATCHDOG_USEC: "400000" },
    });
    await listener.until(/got (?:.*\n)?READY=1/);
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
