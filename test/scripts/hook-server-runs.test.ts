// What becomes of accepted deliveries: order, limits, ends, records, steering.
import { existsSync, readFileSync, statSync } from "node:fs";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import * as assert from "uvu/assert";
import { test } from "uvu";
import {
  http,
  logOf,
  makeYard,
  pushPayload,
  runScript,
  secret,
  sha,
  sign,
  startHooks,
  storedRuns,
} from "../helpers/hooks.ts";
import { processesOf } from "../helpers/leftovers.ts";
import { freePort } from "../helpers/ports.ts";
import { git, makeRepo } from "../helpers/repos.ts";
import { runCommand, scriptArgv, startCommand } from "../helpers/run.ts";
import { needsRoot, testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";
import { withUser } from "../helpers/users.ts";
import { slowness, waitFor } from "../helpers/wait.ts";

/** A job that waits until the file `go` is in its folder, and notes when it runs. */
const patient = 'echo "begin $HOOK_SHA" >>order; while ! test -e go; do sleep 0.02; done; echo "end $HOOK_SHA" >>order';

test("pushes to one repo during a build become one further run, of the newest; the others are superseded", async () => {
  const dir = await makeYard({ job: patient });
  const server = await startHooks(dir);
  const first = await server.push("me/site", sha(0));
  await waitFor(() => existsSync(join(dir, "co/order")));
  const answers: { body: { run: string } }[] = [];
  for (let n = 1; n <= 40; n++) answers.push(await server.push("me/site", sha(n)));
  await writeFile(join(dir, "co/go"), "");
  const runs = await server.idle();
  const states = (state: string) => runs.filter((run) => run.state === state);
  assert.is(states("succeeded").length, 2);
  assert.is(states("superseded").length, 39);
  const last = answers.at(-1)?.body.run;
  assert.is(runs.find((run) => run.id === last)?.state, "succeeded");
  assert.is(runs.find((run) => run.id === answers[38]?.body.run)?.by, last);
  assert.equal(readFileSync(join(dir, "co/order"), "utf8").split("\n").slice(0, 4), [
    `begin ${sha(0)}`,
    `end ${sha(0)}`,
    `begin ${sha(40)}`,
    `end ${sha(40)}`,
  ]);
  assert.is((await server.local(`/runs/${first.body.run}`)).body.state, "succeeded");
  await server.stop();
});

test("releases and tags are never merged, and run in order", async () => {
  const dir = await makeYard({
    repos: { "me/site": "refs: ['refs/tags/*']" },
    job: "echo $HOOK_REF >>order",
  });
  const server = await startHooks(dir);
  const tags = ["v1", "v2", "v2", "v3"];
  for (const [index, tag] of tags.entries()) {
    await server.push("me/site", sha(index), { ref: `refs/tags/${tag}` });
  }
  const runs = await server.idle();
  assert.is(runs.filter((run) => run.state === "succeeded").length, 4);
  assert.equal(
    readFileSync(join(dir, "co/order"), "utf8").trim().split("\n"),
    tags.map((tag) => `refs/tags/${tag}`),
  );
  await server.stop();
});

test("with cancel: true a newer push ends the run of the older one, with all its children", async () => {
  const dir = await makeYard({
    repos: { "me/site": "cancel: true" },
    job: 'test "$HOOK_SHA" = "$(cat ok 2>/dev/null)" || sleep 100',
  });
  const server = await startHooks(dir);
  const old = await server.push("me/site", sha(1));
  await waitFor(async () => (await server.runs())[0]?.state === "running");
  await writeFile(join(dir, "co/ok"), sha(2));
  const fresh = await server.push("me/site", sha(2));
  const runs = await server.idle();
  const found = runs.find((run) => run.id === old.body.run);
  assert.is(found?.state, "cancelled");
  assert.is(found?.by, fresh.body.run);
  assert.is(runs.find((run) => run.id === fresh.body.run)?.state, "succeeded");
  await server.stop();
});

test("a run past its time-out is ended with children that left its session, and the next one runs", async () => {
  const dir = await makeYard({
    // what it starts takes longer on a machine that has much to do
    repos: { "me/site": `timeout: ${Math.ceil(400 * slowness())}ms` },
    job: `test -e fast && exit 0
touch fast
trap '' TERM
setsid sh -c 'trap "" TERM; sleep 301' &
(setsid sh -c 'sleep 302 & ' &)
echo last words without an end | tr -d '\\n'
sleep 303`,
  });
  const server = await startHooks(dir);
  const { body } = await server.push("me/site", sha(1));
  const [run] = await server.idle();
  assert.is(run?.state, "failed");
  assert.match(run?.reason ?? "", /took longer than \d+\.\ds and was ended/);
  assert.match(logOf(server, body.run), /last words without an end\n.* \| failed: took longer/);
  const left = (await processesOf(dir)).filter(({ command }) => command.includes("sleep"));
  assert.equal(left, []);
  await server.push("me/site", sha(2));
  assert.is((await server.idle())[0]?.state, "succeeded");
  await server.stop();
});

test("what a run started to stay, stays after its normal end", async () => {
  const dir = await makeYard({ job: 'nohup sleep 300 >/dev/null 2>&1 & echo $! >"$PWD/stays"' });
  const server = await startHooks(dir);
  await server.push("me/site", sha(1));
  assert.is((await server.idle())[0]?.state, "succeeded");
  await server.stop();
  const pid = Number(readFileSync(join(dir, "co/stays"), "utf8"));
  assert.ok(existsSync(`/proc/${pid}`));
  process.kill(pid, "SIGKILL");
});

test("a run whose log grows past its cap is ended, with a note", async () => {
  const dir = await makeYard({
    top: "max_log: 200k",
    job: "yes this is a line of a log that never ends",
  });
  const server = await startHooks(dir);
  const { body } = await server.push("me/site", sha(1));
  const [run] = await server.idle();
  assert.is(run?.state, "failed");
  assert.match(run?.reason ?? "", /wrote more than 200 kB of log/);
  assert.match(logOf(server, body.run).slice(-200), /failed: wrote more than/);
  await server.stop();
});

test("exit code 3 means busy: the run waits and is tried again", async () => {
  const dir = await makeYard({ job: "test -e free || exit 3" });
  const server = await startHooks(dir);
  const { body } = await server.push("me/site", sha(1));
  const busy = await waitFor(async () => {
    const { body: run } = await server.local(`/runs/${body.run}`);
    return run.state === "waiting" && run.reason ? run : undefined;
  });
  assert.match(busy.reason, /busy/);
  await writeFile(join(dir, "co/free"), "");
  const [run] = await server.idle();
  assert.is(run?.state, "succeeded");
  assert.ok((run?.attempt ?? 0) >= 2);
  await server.stop();
});

test("then commands run after a good push, in order, and a bad one fails the run", async () => {
  const dir = await makeYard({
    repos: { "me/site": 'then: ["echo one $HOOK_SHA", "echo $HOME two; exit 4", "echo three"]' },
  });
  const server = await startHooks(dir);
  const { body } = await server.push("me/site", sha(1));
  const [run] = await server.idle();
  assert.is(run?.state, "failed");
  assert.match(run?.reason ?? "", /^on_success: exit code 4/);
  const log = logOf(server, body.run);
  assert.match(log, `one ${sha(1)}`);
  assert.not.match(log, "three");
  await server.stop();
});

test("runs are listed, shown, followed, cancelled and run again from the command line", async () => {
  const dir = await makeYard({ job: patient });
  const server = await startHooks(dir);
  const hooks = (...args: string[]) => runScript("hook-server", [...args, "--state", server.state]);
  const one = (await server.push("me/site", sha(1))).body.run;
  const two = (await server.push("me/site", sha(2))).body.run;
  await waitFor(() => existsSync(join(dir, "co/order")));
  assert.match((await hooks("list")).stdout, new RegExp(`${one} .* running`));
  assert.is((await hooks("cancel", two)).code, 0);
  assert.is((await server.local(`/runs/${two}`)).body.state, "cancelled");
  const following = hooks("log", "-f", one);
  await writeFile(join(dir, "co/go"), "");
  assert.match((await following).stdout, /succeeded \(/);
  assert.is((await following).code, 0);
  const again = await hooks("rerun", "--json", two);
  assert.is(again.code, 0, again.stderr);
  const three = JSON.parse(again.stdout).run;
  await server.idle();
  const shown = JSON.parse((await hooks("show", "--json", three)).stdout);
  assert.is(shown.sha, sha(2));
  assert.is(shown.state, "succeeded");
  assert.is((await hooks("show", "20260101T000000Z-000000")).code, 1);
  assert.is((await hooks("cancel", one)).code, 1);
  await server.stop();
  const off = await hooks("list");
  assert.is(off.code, 1);
  assert.match(off.stderr, /no hook-server answers at .*socket/);
});

test("over HTTP the same routes need the token, and nothing of it or of a secret is shown", async () => {
  const token = "planted-t0ken-for-status";
  const dir = await makeYard({
    top: "status: { token_file: token }",
    job: `cat ../secret; printf %s ${secret.slice(0, 9)}; sleep 0.1; echo ${secret.slice(9)}; base64 <../secret; exit 1`,
  });
  await writeFile(join(dir, "token"), token, { mode: 0o600 });
  const server = await startHooks(dir);
  const { body } = await server.push("me/site", sha(1));
  await server.idle();
  const ask = (path: string, method = "GET", given = token) =>
    http({ port: server.port }, path, {
      method,
      headers: given === "" ? {} : { authorization: `Bearer ${given}` },
    });
  assert.is((await ask("/runs", "GET", "")).status, 401);
  assert.is((await ask("/runs", "GET", "wrong")).status, 401);
  const pages = await Promise.all(
    [
      "/runs",
      `/runs/${body.run}`,
      `/runs/${body.run}/log`,
      `/runs/${body.run}/log?follow=1`,
      "/metrics",
      "/healthz",
    ].map((path) => ask(path)),
  );
  for (const { status, text } of pages) {
    assert.is(status, 200);
    for (const planted of [secret, token, Buffer.from(secret).toString("base64").slice(0, 20)]) {
      assert.not(text.includes(planted), text);
    }
  }
  assert.match(pages[2]?.text ?? "", "***");
  assert.not.match(logOf(server, body.run), secret);
  assert.match(pages[4]?.text ?? "", 'boatyard_deliveries_total{status="202"} 1');
  assert.match(pages[4]?.text ?? "", 'boatyard_runs_total{result="failed"} 1');
  for (const path of [
    "/runs/x",
    "/runs/../secret",
    `/runs/${body.run}/hook-payload.json`,
    `/runs/${body.run}/log/x`,
    "/runs/%2e%2e%2fsecret/log",
  ]) {
    assert.is((await ask(path)).status, 404, path);
  }
  assert.is((await ask(`/runs/${body.run}/cancel`)).status, 405);
  assert.is((await ask(`/runs/${body.run}/cancel`, "POST")).status, 409);
  assert.is((await ask(`/runs/${body.run}/rerun`, "POST")).status, 202);
  await server.idle();
  assert.is(statSync(join(server.state, "socket")).mode & 0o777, 0o600);
  await server.stop();
});

test("only the newest runs are kept", async () => {
  const dir = await makeYard({ top: "keep: 3", repos: { "me/site": "refs: ['refs/tags/*']" } });
  const server = await startHooks(dir);
  for (let n = 0; n < 6; n++) await server.push("me/site", sha(n), { ref: "refs/tags/x" });
  const runs = await server.idle();
  await waitFor(() => runs.filter((run) => existsSync(join(server.state, "runs", run.id))).length === 3);
  await server.kill();
  const again = await startHooks(dir);
  assert.is((await again.idle()).filter((run) => run.started !== undefined).length, 3);
  assert.is((await again.push("me/site", sha(9), { ref: "refs/tags/x" })).status, 202);
  await again.idle();
  await again.stop();
});

test("SIGTERM lets the run under way finish and keeps what waits for the next start", async () => {
  const dir = await makeYard({ job: patient });
  let server = await startHooks(dir);
  const one = (await server.push("me/site", sha(1))).body.run;
  const two = (await server.push("me/site", sha(2))).body.run;
  await waitFor(() => existsSync(join(dir, "co/order")));
  server.running.kill("SIGTERM");
  await waitFor(async () => (await http({ port: server.port }, "/healthz")).status === 503);
  assert.is((await server.push("me/site", sha(3))).status, 503);
  await writeFile(join(dir, "co/go"), "");
  assert.is((await server.running.exited).code, 0);
  server = await startHooks(dir);
  const runs = await server.idle();
  assert.equal(
    runs.map((run) => [run.id, run.state, run.attempt]),
    [
      [two, "succeeded", 1],
      [one, "succeeded", 1],
    ],
  );
  await server.stop();
});

test("a stop that lasts too long ends the run, which runs again at the next start", async () => {
  const dir = await makeYard({
    top: "drain: 200ms",
    job: "test -e again || { touch again; sleep 100; }",
  });
  let server = await startHooks(dir);
  await server.push("me/site", sha(1));
  await waitFor(() => existsSync(join(dir, "co/again")));
  await server.stop();
  assert.equal(
    (await processesOf(dir)).filter(({ command }) => command.includes("sleep")),
    [],
  );
  server = await startHooks(dir);
  const [run] = await server.idle();
  assert.is(run?.state, "succeeded");
  assert.is(run?.interrupted?.length, 1);
  await server.stop();
});

test("pushes that were missed are found by asking the remote", async () => {
  const repo = await makeRepo({ files: { "a.txt": "1" } });
  const dir = await makeYard({ repos: { "me/site": "poll: 300ms" } });
  await rm(join(dir, "co"), { recursive: true });
  await repo.checkout(join(dir, "co"));
  const head = await git(join(dir, "co"), "rev-parse", "HEAD");
  const server = await startHooks(dir);
  await waitFor(async () => (await server.runs()).some((run) => run.sha === head && run.state === "succeeded"));
  const next = await repo.push({ "a.txt": "2" });
  await waitFor(async () => (await server.runs()).some((run) => run.sha === next && run.state === "succeeded"));
  await new Promise((resolve) => setTimeout(resolve, 700));
  assert.is((await server.runs()).length, 2);
  await server.stop();
});

test("--check says what to fix", async () => {
  const repo = await makeRepo({ files: { "a.txt": "1" } });
  const dir = await makeYard();
  const config = join(dir, "hooks.yml");
  const bad = await runScript("hook-server", ["--check", "--config", config]);
  assert.is(bad.code, 2);
  assert.match(bad.stdout, /fix {3}me\/site: .*co is a checkout/);
  await rm(join(dir, "co"), { recursive: true });
  await repo.checkout(join(dir, "co"));
  const good = await runScript("hook-server", ["--check", "--config", config, "--json"]);
  const { findings } = JSON.parse(good.stdout);
  const fixes = findings.filter((each: { fix?: string; what: string }) => each.fix && !each.what.includes("root"));
  assert.equal(fixes, []);
});

test("a run inherits nothing of the server's but its log", async () => {
  const dir = await makeYard({ job: 'for fd in /proc/$$/fd/*; do readlink "$fd"; done' });
  const server = await startHooks(dir);
  const { body } = await server.push("me/site", sha(1));
  await server.idle();
  const log = logOf(server, body.run);
  assert.match(log, /\/dev\/null/);
  assert.not.match(log, /socket:|deliveries|lock/);
  await server.stop();
});

const noSystemd =
  (await runCommand(["systemd-socket-activate", "--version"]).catch(() => undefined))?.code === 0
    ? undefined
    : "systemd-socket-activate is missing";

testUnless(test, noSystemd)("a socket that systemd opened is served, and no run inherits it", async () => {
  const dir = await makeYard({ job: "ls -l /proc/$$/fd" });
  const port = await freePort();
  const running = startCommand([
    "systemd-socket-activate",
    "--listen",
    `127.0.0.1:${port}`,
    ...scriptArgv("hook-server"),
    "--config",
    join(dir, "hooks.yml"),
  ]);
  await waitFor(async () => (await http({ port }, "/healthz")).status === 200);
  await running.until(new RegExp(`listens on 127.0.0.1:${port},`));
  const body = JSON.stringify(pushPayload("me/site", sha(1)));
  const headers = {
    "content-type": "application/json",
    "x-github-event": "push",
    "x-hub-signature-256": `sha256=${sign(body)}`,
  };
  const answer = await http({ port }, "/hook", { body, headers });
  assert.is(answer.status, 202);
  const run = join(dir, "state/runs", answer.body.run);
  await waitFor(() => storedRuns({ state: join(dir, "state") })[0]?.state === "succeeded");
  assert.not.match(readFileSync(join(run, "log"), "utf8"), / 3 -> socket:/);
  await running.stop();
});

testUnless(test, needsRoot)(
  "a run is its repo's user, with its groups and home, and cannot read the server's files",
  async () => {
    await withUser(async (user) => {
      const dir = await makeYard({
        dir: tempDir("hook-"),
        repos: { "me/site": `user: ${user.name}` },
        job: 'id; echo "home $HOME"; pwd; cat "$HOOK_PAYLOAD" | head -c 1; touch made; cat ../secret; cat ../state/runs.jsonl; grep -E "^(NoNewPrivs|CapBnd|CapEff)" /proc/self/status; ls -l /proc/self/fd | wc -l',
      });
      process.umask(0o022);
      await rm(join(dir, "co"), { recursive: true });
      await mkdir(join(dir, "co"));
      const { chown } = await import("node:fs/promises");
      await chown(join(dir, "co"), user.uid, user.gid);
      const server = await startHooks(dir);
      const { body } = await server.push("me/site", sha(1));
      await server.idle();
      const log = logOf(server, body.run);
      assert.match(log, `uid=${user.uid}(${user.name}) gid=${user.gid}(${user.name}) groups=${user.gid}(${user.name})`);
      assert.match(log, `home ${user.home}`);
      assert.is(statSync(join(dir, "co/made")).uid, user.uid);
      assert.match(log, "NoNewPrivs:\t1");
      assert.match(log, "CapEff:\t0000000000000000");
      assert.is((log.match(/Permission denied|cannot open/g) ?? []).length >= 2, true, log);
      assert.not.match(log, secret);
      await server.stop();
    });
  },
);

test.run();
