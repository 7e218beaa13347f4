// hook-server tells what becomes of runs: statuses at the forge, messages, on_failure and on_change; a kill loses none.
import { existsSync, readFileSync } from "node:fs";
import { chmod, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { type Fault, startForge } from "../helpers/forges.ts";
import { type HookServer, makeYard, pushPayload, sha, startHooks, untold } from "../helpers/hooks.ts";
import { closeReceivers, startReceiver } from "../helpers/receiver.ts";
import { runCommand, runScript } from "../helpers/run.ts";
import { waitFor } from "../helpers/wait.ts";

test.after(closeReceivers);

/** A yard whose forge is git.example.com, and whose job fails when the file `broken` is there. */
async function makeTellingYard(forgeApi: string, { top = "", repo = "" } = {}): Promise<string> {
  const dir = await makeYard({
    top: `url: https://ci.example.com/hooks
forge: { git.example.com: { kind: gitlab, api: "${forgeApi}", token_file: token } }
${top}`,
    repos: { "me/site": repo },
    job: `cd "$(dirname "$0")"; echo "built planted-forge-token"; [ ! -e broken ] || { echo "it broke"; exit 7; }; [ ! -e slow ] || { touch begun; sleep 600; }`,
  });
  await writeFile(join(dir, "token"), "planted-forge-token\n", { mode: 0o600 });
  return dir;
}

function push(server: HookServer, number: number, url = "https://git.example.com/me/site/commit/x") {
  const commit = { id: sha(number), message: "@channel New menu\n\nmore", url };
  const payload = { ...pushPayload("me/site", sha(number)), head_commit: commit };
  return server.send({ payload });
}

const context = "boatyard/push";

test("a commit shows what becomes of its run; messages and commands tell the first failure and the recovery", async () => {
  const forge = await startForge("gitlab");
  const chat = await startReceiver();
  const dir = await makeTellingYard(forge.api, {
    top: `notify: [{ webhook: { url: "${chat.url}/planted-hook" }, group: 0s }]
on_change: 'echo "$RUN_RESULT $HOOK_SHA" >>changes'`,
    repo: `on_failure: 'echo "$RUN_RESULT|$RUN_STAGE|$RUN_SECONDS|$RUN_URL|$HOOK_REPO" >>failures; cp "$RUN_LOG" log'
on_success: 'echo "$RUN_RESULT|$RUN_URL" >>successes'`,
  });
  const server = await startHooks(dir);
  const broken = join(dir, "broken");
  await push(server, 1);
  await server.idle();
  await writeFile(broken, "");
  for (const number of [2, 3]) {
    await push(server, number);
    await server.idle();
  }
  await rm(broken);
  await push(server, 4);
  const runs = await server.idle();
  await waitFor(() => forge.shown(sha(4), context) === "success" && chat.received.length === 2);
  assert.equal(
    [1, 2, 3, 4].map((number) => forge.shown(sha(number), context)),
    ["success", "failed", "failed", "success"],
  );
  assert.equal(
    forge.refused.filter((each) => !each.includes("Cannot transition")),
    [],
  );
  const failed = runs.find((run) => run.sha === sha(2));
  const last = forge.received.find(({ body }) => body.state === "failed");
  assert.is(last?.body.target_url, `https://ci.example.com/hooks/runs/${failed?.id}`);
  assert.match(last?.body.description, /^failed/);

  const [first, second] = chat.received.map(({ body }) => body);
  assert.is(first.message, "FAILED: me/site main");
  assert.match(first.text, /push failed after .*: exit code 7|exit 7/);
  assert.ok(first.lines.includes("it broke"), first.text);
  assert.not.match(first.text, /planted-forge-token/);
  assert.is(first.notices[0].title, "@channel New menu");
  assert.is(second.message, "OK again: me/site main");
  assert.match(second.text, /\(2 failures\)/);

  const lines = (name: string) =>
    readFileSync(join(dir, "co", name), "utf8")
      .trim()
      .split("\n");
  await waitFor(() => lines("changes").length === 2 && lines("failures").length === 2);
  assert.equal(lines("changes"), [`failed ${sha(2)}`, `succeeded ${sha(4)}`]);
  assert.match(
    lines("failures")[0] ?? "",
    /^failed\|\|\d+\.\d\|https:\/\/ci\.example\.com\/hooks\/runs\/\S+\|me\/site$/,
  );
  await waitFor(() => /it broke/.test(readFileSync(join(dir, "co/log"), "utf8")));
  assert.is(lines("successes").length, 2);
  await waitFor(() => !untold(server));
  await server.stop();
});

test("an API that is down for a while gets each end later, over kill -9; a superseded push is told, too", async () => {
  let isDown = true;
  const fault = (): Fault => (isDown ? "503 before" : undefined);
  const forge = await startForge("gitlab", fault);
  const dir = await makeTellingYard(forge.api);
  await writeFile(join(dir, "slow"), "");
  let server = await startHooks(dir);
  for (const number of [1, 2, 3]) await push(server, number);
  const running = await waitFor(async () => (await server.runs()).find(({ state }) => state === "running"));
  // it has seen the file, and the next one must not
  await waitFor(() => existsSync(join(dir, "begun")));
  await rm(join(dir, "slow"));
  await server.local(`/runs/${running.id}/cancel`, "POST");
  await waitFor(async () => (await server.runs()).every(({ state }) => state !== "waiting"));
  await server.idle();
  await server.kill();
  server = await startHooks(dir);
  await server.kill();
  isDown = false;
  server = await startHooks(dir);
  const wanted = ["canceled", "canceled", "success"];
  await waitFor(() => wanted.every((state, at) => forge.shown(sha(at + 1), context) === state));
  const states = new Map((await server.runs()).map((run) => [run.sha, run.state]));
  assert.equal(
    [1, 2, 3].map((number) => states.get(sha(number))),
    [...["cancelled", "superseded", "succeeded"]],
  );
  await server.stop();
});

test("a payload from a host that is not configured sends nothing, and no other forge is asked", async () => {
  const forge = await startForge("gitlab");
  const dir = await makeTellingYard(forge.api);
  const server = await startHooks(dir);
  for (let times = 0; times < 2; times++) {
    await push(server, 1, "https://evil.example/me/site/commit/x");
    await server.idle();
  }
  await server.running.until(/no forge is told/);
  const said = server.running.output().match(/no forge is told of a run of me\/site: .*/g);
  assert.equal(said, [
    "no forge is told of a run of me/site: its commit's link leads to evil.example, which is not under forge:",
  ]);
  await push(server, 2);
  await waitFor(() => forge.shown(sha(2), context) === "success");
  assert.is(forge.shown(sha(1), context), undefined);
  await server.stop();
});

test("with several forges and no link to one of them, the log says once that nobody is told, and --check what to do", async () => {
  const forge = await startForge("gitlab");
  const dir = await makeTellingYard(forge.api, { repo: "poll: 1h" });
  const file = join(dir, "hooks.yml");
  const two = "forge: { other.example: { kind: gitea, token_file: token }, git.example.com";
  const text = (await readFile(file, "utf8")).replace("forge: { git.example.com", two);
  await writeFile(file, text);
  const server = await startHooks(dir);
  for (const number of [1, 2]) {
    await server.send({ payload: pushPayload("me/site", sha(number)) });
    await server.idle();
  }
  await server.running.until(/no forge is told/);
  const said = server.running.output().match(/no forge is told of a run of me\/site: .*/g);
  const wanted = "set forge: at the repo, to other.example or git.example.com";
  assert.equal(said, [`no forge is told of a run of me/site: its delivery has no link to the commit; ${wanted}`]);
  await server.stop();
  const check = await runScript("hook-server", ["--check", "--config", file]);
  const output = check.stdout + check.stderr;
  assert.ok(output.includes(`a push that polling finds has no link to its forge`), output);
  assert.ok(output.includes(wanted), output);
});

test("a release shows its status beside the commit of its tag, which the forge did not tell", async () => {
  const forge = await startForge("gitlab");
  const dir = await makeTellingYard(forge.api);
  const identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"];
  const git = (...args: string[]) => runCommand(["git", "-C", join(dir, "co"), ...identity, ...args], { expect: 0 });
  await git("init", "--quiet");
  await git("commit", "--quiet", "--allow-empty", "--message", "one");
  await git("tag", "--annotate", "--message", "first", "v1.0");
  const commit = (await git("rev-parse", "HEAD")).stdout.trim();
  const server = await startHooks(dir);
  const url = "https://git.example.com/me/site/releases/v1.0";
  const release = { tag_name: "v1.0", name: "v1.0", html_url: url, target_commitish: "main" };
  const repository = { full_name: "me/site" };
  await server.send({ event: "release", payload: { action: "published", release, repository } });
  await server.idle();
  await waitFor(() => forge.shown(commit, "boatyard/release") === "success");
  assert.is(forge.received.at(-1)?.body.ref, "v1.0");
  await server.stop();
});

test("through an API that fails half the time, and kills, each of many pushes ends with the right status", async () => {
  const faults: Fault[] = ["503 before", "cut before", "cut after"];
  const asked = new Map<string, number>();
  // of each commit's every other request: how long it takes until one gets through is no matter of chance
  const fault = ({ path }: { path: string }) => {
    const count = asked.get(path) ?? asked.size;
    asked.set(path, count + 1);
    return count % 2 === 0 ? faults[(count / 2) % 3] : undefined;
  };
  const forge = await startForge("gitlab", fault);
  const dir = await makeTellingYard(forge.api);
  let server = await startHooks(dir);
  const count = 24;
  for (let number = 1; number <= count; number++) {
    await push(server, number);
    if (number % 8 !== 0) continue;
    await server.kill();
    server = await startHooks(dir);
  }
  const runs = await server.idle();
  const shown: Record<string, string> = { succeeded: "success", superseded: "canceled" };
  await waitFor(() => runs.every((run) => forge.shown(run.sha, context) === shown[run.state]), {
    what: () => runs.map((run) => `${run.state} ${forge.history(run.sha, context)}`).join("\n"),
  });
  assert.is(runs.length, count);
  for (const run of runs) {
    const history = forge.history(run.sha, context);
    const end = shown[run.state] ?? "";
    const after = history.slice(history.indexOf(end));
    assert.equal([...new Set(after)], [end], "nothing that is not final comes after the end");
  }
  await server.stop();
});

test("a target that never answers holds up neither runs nor the end of the server", async () => {
  const silent = await startReceiver(() => undefined);
  const forge = await startForge("gitlab");
  const dir = await makeTellingYard(forge.api, {
    top: `notify: [{ webhook: { url: "${silent.url}" }, when: always, group: 0s }]`,
  });
  const server = await startHooks(dir);
  for (const number of [1, 2]) {
    await push(server, number);
    await server.idle();
  }
  await waitFor(() => silent.received.length > 0);
  await server.stop();
  const next = await startHooks(dir);
  await waitFor(() => silent.received.length > 1);
  await next.stop();
});

test("notify test sends a sample to every target, and says which one did not take it", async () => {
  const chat = await startReceiver(({ path }) => ({ status: path === "/bad" ? 500 : 200 }));
  const dir = await makeYard({
    top: `notify:\n  - webhook: { url: "${chat.url}/good" }\n  - webhook: { url: "${chat.url}/bad" }`,
  });
  const args = ["notify", "test", "--config", join(dir, "hooks.yml")];
  const { stdout } = await runScript("hook-server", args, { expect: 1 });
  assert.match(stdout, /ok +webhook at 127\.0\.0\.1/);
  assert.match(stdout, /failed +webhook at .*500/);
  assert.is(chat.received.length, 2);
});

test("wrong settings are config errors at their place", async () => {
  const dir = await makeYard({
    top: `forge: { bitbucket.org: { kind: bitbucket, token_file: token } }`,
    repos: { "me/site": "then: [a]\non_success: [b]\nforge: other.example" },
  });
  await writeFile(join(dir, "token"), "planted-forge-token\n", { mode: 0o600 });
  await chmod(join(dir, "token"), 0o600);
  const args = ["--check", "--config", join(dir, "hooks.yml")];
  const { stderr } = await runScript("hook-server", args, { expect: 2 });
  assert.match(stderr, /hooks\.yml:3:\d+: Bitbucket takes no status without a link; set url:/);
  assert.match(stderr, /then is the former name of on_success/);
});

test.run();
