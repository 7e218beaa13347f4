// slave-server as systemd starts it: on a socket that was opened before, with news about its state.
import { writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { freePort } from "../helpers/ports.ts";
import { makeRepo } from "../helpers/repos.ts";
import { runCommand, scriptArgv, startCommand, startScript } from "../helpers/run.ts";
import { testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";
import { waitFor } from "../helpers/wait.ts";

const lacks = async (argv: string[], what: string) =>
  (await runCommand(argv).catch(() => undefined))?.code === 0 ? undefined : `needs ${what}`;
const noActivate = await lacks(["systemd-socket-activate", "--version"], "systemd-socket-activate");
const noNotify =
  (await lacks(["systemd-notify", "--version"], "systemd-notify")) ??
  (await lacks(["perl", "-MIO::Socket::UNIX", "-e", "1"], "perl"));

// it passes on no variables but those it is told: a cache of Deno's may lie elsewhere than in HOME
const cache = process.env["DENO_DIR"] === undefined ? [] : ["-E", "DENO_DIR"];
const activate = ["systemd-socket-activate", ...cache];

async function flags(listen: string): Promise<{ args: string[]; repos: string }> {
  const repo = await makeRepo({ files: { "index.html": "one" } });
  const dir = tempDir();
  await writeFile(join(dir, "slave.yml"), `base: file://${dirname(repo.bare)}\n`);
  const repos = join(dir, "repos");
  const args = ["--insecure", "--config", join(dir, "slave.yml"), "--repos", repos, "--listen", listen];
  return { args, repos };
}

testUnless(test, noActivate)(
  "it serves the socket that systemd opened, and the request that woke it is answered",
  async () => {
    const port = await freePort();
    // the address of its own is not used: systemd's socket is
    const { args } = await flags("127.0.0.1:1");
    const argv = [...scriptArgv("slave-server"), ...args];
    const server = startCommand([...activate, "-l", `127.0.0.1:${port}`, ...argv]);
    try {
      await server.until(/Listening on/);
      assert.not.match(server.output(), "slave-server", "nothing runs before somebody asks");
      const answer = await fetch(`http://127.0.0.1:${port}/get/?repo=site`);
      assert.is(answer.status, 202);
      const done = await fetch(`http://127.0.0.1:${port}/status?repo=site&wait=20s`);
      const { repos } = (await done.json()) as { repos: { order: { state: string } }[] };
      assert.is(repos[0]?.order.state, "done");
    } finally {
      assert.is((await server.stop()).code, 0);
    }
  },
);

testUnless(test, noActivate)("a socket of systemd's that others can reach is refused without a secret", async () => {
  const port = await freePort();
  const { args } = await flags("127.0.0.1:1");
  const argv = [...scriptArgv("slave-server"), ...args];
  const server = startCommand([...activate, "-l", `0.0.0.0:${port}`, ...argv]);
  await server.until(/Listening on/);
  await fetch(`http://127.0.0.1:${port}/healthz`).catch(() => undefined);
  const { code, stderr } = await server.exited;
  assert.is(code, 2);
  assert.match(stderr, "--insecure is for 127.0.0.1 only");
});

testUnless(test, noNotify)("systemd is told that it is ready, alive, and stopping", async () => {
  const path = join(tempDir(), "notify");
  const listener = startCommand([
    "perl",
    "-MIO::Socket::UNIX",
    "-e",
    '$| = 1; $s = IO::Socket::UNIX->new(Type => SOCK_DGRAM, Local => $ARGV[0]) or die; print "ready\\n"; while (1) { $s->recv($m, 4096); print "got $m\\n"; }',
    path,
  ]);
  await listener.until(/ready/);
  const { args } = await flags("127.0.0.1:0");
  const env = { NOTIFY_SOCKET: path, WATCHDOG_USEC: "400000" };
  const server = startScript("slave-server", args, { env });
  try {
    await listener.until(/READY=1\nSTATUS=listening on 127\.0\.0\.1:\d+/);
    await listener.until(/WATCHDOG=1/);
  } finally {
    server.kill("SIGTERM");
  }
  await waitFor(() => /STOPPING=1/.test(listener.stdout()), { what: () => listener.output() });
  // its goodbye waits for an answer that only systemd gives
  await server.stop("SIGKILL");
  await listener.stop("SIGKILL");
});

test.run();
