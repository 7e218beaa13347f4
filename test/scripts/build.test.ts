// `build` as a process: its command line, log, lock, time limits, signals and environment.
import { existsSync } from "node:fs";
import { chmod, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { parseLine, parseMark } from "../../lib/log/format.ts";
import { killProcessesOf, processesOf } from "../helpers/leftovers.ts";
import { git, makeRepo, writeFiles } from "../helpers/repos.ts";
import { type RunOptions, runScript, startScript } from "../helpers/run.ts";
import { makeCertificate } from "../helpers/tls.ts";
import { testUnless } from "../helpers/skip.ts";
import { tempDir } from "../helpers/tmp.ts";
import { slowness, waitFor } from "../helpers/wait.ts";

const env = { GIT_CONFIG_GLOBAL: "/dev/null", GIT_CONFIG_NOSYSTEM: "1" };

const build = (args: string[], options: RunOptions = {}) =>
  runScript("build", args, { ...options, env: { ...env, ...options.env } });

/** A folder without git whose stages are these commands, in their order. */
async function folder(commands: Record<string, string>, more = ""): Promise<string> {
  const dir = tempDir();
  await writeFiles(dir, { "build.yml": buildFile(commands, more) });
  return dir;
}

function buildFile(commands: Record<string, string>, more = ""): string {
  return `stages: [${Object.keys(commands).join(", ")}]\ncommands: ${JSON.stringify(commands)}\n${more}`;
}

const log = (dir: string) => readFile(join(dir, "logs.txt"), "utf8");

test("the log has each line with time, run and stage; the table is on stdout, the lines on stderr", async () => {
  const dir = await folder({ one: "echo first; echo second >&2", two: "printf 'no line end'" });
  const { stdout, stderr } = await build([dir], { expect: 0 });
  const lines = (await log(dir))
    .trimEnd()
    .split("\n")
    .map((line) => parseLine(line));
  assert.ok(lines.every((line) => line !== undefined));
  assert.is(new Set(lines.map((line) => line?.run)).size, 1);
  const shown = lines.filter((line) => line?.stage !== "run").map((line) => `${line?.stage} | ${line?.text}`);
  assert.equal(shown.sort(), [
    "one | $ echo first; echo second >&2",
    "one | first",
    "one | second",
    "two | $ printf 'no line end'",
    "two | no line end",
  ]);
  const marks = lines.filter((line) => line?.stage === "run").map((line) => parseMark(line?.text ?? ""));
  assert.equal(
    marks.map((mark) => mark?.kind),
    ["start", "stage", "stage", "end"],
  );
  assert.match(stderr, /^one \| first$/m);
  assert.match(stdout, /^stage +result +time\none +ok +\d+\.\ds\ntwo +ok +\d+\.\ds\nrun +ok +\d+\.\ds +\w{6}\n$/);
});

test("the first stage that fails ends the run with exit 1, and the table says which", async () => {
  const dir = await folder({ one: "true", two: "echo oh; exit 3", three: "touch never" });
  const { stdout } = await build([dir], { expect: 1 });
  assert.match(stdout, /two +failed .* exit code 3$/m);
  assert.not(existsSync(join(dir, "never")));
  assert.match(await log(dir), /run \| end result=failed code=1 .*why="two: exit code 3/);
});

test("stages run as on a CI, unless env: says otherwise; nothing can ask them anything", async () => {
  const show = { show: 'echo "CI=$CI TERM=$TERM COLOR=$FORCE_COLOR$NO_COLOR"; read answer || echo nobody answers' };
  const plain = await folder(show);
  await build([plain], { expect: 0, env: { CI: "no", TERM: "xterm" } });
  assert.match(await log(plain), /show \| CI=true TERM=dumb COLOR=1\n.*show \| nobody answers\n/);
  const own = await folder(show, "env: { CI: '', NO_COLOR: 'no' }\n");
  await build([own], { expect: 0 });
  assert.match(await log(own), "show | CI= TERM=dumb COLOR=no");
});

test("logs.txt keeps the colours of a stage; where nobody looks nothing has escape codes", async () => {
  const dir = await folder({ paint: "printf '\\033[31mred\\033[0m\\n'" });
  const { stdout, stderr } = await build([dir], { expect: 0 });
  assert.match(stderr, /^paint \| red$/m);
  assert.not.match(stdout + stderr, "\u001b");
  assert.match(await log(dir), "paint | \u001b[31mred\u001b[0m");
});

test("--quiet prints nothing when all went well, and the table when not", async () => {
  const { stdout, stderr } = await build([await folder({ one: "echo words" }), "--quiet"], { expect: 0 });
  assert.is(stdout + stderr, "");
  assert.match((await build([await folder({ one: "exit 3" }), "--quiet"], { expect: 1 })).stdout, /one +failed/);
});

test("a build that built nothing is no failure, but says what lies there", async () => {
  const dir = tempDir();
  await writeFiles(dir, { "requirements.txt": "flask\n", Makefile: "all:\n", "README.md": "# nothing\n" });
  const { stdout } = await build([dir, "--skip", "pull"], { expect: 0 });
  const note = "nothing was built: Makefile and requirements.txt are here; name a command in build.yml";
  assert.ok(stdout.endsWith(`${note}\n`), stdout);
  assert.match(await log(dir), `run | end result=ok code=0`);
  assert.match(await log(dir), `why="${note}"`);
  const asJson = await build([dir, "--skip", "pull", "--json"], { expect: 0 });
  assert.is((JSON.parse(asJson.stdout) as { note?: string }).note, note);
  await writeFiles(dir, { "build.yml": "stages: [make]\ncommands: { make: 'true' }\n" });
  assert.not.match((await build([dir], { expect: 0 })).stdout, "nothing was built");
});

test("a document of litpro without an lprc.js is not passed over in silence", async () => {
  const dir = tempDir();
  await writeFiles(dir, { "project.md": '# Site\n\n[index.js](#code "save:")\n' });
  const { stdout } = await build([dir, "--skip", "pull"], { expect: 0 });
  assert.match(stdout, "nothing was built: project.md (litpro builds it with an lprc.js) is here");
});

test("the build script of package.json is run after the install; a command of build.yml takes its place", async () => {
  const dir = tempDir();
  const scripts = { build: "node -e \"require('fs').writeFileSync('out.html', 'x')\"" };
  await writeFiles(dir, { "package.json": JSON.stringify({ name: "site", version: "1.0.0", scripts }) });
  const { stdout, stderr } = await build([dir, "--skip", "pull"], { expect: 0 });
  assert.match(stderr, /^build \| \$ npm run build$/m);
  assert.match(stdout, /^build +ok .* npm run build$/m);
  assert.ok(existsSync(join(dir, "out.html")));
  assert.match(
    (await build([dir, "--skip", "pull", "--dry-run"], { expect: 0 })).stdout,
    /build +npm run build: node -e/,
  );
  await writeFiles(dir, { "build.yml": buildFile({ build: "echo our own" }) });
  assert.match((await build([dir], { expect: 0 })).stderr, /^build \| our own$/m);
  scripts.build = "exit 3";
  await writeFiles(dir, {
    "package.json": JSON.stringify({ name: "site", version: "1.0.0", scripts }),
    "build.yml": "",
  });
  assert.match((await build([dir, "--skip", "pull"], { expect: 1 })).stdout, /^build +failed .* exit code \d+$/m);
});

test("a stage that is silent for 30 seconds is said to be still running", async () => {
  const dir = await folder({ quiet: "sleep 32; echo done" });
  const { stderr } = await build([dir], { expect: 0, timeout: 120_000 });
  assert.match(stderr, /^quiet \| \$ sleep 32; echo done\nquiet \| still running, no output for 30s\nquiet \| done$/m);
});

test("--json is one document on stdout", async () => {
  const dir = await folder({ one: "echo out", two: "false" });
  const { stdout, stderr } = await build([dir, "--json"], { expect: 1 });
  const result = JSON.parse(stdout);
  assert.is(result.result, "failed");
  assert.is(result.code, 1);
  assert.equal(
    result.stages.map((each: { stage: string; result: string }) => [each.stage, each.result]),
    [
      ["one", "ok"],
      ["two", "failed"],
    ],
  );
  assert.match(stderr, /one \| out/);
});

test("--dry-run shows the plan and touches nothing", async () => {
  const repo = await makeRepo({
    files: { "package.json": '{ "dependencies": { "a": "1" } }', "lprc.js": "" },
  });
  const dir = await repo.checkout(join(tempDir(), "site"));
  await repo.push({ "b.txt": "b\n" });
  const { stdout } = await build([dir, "--dry-run"], { expect: 0 });
  assert.match(stdout, /pull +fetch main from origin and set the checkout to it\n/);
  assert.match(
    stdout,
    /downloads +skipped: no manifest.txt or cloudinary.txt\ninstall +npm install\nlitpro +litpro\nbuild +skipped: package.json has no script named build\nuploads +skipped: no uploads.yml\n/,
  );
  assert.not(existsSync(join(dir, "b.txt")));
  assert.not(existsSync(join(dir, "logs.txt")));
  assert.not(existsSync(join(dir, ".git/boatyard")));
  const json = JSON.parse((await build([dir, "--dry-run", "--json"], { expect: 0 })).stdout);
  assert.is(json.stages[2].does, "npm install");
});

test("--check reads all that a build reads, by the scripts themselves, and runs nothing", async () => {
  const dir = tempDir();
  const { bare } = await makeRepo();
  await writeFiles(dir, {
    "build.yml": "stages: [downloads, install, litpro, test, uploads]\ncommands: { test: touch ran }\n",
    "manifest.txt": "https://127.0.0.1:1/a.bin a.bin\n",
    "package.json": '{ "dependencies": { "ms": "2" }, "scripts": { "preinstall": "touch ran" } }\n',
    "uploads.yml": `to: { web: { git: "file://${bare}", branch: pages } }\n`,
  });
  const before = await readdir(dir);
  const { stdout } = await build([dir, "--check"], { expect: 0 });
  assert.match(stdout, /downloads +ok[^]*install +ok +npm install\nlitpro +skipped[^]*test +ok[^]*uploads +ok/);
  assert.equal(await readdir(dir), before);

  await writeFiles(dir, {
    "manifest.txt": "https://127.0.0.1:1/a.bin ../a.bin\n",
    "pnpm-lock.yaml": "lockfileVersion: '9.0'\n",
    "yarn.lock": "# yarn lockfile v1\n",
    "uploads.yml": `to: { web: { git: "git@127.0.0.1:a/b.git", branch: pages, key: nosuch } }\n`,
  });
  const wrong = await build([dir, "--check"], { expect: 2 });
  assert.match(wrong.stderr, /downloads: .*manifest.txt:1: /);
  assert.match(wrong.stderr, /install: lock files of pnpm and of yarn are here/);
  assert.match(wrong.stderr, /uploads: .*web: there is no file \S+\/nosuch/);
  const json = await build([dir, "--check", "--json"], { expect: 2 });
  const { stages } = JSON.parse(json.stdout) as { stages: { name: string; result: string }[] };
  assert.equal(
    stages.map(({ name, result }) => `${name} ${result}`),
    ["downloads failed", "install failed", "litpro skipped", "test ok", "uploads failed"],
  );

  const repo = await makeRepo({ files: { "build.yml": "stages: [pul]\n" } });
  const checkout = await repo.checkout(join(tempDir(), "site"));
  const broken = await build([checkout, "--check"], { expect: 2 });
  assert.match(broken.stderr, /build\.yml:1:10: there is no stage "pul"/);
});

test("a private CA that NODE_EXTRA_CA_CERTS names holds for a build's stages, too", async () => {
  const tls = await makeCertificate();
  const [key, cert] = await Promise.all([readFile(tls.key), readFile(tls.cert)]);
  const server = createServer({ key, cert }, (_, response) => response.end("content\n"));
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
  const { port } = server.address() as AddressInfo;
  const dir = tempDir();
  await writeFiles(dir, {
    "build.yml": "stages: [downloads]\n",
    "manifest.txt": `https://127.0.0.1:${port}/a.txt a.txt\n`,
  });
  const trust = { NODE_EXTRA_CA_CERTS: tls.ca, DENO_CERT: tls.ca };
  await build([dir], { env: trust, expect: 0 }).finally(() => server.close());
  assert.is(await readFile(join(dir, "downloads/a.txt"), "utf8"), "content\n");
});

test("a wrong build.yml is exit 2 with its place; one that a pull corrects does not stop the pull", async () => {
  const repo = await makeRepo({ files: { "build.yml": "stages: [pull, tset]\n" } });
  const dir = await repo.checkout(join(tempDir(), "site"));
  const wrong = await build([dir, "--skip", "pull"], { expect: 2 });
  assert.match(wrong.stderr, /build: \S+build.yml:1:16: there is no stage "tset"/);
  assert.not(existsSync(join(dir, "logs.txt")));
  const pulled = await build([dir], { expect: 2 });
  assert.match(pulled.stdout + pulled.stderr, /build.yml:1:16/);
  await repo.push({
    "build.yml": buildFile({ pull: "true", test: "echo tested" }).replace('"pull":"true",', ""),
  });
  const { stderr } = await build([dir], { expect: 0 });
  assert.match(stderr, /test \| tested/);
});

test("a build.yml that comes with the pull decides about the stages after it", async () => {
  const repo = await makeRepo({ files: { "a.txt": "a\n" } });
  const dir = await repo.checkout(join(tempDir(), "site"));
  await repo.push({ "build.yml": "stages: [pull, make]\ncommands: { make: echo made }\n" });
  const { stdout } = await build([dir], { expect: 0 });
  assert.match(stdout, /pull +ok.*\nmake +ok.*\nrun/);
});

test("of two builds in one folder the second is exit 3 and names the first; --wait waits", async () => {
  const dir = await folder({
    one: "test -e go || { touch begun; while ! test -e go; do sleep 0.02; done; }",
  });
  const first = startScript("build", [dir], { env });
  await waitFor(() => existsSync(join(dir, "begun")));
  const second = await build([dir], { expect: 3 });
  assert.match(second.stderr, new RegExp(`is locked by process ${first.pid} \\(build \\S+, since`));
  const third = startScript("build", [dir, "--wait"], { env });
  await writeFile(join(dir, "go"), "");
  assert.is((await first.exited).code, 0);
  assert.is((await third.exited).code, 0);
});

test("a stage past its time limit is ended with children that left its process group, and the next build runs", async () => {
  const tree = [
    "sleep 1000 &",
    "setsid sleep 1001 &",
    "(setsid sh -c 'sleep 1002 & sleep 1003 &' &)",
    "(trap '' TERM; sleep 1004; sleep 1004) &",
    "echo spawned; wait",
  ].join("\n");
  const dir = await folder({ hang: `test -e quick || { ${tree}\n}` }, "timeout: { hang: 700ms }\n");
  const { stdout } = await build([dir], { expect: 1, timeout: 40_000 });
  assert.match(stdout, /hang +timeout .*took longer than its time limit of 0.7s and was ended with all it had started/);
  assert.equal(
    (await processesOf(dir)).map(({ command }) => command),
    [],
  );
  assert.match(await log(dir), /run \| end result=timeout code=1/);
  assert.match(await log(dir), /hang \| still running: \d+ sleep 1000$/m);
  await writeFile(join(dir, "quick"), "");
  await build([dir], { expect: 0 });
});

test("timeout: holds for the whole run", async () => {
  const dir = await folder({ one: "true", two: "sleep 1000" }, `timeout: ${Math.ceil(slowness())}s\n`);
  const { stdout } = await build([dir], { expect: 1 });
  assert.match(stdout, /one +ok/);
  assert.match(stdout, /two +timeout .*the run's time limit/);
});

test("a stage is over when its command ends, though a daemon of its keeps the pipe", async () => {
  const dir = await folder({
    daemon: "setsid sleep 60 & echo $! > pid; echo started",
    next: "echo next",
  });
  const { stderr } = await build([dir], { expect: 0, timeout: 20_000 });
  assert.match(stderr, /next \| next/);
  process.kill(Number(await readFile(join(dir, "pid"), "utf8")), "SIGKILL");
});

test("a remote that never answers is given up at the pull's time limit, or ended with the build", async () => {
  const dir = await (await makeRepo({ files: { "a.txt": "1\n" } })).checkout(join(tempDir(), "site"));
  await git(dir, "remote", "set-url", "origin", "ssh://nobody@127.0.0.1/nowhere.git");
  const away = tempDir();
  const asked = join(away, "asked");
  const ssh = join(away, "ssh");
  await writeFile(ssh, `#!/bin/sh\necho no answer yet >&2\ntouch ${asked}\nexec sleep 1000\n`);
  await chmod(ssh, 0o755);
  await writeFile(join(dir, "build.yml"), `timeout: { pull: ${Math.ceil(slowness())}s }\n`);
  const options = { env: { GIT_SSH_COMMAND: ssh } };
  const { stdout } = await build([dir], { ...options, expect: 1, timeout: 40_000 });
  assert.match(stdout, /pull +timeout .*took longer than its time limit of \d/);
  assert.match(await log(dir), /pull \| no answer yet/);
  assert.equal(await processesOf(dir), []);
  await writeFile(join(dir, "build.yml"), "");
  await rm(asked);
  const running = startScript("build", [dir], { env: { ...env, ...options.env } });
  await waitFor(() => existsSync(asked));
  assert.is((await running.stop("SIGTERM")).code, 143);
  assert.equal(await processesOf(dir), []);
});

test("--watch builds what git does not ignore, without a pull, and again at each change, also one that comes while it builds", async () => {
  const repo = await makeRepo({
    files: {
      "build.yml": 'stages: [pull, make]\ncommands: { make: "cat a.txt >> ignored; cp a.txt written" }\n',
      "a.txt": "one\n",
      ".gitignore": "ignored\n",
    },
  });
  const dir = await repo.checkout(join(tempDir(), "site"));
  const ignored = () => readFile(join(dir, "ignored"), "utf8").catch(() => "");
  const ended = () => running.stdout().match(/^run +ok/gm)?.length ?? 0;
  const running = startScript("build", [dir, "--watch"], { env });
  await waitFor(() => ended() === 2);
  assert.is(await ignored(), "one\none\n");
  await writeFile(join(dir, "a.txt"), "two\n");
  await waitFor(() => ended() === 3);
  assert.is(await ignored(), "one\none\ntwo\n");
  assert.match(running.stderr(), /a\.txt changed/);
  assert.not.match(running.stderr(), /pull \|/);
  assert.is((await running.stop("SIGINT")).code, 130);
  assert.is((await build([tempDir(), "--watch"])).code, 2);
});

for (const [signal, code] of [
  ["SIGTERM", 143],
  ["SIGINT", 130],
] as const) {
  test(`${signal} ends the stage with its children, frees the lock, and the log says so`, async () => {
    const dir = await folder({
      one: "test -e begun || { setsid sleep 1000 & touch begun; wait; }",
    });
    const running = startScript("build", [dir], { env });
    await waitFor(() => existsSync(join(dir, "begun")));
    const result = await running.stop(signal);
    assert.is(result.code, code);
    assert.equal(await processesOf(dir), []);
    assert.match(await log(dir), /run \| end result=cancelled/);
    await build([dir], { expect: 0 });
  });
}

test("a killed build leaves no lock and no temporary file", async () => {
  const dir = await folder({ one: "test -e begun || { touch begun; sleep 1000; }" });
  const running = startScript("build", [dir], { env });
  await waitFor(() => existsSync(join(dir, "begun")));
  running.kill("SIGKILL");
  await running.exited;
  await build([dir], { expect: 0 });
  await killProcessesOf(dir);
  assert.equal((await readdir(dir)).sort(), [".boatyard", "begun", "build.yml", "logs.txt"]);
});

test("commands get HOOK_*, RELEASE_* and build.yml's env, and nothing else of build's own environment", async () => {
  const dir = await folder({ show: "env" }, "env: { NODE_ENV: production }\n");
  const { stderr } = await build([dir], {
    expect: 0,
    env: {
      HOOK_EVENT: "push",
      HOOK_REF: "refs/heads/x",
      HOOK_RUN: "20261120T101500Z-3f2a9c",
      RELEASE_TAG: "v1",
      SECRET_OF_SERVER: "no",
      NODE_OPTIONS: "--no-warnings",
    },
  });
  const shown = [...stderr.matchAll(/^show \| (\w+)=/gm)].map(([, name]) => name).sort();
  const allowed =
    /^(?:HOOK_(?:EVENT|REF|RUN)|RELEASE_TAG|NODE_ENV|CI|FORCE_COLOR|TERM|PATH|HOME|USER|LOGNAME|LANG|TMPDIR|SHLVL|PWD|OLDPWD|_|BOATYARD_COOKIE|DENO_DIR)$/;
  assert.equal(
    shown.filter((name) => !allowed.test(name ?? "")),
    [],
  );
  for (const name of ["HOOK_EVENT", "HOOK_REF", "RELEASE_TAG", "NODE_ENV", "HOME", "PATH"])
    assert.ok(shown.includes(name), name);
  assert.match(await log(dir), / 20261120T101500Z-3f2a9c run \| start event=push ref=x/);
});

test("with an empty environment and no terminal it builds all the same, and reads nobody's ~/.bashrc", async () => {
  const home = tempDir("home-");
  await writeFile(join(home, ".bashrc"), "echo BASHRC WAS READ\nexit 1\n");
  const repo = await makeRepo({
    files: {
      "build.yml":
        "stages: [pull, show]\ncommands: { show: 'bash -c \"echo in bash; tty || true; echo $HOME $USER $LANG\"' }\n",
    },
  });
  const dir = await repo.checkout(join(tempDir(), "site"));
  // the runtime itself is started by its path; git needs its configuration left out
  const { stderr } = await build([dir], { bare: true, env, expect: 0 });
  assert.match(stderr, /show \| in bash\nshow \| not a tty\nshow \| \/\S* \S+ C.UTF-8/);
  const cron = { ...env, HOME: home, LOGNAME: "site", SHELL: "/bin/sh", PATH: "/usr/bin:/bin" };
  const result = await build([dir], { bare: true, env: cron, expect: 0 });
  assert.match(result.stderr, /show \| in bash/);
  assert.not.match(result.stderr, /BASHRC/);
});

test("secrets of build.yml show as *** in log and terminal, in every shape", async () => {
  const dir = await folder(
    { leak: 'echo "token=$TOKEN"; printf %s "$TOKEN" | base64; echo "$TOKEN" >&2; exit 1' },
    "env: { TOKEN: { secret_env: BUILD_TEST_TOKEN } }\n",
  );
  const { stdout, stderr } = await build([dir], {
    expect: 1,
    env: { BUILD_TEST_TOKEN: "tr0ub4dor&3-long" },
  });
  const everything = stdout + stderr + (await log(dir));
  assert.not.match(everything, /tr0ub4dor|dHIwdWI0ZG9y/);
  assert.match(everything, /token=\*\*\*/);
});

test("a million lines, long lines and bytes that are no text pass through", async () => {
  const dir = await folder({
    many: "seq 1 30000; head -c 3000000 /dev/zero | tr '\\0' x; echo; printf '\\377\\376 \\r50%%\\r100%%\\n'",
  });
  await build([dir, "--quiet"], { expect: 0 });
  const text = await log(dir);
  assert.match(text, /many \| 30000\n/);
  assert.match(text, /many \| 100%\n/);
  assert.ok(text.split("\n").every((line) => line === "" || parseLine(line)));
});

test("what a stage prints cannot act on the terminal; colours stay where asked for, the log has it as it is", async () => {
  const dir = await folder({ one: "printf '\\033]0;title\\007\\033[2J\\033[31mred\\n'; exit 1" });
  const { stdout, stderr } = await build([dir], { expect: 1, env: { FORCE_COLOR: "1" } });
  assert.match(stderr, /^one \| \u001b\[31mred\u001b\[0m$/m);
  assert.not.match(stdout + stderr, /\u0007|\u001b\[2J|\u001b\]0/);
  assert.match(await log(dir), /\u001b\]0;title\u0007\u001b\[2J\u001b\[31mred/);
});

test("the log and the toolkit's own files leave the checkout's status clean", async () => {
  const repo = await makeRepo({ files: { "a.txt": "a\n" } });
  const dir = await repo.checkout(join(tempDir(), "site"));
  await build([dir], { expect: 0 });
  await writeFile(join(dir, "logs.txt.20261120T101500Z.gz"), "");
  assert.is(await git(dir, "status", "--porcelain"), "");
});

const needsBundles = process.env["BOATYARD_TEST_DIST"] !== "1" && "needs the bundles (--dist)";
testUnless(test, needsBundles)(
  "a script that a stage needs and that is nowhere is exit 2 before anything is touched",
  async () => {
    const { runCommand, scriptArgv } = await import("../helpers/run.ts");
    const dir = await folder({ uploads: "true" });
    await writeFiles(dir, { "build.yml": "stages: [uploads]\n", "uploads.yml": "to: {}\n" });
    const lone = tempDir();
    const argv = scriptArgv("build");
    await runCommand(["cp", argv.at(-1) ?? "", join(lone, "build.mjs")], { expect: 0 });
    const { stderr } = await runCommand([...argv.slice(0, -1), join(lone, "build.mjs"), dir], {
      expect: 2,
    });
    assert.match(stderr, /the script "uploads" is neither beside/);
    assert.not(existsSync(join(dir, "logs.txt")));
  },
);

test("unknown flags and stages are refused with the nearest name", async () => {
  const dir = await folder({ one: "true" });
  assert.match(
    (await build([dir, "--onyl", "one"], { expect: 2 })).stderr,
    /unknown flag --onyl \(did you mean "only"\?\)/,
  );
  assert.match(
    (await build([dir, "--only", "onee"], { expect: 2 })).stderr,
    /there is no stage "onee" \(did you mean "one"\?\)/,
  );
});

test.run();
