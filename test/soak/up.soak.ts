// boatyard up from a laptop to a bare Debian, booted: one command to https, pushes under load, broken ones, kills.
import { spawn } from "node:child_process";
import { mkdirSync, readFileSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { stripVTControlCharacters } from "node:util";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { launchify, load, mail, noLaptop, server, world } from "../helpers/laptop.ts";
import { runCommand, scriptArgv } from "../helpers/run.ts";
import { root } from "../helpers/runtime.ts";
import { needsCommand, testUnless } from "../helpers/skip.ts";
import { waitFor } from "../helpers/wait.ts";

const scale = Number(process.env["SOAK_SCALE"] ?? 1);

testUnless(test, noLaptop)(
  "a bare Debian: one command to https, a second one does nothing, no request fails over pushes, broken ones and an undo",
  async () => {
    const { machine, laptop, stop } = await world();
    const { up, app, git, commit, get } = laptop;
    const shown = (text: string) => process.stderr.write(`${text}\n`);
    try {
      await commit({ "server.mjs": server("v0"), "mail.mjs": mail, "launchify.yml": launchify });
      const first = await up("root@app.test", "--yes");
      shown(first.stdout + first.stderr);
      assert.is(first.code, 0);
      assert.match(first.stdout, /https:\/\/app\.test\/ after/);
      const answer = await get();
      assert.is(answer.status, 200);
      assert.match(answer.text, /^v0 /);

      const second = await up();
      shown(second.stdout);
      assert.is(second.code, 0, second.stderr);
      assert.match(second.stdout, "nothing to do");

      const end = load(laptop);
      const seconds: number[] = [];
      const pushes = Math.max(2, Math.round(10 * scale));
      for (let at = 1; at <= pushes; at += 1) {
        await commit({ "server.mjs": server(`v${at}`) });
        const from = performance.now();
        const pushed = await git("push", "boatyard", "main");
        seconds.push((performance.now() - from) / 1000);
        assert.is(pushed.code, 0, pushed.stderr);
        assert.match((await get()).text, new RegExp(`^v${at} `));
      }
      const good = (await git("rev-parse", "HEAD")).stdout.trim();
      const hits = Number((await get()).text.split(" ")[1]);
      for (const [more, why] of [
        ["", /no good answer within 20 s: status 500: no table users/],
        ["let let", /SyntaxError|ended with/],
      ] as const) {
        const sick =
          'import http from "node:http"; http.createServer((_, r) => r.writeHead(500).end("no table users")).listen(process.env.PORT);';
        await commit({ "server.mjs": more === "" ? sick : server("bad", more) });
        const pushed = await git("push", "boatyard", "main");
        shown(pushed.stderr);
        assert.is(pushed.code, 1);
        assert.match(pushed.stderr, /remote rejected/);
        assert.match(pushed.stderr, why);
        assert.match((await git("ls-remote", "boatyard", "main")).stdout, good);
        await git("reset", "-q", "--hard", good);
      }
      const undone = await app(["undo"]);
      shown(undone.stdout + undone.stderr);
      assert.is(undone.code, 0);
      assert.match((await get()).text, new RegExp(`^v${pushes - 1} `));
      const { good: answered, bad, max } = await end();
      shown(
        `pushes ${seconds.map((each) => each.toFixed(1)).join(" ")} s; ${answered} requests, ${bad.length} failed, ${max} ms at most`,
      );
      assert.equal(bad, []);
      assert.ok(Number((await get()).text.split(" ")[1]) > hits, "what it wrote is there");

      // an undo is seen, and the next up goes on from the branch
      const third = await up("--yes");
      shown(third.stdout + third.stderr);
      assert.is(third.code, 0);
      assert.match((await get()).text, new RegExp(`^v${pushes} `));

      assert.is((await app(["env", "set"], "GREETING=it's $HOME\n")).code, 0);
      await waitFor(async () => /it's \$HOME/.test((await get()).text), { what: "the new variable" });
      assert.is((await app(["env"])).stdout, "GREETING\n");
      assert.match((await app(["run", "--", "echo $GREETING in $PWD"])).stdout, /it's \$HOME in .*\/releases\//);
      const status = await app(["status"]);
      shown(status.stdout);
      assert.is(status.code, 0);
      assert.match((await app(["logs", "mail"])).stdout, /mail/);
      // neither Caddy's administration nor root's files are the app's
      await machine.sh(
        "! setpriv --reuid=my-app --clear-groups curl -s --unix-socket /var/lib/caddy/admin.sock http://x/config/",
      );
      await machine.sh("! curl -s -m 2 http://127.0.0.1:2019/config/");
      await machine.sh("systemd-analyze security --no-pager boatyard-my-app_web.service | tail -1 >&2");

      // the same app as a site of files, with limits: up makes the server follow, and pushes
      const site =
        "app:\n  root: public\n  limits: { memory: 200M, cpu: 50%, processes: 40 }\nhost: app.test\ntls: internal\n";
      mkdirSync(join(laptop.dir, "public"));
      await commit({ "launchify.yml": site, "public/index.html": "page 1\n" });
      assert.match((await git("push", "boatyard", "main")).stderr, /remote rejected.*app\.workers.*boatyard up/);
      const fourth = await up("--yes");
      shown(fourth.stdout + fourth.stderr);
      assert.is(fourth.code, 0);
      assert.equal(await get(), { status: 200, text: "page 1\n" });
      const unit = "boatyard-my-app_web.service";
      const { stdout: held } = await machine.sh(
        `systemctl show -p MemoryMax -p CPUQuotaPerSecUSec -p TasksMax ${unit}`,
      );
      assert.equal(held.trim().split("\n").sort(), ["CPUQuotaPerSecUSec=500ms", "MemoryMax=209715200", "TasksMax=40"]);
      // what a build leaves leads to nothing of Caddy's own
      symlinkSync(
        "/var/lib/caddy/.local/share/caddy/pki/authorities/local/root.key",
        join(laptop.dir, "public/key.html"),
      );
      await commit({ "public/index.html": "page 2\n" });
      assert.is((await git("push", "boatyard", "main")).code, 0);
      assert.equal(await get(), { status: 200, text: "page 2\n" });
      assert.ok((await get(undefined, "/key.html")).status >= 400);
      assert.equal(await get(undefined, "/launchify.yml"), await get(undefined, "/gone"));

      const removed = await app(["remove", "my-app"]);
      assert.is(removed.code, 0, removed.stderr);
      await machine.sh("test -s /home/my-app/data/app.db; ! ls /etc/systemd/system/boatyard-my-app*");
    } finally {
      await stop();
    }
  },
);

testUnless(test, noLaptop ?? needsCommand("script"))("README's first screen, typed, does what it says", async () => {
  const screen = /```text\n([^]*?)```/.exec(readFileSync(join(root, "README.md"), "utf8"))?.[1] ?? "";
  const typed = screen.split(/^\$ /m).slice(1);
  assert.equal(
    typed.map((each) => each.split(/\n| {2}/)[0]),
    ["cat launchify.yml", "boatyard up root@app.example.com", "git push boatyard main", "git push boatyard main"],
  );
  // what differs from one time to the next: commits, versions, times, and why a step is to be done
  const plain = (line: string) =>
    line
      .replace(/ {2,}[(#].*/, "")
      .replace(/\d+\.[0-9a-f]{8}/g, "VERSION")
      .replace(/\b[0-9a-f]{8}(?:[0-9a-f]{4})?\b/g, "ID")
      .replace(/\d+m \d\ds|\d+(?:\.\d)?s/g, "TIME")
      .trimEnd();
  const { laptop, stop } = await world();
  try {
    const [shown = ""] = typed.map((each) => each.split("\n").slice(1).map(plain).join("\n"));
    const answer = (status: number, text: string) =>
      `require("http").createServer((_, r) => r.writeHead(${status}).end("${text}")).listen(process.env.PORT);\n`;
    await laptop.commit({ "launchify.yml": `${shown}tls: internal\n`, "server.js": answer(200, "v1") });
    const [, , ...pushes] = typed;
    const up = `stty cols 200; ${scriptArgv("up").join(" ")} root@app.example.com`;
    const first = await runCommand(["script", "-qefc", up, "/dev/null"], {
      ...{ cwd: laptop.dir, env: laptop.env, input: "y\n", timeout: 300_000 },
    });
    process.stderr.write(first.stdout);
    assert.is(first.code, 0);
    const said = (text: string) => stripVTControlCharacters(text).replaceAll("\r", "\n").split("\n").map(plain);
    const holds = (actual: string, expected: string) => {
      const lines = said(actual);
      for (const line of expected.split("\n").slice(1).map(plain).filter(Boolean))
        assert.ok(
          lines.some((each) => each.startsWith(line)),
          `"${line}" in\n${lines.join("\n")}`,
        );
    };
    holds(first.stdout, typed[1] ?? "");
    for (const [at, push] of pushes.entries()) {
      const last = at === pushes.length - 1;
      await laptop.commit({ "server.js": last ? answer(500, "no table users") : answer(200, `v${at + 2}`) });
      const { stderr, code } = await laptop.git("push", "boatyard", "main");
      process.stderr.write(stderr);
      assert.is(code, last ? 1 : 0);
      holds(stderr, push);
    }
    assert.match((await laptop.app(["status"])).stdout, /https:\/\/app\.example\.com\/[^]*web +\S+ +running/);
  } finally {
    await stop();
  }
});

testUnless(test, noLaptop)("up that is killed at any step is completed by the next one", async () => {
  const kills = [/packages/, /Node/, /Boatyard/, /app my-app/, /runs/].slice(0, Math.max(1, Math.round(5 * scale)));
  for (const [at, step] of kills.entries()) {
    const { laptop, stop } = await world();
    try {
      await laptop.commit({ "server.mjs": server("v0"), "mail.mjs": mail, "launchify.yml": launchify });
      const [file, ...words] = [...scriptArgv("up"), "root@app.test", "--yes"];
      const child = spawn(file, words, {
        cwd: laptop.dir,
        env: laptop.env,
        stdio: ["ignore", "pipe", "pipe"],
        detached: true,
      });
      let output = "";
      child.stdout.on("data", (part) => (output += part));
      child.stderr.on("data", (part) => (output += part));
      // it is under way once what comes before it is done
      const before = [/make/, /done +packages/, /done +Node/, /done +Boatyard/, /done +git remote/][at] as RegExp;
      await waitFor(() => before.test(output), { timeout: 120_000, what: () => `${before} in ${output}` });
      await new Promise((resolve) => setTimeout(resolve, 300 + 900 * (at % 2)));
      process.kill(-(child.pid ?? 0), "SIGKILL");
      const again = await laptop.up("root@app.test", "--yes");
      process.stderr.write(`killed in ${step}:\n${again.stdout}${again.stderr}\n`);
      assert.is(again.code, 0);
      assert.match((await laptop.get()).text, /^v0 /);
      assert.match((await laptop.up()).stdout, "nothing to do");
    } finally {
      await stop();
    }
  }
});

test.run();
