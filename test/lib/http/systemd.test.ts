import process from "node:process";
import * as assert from "uvu/assert";
import { test } from "uvu";
import { listenFds, notify, watchdogInterval } from "../../../lib/http/systemd.ts";
import { noNotifySocket, startNotifySocket } from "../../helpers/notify-socket.ts";
import { testUnless } from "../../helpers/skip.ts";

test("descriptors count only when they are for this very process", () => {
  const pid = String(process.pid);
  assert.equal(listenFds({ LISTEN_PID: pid, LISTEN_FDS: "2" }), [3, 4]);
  assert.equal(listenFds({ LISTEN_PID: "1", LISTEN_FDS: "2" }), []);
  assert.equal(listenFds({ LISTEN_FDS: "2" }), []);
  assert.equal(listenFds({ LISTEN_PID: pid, LISTEN_FDS: "x" }), []);
  assert.equal(listenFds({}), []);
});

test("the watchdog is fed twice as often as it asks for, and only if it asks this process", () => {
  assert.is(watchdogInterval({ NOTIFY_SOCKET: "/x", WATCHDOG_USEC: "30000000" }), 15_000);
  assert.is(watchdogInterval({ WATCHDOG_USEC: "30000000" }), undefined);
  assert.is(watchdogInterval({ NOTIFY_SOCKET: "/x" }), undefined);
  const other = { NOTIFY_SOCKET: "/x", WATCHDOG_USEC: "30000000", WATCHDOG_PID: "1" };
  assert.is(watchdogInterval(other), undefined);
});

testUnless(test, noNotifySocket)("news reach the socket that systemd named", async () => {
  const listener = await startNotifySocket();
  const before = process.env["NOTIFY_SOCKET"];
  process.env["NOTIFY_SOCKET"] = listener.path;
  try {
    // the receiver closes systemd-notify's barrier only as systemd would: a time limit is all that is needed here
    void notify("READY=1", "STATUS=fine");
    await listener.until(/READY=1/);
    assert.match(listener.stdout(), "STATUS=fine");
  } finally {
    if (before === undefined) delete process.env["NOTIFY_SOCKET"];
    else process.env["NOTIFY_SOCKET"] = before;
  }
  listener.kill("SIGKILL");
});

test.run();
